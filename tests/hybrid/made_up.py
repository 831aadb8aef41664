"""Made-up opinions of models: probabilities that know some of the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

if TYPE_CHECKING:
    import numpy.typing as npt

FREQUENCIES = np.array([0.04, 0.04, 0.08, 0.1, 0.1, 0.26, 0.3, 0.08])


def truth(n: int = 600, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).choice(8, n, p=FREQUENCIES)


def folds(n: int = 600, k: int = 4) -> npt.NDArray[np.int64]:
    return np.arange(n) % k


def opinion(
    labels: npt.NDArray[np.int64], skill: float = 2.0, seed: int = 1, sharpness: float = 1.0
) -> npt.NDArray[np.float64]:
    """(N, 8); a larger skill is right more often, a larger sharpness more sure of it."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(labels), 8)) + skill * np.eye(8)[labels] + np.log(FREQUENCIES)
    return np.asarray(softmax(sharpness * scores, axis=1))


def reference(strength: float) -> Pipeline:
    """The small classifier as scikit-learn writes it; no feature counts beyond 4 deviations."""
    near = FunctionTransformer(np.clip, kw_args={"a_min": -4, "a_max": 4})
    return make_pipeline(StandardScaler(), near, LogisticRegression(C=strength, max_iter=2000))
