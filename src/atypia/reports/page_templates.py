"""Pages from Jinja2 templates: each page is one file that needs nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from atypia._version import __version__
from atypia.core.labels import ATYPICAL, DISPLAY_NAMES, SUBTYPES, in_words
from atypia.evaluation.metrics import ECE_BINS
from atypia.reports import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def render(
    template: str, *, styles: Iterable[str] = (), script: str | None = None, **context: Any
) -> str:
    """Render a page. What is no markup is escaped; an undefined name is an error.

    `styles` are added to ``report.css``. The page allows the `script` alone, by its hash.
    """
    code = "" if script is None else _resource(script)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup("".join(map(_resource, ("report.css", *styles)))),
            script=Markup(code),
            script_hash=f"sha256-{digest}",
            **context,
        )
    )


@cache
def environment() -> Environment:
    """Templates with the words, names and colours that all of them share."""
    made = Environment(
        loader=PackageLoader("atypia.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "capital": words.capital,
        "estimate": words.estimate,
        "inline": inline_svg,
        "interval": words.interval,
        "level": words.level,
        "number": words.number,
        "rater": words.rater_name,
        "share": words.share,
        "statuses": in_words,
        "values_of": values_of,
    }
    made.globals |= {
        "ATYPICAL": ATYPICAL,
        "DISPLAY_NAMES": DISPLAY_NAMES,
        "ECE_BINS": ECE_BINS,
        "NBSP": "\N{NO-BREAK SPACE}",
        "SHORT_NAMES": words.SHORT_NAMES,
        "SUBTYPES": SUBTYPES,
        "version": __version__,
    }
    return made


def inline_svg(svg: str, label: str) -> Markup:
    """Put one of our SVG strings into a page, with a label for readers who do not see it."""
    role = "group" if "<a " in svg else "img"  # an image has no links for a screen reader
    inside = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
    label = html.escape(label)
    return Markup(inside.replace("<svg ", f'<svg role="{role}" aria-label="{label}" ', 1))


def values_of(names: Iterable[str], mapping: Mapping[str, Any]) -> list[Any]:
    """Values of a mapping in the order of `names`."""
    return [mapping[name] for name in names]


def _resource(name: str) -> str:
    return (resources.files("atypia.reports") / "resources" / name).read_text("utf-8")
