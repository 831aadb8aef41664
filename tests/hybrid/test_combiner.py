"""The small classifier: scikit-learn's answers, its file, and that folds are not looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.classifiers.combined import FEATURES, GROUPS, Combiner, feature_table
from atypia.classifiers.rules.shape_features import ShapeFeatures, measure_field
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES
from atypia.training.combiner_fit import STRENGTHS, USES, choose, cross_fitted, fit_combiner
from tests.drawn_figures import FIGURES
from tests.hybrid.made_up import folds, opinion, reference, truth

pytestmark = pytest.mark.usefixtures("undrawn")

ALL = USES[-1]


def table(n: int = 600, *, useful: bool = True, skill: float = 2.0) -> np.ndarray:
    """Features of which the network's know the truth, and the measures too where `useful`."""
    y, rng = truth(n), np.random.default_rng(5)
    made = rng.normal(size=(n, len(FEATURES)))
    made[:, :8] = np.log(opinion(y, skill))
    if useful:
        made[:, 16:24] += 1.5 * np.eye(8)[y]
    return made


def test_it_is_scikit_learns_logistic_regression_on_standardised_features() -> None:
    x, y = table(), truth()
    for strength in STRENGTHS:
        ours = fit_combiner(x, y, ALL, strength).predict_proba(x)
        np.testing.assert_allclose(ours, reference(strength).fit(x, y).predict_proba(x), atol=1e-6)
        np.testing.assert_allclose(ours.sum(axis=1), 1)


def test_what_is_missing_counts_as_the_mean_and_what_is_odd_does_not_decide() -> None:
    x, y = table(), truth()
    combiner = fit_combiner(x, y, ALL, 0.1)
    gone, mean = x[:1].copy(), x[:1].copy()
    gone[0, 20], mean[0, 20] = np.nan, combiner.mean[20]
    np.testing.assert_allclose(combiner.predict_proba(gone), combiner.predict_proba(mean))
    far, farther = x[:1].copy(), x[:1].copy()
    far[0, 20], farther[0, 20] = 1e3, 1e9
    np.testing.assert_allclose(combiner.predict_proba(far), combiner.predict_proba(farther))


def test_a_subtype_that_was_never_seen_is_as_rare_as_half_a_figure() -> None:
    x, y = table(), truth()
    for kept in (y < 6, y < 2):  # several classes, and two, which scikit-learn writes as one
        p = fit_combiner(x[kept], y[kept], ALL, 0.1).predict_proba(x)
        unseen = np.setdiff1d(np.arange(N_SUBTYPES), y[kept])
        assert (p[:, unseen] > 0).all()
        assert p[kept][:, unseen].mean() < 0.02
        seen = np.unique(y[kept])
        theirs = reference(0.1).fit(x[kept], y[kept]).predict_proba(x[kept])
        ours = p[kept][:, seen]
        np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), theirs, atol=1e-6)


def test_features_are_the_networks_and_the_rules() -> None:
    reading = measure_field(FIGURES["ring"][0]().field())
    p = np.stack([np.eye(8)[2], np.full(8, 0.125)])
    made = feature_table(p, [reading, ShapeFeatures(np.zeros(8))])
    assert made.shape == (2, len(FEATURES))
    np.testing.assert_allclose(made[0, :8], np.log(np.maximum(p[0], 1e-6)))
    np.testing.assert_allclose(made[0, 8:16], np.log(reading.truths))
    assert made[0, FEATURES.index("hole_um2")] == reading.measures["hole_um2"]
    np.testing.assert_allclose(made[1, :8], np.log(0.125))
    assert np.isnan(made[1, 8:]).all()
    assert [len(GROUPS[g]) for g in ("network", "truths")] == [8, 8]


def test_useless_findings_are_left_out_and_useful_ones_taken() -> None:
    y, f = truth(), folds()
    assert choose(table(useful=True), y, f)[0].uses == ALL
    assert choose(table(useful=False), y, f)[0].uses == ("network",)
    every = choose(table(), y, f)
    assert len(every) == len(USES) * len(STRENGTHS)
    assert [c.log_loss for c in every] == sorted(c.log_loss for c in every)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 3), st.integers(0, 99))
def test_a_folds_answers_do_not_depend_on_its_labels(fold: int, seed: int) -> None:
    x, y, f = table(240), truth(240), folds(240)
    other = y.copy()
    mine = f == fold
    other[mine] = np.random.default_rng(seed).integers(0, 8, mine.sum())
    one, two = cross_fitted(x, y, f), cross_fitted(x, other, f)
    np.testing.assert_array_equal(one[mine], two[mine])
    assert (one[~mine] != two[~mine]).any()


def test_rows_without_a_label_are_answered_and_teach_nothing() -> None:
    x, y, f = table(240), truth(240), folds(240)
    unknown = np.arange(240) % 7 == 0
    y = np.where(unknown, -1, y)
    p = cross_fitted(x, y, f)
    assert np.isfinite(p).all()
    odd = x.copy()
    first = np.flatnonzero(unknown)[0]
    odd[first] += 3
    changed = cross_fitted(odd, y, f)
    np.testing.assert_array_equal(np.delete(changed, first, 0), np.delete(p, first, 0))


def test_its_file_gives_it_back_and_faults_are_told() -> None:
    combiner = fit_combiner(table(), truth(), ("network",), 0.1)
    entry = combiner.to_json()
    again = Combiner.from_json(entry, "model.json")
    np.testing.assert_array_equal(again.predict_proba(table()), combiner.predict_proba(table()))
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "kind": ({"kind": "tree"}, "kind 'logistic'"),
        "name": ({"features": ["log_p_other"]}, "features out of"),
        "shape": ({"scale": [1.0]}, "arrays of shapes"),
        "words": ({"mean": ["a"] * 8}, "numbers in"),
        "nan": ({"intercept": [float("nan")] * 8}, "finite arrays"),
        "zero": ({"scale": [0.0] * 8}, "finite arrays"),
    }
    for change, what in faults.values():
        with pytest.raises(InputError, match=f"model.json: combiner: expected .*{what}"):
            Combiner.from_json(entry | change, "model.json")
