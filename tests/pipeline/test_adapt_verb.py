"""``atypia adapt``: from a model and a site's labelled cohort to a bundle of the same networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from untrained import untrained_ensemble

from atypia import pipeline
from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.bundle import PATIENTS, find_bundle, parts_of, read_any_header, read_card
from atypia.classifiers.combined import save_stack
from atypia.classifiers.loading import load_ensemble
from atypia.core.errors import InputError
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.data.synthetic import make_synthetic_cohort


def quiet(_: int) -> None:
    return


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt") / "untrained"
    replace(untrained_ensemble(), provenance={PATIENTS: ["someone else"]}).save(folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt") / "site"
    make_synthetic_cohort(folder, patients=12, patches=60, seed=2, size_px=80)
    return folder


def adapt(model: Path | str, cohort: Path, out: Path, **options: object) -> dict[str, object]:
    return pipeline.adapt(model, cohort, out, on_start=quiet, on_done=quiet, **options)  # type: ignore[arg-type]


def test_a_bundle_of_the_same_networks_and_what_was_refitted(
    bundle: Path, site: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = adapt(bundle, site, out)
    header = read_any_header(out)
    assert header.provenance["adapted"] == record
    assert record["figures"] == 60
    before, after = load_ensemble(bundle), load_ensemble(out)
    patches = [read_patch(p) for p in Cohort.open(site).image_paths()[:4]]
    raw = [
        np.log(model.predict_proba(np.stack(patches), 0.25).astype(np.float64))
        * model.postprocessing.calibration.temperature
        for model in (before, after)
    ]
    raw = [logits - logits.mean(axis=1, keepdims=True) for logits in raw]
    np.testing.assert_allclose(raw[0], raw[1], atol=1e-3)
    assert "Adapted to" in (read_card(out) or "")
    assert (bundle / "model.json").read_bytes() != (out / "model.json").read_bytes()


def test_the_rules_and_votes(site: Path, tmp_path: Path) -> None:
    record = adapt("rules", site, tmp_path / "out", label="majority_atypical")
    model = load_ensemble(tmp_path / "out")
    kept = load_ensemble("rules").postprocessing.calibration
    assert model.postprocessing.calibration == kept
    assert record["label"] == "majority_atypical"
    assert find_bundle("rules").is_dir()


def test_a_stack_keeps_its_models(bundle: Path, site: Path, tmp_path: Path) -> None:
    models = [bundle, find_bundle("rules")]
    shipped = load_ensemble("rules").postprocessing
    about = {PATIENTS: ["someone else"]}
    save_stack(tmp_path / "stack", models, Aggregation(), shipped, about)
    adapt(tmp_path / "stack", site, tmp_path / "out")
    assert [path.name for path in parts_of(tmp_path / "out")] == ["model-0", "model-1"]
    patches = np.stack([read_patch(p) for p in Cohort.open(site).image_paths()[:2]])
    sums = load_ensemble(tmp_path / "out").predict_proba(patches, 0.25).sum(axis=1)
    assert sums == pytest.approx([1, 1], abs=1e-5)


def test_weights_are_of_the_plan(bundle: Path, site: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    ids = Cohort.open(site).manifest["patch_id"]
    plan.write_text("patch_id,weight\n" + "".join(f"{name},-1\n" for name in ids))
    with pytest.raises(InputError, match="weight above 0"):
        adapt(bundle, site, tmp_path / "out", sampled=plan)
    plan.write_text("patch_id,weight\n" + "".join(f"{name},2\n" for name in ids[1:]))
    with pytest.raises(InputError, match="1 of 60"):
        adapt(bundle, site, tmp_path / "out", sampled=plan)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(bundle: Path, site: Path) -> None:
    with pytest.raises(InputError, match="already exists"):
        adapt(bundle, site, bundle)


def test_the_plan_names_figures_with_weights(bundle: Path, site: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    found = pipeline.adapt_plan(bundle, site, out, 25, on_start=quiet, on_done=quiet)
    assert list(found) == [25, 50]
    plan = pd.read_csv(out)
    ids = Cohort.open(site).manifest["patch_id"]
    assert len(plan) == 25
    assert set(plan["patch_id"]) <= set(ids)
    assert plan["weight"].sum() == pytest.approx(60, rel=0.3)


def test_a_plan_without_figures_is_of_the_usual_site(tmp_path: Path) -> None:
    found = pipeline.adapt_plan("released", None, on_start=quiet, on_done=quiet)
    assert list(found) == [50, 100, 200, 400]
    with pytest.raises(InputError, match="to choose figures from"):
        pipeline.adapt_plan("rules", None, tmp_path / "p.csv", on_start=quiet, on_done=quiet)
