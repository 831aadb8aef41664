"""The small classifier behind other models: multinomial logistic regression as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import softmax

from atypia.classifiers.rules.shape_measures import NAMES
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from atypia.classifiers.rules.shape_reading import ShapeFeatures

    Array = npt.NDArray[np.float64]

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "network": tuple(f"log_p_{subtype}" for subtype in SUBTYPES),
    "truths": tuple(f"log_truth_{subtype}" for subtype in SUBTYPES),
    "measures": NAMES,
}
"""Features by what they come from: the network's probabilities, the rules' truths, the measures."""
FEATURES: Final = tuple(name for names in GROUPS.values() for name in names)
"""Of a hybrid; a stack has others: :func:`atypia.classifiers.stack.groups_of`."""

_LEAST: Final = 1e-6
"""Of a probability before its logarithm is taken."""
_FARTHEST: Final = 4.0
"""Standard deviations beyond which a feature counts as if it were there: an odd segmentation must
not decide alone."""


def feature_table(
    probabilities: npt.NDArray[np.floating[Any]], readings: Sequence[ShapeFeatures]
) -> Array:
    """Make the features (N, F) of figures, in the order of :data:`FEATURES`.

    Args:
        probabilities: (N, 8) of the network.
        readings: (N) of the rules. Where nothing was found, their features are NaN.
    """
    table = np.full((len(readings), len(FEATURES)), np.nan)
    table[:, :N_SUBTYPES] = log_p(probabilities)
    for row, reading in zip(table, readings, strict=True):
        if reading.found:
            row[N_SUBTYPES : 2 * N_SUBTYPES] = np.log(reading.truths)
            row[2 * N_SUBTYPES :] = [reading.measures[name] for name in NAMES]
    return table


def log_p(probabilities: npt.NDArray[np.floating[Any]]) -> Array:
    """Logarithms of probabilities, of which none is taken for 0."""
    return np.asarray(np.log(np.maximum(probabilities, _LEAST)), dtype=np.float64)


@dataclass(frozen=True)
class Combiner:
    """Logistic regression on standardised features."""

    features: tuple[str, ...]
    """(F) names of columns."""
    mean: Array
    """(F,)."""
    scale: Array
    """(F,) standard deviations."""
    coefficients: Array
    """(8, F)."""
    intercept: Array
    """(8,)."""

    def predict_proba(self, table: Array, columns: Sequence[str] = FEATURES) -> Array:
        """Probabilities (N, 8) from features (N, len(columns)); NaN counts as the mean."""
        own = [columns.index(name) for name in self.features]
        x = standardised(table[:, own], self.mean, self.scale)
        return np.asarray(softmax(x @ self.coefficients.T + self.intercept, axis=1))

    def to_json(self) -> dict[str, Any]:
        """Make the entry ``combiner`` of a bundle."""
        return {
            "kind": "logistic",
            "features": list(self.features),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept.tolist(),
        }

    @classmethod
    def from_json(
        cls, entry: Mapping[str, Any], file: str, known: Sequence[str] = FEATURES
    ) -> Combiner:
        """Read the entry ``combiner`` of a bundle.

        Args:
            entry: Of the bundle.
            file: Its name, for messages.
            known: Names of the columns that there are.

        Raises:
            InputError: Another kind, unknown features, or arrays of other shapes.
        """
        names = entry.get("features")
        problem = None
        if entry.get("kind") != "logistic":
            problem = f"expected the kind 'logistic' but got {entry.get('kind')!r}."
        elif not isinstance(names, list) or not names or not set(names) <= set(known):
            problem = f"expected features out of {list(known)} but got {names!r}."
        if problem is None:
            n = len(names or ())
            shapes = {
                "mean": (n,),
                "scale": (n,),
                "coefficients": (N_SUBTYPES, n),
                "intercept": (N_SUBTYPES,),
            }
            try:
                arrays = {k: np.array(entry.get(k), dtype=np.float64) for k in shapes}
            except (TypeError, ValueError):
                problem = f"expected numbers in {list(shapes)}."
            else:
                got = {k: a.shape for k, a in arrays.items()}
                sound = all(np.isfinite(a).all() for a in arrays.values())
                if got == shapes and sound and (arrays["scale"] > 0).all():
                    return cls(tuple(names or ()), **arrays)
                problem = f"expected finite arrays of shapes {shapes} but got {got}."
        raise InputError(f"{file}: combiner: {problem}")


def standardised(x: Array, mean: Array, scale: Array) -> Array:
    """Standardise features (N, F); NaN becomes the mean, and none lies too far from it."""
    return np.clip(np.nan_to_num((x - mean) / scale), -_FARTHEST, _FARTHEST)
