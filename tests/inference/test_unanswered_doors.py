"""What is not answered, through every door: kept, drawn apart, counted nowhere."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from guarded_model import GuardedModel
from slide_files import write_dicom, write_tiff
from slide_jobs import answers

from atypia import pipeline
from atypia.biomarker import HotspotChoice, read_slides
from atypia.core.errors import InputError
from atypia.core.labels import ANSWERED
from atypia.core.labels import STATUSES as EVERY_STATUS
from atypia.inference.job_parts import FinishedPart, encode_part, read_rows, read_summary
from atypia.inference.patch_predictions import predict_arrays, prediction_records
from atypia.reports.words import measures_in_words
from atypia.slides import open_slide
from atypia.slides.read_candidates import read_candidates

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.inference.slide_predictions import SlidePredictions

MPP = 0.8
RED, BLUE, WHITE, BLACK = (180, 60, 60), (60, 60, 180), (255, 255, 255), (0, 0, 0)
COLUMNS = [RED, BLUE, WHITE, BLACK]
"""The slide has four columns of one colour, 100 px wide."""
STATUSES = [ANSWERED, ANSWERED, "no_tissue", "not_a_mitosis"]
PER_COLUMN = [3, 5, 7, 2]


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every door loads the model with a guard."""
    for name in ("pipeline.slide", "inference.job", "pipeline.predict"):
        module = import_module(f"atypia.{name}")
        monkeypatch.setattr(module, "load_ensemble", lambda *_, **__: GuardedModel())


def pixels() -> np.ndarray:
    return np.repeat(np.array(COLUMNS, np.uint8), 100, axis=0)[None].repeat(300, axis=0)


def write_candidates(folder: Path) -> Path:
    places = [
        (100 * column + 50, 20 + 30 * i) for column, n in enumerate(PER_COLUMN) for i in range(n)
    ]
    listed = pd.DataFrame(places, columns=["x_px", "y_px"])
    listed.insert(0, "id", [f"c{i}" for i in range(len(places))])
    listed.to_csv(folder / "c.csv", index=False)
    return folder / "c.csv"


def classify(folder: Path, *names: str, **options: Any) -> SlidePredictions:
    slide = folder / "s.tif"
    if not slide.exists():
        write_tiff(slide, pixels(), MPP)
    return pipeline.slide(slide, write_candidates(folder), [folder / n for n in names], **options)


def test_a_slide_counts_what_is_answered_and_names_what_is_not(tmp_path: Path) -> None:
    found = classify(tmp_path, "a.geojson", "a.csv", "a.json", "a.html")
    counts = found.biomarkers.measures["all"].counts  # type: ignore[union-attr]
    assert (counts.figures, counts.atypical, counts.left_out) == (8, 3, 9)
    assert "8 figures (9 candidates left out)" in measures_in_words(found.biomarkers)[0]
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["status"].tolist() == np.repeat(STATUSES, PER_COLUMN).tolist()
    assert table["predicted_atypical"].notna().tolist() == (table["status"] == ANSWERED).tolist()
    assert table["p_atypical"].notna().all()

    content = json.loads((tmp_path / "a.json").read_text())
    assert content["not_answered"] == {"no_tissue": 7, "not_a_mitosis": 2}
    assert content["figures"][-1]["predicted_subtype"] is None
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    classes = [f["properties"]["classification"] for f in features]
    assert [c["name"] for c in classes[8:16:7]] == [
        "Not answered: no tissue",
        "Not answered: not a mitosis",
    ]
    assert {tuple(c["color"]) for c in classes[8:]} == {(150, 150, 150)}
    assert features[0]["properties"]["metadata"]["status"] == ANSWERED
    assert features[16]["properties"]["measurements"]["p_mitosis"] == 0
    assert "p_mitosis" not in features[8]["properties"]["measurements"]

    with open_slide(tmp_path / "s.tif") as slide:  # they are candidates still
        again = read_candidates(tmp_path / "a.geojson", slide.info)
    assert len(again.candidates) == 17
    page = (tmp_path / "a.html").read_text()
    assert "9 candidates left out: 7 no tissue, 2 not a mitosis" in page
    assert 'class="left-out"' in page
    assert "calls 3 of the 8 mitotic figures" in page


