"""DICOM annotations hold the same answers as the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from slide_files import noise, write_dicom, write_tiff

from atypia.classifiers.answers import Answers
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES, SUBTYPES
from atypia.inference.patch_predictions import prediction_table
from atypia.slides import open_slide
from atypia.slides.dicom_annotations import write_dicom_annotations
from atypia.slides.geojson_writer import MEASUREMENTS, class_name

highdicom = pytest.importorskip("highdicom")
pytest.importorskip("wsidicom")


def answers(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(N_SUBTYPES), n).astype(np.float32)
    about = pd.DataFrame({"patch_id": [str(i) for i in range(n)], "patient_id": "", "domain": ""})
    about[["x_px", "y_px"]] = rng.uniform(0, 90, (n, 2))
    return prediction_table(about, Answers(p), Postprocessing())


def test_annotations_are_read_back_by_highdicom(tmp_path):
    slide = write_dicom(tmp_path / "dicom", noise(96, 128), 0.25)
    table = answers(30)
    with open_slide(slide) as opened:
        write_dicom_annotations(tmp_path / "a.dcm", table, opened.info)
    annotations = highdicom.ann.annread(tmp_path / "a.dcm")
    groups = annotations.get_annotation_groups()
    assert {g.label for g in groups} == {class_name(s) for s in set(table["predicted_subtype"])}
    assert sum(g.number_of_annotations for g in groups) == 30
    for subtype in SUBTYPES:
        rows = table[table["predicted_subtype"] == subtype]
        for group in (g for g in groups if g.label == class_name(subtype)):
            points = np.concatenate(group.get_graphic_data(coordinate_type="2D"))
            np.testing.assert_allclose(points, rows[["x_px", "y_px"]], atol=1e-4)
            _, values, _ = group.get_measurements()
            np.testing.assert_allclose(
                values, rows[[name for name in MEASUREMENTS if name in rows]], atol=1e-6
            )
    reference = annotations.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == highdicom.imread(slide).SeriesInstanceUID


def test_other_slides_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", noise(64, 64), 0.25)
    refused = pytest.raises(InputError, match="expected a DICOM slide")
    with open_slide(path) as slide, refused:
        write_dicom_annotations(tmp_path / "a.dcm", answers(3), slide.info)
    assert not (tmp_path / "a.dcm").exists()


def test_annotations_refer_to_their_own_slide_among_others_of_its_size(tmp_path):
    for name in ("a", "b", "c"):  # three slides of one size in one folder
        written = write_dicom(tmp_path / name, noise(64, 64), 0.25)
        written.rename(tmp_path / f"{name}.dcm")
    for name in ("a", "b", "c"):
        path = tmp_path / f"{name}.dcm"
        with open_slide(path) as opened:
            write_dicom_annotations(tmp_path / f"{name}-answers.dcm", answers(3), opened.info)
        annotations = highdicom.ann.annread(tmp_path / f"{name}-answers.dcm")
        reference = annotations.ReferencedSeriesSequence[0]
        assert reference.SeriesInstanceUID == highdicom.imread(path).SeriesInstanceUID
