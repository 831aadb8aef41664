"""Refit on a site's figures: nothing from few, the site's own from many, weights counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from atypia.biomarker.error_model import ErrorModel
from atypia.classifiers.calibration import Calibration, apply_temperature
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, OperatingPoint, p_atypical
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.errors import InputError
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.training.site_adaptation import LocalFigures, adapt_postprocessing

PRIOR = np.array([0.02, 0.02, 0.04, 0.07, 0.07, 0.36, 0.40, 0.02])
SHIPPED = Postprocessing(
    Decision(prior=PRIOR.tolist(), power=0.25),
    threshold=0.15,
    calibration=Calibration(0.8),
    points={
        name: OperatingPoint(threshold=threshold)
        for name, threshold in (("balanced", 0.15), ("sensitive", 0.06), ("specific", 0.4))
    },
)


def drawn_figures(n: int, seed: int = 0, sharpness: float = 3) -> LocalFigures:
    """Figures with calibrated probabilities: labels are drawn from them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(8, n, p=PRIOR)
    logits = rng.normal(0, np.sqrt(sharpness), (n, 8))
    logits[np.arange(n), truth] += sharpness  # of Gaussians this far apart, Bayes' rule is exact
    weighed = PRIOR * np.exp(logits)
    return figures_of(weighed / weighed.sum(axis=1, keepdims=True), truth)


