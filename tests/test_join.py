"""Joins: known answers, AUCMEDI's, and what must hold for any members."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.ensemble import Ensemble
from atypia.classifiers.onnx_export import join as join_tensors
from atypia.core.config import load_any_config, load_config
from atypia.core.errors import InputError
from atypia.core.files import stamped
from atypia.training.combiner_fit import fit_aggregation
from tests.untrained import untrained_ensemble

KINDS = ("mean", "weighted", "median", "majority")


def made(kind: str, n_members: int) -> Aggregation:
    weights = tuple(range(1, n_members + 1)) if kind == "weighted" else None
    return Aggregation(kind=kind, weights=weights)


@st.composite
def answers(draw: st.DrawFn) -> np.ndarray:
    """(K, N, 8); some members of one mind, some so sure that the others have probability 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_members, n = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    values = rng.dirichlet(np.full(8, draw(st.sampled_from([0.05, 1.0, 10.0]))), (n_members, n))
    sure = rng.random((n_members, n)) < draw(st.sampled_from([0, 0.5]))
    values[sure] = np.eye(8)[rng.integers(0, 8, sure.sum())]
    return values


def four(*rows: tuple[float, float, float]) -> np.ndarray:
    """(K, 1, 8) from the probabilities of three subtypes of each member."""
    return np.array([[*row, 0, 0, 0, 0, 0] for row in rows])[:, None]


def test_known_answers() -> None:
    members = four((0.6, 0.3, 0.1), (0.0, 0.9, 0.1), (0.6, 0.1, 0.3))
    expected = {
        "mean": [0.4, 1.3 / 3, 0.5 / 3],
        "weighted": [2.4 / 6, 2.4 / 6, 1.2 / 6],
        "median": [0.6, 0.3, 0.1],
        "majority": [2.4 / 4, (1 + 1.3 / 3) / 4, 0.5 / 12],
    }
    for kind, row in expected.items():
        np.testing.assert_allclose(made(kind, 3)(members)[0, :3], row, atol=1e-12)


def test_the_majority_stands_against_a_surer_mean() -> None:
    members = four((0.51, 0.49, 0), (0.51, 0.49, 0), (0.0, 1.0, 0))
    assert made("mean", 3)(members).argmax() == 1
    assert made("majority", 3)(members).argmax() == 0


@settings(max_examples=60, deadline=None)
@given(answers())
def test_as_aucmedi_does_it(members: np.ndarray) -> None:
    """Its aggregate functions and weighted mean, written down from their definition."""
    n_members, n, _ = members.shape
    for i in range(n):
        of_one = members[:, i]
        votes = np.bincount(of_one.argmax(axis=1), minlength=8)
        joined = made("majority", n_members)(members)[i]
        assert votes[joined.argmax()] == votes.max()
        first, second = np.sort(votes)[::-1][:2]
        if first > second:  # else it takes the first class, and we the more probable one
            assert joined.argmax() == votes.argmax()
        median = np.median(of_one, axis=0)
        if median.any():
            np.testing.assert_allclose(
                made("median", n_members)(members)[i], median / median.sum(), atol=1e-9
            )
        weights = np.arange(1, n_members + 1)
        np.testing.assert_allclose(
            made("weighted", n_members)(members)[i],
            np.average(of_one, axis=0, weights=weights),
            atol=1e-9,
        )


