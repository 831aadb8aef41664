"""The documentation holds what it says: commands, settings, extras, links and Python examples."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import shlex
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import atypia
from atypia.api import TrainedRun
from atypia.api import train as run_training
from atypia.classifiers.installation import EXTRAS as EXAMINED
from atypia.cli import app
from atypia.core.config import TrainConfig, any_config_from_tree
from atypia.core.errors import InputError
from atypia.core.files import read_json

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("containers/**/*.md"),
    ]
    if not {"_build", "jupyter_execute"} & set(page.parts)
)
# Of the click that typer brings with it, which differs between its versions.
UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
# The least that a configuration needs: a setting that is checked alone meets no preset's others.
LEAST = {
    "input": {"field_of_view_um": 18, "size_px": 80},
    "model": {"backbone": "tf_efficientnet_lite0"},
    "optim": {"batch_size": 32, "epochs": 16},
}
SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)+=\S+")

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@cache
def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text("utf-8")
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[tuple[list[str], bool]]:
    """Every call of atypia as words, and whether it is a whole one: from a block, not from text."""
    whole = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    named = [line.replace("\n", " ") for line in re.findall(r"`(atypia [^`]+)`", prose(page))]
    calls = []
    for line, is_whole in [*((line, True) for line in whole), *((line, False) for line in named)]:
        match = re.search(r"(?:^|/| -m |\$ )(atypia [a-z].*)", line)
        if match:
            text = re.sub(r"[\[\]]| \.\.\.|…|key=value", " ", match.group(1))
            words = shlex.split(text, comments=True)[1:]
            calls.append(([word.split("|")[0] for word in words if word != "..."], is_whole))
    return calls


@every_page
def test_commands_are_understood(page: Path) -> None:
    wrong = []
    for words, is_whole in commands(page):
        verb, arguments = words[0], words[1:]
        if verb not in COMMANDS:
            wrong.append(f"no command {verb!r}: {words}")
            continue
        if "--help" in arguments or (not arguments and not is_whole):
            continue
        try:
            COMMANDS[verb].make_context(verb, list(arguments))
        except UsageError as error:
            if is_whole or type(error).__name__ not in {"MissingParameter", "BadOptionUsage"}:
                wrong.append(f"{error}: {words}")
    assert not wrong, "\n".join(wrong)


@every_page
def test_settings_exist_and_may_have_their_values(page: Path) -> None:
    wrong = []
    for group in re.findall(r"`([^`]+)`", prose(page)) + [" ".join(w) for w, _ in commands(page)]:
        for setting in SETTING.findall(group):
            key, _, value = setting.partition("=")
            wrong += refused(key, value)
    assert not wrong, "\n".join(wrong)


def refused(key: str, value: str) -> list[str]:
    """What is wrong with the setting itself; that it needs others beside it does not count."""
    tree: dict[str, Any] = {group: dict(values) for group, values in LEAST.items()}
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = yaml.safe_load(value)
    try:
        assert isinstance(any_config_from_tree(tree, "docs"), TrainConfig)
    except InputError as error:
        return [str(p) for p in error.problems if (p.column or "").startswith(key)]
    return []


@every_page
def test_extras_exist(page: Path) -> None:
    for extras in re.findall(r"atypia\[([a-z,-]+)\]", page.read_text("utf-8")):
        assert set(extras.split(",")) <= set(EXTRAS), extras


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[*`]", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(f"no file {target}")
        elif anchor and anchor not in anchors(file):
            wrong.append(f"no heading {target}")
    assert not wrong, "\n".join(wrong)


def test_no_page_is_outside_the_menu() -> None:
    conf: dict[str, Any] = {}
    exec((ROOT / "docs" / "conf.py").read_text("utf-8"), conf)
    listed = {page for pages in conf["CONTENTS"].values() for page in pages}
    docs = ROOT / "docs"
    sources = [p for p in [*PAGES, *docs.glob("notebooks/*.ipynb")] if p.is_relative_to(docs)]
    there = {p.relative_to(docs).with_suffix("").as_posix() for p in sources}
    free = {page for page in there if page.startswith("results/")} | {"index"}
    assert there - listed <= free
    assert listed <= there


@every_page
def test_python_calls_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "atypia" or hasattr(atypia, node.attr), node.attr


@pytest.mark.parametrize(
    "page", ["start.md", "python.md", "guide/prediction.md", "guide/explanations.md"]
)
def test_python_examples_run(
    page: str,
    cohort_folder: Path,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In order, on a folder in which the files that they name exist; nothing is trained."""
    shutil.copytree(ROOT / "docs" / "images", tmp_path / "docs" / "images")
    for name in ("a.png", "b.png", "cell.png"):
        shutil.copy(ROOT / "docs" / "images" / "cells" / "ring.png", tmp_path / name)
    (tmp_path / "cohorts").mkdir()
    (tmp_path / "cohorts" / "ami-br").symlink_to(cohort_folder)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run_folder)

    def trained(*args: Any, **kwargs: Any) -> TrainedRun:
        inspect.signature(run_training).bind(*args, **kwargs)
        return TrainedRun(run_folder, read_json(run_folder / "metrics.json"))

    monkeypatch.setattr(atypia, "train", trained)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / page, "python"):
        exec(compile(block, page, "exec"), names)
    assert names


def test_there_is_something_to_check() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60
    assert sum(bool(SETTING.search(prose(page))) for page in PAGES) > 3


def test_doctor_looks_for_every_extra() -> None:
    assert set(EXAMINED) == set(EXTRAS) - {"weights", "all", "docs", "dev"}


def test_the_page_of_rules_is_that_of_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "rules.md"
    monkeypatch.setattr("sys.argv", ["make_rules.py", str(out)])
    runpy.run_path(str(ROOT / "docs" / "make_rules.py"), run_name="__main__")
    kept = ROOT / "docs" / "guide" / "rules.md"
    assert out.read_text("utf-8") == kept.read_text("utf-8"), "run docs/make_rules.py again"
