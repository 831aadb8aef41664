"""The leak that is made on purpose: what it is, and that nothing makes it unasked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atypia import pipeline
from atypia.classifiers.bundle import read_header
from atypia.core.config import LEAK, load_any_config, load_config
from atypia.core.errors import LeakError
from atypia.core.files import read_json
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.patient_names import public_case, spellings, veiled_cases
from atypia.data.splits import Splits, leaking, make_splits, with_true_patients

pytestmark = pytest.mark.usefixtures("undrawn")

LABEL = "label_expert1"


def cohort(n: int = 200) -> Cohort:
    rng = np.random.default_rng(0)
    labels = np.array(SUBTYPES)[np.concatenate([np.arange(8), rng.integers(8, size=n - 8)])]
    manifest = pd.DataFrame({"patch_id": [f"f{i:03d}" for i in range(n)], LABEL: labels})
    manifest.loc[20:24, LABEL] = ""
    return Cohort(
        Path(), "made up", manifest.assign(patient_id=[f"P{i // 20}" for i in range(n)]), {}, "s"
    )


def splits_of(manifest: pd.DataFrame, **options: int) -> Splits:
    return make_splits(
        manifest, "s", kind=LEAK, label=LABEL, seed=0, repeats=3, inner_folds=2, **options
    )


def test_figures_of_one_patient_stand_on_both_sides_in_the_shares_asked_for() -> None:
    whole = cohort()
    manifest = leaking(whole).manifest
    splits = splits_of(manifest)
    assert len(splits.outer) == 3
    owners = dict(zip(manifest["patch_id"], whole.manifest["patient_id"], strict=True))
    for outer in splits.outer:
        assert sorted([*outer.test, *outer.training]) == sorted(manifest["patch_id"])
        assert {owners[f] for f in outer.test} & {owners[f] for f in outer.training}
        tested = manifest[manifest["patch_id"].isin(outer.test)]
        for label, n in manifest[LABEL].value_counts().items():
            assert abs((tested[LABEL] == label).sum() - 0.2 * n) <= 1
    assert len({outer.test for outer in splits.outer}) == 3
    assert splits_of(manifest.sample(frac=1, random_state=1)) == splits


def test_patients_get_their_figures_back() -> None:
    whole = cohort()
    pd.testing.assert_frame_equal(
        with_true_patients(leaking(whole).manifest)[whole.manifest.columns], whole.manifest
    )
    assert with_true_patients(whole.manifest) is whole.manifest


def test_it_is_said_loudly_and_never_made_unasked(caplog: pytest.LogCaptureFixture) -> None:
    leaking(cohort())
    assert "WRONG" in caplog.text
    with pytest.raises(LeakError, match="Use monte_carlo"):
        splits_of(cohort().manifest)


def test_no_other_kind_of_run_makes_it(cohort_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    config = load_any_config("rules", [f"split.kind={LEAK}"])
    with pytest.raises(LeakError, match="expected the training of a network"):
        pipeline.train(cohort_folder, tmp_path / "run", config)


def test_a_run_tells_of_it_and_scores_by_patient(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    settings = [f"split.kind={LEAK}", "split.repeats=2", "optim.epochs=1"]
    out = tmp_path / "run"
    metrics = pipeline.train(cohort_folder, out, load_config("quick", [*tiny, *settings]))
    assert metrics is not None
    manifest = Cohort.open(cohort_folder).manifest
    owner = dict(zip(manifest["patch_id"], manifest["patient_id"], strict=True))
    for name in ("predictions-test.csv", "outer-1/predictions-oof.csv"):
        table = pd.read_csv(out / name)
        assert table["patient_id"].tolist() == [owner[patch] for patch in table["patch_id"]]
    assert metrics["n_patients"] <= len(set(owner.values()))
    assert "THIS SPLIT LEAKS ON PURPOSE" in (out / "report.html").read_text("utf-8")
    outer = read_json(out / "splits.json")["outer"][1]
    learned = sorted({owner[figure] for fold in outer["inner"] for figure in fold})
    assert read_header(out / "outer-1" / "model").provenance["patients"] == veiled_cases(learned)
    with pytest.raises(LeakError, match="expected no patient in both what was learned from"):
        pipeline.evaluate(
            out / "predictions-test.csv", tmp_path / "e", resamples=100, trained_on=out
        )
    own = Splits.read(out / "splits.json", manifest, Cohort.open(cohort_folder).sha256)
    assert own.kind == LEAK


def test_a_case_is_found_in_a_path_and_a_number_whatever_pandas_made_of_it() -> None:
    assert public_case(r"C:\MIDOG21\MIDOG21_002.tiff") == public_case("MIDOG_002") == "MIDOG 2"
    assert spellings(["1.0", "1", "10"]) == [["1.0", "1"]]
