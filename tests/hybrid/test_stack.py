"""Several models joined: scikit-learn's stacking, AUCMEDI's aggregates, folds, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.calibration import Calibration
from atypia.classifiers.combined import (
    StackClassifier,
    aggregate,
    groups_of,
    save_stack,
)
from atypia.classifiers.decision import Decision
from atypia.classifiers.installation import examine_model
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.postprocessing import Postprocessing
from atypia.classifiers.rules.rules_classifier import RulesClassifier
from atypia.core.errors import InputError
from atypia.server.shared_model import load_described
from atypia.training.combiner_fit import fit_combiner
from atypia.training.stack_fitter import cross_validated, fit_meta
from tests.hybrid.made_up import folds, opinion, reference, truth
from tests.untrained import untrained_ensemble

pytestmark = pytest.mark.usefixtures("undrawn")

KINDS = ("logistic", "mean", "weighted", "median", "majority")


class Remembered(ClassifierMixin, BaseEstimator):
    """A model that gives the opinions which it was made with: column `part` of X onwards."""

    def __init__(self, part: int = 0) -> None:
        self.part = part

    def fit(self, _: np.ndarray, y: np.ndarray) -> Remembered:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x[:, 8 * self.part : 8 * self.part + 8]


def opinions(n: int = 600) -> np.ndarray:
    y = truth(n)
    return np.stack([opinion(y, 2.0, 1), opinion(y, 1.0, 2), opinion(y, 2.5, 3, sharpness=4)])


def test_it_is_scikit_learns_stacking() -> None:
    """On logarithms of probabilities, which are what a softmax is linear in."""
    y, said = truth(), opinions()
    x = np.concatenate(list(said), axis=1)
    for strength in (0.01, 1.0):
        logarithms = FunctionTransformer(lambda p: np.log(np.maximum(p, 1e-6)))
        final = make_pipeline(logarithms, reference(strength))
        models = [(str(i), Remembered(i).fit(x, y)) for i in range(3)]
        theirs = StackingClassifier(models, final, cv="prefit").fit(x, y).predict_proba(x)
        groups = groups_of(3)
        meta = fit_combiner(np.log(np.maximum(x, 1e-6)), y, tuple(groups), strength, groups)
        np.testing.assert_allclose(aggregate(meta, said), theirs, atol=1e-6)


def test_means_weights_and_medians_are_numpys() -> None:
    y, said, f = truth(), opinions(), folds()
    np.testing.assert_allclose(aggregate(fit_meta("mean", said, y, f)[0], said), said.mean(axis=0))
    median = np.median(said, axis=0)
    np.testing.assert_allclose(
        aggregate(fit_meta("median", said, y, f)[0], said),
        median / median.sum(axis=1, keepdims=True),
    )
    votes = np.eye(8)[said.argmax(axis=2)].sum(axis=0)
    majority = aggregate(fit_meta("majority", said, y, f)[0], said)
    np.testing.assert_allclose(majority, (votes + said.mean(axis=0)) / 4)
    weighted, _ = fit_meta("weighted", said, y, f)
    assert isinstance(weighted, Aggregation)
    weights = [roc_auc_score(y, p, multi_class="ovr", average="macro") for p in said]
    np.testing.assert_allclose(weighted.weights, weights)
    np.testing.assert_allclose(
        aggregate(weighted, said), np.average(said, axis=0, weights=weights), atol=1e-12
    )


def test_a_meta_learner_mends_what_a_mean_cannot() -> None:
    """One model is good but far too sure, one knows nothing."""
    y, f = truth(1200), folds(1200)
    said = np.stack([opinion(y, 2.0, 1, sharpness=4), opinion(y, 0.0, 2)])

    def loss(p: np.ndarray) -> float:
        return float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean())

    losses = {kind: loss(cross_validated(kind, said, y, f)) for kind in KINDS}  # type: ignore[arg-type]
    assert losses["logistic"] < min(loss(p) for p in said) - 0.1
    assert losses["logistic"] < losses["mean"] - 0.1
    _, choices = fit_meta("logistic", said, y, f)
    assert [c.log_loss for c in choices] == sorted(c.log_loss for c in choices)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 99))
def test_a_folds_answers_do_not_depend_on_its_labels(kind: str, fold: int, seed: int) -> None:
    y, said, f = truth(240), opinions(240), folds(240)
    mine = f == fold
    other = y.copy()
    other[mine] = np.random.default_rng(seed).permutation(other[mine])
    one, two = (cross_validated(kind, said, labels, f) for labels in (y, other))  # type: ignore[arg-type]
    np.testing.assert_array_equal(one[mine], two[mine])
    np.testing.assert_allclose(one.sum(axis=1), 1)


def test_rows_without_a_label_are_answered() -> None:
    y, said, f = truth(240), opinions(240), folds(240)
    y = np.where(np.arange(240) % 5 == 0, -1, y)
    for kind in KINDS:
        p = cross_validated(kind, said, y, f)  # type: ignore[arg-type]
        np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_of_models_of_any_kind_answers_the_same(kind: str, tmp_path: Path) -> None:
    network, rules = untrained_ensemble(), RulesClassifier()
    network.save(tmp_path / "network")
    rules.save(tmp_path / "rules")
    meta, _ = fit_meta(kind, opinions()[:2], truth(), folds())  # type: ignore[arg-type]
    answers = Postprocessing(Decision(prior=[1 / 8] * 8, power=0.25), 0.2, Calibration(1.3))
    sources = [tmp_path / "network", tmp_path / "rules"]
    save_stack(tmp_path / "stack", sources, meta, answers, {"cohort": "made up"})
    patches = np.random.default_rng(0).integers(0, 255, (5, 128, 128, 3), np.uint8)
    expected = StackClassifier([network, rules], meta, answers).predict_proba(patches, 0.25)
    loaded = load_ensemble(tmp_path / "stack")
    assert isinstance(loaded, StackClassifier)
    np.testing.assert_allclose(loaded.predict_proba(patches, 0.25), expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    said = np.stack([m.predict_proba(patches, 0.25) for m in (network, rules)]).astype(float)
    np.testing.assert_allclose(
        expected, answers.calibration.apply(aggregate(meta, said)), atol=1e-6
    )
    assert loaded.postprocessing == answers
    assert loaded.provenance == {"cohort": "made up"}
    assert loaded.field_of_view_um == 24
    assert loaded.size_problem(96, 0.25) is None
    assert loaded.size_problem(20, 0.25)


def test_doctor_and_server_tell_what_a_stack_is_made_of(tmp_path: Path) -> None:
    for name in ("a", "b"):
        RulesClassifier(provenance={"cohort": name}).save(tmp_path / name)
    save_stack(
        tmp_path / "s",
        [tmp_path / "a", tmp_path / "b"],
        Aggregation(),
        Postprocessing(),
        {"label": "x"},
    )
    told = examine_model(tmp_path / "s").findings
    assert ("kind", "stack") in told
    assert ("label", "x") in told
    assert ("model-1: kind", "rules") in told
    assert ("model-1: cohort", "b") in told
    loaded, about = load_described(tmp_path / "s", "best", "auto", "cpu")
    assert isinstance(loaded, StackClassifier)
    assert about.backend == "stack"
    assert set(about.files) == {"model.json", "model-0/model.json", "model-1/model.json"}


def test_a_stack_of_other_models_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        RulesClassifier(provenance={"name": name}).save(tmp_path / name)
    save_stack(
        tmp_path / "s", [tmp_path / "a", tmp_path / "b"], Aggregation(), Postprocessing(), {}
    )
    load_ensemble(tmp_path / "s")
    with pytest.raises(InputError, match="--quality"):
        load_ensemble(tmp_path / "s", "fast")
    for name in ("model-0", "model-1"):
        file = tmp_path / "s" / name / "model.json"
        file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError) as caught:
        load_ensemble(tmp_path / "s")
    assert len(caught.value.problems) == 2
