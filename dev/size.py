"""How large the house is: lines and modules by package, classes, what the tree weighs.

python dev/size.py [CHECKOUT]
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import defaultdict
from pathlib import Path


def code_lines(source: str) -> int:
    """Lines that hold more than blanks, comments and docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            docstrings |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
    package = root / "src" / "atypia"
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    classes: dict[str, int] = defaultdict(int)
    for path in package.rglob("*.py"):
        source = path.read_text("utf-8")
        inside = path.relative_to(package).parts
        for name in (inside[0] if len(inside) > 1 else "(root)", "all"):
            sizes[name][0] += 1
            sizes[name][1] += source.count("\n")
            sizes[name][2] += code_lines(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                classes[node.name] += 1
    print(f"{'package':14}{'modules':>9}{'lines':>9}{'code':>9}")
    for name in sorted(sizes, key=lambda n: (n == "all", n)):
        print(f"{name:14}{sizes[name][0]:9,}{sizes[name][1]:9,}{sizes[name][2]:9,}")
    print(f"class names that occur twice or more: {sum(n > 1 for n in classes.values())}")
    tracked = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    files = [root / name for name in tracked if name and (root / name).is_file()]
    results = [f for f in files if (root / "docs" / "results") in f.parents]
    for name, some in (("tracked tree", files), ("docs/results", results)):
        megabytes = sum(f.stat().st_size for f in some) / 1e6
        print(f"{name}: {len(some):,} files, {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
