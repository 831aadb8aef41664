"""The shape features of a figure: measures, truths of the rules, outlines, a reason in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.classifiers.rules.criteria import best_rules, prior, probabilities
from atypia.classifiers.rules.segmentation import MPP, SIDE, haematoxylin, segment
from atypia.classifiers.rules.shape_measures import measure
from atypia.core.config import InputSpec
from atypia.core.labels import DISPLAY_NAMES, N_SUBTYPES, SUBTYPES
from atypia.data.field_of_view import check_patches, sample_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from atypia.classifiers.rules.criteria import Criterion, Rule
    from atypia.classifiers.rules.segmentation import Labels, Map

SPEC: Final = InputSpec(
    field_of_view_um=SIDE * MPP, size_px=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""What the rules see of a patch."""
NOTHING: Final = "no chromatin found"
"""Reason where nothing near the centre is darker than its surroundings; the answer is the class
prior."""
_MOST_CRITERIA: Final = 4
_UNITS: Final = {"_per_um": "/µm", "_um2": " µm²", "_um": " µm", "_deg": "°", "_od": " OD"}


@dataclass(frozen=True)
class ShapeFeatures:
    """What the rules find on one patch."""

    truths: npt.NDArray[np.float64]
    """(8,) truth of the best rule of each subtype, 0 to 1; zeros where nothing was found."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """See :class:`atypia.classifiers.rules.shape_measures.Measures`; empty where nothing was
    found."""
    outlines: tuple[npt.NDArray[np.float32], ...] = ()
    """(K, 2) points, row and column in px, around each part and each hole."""

    @property
    def found(self) -> bool:
        """Whether there is chromatin near the centre."""
        return bool(self.measures)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(8,) probabilities of the subtypes, not calibrated; the class prior without chromatin."""
        return probabilities(self.truths) if self.found else prior()

    def reason(self, subtype: str | None = None) -> str:
        """Why, or how far, the figure is of a subtype: the most probable one by default."""
        if not self.found:
            return NOTHING
        order = np.argsort(-self.probabilities, kind="stable")
        subtype = SUBTYPES[order[0]] if subtype is None else subtype
        other = next(SUBTYPES[i] for i in order if SUBTYPES[i] != subtype)
        rules = best_rules(self.measures)
        rule, rival = rules[subtype][0], rules[other][0]
        pro = [c for c in self._ranked(rule) if self._truth(c) >= 0.5][:_MOST_CRITERIA]
        con = [c for c in reversed(self._ranked(rule)) if self._truth(c) < 0.5]
        sentences = [f"{DISPLAY_NAMES[subtype]}, {rule.name}"]
        if pro:
            sentences.append(f"For it: {'; '.join(self._text(c) for c in pro)}")
        if con:
            sentences.append(f"Against it: {'; '.join(self._text(c) for c in con)}")
        weakest = self._ranked(rival)[-1]
        next_best = f"Next best: {DISPLAY_NAMES[other]}, {rival.name}"
        if self._truth(weakest) < 0.5:
            next_best += f", but {self._text(weakest)}"
        own, its = (self.truths[SUBTYPES.index(name)] for name in (subtype, other))
        rarer = prior()[SUBTYPES.index(subtype)] / prior()[SUBTYPES.index(other)]
        if its > own and rarer > 1:  # what decides is then not the shape alone
            next_best += (
                f"; it fits better ({its:.2f} against {own:.2f}) but is {rarer:.2g} times rarer"
            )
        return ". ".join([*sentences, next_best]) + "."

    def _truth(self, criterion: Criterion) -> float:
        return criterion.truth(self.measures[criterion.measure])

    def _ranked(self, rule: Rule) -> list[Criterion]:
        """Criteria of a rule, the truest one first."""
        return sorted(rule.criteria, key=self._truth, reverse=True)

    def _text(self, criterion: Criterion) -> str:
        words = criterion.words if self._truth(criterion) >= 0.5 else criterion.otherwise
        return f"{words} ({worded_measure(criterion.measure, self.measures[criterion.measure])})"


def worded_measure(name: str, value: float) -> str:
    """Name and value of a measure as people write them: ``halves apart 6.2 µm``."""
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            digits = 0 if unit == "°" else 1
            return f"{name.removesuffix(ending).replace('_', ' ')} {value:.{digits}f}{unit}"
    return f"{name.replace('_', ' ')} {value:.2g}"


def measure_field(pixels: Map) -> ShapeFeatures:
    """Measure the figure in one field, (S, S, 3) RGB in 0..1, of :data:`SIDE` px at :data:`MPP`."""
    found = segment(pixels, haematoxylin(pixels))
    if found is None:
        return ShapeFeatures(np.zeros(len(SUBTYPES)))
    measures = measure(found).to_dict()
    truths = np.array([truth for _, truth in best_rules(measures).values()])
    return ShapeFeatures(truths, measures, _outlines(found.parts))


def _outlines(parts: Labels) -> tuple[npt.NDArray[np.float32], ...]:
    from skimage.measure import find_contours

    inside = np.pad((parts > 0).astype(np.float32), 1)  # closed at the edge of the field, too
    return tuple((line - 1).astype(np.float32) for line in find_contours(inside, 0.5))


def outlines_in_patch(
    outlines: tuple[npt.NDArray[np.float32], ...], height: int, width: int, mpp: float
) -> tuple[npt.NDArray[np.float32], ...]:
    """Outlines in px of a field as outlines in px of the patch that it was cut out of."""
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    field_middle = (SIDE - 1) / 2
    return tuple(
        ((line - field_middle) * MPP / mpp + middle).astype(np.float32) for line in outlines
    )


def measure_patches(
    patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
) -> list[ShapeFeatures]:
    """Measure the figures on patches (N, H, W, 3) uint8 RGB; outlines are in their pixels.

    Raises:
        InputError: Patches of another type, or much smaller than the field of view.
    """
    check_patches(patches, mpp, [SPEC])
    features: list[ShapeFeatures] = []
    for start in range(0, len(patches), batch_size):
        fields = sample_field(patches[start : start + batch_size], mpp, SPEC)
        features += [measure_field(field) for field in fields.transpose(0, 2, 3, 1)]
    height, width = patches.shape[1:3]
    return [
        ShapeFeatures(r.truths, r.measures, outlines_in_patch(r.outlines, height, width, mpp))
        for r in features
    ]


def raw_probabilities(features: Sequence[ShapeFeatures]) -> npt.NDArray[np.float64]:
    """Probabilities (N, 8) of figures before any calibration; rows sum to 1."""
    rows = [np.empty((0, N_SUBTYPES)), *(r.probabilities[None] for r in features)]
    return np.concatenate(rows)
