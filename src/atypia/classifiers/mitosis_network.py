"""Networks that were trained on mitotic figures and look-alikes: a guard of its own.

``atypia train --preset mitosis`` makes them; the bundle is of the kind
:data:`atypia.classifiers.bundle.MITOSIS`. They share all of the machinery with networks of
subtypes, and two sides stand for the question: the first four probabilities for a mitotic figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.decision import p_atypical
from atypia.core.labels import N_SUBTYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.classifiers.calibration import Calibration


def two_sides(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Spread both sides of (N, 8) evenly, so that a temperature acts on the sides alone."""
    p = p_atypical(probabilities).astype(np.float64)[:, None]
    half = N_SUBTYPES // 2
    return np.hstack([np.repeat(p, half, 1), np.repeat(1 - p, half, 1)]) / half


def p_mitosis(
    probabilities: npt.NDArray[np.floating[Any]], calibration: Calibration
) -> npt.NDArray[np.float32]:
    """Probability of a mitotic figure, (N,), from what the networks answer, (N, 8)."""
    return p_atypical(calibration.apply(two_sides(probabilities)))
