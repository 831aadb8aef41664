"""Plots of the pages, each a function from numbers to one SVG string; their palette.

The SVG is made to stand inside an HTML page: text stays text, lines and letters that should be
read on any background are ``currentColor``, the background is transparent, and equal numbers give
equal bytes. Colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish;
curves differ in their dashes as well.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from PIL import Image

from atypia.core.labels import N_ATYPICAL, SUBTYPES
from atypia.reports.words import SHORT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from atypia.evaluation.curves import Reliability

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
INK: Final = "#1c2430"
SOFT: Final = "#5a6675"
"""Those of text in ``report.css``, where a plot cannot take the colour around it."""
COLOURS: Final = (BLUE, VERMILION, GREEN, PURPLE)
DASHES: Final = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS: Final = ("s", "^", "v", "o")

_Corner: TypeAlias = Literal["lower right", "best"]

# Stand-ins that _svg() turns into currentColor; no other element may have these colours.
_INK: Final = "#010203"
_FAINT: Final = "#040506"

_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "atypia",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.18,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify_threshold": 0.3,
}


@dataclass(frozen=True)
class Curve:
    """One line of a plot with both axes from 0 to 1."""

    label: str
    x: NDArray[np.float64]
    """Shape ``(K,)``, in [0, 1]."""
    y: NDArray[np.float64]
    """Shape ``(K,)``, in [0, 1]."""
    marker: tuple[float, float] | None = None
    """Where a second rater stands, if there is one."""
    hints: Sequence[Hint] = ()
    """What a pointer finds on the line."""


@dataclass(frozen=True)
class Hint:
    """A place in a plot with a text for a pointer that rests on it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Link:
    """Where a part of a plot leads to."""

    href: str
    label: str
    """What it leads to, for readers who do not see the plot."""


def confusion_matrix(
    counts: NDArray[np.int64],
    *,
    normalised: bool,
    row_title: str,
    column_title: str,
    links: Mapping[tuple[int, int], Link] | None = None,
) -> str:
    """Draw an eight-class confusion matrix (8, 8), atypical and normal classes framed apart.

    Rows are the label, columns the prediction. `normalised` writes each cell's share of its row in
    percent instead of the count; the colour is that share either way, so that the two can be read
    alike. `links` are of cells, by row and column.
    """
    links = links or {}
    counts = np.asarray(counts)
    n_classes = len(SUBTYPES)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    names = [SHORT_NAMES[subtype] for subtype in SUBTYPES]

    from matplotlib.patches import Rectangle

    with _new_plot(5.2, 4.9) as canvas:
        axes = canvas.add_subplot()
        for row, column in np.ndindex(counts.shape):
            share = shares[row, column]
            link = links.get((row, column))
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=BLUE, alpha=float(share),
                    url=None if link is None else link.href,
                )
            )  # fmt: skip
            empty = totals[row, 0] == 0
            text = (
                "–" if empty else f"{100 * share:.0f}" if normalised else f"{counts[row, column]}"
            )
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if row == column else "normal",
                color="white" if share > 0.5 else _INK,
                alpha=1.0 if counts[row, column] else 0.45,
            )
        for start, size in ((0, N_ATYPICAL), (N_ATYPICAL, n_classes - N_ATYPICAL)):
            axes.add_patch(
                Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=_INK)
            )
        for name, start, stop in (("AMF", 0, N_ATYPICAL), ("NMF", N_ATYPICAL, n_classes)):
            centre = (start + stop - 1) / 2
            axes.text(centre, -0.62, name, ha="center", va="bottom", fontweight="bold")
            axes.text(
                n_classes - 0.38, centre, name, rotation=270, ha="left", va="center",
                fontweight="bold",
            )  # fmt: skip
        axes.set_xlim(-0.5, n_classes - 0.5)
        axes.set_ylim(n_classes - 0.5, -0.5)
        axes.set_xticks(range(n_classes), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n_classes), names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal")
        axes.set_xlabel(column_title)
        axes.set_ylabel(row_title)
        svg = _svg(canvas)
    for link in links.values():
        href = f'<a href="{link.href}"'
        labelled = f'{href} aria-label="{html.escape(link.label)}"'
        svg = svg.replace(f'{href} target="_blank"', labelled).replace(f"{href}>", f"{labelled}>")
    return svg


