"""Run what the documentation shows again, with the model that is in the package now.

python docs/make_examples.py

Executes the notebooks in place, keeping small outputs only, and prints anew what ``start.md``
shows of the command line. Needs the extra ``docs``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
COLUMNS = "100"
SHOWN = ("atypia", "predict", "docs/images/cells/segregation.png", "--mpp", "0.25")


def execute(file: Path) -> Any:
    """Run a notebook in its folder; gives it with outputs, or raises what a cell raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    # Of the kernel: on a busy machine, threads of one small network mostly wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": file.parent}}
    ).execute()
    return notebook


def clean(notebook: Any) -> None:
    """Leave out what differs from run to run or tells of this machine: times, warnings, paths."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}


def main() -> None:
    """Write notebooks and page."""
    import nbformat

    for file in sorted(DOCS.glob("notebooks/*.ipynb")):
        notebook = execute(file)
        clean(notebook)
        nbformat.write(notebook, file)
    page = DOCS / "start.md"
    answer = subprocess.run(
        [sys.executable, "-m", *SHOWN],
        cwd=DOCS.parent,
        env=os.environ | {"COLUMNS": COLUMNS},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = "\n".join(line.rstrip() for line in answer.splitlines())
    text = page.read_text("utf-8")
    page.write_text(re.sub(r"```text\n.*?```", f"```text\n{lines}\n```", text, flags=re.S), "utf-8")


if __name__ == "__main__":
    main()