def test_all_count_where_it_is_asked_for(tmp_path: Path) -> None:
    found = classify(tmp_path, "all.csv", "all.geojson", count_all=True)
    counts = found.biomarkers.measures["all"].counts  # type: ignore[union-attr]
    assert (counts.figures, counts.left_out) == (17, 0)
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["status"].tolist() == np.repeat(STATUSES, PER_COLUMN).tolist()
    assert table["predicted_subtype"].notna().all()
    assert "Not answered" not in (tmp_path / "all.geojson").read_text()
    # Without it they count nowhere, though they have calls.
    figures, left_out = [], []
    for count_all in (False, True):
        out = tmp_path / f"b{count_all}"
        pipeline.biomarker([tmp_path / "all.csv"], out, count_all=count_all)
        cohort = pd.read_csv(out / "cohort.csv")
        figures.append(int(cohort["all_figures_n"][0]))
        left_out.append(int(cohort["all_left_out_n"][0]))
    assert (figures, left_out) == ([8, 17], [9, 0])
    classify(tmp_path, "some.csv")
    with pytest.raises(InputError, match=r"--count-all: expected a call for each of 17 .* but 9"):
        pipeline.biomarker([tmp_path / "some.csv"], tmp_path / "no", count_all=True)


def test_regions_and_hot_spots_leave_out_what_lies_in_them(tmp_path: Path) -> None:
    classify(tmp_path, "a.csv")
    box = [[[0, 0], [300, 0], [300, 100], [0, 100], [0, 0]]]  # three columns, 3 rows of candidates
    region = {"type": "Polygon", "coordinates": box}
    feature = {"type": "Feature", "geometry": region, "properties": {}}
    (tmp_path / "r.geojson").write_text(json.dumps(feature))
    choice = HotspotChoice(area_mm2=0.003)
    slides, _ = pipeline.biomarker(
        [tmp_path / "a.csv"], tmp_path / "out", regions=tmp_path / "r.geojson", choice=choice
    )
    counts = {s: m and m.counts for s, m in slides[0].measures.items()}
    assert [(c.figures, c.left_out) for c in counts.values() if c] == [(6, 3), (8, 9), (3, 0)]
    found = json.loads((tmp_path / "out" / "biomarkers.json").read_text())["slides"][0]
    assert found["left_out"] == {"no_tissue": 7, "not_a_mitosis": 2}
    assert found["measures"]["region"]["counts"]["left_out"] == 3


def test_a_slide_on_which_nothing_is_answered_has_no_figure(tmp_path: Path) -> None:
    classify(tmp_path, "a.csv")
    table = pd.read_csv(tmp_path / "a.csv", dtype=str)
    table[table["status"] == "no_tissue"].to_csv(tmp_path / "b.csv", index=False)
    (source,) = read_slides([tmp_path / "b.csv"])
    counted = source.counted()
    assert (len(counted), len(counted.left_out.status), counted.mpp) == (0, 7, MPP)
    slides, _ = pipeline.biomarker([tmp_path / "b.csv"], tmp_path / "out", area=10.0)
    density = slides[0].measures["all"].figures_per_mm2  # type: ignore[union-attr]
    assert density is not None
    assert density.value == 0


