"""HTML that cannot be written unescaped: :func:`tag` escapes all that is not :class:`Html`."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final

from atypia._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_VOID: Final = frozenset({"br", "hr", "img", "meta"})


class Html(str):
    """Markup that is safe to stand in a page as it is."""

    __slots__ = ()


def join(*parts: object) -> Html:
    """Put parts one after the other; text is escaped, :class:`Html` stays, None vanishes."""
    return Html(
        "".join(
            part if isinstance(part, Html) else html.escape(str(part))
            for part in parts
            if part is not None
        )
    )


def tag(name: str, *children: object, **attributes: object) -> Html:
    """One element: ``tag("p", "a < b", class_="note")`` is ``<p class="note">a &lt; b</p>``.

    A trailing underscore of an attribute's name is dropped, other underscores become hyphens.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _VOID else f"{join(*children)}</{name}>"
    return Html(f"<{name}{rendered}>{end}")


def table(
    caption: object,
    header: Html | Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    class_: str | None = None,
    sortable: bool = False,
) -> Html:
    """Build a table that a narrow screen scrolls sideways.

    Args:
        caption: What the table holds.
        header: One cell per column, or ready-made rows of the table's head.
        rows: Cells; the first one names the row.
        class_: For the style sheet.
        sortable: Rows may stand in any order: ``report.js`` lets a click on a heading change it.

    """
    if not isinstance(header, Html):
        header = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells))
        for first, *cells in rows
    ]
    whole = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", header),
        tag("tbody", *body),
        class_=class_,
        data_sortable="" if sortable else None,
    )
    return tag("div", whole, class_="scroll", tabindex=0)


def figure(content: Html, caption: object, **attributes: object) -> Html:
    """Build a figure with its caption below."""
    return tag("figure", content, tag("figcaption", caption), **attributes)


def svg_figure(svg: str, label: str, caption: object) -> Html:
    """Build a figure from one of our own SVG strings, with a text for those who do not see it."""
    inline = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
    role = "group" if "<a " in inline else "img"  # an image has no links to those who listen
    described = inline.replace("<svg ", f'<svg role="{role}" aria-label="{html.escape(label)}" ', 1)
    return figure(Html(described), caption)


def document(title: object, body: Html, *styles: str, script: str | None = None) -> str:
    """Make a whole page of its body: one file that asks for nothing outside.

    Args:
        title: Of the browser's tab.
        body: What the page shows.
        styles: Rules to add to those of ``report.css``.
        script: Adds to a page that is whole without it. The page allows this one script alone, by
            its hash: what slipped through as markup could not run.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return Template(resource("report.html")).substitute(
        title=join(title),
        version=__version__,
        policy=policy,
        style="".join([resource("report.css"), *styles]),
        body=body,
        script="" if script is None else f"<script>{script}</script>\n",
    )


def resource(name: str) -> str:
    """Read a file of ``resources/``."""
    return (resources.files("atypia.reports") / "resources" / name).read_text("utf-8")