@settings(max_examples=60, deadline=None)
@given(answers(), st.sampled_from(KINDS), st.integers(0, 100))
def test_whatever_the_members_say(members: np.ndarray, kind: str, seed: int) -> None:
    n_members, n, _ = members.shape
    how = made(kind, n_members)
    joined = how(members)
    assert (joined >= 0).all()
    np.testing.assert_allclose(joined.sum(axis=1), 1, atol=1e-9)
    # A row depends on its own answers alone, and equal members make no other answer than one.
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(how(members[:, order]), joined[order], atol=1e-12)
    if kind != "weighted":
        turned = members[np.random.default_rng(seed).permutation(n_members)]
        np.testing.assert_allclose(how(turned), joined, atol=1e-9)
    alike = np.repeat(members[:1], n_members, axis=0)
    assert (how(alike).argmax(axis=1) == members[0].argmax(axis=1)).all()
    # Votes come first; the mean only decides among equal numbers of them.
    if kind == "majority":
        votes = np.eye(8)[members.argmax(axis=2)].sum(axis=0)
        for row, count in zip(joined, votes, strict=True):
            assert (np.diff(count[np.argsort(-row, kind="stable")]) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(answers(), st.sampled_from(KINDS), st.integers(0, 100))
def test_who_has_no_say_is_not_heard(members: np.ndarray, kind: str, seed: int) -> None:
    n_members, n, _ = members.shape
    how = made(kind, n_members)
    silent = np.random.default_rng(seed).random((n_members, n)) < 0.5
    silent[0] &= ~silent.all(axis=0)  # somebody always speaks
    heard = np.where(silent[:, :, None], np.nan, members)
    joined = how(heard)
    for i in range(n):
        speaks = ~silent[:, i]
        weights = tuple(np.array(how.weights)[speaks]) if how.weights else None
        alone = Aggregation(kind=kind, weights=weights)(members[speaks, i : i + 1])
        np.testing.assert_allclose(joined[i], alone[0], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(answers(), st.sampled_from(KINDS))
def test_the_graph_joins_alike(members: np.ndarray, kind: str) -> None:
    how = made(kind, len(members))
    joined = join_tensors(torch.from_numpy(members.astype(np.float32)), how).numpy()
    np.testing.assert_allclose(joined, how(members.astype(np.float32)), atol=1e-6)


def test_what_makes_no_join_is_refused() -> None:
    for wrong in (
        {"kind": "weighted"},
        {"kind": "mean", "weights": (1.0, 2.0)},
        {"kind": "weighted", "weights": (1.0, 0.0)},
        {"kind": "weighted", "weights": (1.0, float("nan"))},
        {"kind": "loudest"},
    ):
        with pytest.raises(ValidationError):
            Aggregation.model_validate(wrong)
    with pytest.raises(ValueError, match="that counts"):
        Aggregation()(np.full((2, 3, 8), np.nan))
    with pytest.raises(ValueError, match=r"\(2, N, 8\)"):
        Aggregation(kind="weighted", weights=(1.0, 2.0))(np.full((3, 4, 8), 1 / 8))


def test_weights_are_the_auc_on_what_a_member_has_not_learned_from() -> None:
    labels = np.array([0, 1, 0, 1, 2, -1])
    said = np.full((2, 6, 8), np.nan)
    said[0, :2] = np.eye(8)[[0, 1]]  # right on both
    said[1, 2:] = np.eye(8)[[1, 0, 2, 2]]  # right on the third alone
    join = fit_aggregation("weighted", said.astype(np.float32), labels)
    np.testing.assert_allclose(join.weights, [1, (0.25 + 0.25 + 1) / 3])
    assert fit_aggregation("median", said.astype(np.float32), labels) == Aggregation(kind="median")


def test_votes_refuse_what_is_fixed_on_probabilities() -> None:
    with pytest.raises(InputError) as caught:
        load_config("released", ["ensemble.join=majority"])
    for needed in ("prior_power=0", "calibration=none", "conformal_alpha=null"):
        assert f"ensemble.{needed}" in str(caught.value)
    config = load_config("paper", ["ensemble.join=majority"])
    assert config.fixed_threshold == 0.5
    assert load_config("released", ["ensemble.join=median"]).fixed_threshold is None


def test_votes_of_models_refuse_the_same() -> None:
    with pytest.raises(InputError) as caught:
        load_any_config("stack", ["join=majority"])
    needed = ["answer.prior_power=0", "answer.calibration=none", "answer.conformal_alpha=null"]
    for setting in needed:
        assert setting in str(caught.value)
    assert load_any_config("stack", ["join=majority", *needed]).fixed_threshold == 0.5
    assert load_any_config("stack", ["join=median"]).fixed_threshold is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_keeps_its_join(kind: str, tmp_path: Path) -> None:
    one = untrained_ensemble()
    others = [untrained_ensemble().members[0] for _ in range(2)]
    for i, member in enumerate(others):
        torch.manual_seed(i)
        torch.nn.init.normal_(member.head.weight, std=5.0)
    members = [*one.members, *others]
    ensemble = Ensemble(members, one.spec, one.model, False, join=made(kind, 3))
    patches = np.random.default_rng(0).integers(0, 256, (5, 80, 80, 3), dtype=np.uint8)
    expected = ensemble.predict_proba(patches, 0.25)
    ensemble.save(tmp_path)
    again = Ensemble.load(tmp_path)
    assert again.join == made(kind, 3)
    np.testing.assert_array_equal(again.predict_proba(patches, 0.25), expected)
    plain = Ensemble(members, one.spec, one.model, False)
    assert (kind == "mean") == np.allclose(plain.predict_proba(patches, 0.25), expected)
    # A bundle of an earlier version names no join: it is the mean.
    tree = json.loads((tmp_path / "model.json").read_text())
    del tree["join"]
    (tmp_path / "model.json").write_text(json.dumps(stamped(tree)))
    assert Ensemble.load(tmp_path).join == Aggregation()


def test_weights_for_other_members_are_refused() -> None:
    one = untrained_ensemble()
    with pytest.raises(InputError, match="a weight for each of 1 members but got 2"):
        Ensemble(one.members, one.spec, one.model, False, join=made("weighted", 2))
