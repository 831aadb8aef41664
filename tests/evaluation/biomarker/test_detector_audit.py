"""The detector's errors, audited: known answers, faults of the file, the plan there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from atypia.biomarker import HotspotChoice, audit_plan, biomarkers, by_patient, read_audit
from atypia.biomarker.detector_audit import AuditedShare
from atypia.core.errors import InputError
from atypia.slides.tissue import Tissue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atypia.biomarker import SlideFigures

    Table = Callable[..., pd.DataFrame]
    ReadOne = Callable[[pd.DataFrame], SlideFigures]

PLACES = [(50.0 * i, 40.0 * (i % 7)) for i in range(30)] + [(9000.0, 90.0 * i) for i in range(10)]


@pytest.fixture
def source(table: Table, read_one: ReadOne) -> SlideFigures:
    return read_one(table(["nmf_ring"] * 40, PLACES))


def write(path: Path, rows: list[str], header: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_shares_of_one_patient_are_about_those_of_a_beta() -> None:
    share = AuditedShare.of([("P", 1, 1)] * 80 + [("P", 0, 1)] * 20)
    drawn = share.draws("P", np.random.default_rng(0))
    expected = stats.beta(80.5, 20.5).ppf([0.025, 0.5, 0.975])
    np.testing.assert_allclose(np.quantile(drawn, [0.025, 0.5, 0.975]), expected, atol=0.012)
    # Of a patient who was not looked at much less is known.
    other = share.draws("Q", np.random.default_rng(0))
    assert np.ptp(np.quantile(other, [0.025, 0.975])) > 0.4


def test_patients_are_clusters() -> None:
    """As many figures of patients who differ say less of the next one than of patients alike."""
    alike = AuditedShare.of([(f"P{i}", 8, 10) for i in range(10)])
    apart = AuditedShare.of([(f"P{i}", 10 if i < 8 else 0, 10) for i in range(10)])
    one, other = (
        np.quantile(share.draws("new", np.random.default_rng(0)), [0.025, 0.975])
        for share in (alike, apart)
    )
    assert np.ptp(one) < 0.45
    assert np.ptp(other) > 0.8
    own = apart.draws("P9", np.random.default_rng(0))
    assert own.mean() < 0.2


def test_density_is_count_times_precision_over_recall(source: SlideFigures, tmp_path: Path) -> None:
    rows = [f"case 1.svs,random,case 1.svs/{i},{i % 5 != 0},," for i in range(40)]
    rows += ["case 1.svs,field,,,100,30"]
    header = "slide,sample,patch_id,is_mitosis,n_mitoses,n_missed"
    audit = read_audit(write(tmp_path / "a.csv", rows, header), [source])
    assert audit.facts() == {
        "figures": {"right": 32, "total": 40},
        "hotspot_figures": None,
        "mitoses_in_fields": {"right": 70, "total": 100},
    }
    slide = audit.corrected(biomarkers(source, 20.0), source.patient)
    found = slide.measures["all"]
    assert found is not None
    density = found.figures_per_mm2_corrected
    assert density is not None
    assert None not in (density.low, density.value, density.high)
    assert density.value == pytest.approx(40 * 0.8 / 0.7 / 20, rel=0.04)
    # The variances of the logarithms add up: of a count, of precision and of recall.
    spread = np.sqrt(1 / 40 + 0.2 / 0.8 / 40 + 0.3 / 0.7 / 100)
    assert density.low == pytest.approx(density.value * np.exp(-1.96 * spread), rel=0.1)  # type: ignore[operator]
    assert density.high == pytest.approx(density.value * np.exp(1.96 * spread), rel=0.1)  # type: ignore[operator]
    # A hot-spot of which nothing was looked at is not corrected by figures at random.
    assert slide.measures["hotspot"] is not None
    assert slide.measures["hotspot"].figures_per_mm2_corrected is None
    (patient,) = by_patient([slide])
    again = audit.corrected(patient, patient.patient).measures["all"]
    assert again is not None
    assert again.figures_per_mm2_corrected == density


def test_without_fields_nothing_counts_as_missed(source: SlideFigures, tmp_path: Path) -> None:
    rows = [f"case 1.svs,{4 * x},{4 * y + 0.4},yes" for x, y in PLACES]  # found by place
    audit = read_audit(write(tmp_path / "a.csv", rows, "slide,x_px,y_px,is_mitosis"), [source])
    found = audit.corrected(biomarkers(source, 20.0), source.patient).measures["all"]
    assert found is not None
    density = found.figures_per_mm2_corrected
    assert density is not None
    assert density.value is not None
    assert 1.9 < density.value <= 2


def test_every_fault_of_the_file_is_listed(source: SlideFigures, tmp_path: Path) -> None:
    rows = [
        "case 1.svs,random,case 1.svs/0,,,true,,",
        "case 1.svs,random,case 1.svs/0,,,true,,",
        "case 2.svs,random,case 1.svs/1,,,true,,",
        "case 1.svs,random,no such,,,true,,",
        "case 1.svs,random,,123,456,true,,",
        "case 1.svs,random,,left,456,true,,",
        "case 1.svs,random,case 1.svs/2,,,,,",
        "case 1.svs,some,case 1.svs/3,,,true,,",
        "case 1.svs,field,,,,,3,4",
        "case 1.svs,field,,,,,,",
    ]
    header = "slide,sample,patch_id,x_px,y_px,is_mitosis,n_mitoses,n_missed"
    with pytest.raises(InputError) as caught:
        read_audit(write(tmp_path / "a.csv", rows, header), [source])
    assert [problem.row for problem in caught.value.problems] == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    text = str(caught.value)
    for words in (
        "of line 2 again",
        "'case 2.svs'",
        "'no such'",
        "true or false",
        "'some'",
        "up to",
    ):
        assert words in text
    with pytest.raises(InputError, match="at least one audited figure"):
        read_audit(write(tmp_path / "b.csv", [rows[-2].replace("4", "1")], header), [source])


def test_a_plan_that_was_answered_is_read_back(source: SlideFigures, tmp_path: Path) -> None:
    tissue = Tissue(np.ones((400, 600), bool))
    slide = biomarkers(source, 20.0, tissue=tissue)
    plan = audit_plan([slide], 12)
    assert plan["sample"].value_counts().to_dict() == {"random": 12, "hotspot": 12, "field": 4}
    assert not plan.duplicated(["sample", "patch_id", "x_px"]).any()
    fields = plan[plan["sample"] == "field"]
    assert fields["x_px"].between(0, 48_000).all()
    assert set(plan[plan["sample"] == "hotspot"]["patch_id"]) <= {
        name
        for name, inside in zip(
            source.figures.patch_ids,
            slide.hotspot.contains(source.centres_um),  # type: ignore[union-attr]
            strict=True,
        )
        if inside
    }
    answered = plan.assign(is_mitosis="true", n_mitoses=2, n_missed=1)
    answered.to_csv(tmp_path / "plan.csv", index=False)
    audit = read_audit(tmp_path / "plan.csv", [source])
    audit.check_hotspots([slide])
    found = audit.corrected(slide, source.patient).measures["hotspot"]
    assert found is not None
    assert found.figures_per_mm2_corrected is not None
    # Drawn in another hot-spot than the one now measured.
    tiny = biomarkers(source, 20.0, choice=HotspotChoice(area_mm2=0.01), tissue=tissue)
    with pytest.raises(InputError, match="it lies outside"):
        audit.check_hotspots([tiny])
    # Without tissue or region there is no place for fields.
    assert set(audit_plan([biomarkers(source)], 12)["sample"]) == {"random", "hotspot"}


def test_the_command_draws_a_plan_and_corrects_by_it(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json
    import sys

    from atypia import cli

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["atypia", "biomarker", *map(str, arguments)])
        cli.main()

    csv = tmp_path / "s.csv"
    table(["nmf_ring"] * 40, PLACES).to_csv(csv, index=False)
    run(csv, "--out", tmp_path / "one", "--area-mm2", 20, "--audit-plan", 10)
    plan = pd.read_csv(tmp_path / "one" / "audit.csv", dtype=str)
    assert len(plan) == 20
    plan.assign(is_mitosis="yes").to_csv(tmp_path / "audit.csv", index=False)
    run(csv, "--out", tmp_path / "two", "--area-mm2", 20, "--audit", tmp_path / "audit.csv")
    for name in ("cohort.csv", "slides.csv"):
        row = pd.read_csv(tmp_path / "two" / name).iloc[0]
        assert 1.5 < row["all_figures_per_mm2_corrected"] < 2
        assert 9 < row["hotspot_figures_per_mm2_corrected"] < 30 / 2.37
    written = json.loads((tmp_path / "two" / "biomarkers.json").read_text())
    assert written["detector_audit"]["figures"] == {"right": 10, "total": 10}
    (page,) = (tmp_path / "two" / "slides").glob("*.html")
    assert "by an audit of the detector" in page.read_text()
