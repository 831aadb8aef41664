"""The documentation site: ``make docs``, then open ``docs/_build/html/index.html``."""

import re

from sphinx.application import Sphinx

from atypia import __version__

REPOSITORY = "https://github.com/atypia/atypia/blob/main/"

project = "Atypia"
author = "The Atypia developers"
copyright = f"{author}, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"Atypia {version}"


def prepare(_: Sphinx, page: str, text: list[str]) -> None:
    """Let links that leave this folder lead to the repository; tables are in no menu."""
    up = "../" * (page.count("/") + 1)
    text[0] = re.sub(rf"\]\({re.escape(up)}(?=\w)", f"]({REPOSITORY}", text[0])
    if page.startswith("results/") and page != "results/README":
        text[0] = f"---\norphan: true\n---\n{text[0]}"


def setup(app: Sphinx) -> None:
    """Read pages as :func:`prepare` leaves them."""
    app.connect("source-read", prepare)
