"""Which patients a member learns from, and who answers for a patient out of fold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from atypia import pipeline
from atypia.classifiers.ensemble import load_network, predict_network
from atypia.core.config import TrainConfig, load_config
from atypia.core.labels import N_SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.splits import Outer, Splits
from atypia.evaluation.predictions import read_predictions
from atypia.models.network import make_network
from atypia.training.member_tasks import make_bags
from atypia.training.patch_store import open_store

pytestmark = pytest.mark.usefixtures("undrawn")

PATIENTS = [f"P{i:02d}" for i in range(40)]
OUTER = Outer(test=("T",), inner=(tuple(PATIENTS[:20]), tuple(PATIENTS[20:])))
# The ring shapes of each fold are of one patient: a draw that misses it is drawn anew.
MANIFEST = pd.DataFrame({"patient_id": [*PATIENTS, "T"]})
LABELS = np.array([7 if i in (3, 27) else i % 7 for i in range(41)], dtype=np.int64)


def config(*settings: str) -> TrainConfig:
    return load_config("released", ["ensemble.members=2", *settings])


def bags(*settings: str) -> list[Counter[str]]:
    return make_bags(MANIFEST, LABELS, OUTER, 0, config(*settings))


def test_without_bagging_a_member_has_all_patients_outside_its_fold_once() -> None:
    assert bags() == [Counter(OUTER.inner[1]), Counter(OUTER.inner[0])]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_bag_is_drawn_with_replacement_from_outside_the_fold(share: float) -> None:
    for seed in range(20):
        drawn = bags(f"ensemble.bagging={share}", f"seed={seed}")
        for bag, others in zip(drawn, (OUTER.inner[1], OUTER.inner[0]), strict=True):
            assert bag.total() == round(share * len(others))
            assert set(bag) <= set(others)
            places = [PATIENTS.index(p) for p in bag]
            if share == 1:  # half as many patients can hardly hold all eight
                assert set(LABELS[places]) == set(range(N_SUBTYPES))
        assert share < 1 or any(times > 1 for bag in drawn for times in bag.values())


def test_the_seed_decides_the_draw_and_members_differ() -> None:
    first = bags("ensemble.bagging=1")
    assert first == bags("ensemble.bagging=1")
    assert first != bags("ensemble.bagging=1", "seed=1")
    names = [sorted(int(p[1:]) % 20 for p in bag.elements()) for bag in first]
    assert names[0] != names[1]


@pytest.mark.parametrize("way", ["bagging", "few labels"])
def test_whoever_has_not_learned_from_a_patient_answers(
    cohort_folder: Path, tiny: tuple[str, ...], tmp_path: Path, way: str
) -> None:
    """Out of fold: the mean of these members and of no other, asked one by one.

    A patient whose labels are hidden has a fold as well, and is answered by its member alone.
    """
    more = {"bagging": "ensemble.bagging=1", "few labels": "target.labelled_patients=0.5"}
    settings = load_config("quick", [*tiny, "ensemble.members=3", more[way]])
    run = tmp_path / "run"
    pipeline.train(cohort_folder, run, settings)

    cohort = Cohort.open(cohort_folder)
    outer = Splits.read(run / "splits.json", cohort.manifest, cohort.sha256).outer[0]
    patients = cohort.manifest["patient_id"].to_numpy(dtype=str)
    learned = [np.isin(patients, outer.member(i)[0]) for i in range(3)]
    if way == "bagging":
        drawn = [pd.read_csv(run / f"fold-{i}" / "bag.csv")["patient_id"] for i in range(3)]
        learned = [np.isin(patients, bag) for bag in drawn]

    _, spec, _ = make_network(settings.model, settings.input, initial_weights=False)
    store = open_store(cohort, spec, settings.augment, tmp_path / "pixels.npy")
    answers = np.array(
        [
            predict_network(
                load_network(settings.model, spec, run / f"fold-{i}" / "member.safetensors"),
                store.pixels,
                store.mpp,
                spec,
                device=torch.device("cpu"),
                tta=False,
            )
            for i in range(3)
        ]
    )
    answers[np.array(learned)] = np.nan
    table = read_predictions(run / "predictions-oof.csv")
    row = {patch: i for i, patch in enumerate(cohort.manifest["patch_id"])}
    expected = np.nanmean(answers, axis=0)[[row[patch] for patch in table.patch_ids]]
    np.testing.assert_allclose(table.probabilities, expected, atol=1e-5)
    asked = (~np.isnan(answers[:, :, 0])).sum(axis=0)[[row[p] for p in table.patch_ids]]
    assert set(asked) == ({1} if way == "few labels" else {1, 2, 3})
