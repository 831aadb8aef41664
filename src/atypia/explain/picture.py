"""What people look at: a figure with its map above it, and the curves of the checks.

Blue is against, orange for: colours of Okabe and Ito (2008), which colour-blind readers keep
apart, on a grey picture of the patch, so that the stain is not taken for evidence.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.labels import DISPLAY_NAMES, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from atypia.explain.sanity import Sanity

AGAINST: Final = "#0072B2"
FOR: Final = "#E69F00"
_GREY: Final = "#666666"
_STYLE: Final[Any] = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
_NAME_LENGTH: Final = 60
_BARS_UM: Final = (1, 2, 5, 10, 20, 50)


def figure_png(
    patch: npt.NDArray[np.uint8],
    shown: npt.NDArray[np.floating[Any]],
    mpp: float,
    *,
    field_um: float,
    title: str,
    subtitle: str,
    probabilities: npt.NDArray[np.floating[Any]],
    highlighted: Sequence[str] = (),
) -> bytes:
    """Draw one figure as a PNG: the patch (H, W, 3) uint8, its map, the probabilities (8,).

    The map `shown`, (H, W), is of :func:`atypia.explain.evidence.shown`; `field_um` is the side of
    the square that the model sees; subtypes that are explained are `highlighted`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cut = title if len(title) <= _NAME_LENGTH else f"{title[: _NAME_LENGTH - 1]}…"
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 3.5), layout="constrained", facecolor="white")
        figure.suptitle(f"{_printable(cut)}\n{subtitle}", fontsize=9, x=0.01, ha="left")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
        left.imshow(patch)
        left.set_title("Patch", fontsize=9)
        middle.imshow(_overlay(patch, shown))
        middle.set_title("Evidence", fontsize=9)
        for axes in (left, middle):
            axes.set_xticks([])
            axes.set_yticks([])
            _frame(axes, patch.shape[:2], field_um / mpp)
            _scale_bar(axes, patch.shape[:2], mpp)
        _key(middle)
        _bars(right, probabilities, highlighted)
        return _png(figure)


def curves_png(sanity: Sanity) -> bytes:
    """Draw the mean deletion and insertion curves of the checks as a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    lines = {
        "map": ("this map", FOR, "-"),
        "dark": ("darkest places", AGAINST, "--"),
        "middle": ("middle of the field", "#009E73", "-."),
        "random": ("random places", _GREY, ":"),
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.4), layout="constrained", facecolor="white")
        both = figure.subplots(1, 2, sharey=True)
        for axes, kind, what in zip(
            both,
            ("deletion", "insertion"),
            ("Deletion: hidden, strongest first", "Insertion: shown, strongest first"),
            strict=True,
        ):
            for name, (label, colour, dash) in lines.items():
                curve = sanity.mean_curves[f"{kind} {name}"]
                share = np.linspace(0, 100, len(curve))
                axes.plot(share, curve, dash, color=colour, linewidth=2, label=label)
            axes.set_title(what, fontsize=9)
            axes.set_xlabel("Share of the field, %")
            axes.spines[["top", "right"]].set_visible(False)
        both[0].set_ylabel(f"Probability, mean of {sanity.n} figures")
        both[0].set_ylim(bottom=0)
        both[0].legend(frameon=False)
        return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return stream.getvalue()


def _printable(text: str) -> str:
    """Show what cannot be printed, such as marks that turn the reading direction, as a box."""
    return "".join(c if c.isprintable() else "\N{WHITE VERTICAL RECTANGLE}" for c in text)


def _overlay(
    patch: npt.NDArray[np.uint8], shown: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.floating[Any]]:
    """Paint a map (H, W) on the grey picture of a patch: (H, W, 3) in 0..1."""
    grey = patch.astype(np.float64).mean(axis=2, keepdims=True) / 255
    colours = np.array([_rgb(AGAINST), _rgb(FOR)])[(shown > 0).astype(int)]
    strength = 0.85 * np.abs(shown)[..., None]
    return np.asarray((1 - strength) * np.repeat(grey, 3, axis=2) + strength * colours)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def _frame(axes: Axes, shape: tuple[int, ...], side: float) -> None:
    """Draw what the model sees, where the patch shows more."""
    from matplotlib.patches import Rectangle

    height, width = shape
    if side < min(height, width):
        corner = ((width - side) / 2 - 0.5, (height - side) / 2 - 0.5)
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1, alpha=0.8)
        )


def _scale_bar(axes: Axes, shape: tuple[int, ...], mpp: float) -> None:
    """Draw a bar of a round length, about a quarter of the width."""
    from matplotlib.patheffects import withStroke

    height, width = shape
    fitting = [um for um in _BARS_UM if um / mpp <= width / 3]
    um = fitting[-1] if fitting else _BARS_UM[0]
    right, bottom = 0.96 * width, 0.94 * height
    outline = [withStroke(linewidth=4, foreground="black")]
    axes.plot(
        [right - um / mpp, right], [bottom, bottom], color="white", linewidth=2.4,
        solid_capstyle="butt", path_effects=outline,
    )  # fmt: skip
    axes.text(
        right - um / mpp / 2, bottom - 0.025 * height, f"{um} µm", color="white", ha="center",
        va="bottom", fontsize=8, path_effects=[withStroke(linewidth=2, foreground="black")],
    )  # fmt: skip
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _key(axes: Axes) -> None:
    """Name the two colours below the map."""
    for x, ha, colour, text in ((0, "left", AGAINST, "■ against"), (1, "right", FOR, "for ■")):
        axes.text(x, -0.03, text, color=colour, ha=ha, va="top", transform=axes.transAxes)


def _bars(
    axes: Axes, probabilities: npt.NDArray[np.floating[Any]], highlighted: Sequence[str]
) -> None:
    colours = [FOR if subtype in highlighted else "#BBBBBB" for subtype in SUBTYPES]
    axes.barh(range(len(SUBTYPES)), probabilities, color=colours)
    axes.set_yticks(range(len(SUBTYPES)), [DISPLAY_NAMES[subtype] for subtype in SUBTYPES])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title("Probability", fontsize=9)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for y, p in enumerate(probabilities):
        inside = p > 0.8
        axes.text(
            p - 0.02 if inside else p + 0.02, y, f"{p:.2f}", va="center",
            ha="right" if inside else "left", fontsize=8,
        )  # fmt: skip