def figures_of(
    probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> LocalFigures:
    labels = {"label_expert1": np.array(SUBTYPES)[truth]}
    return local_figures(probabilities, labels, np.ones(len(truth)) if weights is None else weights)


def local_figures(
    probabilities: np.ndarray, labels: dict[str, object], weights: np.ndarray
) -> LocalFigures:
    n = len(probabilities)
    table = pd.DataFrame(probabilities, columns=list(PROBABILITY_COLUMNS)).assign(
        patch_id=[str(i) for i in range(n)],
        patient_id=[f"P{i % max(n // 10, 1)}" for i in range(n)],
        **labels,
    )
    return LocalFigures.of(table, "expert1", weights)


def test_calibrated_figures_leave_the_model_as_it_was() -> None:
    adapted, parts = adapt_postprocessing(SHIPPED, drawn_figures(20_000))
    assert adapted.calibration.temperature == pytest.approx(0.8, rel=0.02)
    assert adapted.threshold == pytest.approx(0.15, abs=0.01)
    assert [part.name for part in parts] == [
        "temperature",
        "threshold balanced",
        "threshold sensitive",
        "threshold specific",
    ]


@pytest.mark.parametrize("n", [1, 19])
def test_few_figures_change_nothing_and_it_is_explained(n: int) -> None:
    adapted, parts = adapt_postprocessing(SHIPPED, drawn_figures(n))
    assert adapted == SHIPPED
    assert all(f"{n} labelled figures" in part.kept for part in parts)


def test_without_atypical_figures_no_threshold_moves() -> None:
    every = drawn_figures(2000)
    normal = ~every.is_atypical
    local = figures_of(every.predictions.probabilities[normal], every.subtypes[normal])
    adapted, parts = adapt_postprocessing(SHIPPED, local)
    assert "0 atypical" in parts[1].kept
    if adapted.calibration == SHIPPED.calibration:
        assert adapted.points == SHIPPED.points


def test_many_figures_undo_what_the_site_does_to_the_answers() -> None:
    plain = drawn_figures(20_000)
    shifted = plain.predictions.probabilities.copy()
    shifted[:, :4] *= np.exp(0.5)  # every figure looks more atypical there
    shifted /= shifted.sum(axis=1, keepdims=True)
    local = figures_of(shifted, plain.subtypes)
    adapted, _ = adapt_postprocessing(SHIPPED, local)
    factor = adapted.calibration.temperature / 0.8
    seen = p_atypical(apply_temperature(shifted, factor))
    called = p_atypical(plain.predictions.probabilities) >= 0.15
    assert np.mean((seen >= adapted.threshold) == called) > 0.985
    point = adapted.points["balanced"]
    assert point.threshold == adapted.threshold
    assert point.sensitivity is not None
    assert point.sensitivity.value == pytest.approx(called[plain.is_atypical].mean(), abs=0.03)
    thresholds = [adapted.points[n].threshold for n in ("sensitive", "balanced", "specific")]
    assert thresholds == sorted(thresholds)


def test_sets_go_from_the_shipped_level_to_that_of_the_site() -> None:
    sets = ConformalSets(0.1, (0.9,) * 8, (50,) * 8)
    shipped = replace(SHIPPED, conformal=sets)
    plain = drawn_figures(20_000)
    p, labels = plain.predictions.probabilities, plain.subtypes
    adapted, _ = adapt_postprocessing(replace(shipped, calibration=Calibration(1.0)), plain)
    assert adapted.conformal is not None
    for c, quantile in enumerate(adapted.conformal.quantiles):
        covered = np.mean(1 - p[labels == c, c] <= quantile)
        assert covered == pytest.approx(0.9, abs=0.03)
    few, _ = adapt_postprocessing(shipped, drawn_figures(19))
    assert few.conformal is not None
    assert few.conformal.quantiles == pytest.approx(sets.quantiles)


def test_weights_count_in_every_part() -> None:
    plain = drawn_figures(4000)
    p, labels = plain.predictions.probabilities.copy(), plain.subtypes
    p[:, :4] *= np.exp(0.5)
    p /= p.sum(axis=1, keepdims=True)
    twice = np.arange(4000) < 1000
    weighted, _ = adapt_postprocessing(SHIPPED, figures_of(p, labels, np.where(twice, 2.0, 1.0)))
    rows = np.concatenate([np.arange(4000), np.flatnonzero(twice)])
    repeated, _ = adapt_postprocessing(SHIPPED, figures_of(p[rows], labels[rows]))
    assert weighted.threshold == pytest.approx(repeated.threshold, rel=0.01)
    assert weighted.calibration.temperature == pytest.approx(
        repeated.calibration.temperature, rel=0.01
    )


def test_local_errors_are_drawn_from_the_shipped_ones() -> None:
    plain = drawn_figures(4000)
    elsewhere = ErrorModel.fit(plain.predictions, "expert1")
    shipped = replace(SHIPPED, errors=elsewhere.to_json())
    p, labels = plain.predictions.probabilities.copy(), plain.subtypes
    p[:, :4] *= np.exp(1.0)  # normal figures are called atypical more often there
    p /= p.sum(axis=1, keepdims=True)
    biases = []
    for rows in (slice(0, 100), slice(0, 4000)):
        adapted, _ = adapt_postprocessing(shipped, figures_of(p[rows], labels[rows]))
        assert adapted.errors is not None
        fitted = ErrorModel.from_json(adapted.errors).chosen
        biases.append(fitted.biases[:4].mean() - fitted.biases[4:].mean())
        truth = p_atypical(plain.predictions.probabilities).mean()
        factor = adapted.calibration.temperature / 0.8
        scores = fitted.scores(apply_temperature(p, factor).astype(np.float64))
        found = softmax(scores, axis=1)[:, :4].sum(axis=1).mean()
        assert found == pytest.approx(truth, abs=0.05 if rows.stop == 100 else 0.01)
    assert biases[1] == pytest.approx(-1, abs=0.1)
    assert -1.3 < biases[0] < -0.3
    few, _ = adapt_postprocessing(shipped, drawn_figures(19))
    assert few.errors == shipped.errors


def test_many_figures_find_the_temperature() -> None:
    plain = drawn_figures(5000)
    boastful = apply_temperature(plain.predictions.probabilities, 0.7).astype(np.float64)
    adapted, _ = adapt_postprocessing(SHIPPED, figures_of(boastful, plain.subtypes))
    assert adapted.calibration.temperature == pytest.approx(0.8 / 0.7, rel=0.05)


def test_votes_alone_move_the_threshold_and_no_temperature() -> None:
    plain = drawn_figures(3000)
    probabilities = plain.predictions.probabilities.copy()
    probabilities[:, :4] *= np.exp(-0.8)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    votes = {"atypical_expert1": plain.is_atypical.astype(str)}
    local = local_figures(probabilities, votes, np.ones(3000))
    adapted, parts = adapt_postprocessing(SHIPPED, local)
    assert adapted.calibration == SHIPPED.calibration
    assert "no subtypes" in parts[0].kept
    assert adapted.threshold < 0.12


def test_a_labelled_figure_needs_its_weight() -> None:
    plain = drawn_figures(30)
    labels = [SUBTYPES[i] if i != plain.subtypes[3] else "" for i in plain.subtypes]
    weights = np.where(np.array(labels) == "", np.nan, 2.0)
    local = local_figures(plain.predictions.probabilities, {"label_expert1": labels}, weights)
    assert set(local.weights) == {2.0}
    weights[np.flatnonzero(~np.isnan(weights))[0]] = np.nan
    with pytest.raises(InputError, match="1 of"):
        local_figures(plain.predictions.probabilities, {"label_expert1": labels}, weights)


def test_what_the_model_does_not_answer_is_left_out_and_counted() -> None:
    plain = drawn_figures(30)
    labels = {
        "label_expert1": np.array(SUBTYPES)[plain.subtypes],
        "status": ["answered"] * 28 + ["no_tissue", "poor_image"],
        "predicted_subtype": ["nmf_metaphase"] * 28 + ["", ""],
        "predicted_atypical": ["False"] * 28 + ["", ""],
    }
    local = local_figures(plain.predictions.probabilities, labels, np.ones(30))
    assert len(local.predictions) == 28
    assert local.left_out == {"no_tissue": 1, "poor_image": 1}
