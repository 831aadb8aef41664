"""Is a map about the network? Randomised weights must change it; its places must matter.

Many maps are close to an edge detector or to a picture of whatever is dark (Adebayo et al., NeurIPS
2018). Two questions find that out:

1. *Randomisation.* The same map of a network with shuffled weights must be another map, by rank
   correlation over cells of 1 µm, with the sign of the evidence and without.
2. *Deletion and insertion.* Hiding what the map points at must cost more of the probability than
   hiding random places, and showing it must bring more.

Two maps that do not depend on the network stand beside them, and beat random places easily: the
middle of the field, where every figure is, and the darkest places, which are mostly its chromatin.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import rankdata

from atypia.core.progress import OnDone, silent
from atypia.explain.faithful import Grid, central_cells, curves, dark_cells, random_cells
from atypia.explain.randomise import randomised
from atypia.explain.target import target_probability

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble

    FloatArray = npt.NDArray[np.floating[Any]]
    Maps = Callable[
        [Ensemble, npt.NDArray[np.uint8], float, npt.NDArray[np.int64]], npt.NDArray[np.float32]
    ]
    """An ensemble, patches (N, H, W, 3), µm per pixel, targets (N,) to maps (N, H, W)."""

MOST_CORRELATION: Final = 0.5
"""With more than that, on average, a map is mostly the same whatever was learned."""
LEAST_FIGURES: Final = 8
"""Fewer give no verdict: an interval of so few is too short."""
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class MeanInterval:
    """A mean over figures and its 95 % interval from resampling them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Randomisation:
    """How like the map of a network with shuffled weights is."""

    share: float
    """Of the layers that were shuffled, from the answer back."""
    signed: MeanInterval
    """Spearman's correlation with the sign of the evidence, its absolute value."""
    magnitude: MeanInterval
    """Spearman's correlation of the strength of the evidence."""


@dataclass(frozen=True)
class Area:
    """The area under a curve: that of the map, and of what it is compared with."""

    map: MeanInterval
    random: MeanInterval
    middle: MeanInterval
    dark: MeanInterval
    gain: MeanInterval
    """By how much the map is better than random places, paired; above 0 is better."""


@dataclass(frozen=True)
class Sanity:
    """What the checks found."""

    n: int
    """Figures."""
    randomisation: tuple[Randomisation, ...]
    """From few layers to all of them."""
    deletion: Area
    insertion: Area
    mean_curves: Mapping[str, FloatArray]
    """``deletion`` and ``insertion`` of ``map``, ``random``, ``middle`` and ``dark``, joined by a
    space, each (steps + 1,): the mean probability."""

    @property
    def judged(self) -> bool:
        """Whether there are enough figures for a verdict."""
        return self.n >= LEAST_FIGURES

    @property
    def depends_on_weights(self) -> bool:
        """Whether the map is another one when all weights are shuffled."""
        last = self.randomisation[-1]
        return max(last.signed.value, last.magnitude.value) < MOST_CORRELATION

    @property
    def points_at_what_matters(self) -> bool:
        """Whether deletion and insertion are better than with random places, beyond chance."""
        return self.deletion.gain.low > 0 and self.insertion.gain.low > 0

    @property
    def passed(self) -> bool:
        """Whether such maps may be shown as ones of this model."""
        return self.judged and self.depends_on_weights and self.points_at_what_matters

    def to_json(self) -> dict[str, Any]:
        """Give everything but the curves as plain numbers."""
        tree = dataclasses.asdict(self)
        del tree["mean_curves"]
        verdict = ("judged", "passed", "depends_on_weights", "points_at_what_matters")
        return {name: getattr(self, name) for name in verdict} | tree


def check(
    ensemble: Ensemble,
    patches: npt.NDArray[np.uint8],
    mpp: float,
    targets: npt.NDArray[np.int64],
    maps_of: Maps,
    *,
    maps: FloatArray | None = None,
    shares: Sequence[float] = (1.0,),
    seed: int = 0,
    on_done: OnDone = silent,
) -> Sanity:
    """Check a way to make maps on some figures; other arguments as for :func:`.evidence.explain`.

    Args:
        ensemble: The model.
        patches: (N, H, W, 3) uint8.
        mpp: µm per pixel.
        targets: (N,).
        maps_of: The way.
        maps: (N, H, W) what it gives for `ensemble`, where that is there already.
        shares: Of the layers to shuffle, ascending; the last one decides.
        seed: Of the shuffling, of random places and of the intervals.
        on_done: Called with the number of steps done: one per share, and one for the curves.
    """
    if maps is None:
        maps = maps_of(ensemble, patches, mpp, targets)
    grid = Grid.of(patches.shape[1:3], mpp, ensemble.field_of_view_um)
    cells = grid.mean(maps)
    generator = np.random.default_rng(seed)

    def estimate(values: FloatArray) -> MeanInterval:
        drawn = generator.integers(0, len(values), (_RESAMPLES, len(values)))
        low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
        return MeanInterval(float(values.mean()), float(low), float(high))

    randomisation = []
    for share in shares:
        forgot = randomised(ensemble, patches, mpp, share, seed)
        others = grid.mean(maps_of(forgot, patches, mpp, targets))
        randomisation.append(
            Randomisation(
                share,
                estimate(np.abs(rank_correlation(cells, others))),
                estimate(rank_correlation(np.abs(cells), np.abs(others))),
            )
        )
        on_done(1)

    # One view is enough to compare orders of cells, and eight times as fast.
    answering = dataclasses.replace(ensemble, tta=False)

    def answer(images: npt.NDArray[np.uint8]) -> FloatArray:
        return target_probability(answering.predict_proba(images, mpp), targets)

    n, side = len(patches), grid.side
    orders = {
        "map": cells,
        "random": random_cells(n, side, 1000 * seed),
        "middle": central_cells(n, side),
        "dark": dark_cells(patches, grid),
    }
    found = {name: curves(answer, patches, grid, order) for name, order in orders.items()}
    on_done(1)
    areas, means = {}, {}
    for kind, better in (("deletion", -1), ("insertion", 1)):
        area = {name: getattr(curve, f"{kind}_area") for name, curve in found.items()}
        gain = estimate(better * (area["map"] - area["random"]))
        areas[kind] = Area(**{name: estimate(value) for name, value in area.items()}, gain=gain)
        for name, curve in found.items():
            means[f"{kind} {name}"] = getattr(curve, kind).mean(axis=0)
    return Sanity(len(patches), tuple(randomisation), **areas, mean_curves=means)


def rank_correlation(one: FloatArray, other: FloatArray) -> FloatArray:
    """Spearman's correlation of each pair of maps (N, K, K): (N,); 0 where one is constant."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(a)), where=norm > 0))
