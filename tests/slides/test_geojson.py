"""Answers that QuPath opens, and that are read back as the same candidates."""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.classifiers.answers import Answers
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.labels import N_SUBTYPES, PROBABILITY_COLUMNS, SUBTYPES, parse_subtype
from atypia.inference.patch_predictions import prediction_table
from atypia.slides import SlideInfo
from atypia.slides.candidates import Candidate
from atypia.slides.geojson_writer import COLOURS, class_name, write_geojson
from atypia.slides.read_candidates import read_candidates

INFO = SlideInfo(Path("a.svs"), 60_000, 40_000, 0.25, (255, 255, 255), (0, 0))
MRXS = SlideInfo(Path("m.mrxs"), 90_000, 80_000, 0.25, (255, 255, 255), (20_000, 30_000))


def answers(candidates: list[Candidate]) -> pd.DataFrame:
    p = np.random.default_rng(0).dirichlet(np.ones(N_SUBTYPES), len(candidates))
    about = pd.DataFrame({"patch_id": [c.id for c in candidates], "patient_id": "", "domain": ""})
    return prediction_table(about, Answers(p.astype(np.float32)), Postprocessing())


def test_the_file_is_what_qupath_documents(tmp_path):
    outline = {"type": "Polygon", "coordinates": [[[1, 2], [30, 2], [30, 40], [1, 2]]]}
    candidates = [Candidate("a", 100.5, 200.25), Candidate("ü/2", 20, 15, geometry=outline)]
    table = answers(candidates)
    write_geojson(tmp_path / "a.geojson", table, candidates, INFO, 32)
    content = json.loads((tmp_path / "a.geojson").read_text("utf-8"))
    assert content["type"] == "FeatureCollection"
    square, own = content["features"]
    assert own["geometry"] == outline
    ring = np.array(square["geometry"]["coordinates"][0])
    np.testing.assert_allclose(ring.min(axis=0), (100.5 - 64, 200.25 - 64))
    np.testing.assert_allclose(ring.max(axis=0), (100.5 + 64, 200.25 + 64))
    assert (ring[0] == ring[-1]).all()
    for feature, row in zip(content["features"], table.to_dict("records"), strict=True):
        assert feature["type"] == "Feature"
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["name"] == row["patch_id"]
        classification = properties["classification"]
        assert parse_subtype(classification["name"]) == row["predicted_subtype"]
        assert classification["color"] == list(COLOURS[row["predicted_subtype"]])
        assert set(properties["measurements"]) == {*PROBABILITY_COLUMNS, "p_atypical", "threshold"}
        assert properties["measurements"].pop("threshold") == 0.5
        assert properties["metadata"]["operating_point"] == "balanced"
        for name, value in properties["measurements"].items():
            assert value == pytest.approx(row[name], rel=1e-5)
    write_geojson(tmp_path / "b.geojson", table, candidates, INFO, 32)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_class_names_are_those_of_the_field():
    assert [parse_subtype(class_name(s)) for s in SUBTYPES] == list(SUBTYPES)
    assert len(set(COLOURS.values())) == len(SUBTYPES)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([INFO, MRXS]),
    st.lists(
        st.tuples(st.integers(0, 59_999_999), st.integers(0, 39_999_999)),
        min_size=1,
        max_size=20,
        unique_by=lambda p: (p[0] // 1000, p[1] // 1000),
    ),
    st.sampled_from([8.0, 18.0, 32.0, 199.0]),
)
def test_round_trip(info, points, field_um):
    candidates = [
        Candidate(f"figure {i}", x / 1000 + info.origin[0], y / 1000 + info.origin[1])
        for i, (x, y) in enumerate(points)
    ]
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "1.geojson", Path(folder) / "2.geojson"
        write_geojson(first, answers(candidates), candidates, info, field_um)
        found = read_candidates(first, info)
        assert [c.id for c in found.candidates] == [c.id for c in candidates]
        read = np.array([(c.x, c.y) for c in found.candidates])
        np.testing.assert_allclose(read, [(c.x, c.y) for c in candidates], atol=1e-6)
        assert not found.regions
        write_geojson(second, answers(found.candidates), found.candidates, info, field_um)
        assert first.read_bytes() == second.read_bytes()