def roc_curves(
    curves: Sequence[Curve], points: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """Draw ROC curves (x: 1 − specificity, y: sensitivity) with the line of no skill.

    `points` are places of raters and the like, by their names in the key.
    """
    return _unit_curves(
        curves, "1 − specificity", "Sensitivity", diagonal=True, legend="lower right",
        points=points or {},
    )  # fmt: skip


def pr_curves(curves: Sequence[Curve]) -> str:
    """Draw precision-recall curves (x: sensitivity, y: PPV)."""
    return _unit_curves(
        curves, "Sensitivity (recall)", "PPV (precision)", legend="best", steps=True
    )


def accuracy_against_coverage(curves: Sequence[Curve]) -> str:
    """Draw the accuracy (y) of the surest share of the figures (x)."""
    return _unit_curves(curves, "Share of figures answered", "Accuracy", legend="lower right")


def _unit_curves(
    curves: Sequence[Curve],
    x_title: str,
    y_title: str,
    *,
    legend: _Corner,
    diagonal: bool = False,
    steps: bool = False,
    points: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> str:
    with _new_plot(4.8, 4.6) as canvas:
        axes = canvas.add_subplot()
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_FAINT, alpha=0.5, linewidth=0.8)
        for i, curve in enumerate(curves):
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(
                curve.x, curve.y, color=colour, linestyle=DASHES[i % len(DASHES)], linewidth=1.8,
                label=curve.label, drawstyle="steps-pre" if steps else "default",
            )  # fmt: skip
            if curve.marker is not None:
                axes.plot(
                    *curve.marker, "D", color=colour, markersize=7, markeredgecolor=_INK,
                    markeredgewidth=0.9, clip_on=False, zorder=5,
                )  # fmt: skip
        for i, (name, place) in enumerate(points.items()):
            axes.plot(
                *place, MARKERS[i % len(MARKERS)], color=COLOURS[(i + 1) % len(COLOURS)],
                markersize=8, markeredgecolor=_INK, markeredgewidth=0.9, label=name, zorder=5,
            )  # fmt: skip
        _unit_square(axes, x_title, y_title)
        if curves:
            axes.legend(loc=legend, handlelength=2.6)
        svg = _svg(canvas)
        colours = [COLOURS[i % len(COLOURS)] for i, curve in enumerate(curves) for _ in curve.hints]
        return _with_hints(svg, axes, [hint for c in curves for hint in c.hints], colours)


def reliability_diagram(curve: Reliability, x_title: str, y_title: str) -> str:
    """Draw how often the model is right against how sure it is, and how many cases a bin holds."""
    filled = curve.count > 0
    confidence, accuracy = curve.confidence[filled], curve.accuracy[filled]
    hints = [
        Hint(x, y, f"{x_title} {x:.2f}: {y_title[:1].lower()}{y_title[1:]} {y:.2f}, {n:,} figures")
        for x, y, n in zip(confidence, accuracy, curve.count[filled], strict=True)
    ]
    from matplotlib.ticker import MaxNLocator

    with _new_plot(4.8, 5.2) as canvas:
        upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=_FAINT, alpha=0.5, linewidth=0.8)
        upper.vlines(confidence, confidence, accuracy, color=VERMILION, linewidth=2)
        upper.plot(confidence, accuracy, "o-", color=BLUE, linewidth=1.8)
        _unit_square(upper, "", y_title)
        widths = np.diff(curve.edges)
        lower.bar(curve.edges[:-1], curve.count, widths, align="edge", color=BLUE, alpha=0.75)
        lower.set_xlabel(x_title)
        lower.set_ylabel("Figures")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        return _with_hints(_svg(canvas), upper, hints, [BLUE] * len(hints))


