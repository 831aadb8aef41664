"""Who may import whom; and that the package stays cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import atypia

ROOT = Path(atypia.__file__).parent
CORE = {"labels", "errors", "config", "runs", "progress", ""}
MAY_IMPORT = {
    "data": CORE | {"data"},
    "models": CORE | {"models"},
    "mil": CORE
    | {"mil", "data.tables", "data.splits", "training.schedule"}
    | {"evaluation.predictions"},
    "training": CORE
    | {"training", "data", "models", "ensemble", "join"}
    | {"evaluation.calibration", "evaluation.metrics", "evaluation.predictions"},
    "decision": CORE,
    "join": CORE,
    "answers": CORE | {"bundle", "decision"} | {"evaluation.calibration", "evaluation.conformal"},
    "rules": CORE
    | {"answers", "bundle", "decision", "models.rules", "data.field"}
    | {"evaluation.conformal"},
    "hybrid": CORE
    | {"hybrid", "answers", "bundle", "decision", "join", "rules", "models.rules"}
    | {"inference.model", "evaluation.conformal", "evaluation.metrics"},
    "bundle": CORE | {"decision", "join"},
    "ensemble": CORE
    | {"bundle", "decision", "join", "models", "data.transforms", "data.field"}
    | {"evaluation.calibration", "evaluation.conformal"},
    "inference": CORE
    | {"inference", "ensemble", "bundle", "decision", "join", "models.hardware"}
    | {"answers", "rules", "hybrid"}
    | {"evaluation.calibration", "evaluation.conformal", "evaluation.selective"}
    | {"data.transforms", "data.field", "data.cohort", "data.images", "data.resolution"}
    | {"data.slides", "data.tables"},
    "explain": CORE | {"explain", "ensemble", "models", "data.transforms", "data.field"},
    "evaluation": CORE | {"evaluation"},
    "pipeline": CORE
    | {"pipeline", "data", "models", "training", "mil", "bundle", "decision", "ensemble", "join"}
    | {"answers", "rules", "hybrid"}
    | {"inference", "evaluation", "explain"},
    "demo": CORE | {"data", "models", "pipeline"},
    "doctor": CORE | {"models", "bundle"},
    "api": CORE
    | {"bundle", "ensemble", "explain", "inference", "data.cohort", "data.images"}
    | {"pipeline.start"},
    "server": CORE
    | {"server", "pipeline.predict", "inference", "bundle", "decision", "evaluation.conformal"}
    | {"data.images", "data.resolution", "data.slides"},
    "web": CORE
    | {"web", "server", "bundle", "ensemble", "evaluation", "models.rules", "rules", "explain"}
    | {"pipeline.report", "inference.geojson", "data.transforms", "data.field"}
    | {"data.cohort", "data.images", "data.slides"},
    **dict.fromkeys(CORE, CORE),
    "": CORE | {"api", "data.cohort"},  # atypia itself, for its three names
}
TORCH_FREE = CORE | {"evaluation"}
OPTIONAL = {"openslide": 1, "tifffile": 1, "imagecodecs": 1, "onnx": 1} | {
    "wsidicom": 1,
    "highdicom": 1,
    "pydicom": 2,
    "shapely": 1,
    "captum": 1,
    "onnxruntime": 2,  # to run a graph, and to quantise one
    "SimpleITK": 1,
    "fastapi": 3,  # to make the application, its addresses, and those of the app
    "starlette": 2,
    "uvicorn": 1,
    "ray": 1,
    "weasyprint": 1,
    "pyarrow": 1,
    "optuna": 2,  # to make a study, and for its types
    "sqlalchemy": 1,
    "psycopg": 1,
    "filelock": 1,
    "peft": 1,
}


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name below the package to its syntax tree."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(p for p in parts if p != "__init__")
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


def imported(tree: ast.AST) -> set[str]:
    """Every module that a tree imports, inside functions too; names of ours stay dotted."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imports_of(name: str) -> frozenset[str]:
    """What one of our modules imports, anywhere in it."""
    return frozenset(imported(modules()[name]))


def allowed(target: str, rule: set[str]) -> bool:
    return any(target == name or (name and target.startswith(f"{name}.")) for name in rule)


PLACED = sorted(m for m in modules() if m.split(".")[0] not in {"cli", "__main__"})


@pytest.mark.parametrize("name", PLACED)
def test_a_module_imports_only_what_its_place_allows(name: str) -> None:
    rule = MAY_IMPORT[name.split(".")[0]]
    known = set(modules())
    ours = {
        t.removeprefix("atypia").removeprefix(".")
        for t in imports_of(name)
        if t == "atypia" or t.startswith("atypia.")
    }
    wrong = {t for t in ours & known if not allowed(t, rule)}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_torch_stays_out_of_the_core_and_of_evaluation() -> None:
    for name in modules():
        if name.split(".")[0] in TORCH_FREE:
            heavy = {t.split(".")[0] for t in imports_of(name)} & {"torch", "timm", "torchvision"}
            assert not heavy, f"{name} imports {heavy}"


def test_nothing_imports_the_command_line() -> None:
    for name in modules():
        if name.split(".")[0] not in {"cli", "__main__"}:
            assert "atypia.cli" not in imports_of(name), name


def test_each_optional_package_is_imported_in_one_module_inside_functions() -> None:
    for package, most in OPTIONAL.items():
        users = [
            name for name in modules() if package in {t.split(".")[0] for t in imports_of(name)}
        ]
        assert len(users) <= most, f"{package}: {users}"
        for user in users:
            top = ast.Module(
                [n for n in modules()[user].body if isinstance(n, ast.Import | ast.ImportFrom)], []
            )
            assert package not in {t.split(".")[0] for t in imported(top)}, user


def test_evaluation_runs_without_torch() -> None:
    code = (
        "import sys\n"
        "import atypia.evaluation.evaluate, atypia.evaluation.report, atypia.evaluation.compare\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, atypia.cli\n"
        "assert not {'torch', 'pandas', 'timm', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
