"""The words of the code: the field's terms, and software that is no person."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import atypia

ROOT = Path(atypia.__file__).parent
PERSONIFIED = re.compile(
    r"(?<![a-z])(tell|tells|told|telling|say|says|said|saying|know|knows|knew|settle|settles|"
    r"settled|settling|teach|teaches|taught|promise|promises|promised|opinion|opinions|story|"
    r"stories)(?![a-z])",
    re.IGNORECASE,
)
"""What only people do, and older names of what has a term; in identifiers, comments, docstrings."""


def prose(source: str) -> list[tuple[int, str]]:
    """Line and text of every identifier, comment and docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            found += [(text.lineno + i, line) for i, line in enumerate(text.value.split("\n"))]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if "_study.tell(" in token.line:  # Optuna's name
            continue
        if token.type in (tokenize.NAME, tokenize.COMMENT):
            found.append((token.start[0], token.string.replace("_", " ")))
    return found


@pytest.mark.parametrize("place", sorted(p.name for p in ROOT.iterdir() if p.suffix in ("", ".py")))
def test_software_is_no_person(place: str) -> None:
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {text.strip()}"
        for file in files
        for line, text in prose(file.read_text("utf-8"))
        if PERSONIFIED.search(text)
    ]
    assert not wrong, "\n" + "\n".join(wrong)