def size_against_sensitivity(
    counts: Mapping[str, int], sensitivity: Mapping[str, tuple[float, float, float]]
) -> str:
    """Draw each class's sensitivity (value, low, high) against its number of figures."""
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    with _new_plot(5.4, 3.8) as canvas:
        axes = canvas.add_subplot()
        for subtype, (value, low, high) in sensitivity.items():
            atypical = SUBTYPES.index(subtype) < N_ATYPICAL
            colour = VERMILION if atypical else BLUE
            axes.vlines(counts[subtype], low, high, color=colour, alpha=0.45, linewidth=1.6)
            axes.plot(counts[subtype], value, "s" if atypical else "o", color=colour)
            axes.annotate(
                SHORT_NAMES[subtype], (counts[subtype], value), (6, 4),
                textcoords="offset points", fontsize=9,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("Figures of the class in this table (log scale)")
        axes.set_ylabel("Sensitivity")
        return _svg(canvas)


def training_curves(
    histories: Sequence[pd.DataFrame], columns: Mapping[str, str], *, lowest: str | None = None
) -> str:
    """Draw columns of the histories over the epochs: a colour per member, a dash per column.

    `columns` leads to names in the key; the lowest value of the column `lowest` gets a dot.
    """
    from matplotlib.ticker import MaxNLocator

    with _new_plot(4.8, 3.9) as canvas:
        axes = canvas.add_subplot()
        for i, history in enumerate(histories):
            colour, epoch = COLOURS[i % len(COLOURS)], history["epoch"]
            for k, (column, name) in enumerate(columns.items()):
                if column not in history or history[column].isna().all():
                    continue
                axes.plot(
                    epoch, history[column], color=colour, linestyle=DASHES[k % len(DASHES)],
                    linewidth=1.5, label=f"member {i + 1}, {name}",
                )  # fmt: skip
                if column == lowest:
                    best = int(np.nanargmin(history[column]))
                    axes.plot(epoch.iloc[best], history[column].iloc[best], "o", color=colour)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines and len(histories) <= len(COLOURS):
            axes.legend(fontsize=8)
        return _svg(canvas)


def search_history(trials: pd.DataFrame, name: str, *, minimised: bool) -> str:
    """Draw the value of each trial of a search, and the best one so far."""
    from matplotlib.ticker import MaxNLocator

    with _new_plot(6.4, 3.6) as canvas:
        axes = canvas.add_subplot()
        complete, pruned = (trials[trials["state"] == s] for s in ("complete", "pruned"))
        value = complete["value"]
        best = value.cummin() if minimised else value.cummax()
        axes.step(complete["trial"], best, where="post", color=VERMILION, label="best so far")
        axes.plot(complete["trial"], value, "o", color=BLUE, markersize=5, label="complete")
        limits = axes.get_ylim()  # what was stopped early may lie far off
        if len(pruned):
            inside = pruned["value"].clip(*limits)
            axes.plot(pruned["trial"], inside, "x", color=_INK, alpha=0.5, label="pruned")
            axes.set_ylim(limits)
        axes.set_xlabel("Trial")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
        return _svg(canvas)


def shares(parts: Mapping[str, float], x_title: str) -> str:
    """Draw the share of each part as a bar, the first one on top."""
    from matplotlib.ticker import PercentFormatter

    with _new_plot(6.4, 1.0 + 0.28 * len(parts)) as canvas:
        axes = canvas.add_subplot()
        axes.barh(list(parts), list(parts.values()), color=BLUE, alpha=0.75)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel(x_title)
        return _svg(canvas)


def patch_jpeg(patch: NDArray[np.uint8], *, longest_side: int = 128, quality: int = 88) -> bytes:
    """Encode a patch, shape ``(H, W, 3)``, for the eye: JPEG without chroma subsampling."""
    image = Image.fromarray(np.ascontiguousarray(patch), "RGB")
    image.thumbnail((longest_side, longest_side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()


def _unit_square(axes: Axes, x_title: str, y_title: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)


@contextmanager
def _new_plot(width: float, height: float) -> Iterator[Figure]:
    """Open a canvas of a size in inches, in our style. matplotlib is slow to import: only here."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


# matplotlib names what it refers to (clip paths, markers) by a letter and ten hexadecimal digits;
# all other ids number the elements of each plot anew.
_REFERRED_ID = re.compile(r'(?<= id=")[a-z][0-9a-f]{10}(?=")|(?<=#)[a-z][0-9a-f]{10}(?=[")])')
_OTHER_ID = re.compile(r' id="(?![a-z][0-9a-f]{10}")[^"]*"')


def _svg(canvas: Figure) -> str:
    """Render for a page: colours and font of the text around it, ids that no other plot has."""
    stream = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    own = hashlib.sha256(svg.encode()).hexdigest()[:6]
    body = svg[svg.index("</defs>") + len("</defs>") :].replace("xlink:href", "href")
    body = body.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
    body = body.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    body = _REFERRED_ID.sub(lambda match: f"{match[0]}-{own}", _OTHER_ID.sub("", body))
    width, height = (72 * inches for inches in canvas.get_size_inches())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="100%" '
        f'style="max-width: {width:g}pt; stroke-linejoin: round" fill="currentColor">{body}'
    )


def _with_hints(svg: str, axes: Axes, hints: Sequence[Hint], colours: Sequence[str]) -> str:
    """Put dots above a plot that appear, with their text, where a pointer rests on them."""
    if not hints:
        return svg
    canvas: Any = axes.figure
    places = axes.transData.transform([(hint.x, hint.y) for hint in hints]) * 72 / canvas.dpi
    height = 72 * canvas.get_size_inches()[1]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="7" style="color: {colour}">'
        f"<title>{html.escape(hint.text)}</title></circle>"
        for (x, y), hint, colour in zip(places, hints, colours, strict=True)
    )
    return svg.replace("</svg>", f'<g class="hints">{dots}</g></svg>')