def test_a_job_counts_per_slide_and_its_files_have_one_schema(tmp_path: Path) -> None:
    write_tiff(tmp_path / "s.tif", pixels(), MPP)
    write_candidates(tmp_path)
    (tmp_path / "t.csv").write_text("slide,candidates\ns.tif,c.csv\n")
    result = pipeline.slides(tmp_path / "t.csv", tmp_path / "job", item_size=4)
    assert result.not_answered == {"no_tissue": 7, "not_a_mitosis": 2}
    counts = pd.read_csv(tmp_path / "job" / "slides.csv").iloc[0]
    assert counts[["candidates", "answered", "failed"]].tolist() == [17, 8, 0]
    assert counts[["no_tissue", "poor_image", "not_a_mitosis"]].tolist() == [7, 0, 2]
    record = json.loads((tmp_path / "job" / "job.json").read_text())["counts"]
    assert record == {"slides": 1, "slides_failed": 0, "candidates": 17, "answered": 8,
                      "failed": 0, "no_tissue": 7, "not_a_mitosis": 2}  # fmt: skip
    rows = answers(tmp_path / "job")
    assert rows["predicted_atypical"].isna().sum() == 9
    assert rows["p_mitosis"].dtype == np.float32
    everything = pipeline.slides(
        tmp_path / "t.csv", tmp_path / "all", csv=tmp_path / "all.csv", count_all=True
    )
    assert everything.rows == 17
    assert pd.read_csv(tmp_path / "all.csv")["predicted_atypical"].notna().all()


def test_parts_of_old_and_new_jobs_are_read(tmp_path: Path) -> None:
    table = predict_arrays(
        GuardedModel(), [np.full((64, 64, 3), v, np.uint8) for v in (255, 90)], 0.25
    )
    path = tmp_path / "parts" / "0a.parquet"
    path.parent.mkdir()
    path.write_bytes(encode_part(FinishedPart(table, 2)))
    assert read_summary(path).not_answered == {"no_tissue": 1}
    assert read_rows(path)["predicted_atypical"].tolist()[0] is None
    old = table.drop(columns=["status", "p_mitosis"])[1:].astype({"predicted_atypical": bool})
    path.write_bytes(encode_part(FinishedPart(old, 1)))
    assert read_summary(path).not_answered == {}


def test_dicom_annotations_group_what_is_not_answered(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    pytest.importorskip("wsidicom")
    slide = write_dicom(tmp_path / "dicom", pixels(), MPP)
    pipeline.slide(slide, write_candidates(tmp_path), [tmp_path / "a.dcm"])
    groups = highdicom.ann.annread(tmp_path / "a.dcm").get_annotation_groups()
    assert {g.label: g.number_of_annotations for g in groups} == {
        "AMF multipolar": 3,
        "NMF metaphase": 5,
        "Not answered: no tissue": 7,
        "Not answered: not a mitosis": 2,
    }
    names, values, _ = groups[-1].get_measurements()
    assert names[-1].meaning == "Probability: mitosis"
    assert values[:, -1].tolist() == [0, 0]


def test_http_answers_null_where_there_is_no_call() -> None:
    from atypia.server.schemas import About, PatchAnswers
    from atypia.server.service import Service

    patches = [np.full((64, 64, 3), v, np.uint8) for v in (255, 90, 0)]
    table = predict_arrays(GuardedModel(), patches, 0.25)
    service = Service.__new__(Service)
    service.about = About.model_construct(
        model="fake", quality="best", thresholds={"atypical": 0.5}, operating_point="balanced"
    )
    sent = service._answered([], table) | {"warnings": [], "predictions": prediction_records(table)}
    answer = PatchAnswers.model_validate(sent).model_dump(mode="json", exclude_unset=True)
    assert answer == sent
    assert answer["not_answered"] == {"no_tissue": 1, "not_a_mitosis": 1}
    first, second, third = answer["predictions"]
    assert first["predicted_atypical"] is first["predicted_subtype"] is first["p_mitosis"] is None
    assert second["predicted_atypical"] in (True, False)
    assert third["status"] == "not_a_mitosis"
    described = PatchAnswers.model_json_schema()["$defs"]["Prediction"]["properties"]["status"]
    assert described["enum"] == list(EVERY_STATUS)


def test_commands_print_the_summary_by_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from atypia.cli import applying

    for name, colour in zip("rbwk", COLUMNS, strict=True):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    applying.predict([tmp_path], tmp_path / "p.csv", mpp=0.25)
    assert (
        "2 of 4 candidates answered; 1 no tissue, 1 not a mitosis; 1 called atypical"
        in capsys.readouterr().out
    )
    applying.predict([tmp_path], mpp=0.25, min_confidence=0.99)
    shown = capsys.readouterr().out
    assert "not answered: not a " in shown  # wrapped
    assert "not answered: no tissue" in shown
