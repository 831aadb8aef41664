"""Examples in the documentation: every command and option exists, every Python line is valid."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main

import atypia
from atypia.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
    if "_build" not in page.parts
)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every call of atypia in shell blocks and between backticks, its comment left out."""
    text = page.read_text("utf-8")
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    lines += [line.replace("\n", " ") for line in re.findall(r"`(atypia [^`]+)`", text)]
    found = [re.search(r"(?:^|/| -m |\$ )(atypia [a-z].*)", line) for line in lines]
    return [match.group(1) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_the_options_that_they_are_given(page: Path) -> None:
    wrong = []
    for line in commands(page):
        words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)
        command = COMMANDS.get(words[1])
        if command is None:
            wrong.append(f"no command {words[1]!r}: {line}")
            continue
        known = {name for p in command.params for name in [*p.opts, *p.secondary_opts]}
        given = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
        wrong += [f"no option {option}: {line}" for option in given - known - {"--help"}]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_uses_names_that_exist(page: Path) -> None:
    for block in blocks(page.read_text("utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "atypia" or hasattr(atypia, node.attr), node.attr


def test_there_is_something_to_check() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 40
