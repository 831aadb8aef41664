"""The documentation site: ``make docs``, then open ``docs/_build/html/index.html``.

The pages are plain Markdown that GitHub shows as well: what only the site needs is added here.
"""

import re

from sphinx.application import Sphinx

from atypia._version import __version__

REPOSITORY = "https://github.com/atypia/atypia/blob/main/"
CONTENTS = {
    "Begin": ["start", "guide/study", "guide/cohorts", "guide/slides", "guide/review"],
    "Models": [
        "guide/training",
        "guide/gpu",
        "guide/approaches",
        "guide/rules",
        "guide/search",
        "guide/evaluation",
        "guide/explanations",
        "guide/aucmedi",
    ],
    "Answers": [
        "guide/prediction",
        "guide/new-site",
        "guide/many-slides",
        "guide/biomarker",
        "guide/challenge",
        "guide/onnx",
        "guide/app",
        "guide/http-api",
    ],
    "Trust": ["measures", "model-card", "results/README", "scaling"],
    "Python": [
        "python",
        "notebooks/predict-and-explain",
        "notebooks/train-and-evaluate",
        "reference",
    ],
    "All guides": ["guide"],
}
"""The menu: captions and their pages."""

project = "Atypia"
author = "The Atypia developers"
copyright = f"{author}, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the notebooks
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"Atypia {version}"


def prepare(_: Sphinx, page: str, text: list[str]) -> None:
    """Add the menu; let links that leave this folder lead to the repository."""
    up = "../" * (page.count("/") + 1)
    text[0] = re.sub(rf"\]\({re.escape(up)}(?=\w)", f"]({REPOSITORY}", text[0])
    if page == "index":
        text[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
            for caption, pages in CONTENTS.items()
        )
    elif page.startswith("results/") and page != "results/README":
        text[0] = f"---\norphan: true\n---\n{text[0]}"  # linked from the page of results


def setup(app: Sphinx) -> None:
    """Read pages as :func:`prepare` leaves them."""
    app.connect("source-read", prepare)
