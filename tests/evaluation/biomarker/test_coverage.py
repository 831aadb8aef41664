"""How often the intervals hold the truth, by simulation of patients, model and slide.

The slow test prints a table of coverage, bias and root mean square error: pytest -m slow -s.
"""

from __future__ import annotations

import numpy as np
import pytest

from atypia.biomarker import ErrorModel
from atypia.biomarker.biomarker_intervals import (
    binomial_interval,
    joint_density,
    rogan_gladen,
    true_fraction,
)

SENSITIVITY, FALSE_POSITIVES = 0.8, 0.14


def beta_binomial(
    rng: np.random.Generator, n: np.ndarray, mean: float, correlation: float
) -> np.ndarray:
    size = 1 / correlation - 1
    return rng.binomial(n, rng.beta(mean * size, (1 - mean) * size, size=n.shape))


def counted(rng: np.random.Generator, patients: int, correlation: float) -> ErrorModel:
    """Out-of-fold counts of patients with skewed numbers of figures."""
    figures = np.maximum(1, rng.lognormal(2.3, 1.1, patients).astype(int))
    atypical = rng.binomial(figures, rng.beta(1.5, 7, patients))
    hits = beta_binomial(rng, atypical, SENSITIVITY, correlation)
    alarms = beta_binomial(rng, figures - atypical, FALSE_POSITIVES, correlation)
    counts = np.stack([hits, atypical - hits, alarms, figures - atypical - alarms], axis=1)
    return ErrorModel("majority_atypical", counts.reshape(-1, 2, 2), None)


def simulate(
    n: int, fraction: float, correlation: float, patients: int, times: int, draws: int, seed: int
) -> dict[str, float]:
    """Coverage and errors of the fraction and of the density over new cohorts and slides."""
    rng = np.random.default_rng(seed)
    hit = {"fraction": 0, "density": 0, "plain": 0}
    errors: dict[str, list[float]] = {"corrected": [], "rogan_gladen": [], "plain": []}
    for _ in range(times):
        model = counted(rng, patients, correlation).rates(draws, seed=1).atypical
        total = max(1, int(rng.poisson(n)))
        atypical = np.array([rng.binomial(total, fraction)])
        called = int(
            beta_binomial(rng, atypical, SENSITIVITY, correlation)[0]
            + beta_binomial(rng, total - atypical, FALSE_POSITIVES, correlation)[0]
        )
        known = true_fraction(called, total, model)
        share, plain = known.interval(), binomial_interval(called, total)
        density = joint_density(total, 1.0, known, draws=1000)
        hit["fraction"] += share.low <= fraction <= share.high  # type: ignore[operator]
        hit["density"] += density.low <= n * fraction <= density.high  # type: ignore[operator]
        hit["plain"] += plain.low <= fraction <= plain.high  # type: ignore[operator]
        errors["corrected"].append(share.value - fraction)  # type: ignore[operator]
        errors["rogan_gladen"].append(rogan_gladen(called, total, model) - fraction)
        errors["plain"].append(called / total - fraction)
    return (
        {name: count / times for name, count in hit.items()}
        | {f"bias_{name}": float(np.mean(e)) for name, e in errors.items()}
        | {f"rmse_{name}": float(np.sqrt(np.mean(np.square(e)))) for name, e in errors.items()}
    )


def test_intervals_hold_the_truth_where_plain_ones_miss_it() -> None:
    settings = [(20, 0.25), (200, 0.02), (500, 0.5)]
    found = [simulate(n, p, 0.1, 80, 40, draws=60, seed=i) for i, (n, p) in enumerate(settings)]
    for name in ("fraction", "density"):
        assert 0.92 <= np.mean([f[name] for f in found]) <= 0.99, name
        assert min(f[name] for f in found) >= 0.88, name
    assert np.mean([f["plain"] for f in found]) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [10, 30, 100, 500])
def test_coverage_over_realistic_settings(n: int, fraction: float) -> None:
    found = simulate(n, fraction, 0.1, 100, times=200, draws=150, seed=n)
    print(f"\nn {n} fraction {fraction}", end=" ")
    print(" ".join(f"{name}={value:.3f}" for name, value in found.items()))
    # 200 times: the standard error of a coverage of 95 % is 1.5 %.
    assert 0.9 <= found["fraction"] <= 1
    assert 0.9 <= found["density"] <= 1
