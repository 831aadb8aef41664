"""The rules of the house: who may import whom, and where a noun and a command live."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

import atypia
from atypia.cli import app

ROOT = Path(atypia.__file__).parent
LAYERS = (
    "_version",
    "core",
    "slides",
    "data",
    "evaluation",
    "models",
    "classifiers",
    "biomarker",
    "inference",
    "reports",
    "training",
    "explain",
    "server",
    "web",
    "pipeline",
    "cli",
)
"""From the ground up: a package imports itself and those before it."""
FACADE = {"", "__main__", "api"}
"""The only modules at the root besides ``_version``; they may import anything."""

TORCH_FREE = ("core", "data", "slides", "evaluation", "classifiers", "biomarker", "inference")
NEED_TORCH = {"classifiers.ensemble", "classifiers.onnx_export"}
HEAVY = ("torch", "torchvision", "timm", "safetensors", "sklearn")

OPTIONAL = {
    "openslide": 1,
    "tifffile": 1,
    "imagecodecs": 1,
    "onnx": 1,
    "wsidicom": 1,
    "highdicom": 1,
    "pydicom": 2,
    "shapely": 1,
    "captum": 1,
    "SimpleITK": 1,
    "fastapi": 3,  # to make the application, its addresses, and those of the app
    "starlette": 2,
    "uvicorn": 1,
    "ray": 1,
    "weasyprint": 1,
    "pyarrow": 1,
    "optuna": 2,
    "sqlalchemy": 1,
    "psycopg": 1,
    "filelock": 1,
    "peft": 1,
}
"""Packages of extras, and how many modules may import each, inside functions alone."""


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
    """Every module that a tree imports, inside functions and for types too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inside
            if node.module != "atypia" or not inside <= {f"atypia.{n}" for n in modules()}:
                names.add(node.module)
    return names


@cache
def ours(name: str) -> frozenset[str]:
    """Modules of ours that one of them imports; the root is the empty name."""
    found = {
        target.removeprefix("atypia").removeprefix(".")
        for target in imported(modules()[name])
        if target == "atypia" or target.startswith("atypia.")
    }
    return frozenset(found & set(modules()))


def package(name: str) -> str:
    return name.split(".")[0]


def commands() -> set[str]:
    """The commands of ``atypia --help``."""
    names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    return {name.replace("-", "_") for name in names}


def test_the_root_holds_the_facade_alone() -> None:
    at_root = {name for name in modules() if "." not in name}
    assert at_root == {*FACADE, *LAYERS}


@pytest.mark.parametrize("name", sorted(set(modules()) - FACADE))
def test_no_import_goes_up(name: str) -> None:
    below = set(LAYERS[: LAYERS.index(package(name)) + 1])
    up = {target for target in ours(name) if package(target) not in below}
    assert not up, f"{name} imports {sorted(up)}"


def test_a_class_has_a_name_of_its_own() -> None:
    homes = defaultdict(list)
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert not {k: v for k, v in homes.items() if len(v) > 1}


def test_a_module_has_a_name_of_its_own() -> None:
    mirrored = {"pipeline", "cli"}  # a command is a file in both
    last = [n.split(".")[-1] for n in modules() if "." in n and package(n) not in mirrored]
    assert not {name: n for name, n in Counter(last).items() if n > 1}


def test_the_pages_of_the_pipeline_are_the_commands() -> None:
    pages = {n.split(".")[1] for n in modules() if n.startswith("pipeline.")}
    assert pages == commands()


def test_a_page_is_short_and_imports_no_other() -> None:
    for name in modules():
        if name.startswith("pipeline."):
            lines = (ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8").count("\n")
            assert lines < 150, f"{name}: {lines} lines"
            assert not {t for t in ours(name) if package(t) == "pipeline"}, name


def test_each_optional_package_is_imported_in_one_module_inside_functions() -> None:
    for optional, most in OPTIONAL.items():
        users = [
            name
            for name, tree in modules().items()
            if optional in {t.split(".")[0] for t in imported(tree)}
        ]
        assert len(users) <= most, f"{optional}: {users}"
        for user in users:
            top = ast.Module(
                [n for n in modules()[user].body if isinstance(n, ast.Import | ast.ImportFrom)], []
            )
            assert optional not in {t.split(".")[0] for t in imported(top)}, user


def test_what_applies_and_judges_models_imports_without_torch() -> None:
    names = [n for n in modules() if package(n) in TORCH_FREE and n not in NEED_TORCH]
    code = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(f'atypia.{name}')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, atypia.cli\n"
        "assert not {'torch', 'pandas', 'timm', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
