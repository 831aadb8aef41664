"""How full a hot-spot would be by chance alone: the densest place of figures that do not cluster.

The densest window of many is dense even where nothing clusters, and a share of atypical figures in
a window that was chosen for its atypical figures is far too high. The question that remains is
whether it holds more than the densest one of figures at random. There are two kinds of random:

- *calls*: the figures keep their places, and the calls are shuffled over them. Are atypical figures
  denser anywhere than the figures themselves are? (a permutation test with the maximum as its
  statistic: Dwass, Annals of Mathematical Statistics 28, 1957; the scan statistic of Kulldorff,
  Communications in Statistics 26, 1997, for a window of one size);
- *places*: as many figures are scattered evenly over the tissue (complete spatial randomness).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from atypia.biomarker.hotspot import Shape, TissueWindows, find_hotspot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from atypia.biomarker.slide_biomarkers import Biomarkers
    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray
    from atypia.slides.tissue import Tissue

Random: TypeAlias = Literal["calls", "places"]

DRAWS: Final[dict[Random, int]] = {"calls": 199, "places": 99}
"""The smallest p-values are 1 / 200 and 1 / 100; there are more figures than atypical ones."""


@dataclass(frozen=True)
class Chance:
    """The fullest windows of figures at random."""

    random: Random
    """What was random: the calls of the figures, or their places."""
    fullest: IntArray
    """(D,) figures in the fullest window of each draw."""

    @property
    def expected(self) -> float:
        """Mean number of figures in the fullest window."""
        return float(self.fullest.mean())

    def p_value(self, found: int) -> float:
        """Chance of a window with at least as many figures as were found, above 0."""
        return float((1 + (self.fullest >= found).sum()) / (1 + len(self.fullest)))

    @classmethod
    def of_slides(cls, slides: Sequence[Chance | None]) -> Chance | None:
        """Give what chance does on the fullest of several slides; None where it is unknown of one.

        Every slide keeps its own number of figures.
        """
        known = [slide for slide in slides if slide is not None]
        if not known or len(known) < len(slides):
            return None
        return cls(known[0].random, np.max([slide.fullest for slide in known], axis=0))


def chance_of(hotspot: Biomarkers | None, chance: Chance | None) -> tuple[float, float] | None:
    """Density of the fullest window by chance, per mm², and the p-value of the one found.

    None where there is no hot-spot, or nothing is known of chance. It is a density of the figures
    called atypical where their calls are random, and of all where their places are.
    """
    if hotspot is None or chance is None or hotspot.counts.area_mm2 is None:
        return None
    counts = hotspot.counts
    found = counts.atypical if chance.random == "calls" else counts.figures
    return chance.expected / hotspot.counts.area_mm2, chance.p_value(found)


def shuffled_calls(
    points_um: FloatArray,
    called: BoolArray,
    area_mm2: float,
    shape: Shape,
    windows: TissueWindows | None = None,
    seed: int = 0,
) -> Chance:
    """Shuffle the calls (N,) over figures at points (N, 2), and find the hot-spot each time."""
    rng = np.random.default_rng(seed)
    shuffled = (points_um[rng.permutation(called)] for _ in range(DRAWS["calls"]))
    return Chance("calls", _fullest(shuffled, area_mm2, shape, windows))


def scattered_places(
    n: int,
    tissue: Tissue,
    area_mm2: float,
    shape: Shape,
    windows: TissueWindows | None = None,
    seed: int = 0,
) -> Chance:
    """Scatter n figures evenly over the tissue, and find the hot-spot each time."""
    draws = DRAWS["places"]
    scattered = tissue.scattered(draws * n, seed).reshape(draws, n, 2)
    return Chance("places", _fullest(scattered, area_mm2, shape, windows))


def _fullest(
    draws: Iterable[FloatArray], area_mm2: float, shape: Shape, windows: TissueWindows | None
) -> IntArray:
    """Count the points in the hot-spot of each draw."""
    counts = []
    for points in draws:
        hotspot = find_hotspot(points, area_mm2, shape, windows)
        counts.append(0 if hotspot is None else int(hotspot.contains(points).sum()))
    return np.array(counts, dtype=np.int64)
