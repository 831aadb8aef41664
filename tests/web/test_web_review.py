from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from slide_files import noise, write_tiff
from web_folders import make_cohort

from atypia.biomarker import read_slides
from atypia.core.errors import AtypiaError, InputError
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.sources import PrepareOptions
from atypia.evaluation.predictions import UNKNOWN
from atypia.pipeline import prepare
from atypia.slides import open_slide
from atypia.slides.read_candidates import read_candidates
from atypia.slides.slide_pool import SlidePool
from atypia.web.pictures import CohortPictures, SlidePictures, slide_content
from atypia.web.review import (
    ReviewStore,
    agreement,
    export_cohort,
    export_geojson,
    export_places,
)
from atypia.web.source import open_source

IDS = [f"c{i}" for i in range(20)]


@pytest.fixture
def store(tmp_path):
    store = ReviewStore(tmp_path / "reviews.sqlite", "key", IDS)
    store.join("ann", blind=False)
    return store


def test_the_last_label_counts_and_undo_goes_back_one_by_one(store):
    store.give("ann", 3, 5)
    store.give("ann", 4, 6)
    store.give("ann", 3, 1)
    assert store.labels()["ann"][3] == 1
    assert store.undo("ann") == 3
    assert store.labels()["ann"][[3, 4]].tolist() == [5, 6]
    assert store.undo("ann") == 4
    assert store.undo("ann") == 3
    assert store.undo("ann") is None
    assert (store.labels()["ann"] == UNKNOWN).all()


def test_taking_a_label_away_can_be_undone(store):
    store.give("ann", 3, 5)
    store.give("ann", 3, None)
    assert store.labels()["ann"][3] == UNKNOWN
    store.undo("ann")
    assert store.labels()["ann"][3] == 5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 7))), max_size=20))
def test_the_labels_are_those_of_a_list_of_key_presses(tmp_path_factory, presses):
    store = ReviewStore(tmp_path_factory.mktemp("r") / "r.sqlite", "key", IDS)
    store.join("ann", blind=True)
    done: list[tuple[int, int]] = []
    for press in presses:
        if press is None:
            assert store.undo("ann") == (done.pop()[0] if done else None)
        else:
            store.give("ann", *press)
            done.append(press)
    expected = np.full(len(IDS), UNKNOWN)
    for number, subtype in done:
        expected[number] = subtype
    assert store.labels()["ann"].tolist() == expected.tolist()


def test_what_is_answered_is_on_the_disk(store, tmp_path):
    store.give("ann", 0, 2)
    # Another connection, as after a crash, sees it; the file is synced at each commit.
    with sqlite3.connect(tmp_path / "reviews.sqlite") as base:
        assert base.execute("SELECT subtype FROM event").fetchall() == [(SUBTYPES[2],)]
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with store._open() as base:
        assert base.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_reviewers_and_cohorts_are_kept_apart(store, tmp_path):
    store.join("ben", blind=True)
    store.give("ann", 0, 1)
    store.give("ben", 0, 2)
    other = ReviewStore(tmp_path / "reviews.sqlite", "another", IDS)
    assert {name: labels[0] for name, labels in store.labels().items()} == {"ann": 1, "ben": 2}
    assert other.labels() == {}


def test_many_reviewers_at_once_lose_nothing(store):
    names = [f"r{i}" for i in range(8)]
    for name in names:
        store.join(name, blind=True)

    def review(name: str) -> None:
        for number in range(len(IDS)):
            store.give(name, number, number % 8)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(review, names))
    labels = store.labels()
    for name in names:
        assert labels[name].tolist() == [i % 8 for i in range(len(IDS))]


def test_who_began_blind_stays_blind_and_nobody_becomes_it(store):
    store.join("ben", blind=True)
    with pytest.raises(InputError, match="unseen"):
        store.join("ben", blind=False)
    with pytest.raises(InputError, match="in view"):
        store.join("ann", blind=True)
    assert store.is_blind("ben")
    assert not store.is_blind("ann")
    assert store.is_blind("who")


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "<b>", "é", "x" * 41, "a\n"])
def test_a_name_that_is_no_column_is_refused(store, name):
    with pytest.raises(InputError, match="expected a name"):
        store.join(name, blind=True)


def test_labels_of_somebody_who_never_came_are_refused(store):
    with pytest.raises(InputError, match="no reviewer"):
        store.give("who", 0, 1)
    with pytest.raises(InputError, match="no reviewer"):
        store.undo("who")


def test_a_database_of_another_program_is_left_alone(tmp_path):
    file = tmp_path / "theirs.sqlite"
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE t (x)")
    before = file.read_bytes()
    with pytest.raises(AtypiaError, match="another program"):
        ReviewStore(file, "key", IDS).join("ann", blind=True)
    assert file.read_bytes() == before
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to look at" * 20)
    with pytest.raises(AtypiaError, match="cannot be saved"):
        ReviewStore(tmp_path / "text.sqlite", "key", IDS).join("ann", blind=True)


def test_kappa_is_that_of_scikit_learn_on_the_common_figures():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 8, 200)
    b = np.where(rng.random(200) < 0.6, a, rng.integers(0, 8, 200))
    a[:20], b[10:40] = UNKNOWN, UNKNOWN
    both = (a != UNKNOWN) & (b != UNKNOWN)
    (pair,) = agreement({"a": a, "b": b, "idle": np.full(200, UNKNOWN)})
    assert pair["n"] == both.sum()
    assert pair["kappa"] == pytest.approx(cohen_kappa_score(a[both], b[both]), abs=1e-4)
    (same,) = agreement({"a": np.zeros(3, int), "b": np.zeros(3, int)})
    assert same["kappa"] is None


def test_an_export_is_a_new_cohort_and_the_old_one_is_as_it_was(tmp_path):
    cohort = make_cohort(tmp_path / "old", 12)
    before = {p.name: p.read_bytes() for p in cohort.path.iterdir() if p.is_file()}
    labels = np.full(12, UNKNOWN)
    labels[[2, 7]] = [3, 7]
    out = export_cohort(cohort, "ann", labels, tmp_path / "new")
    new = Cohort.open(out, verify=True)
    assert new.raters == (*cohort.raters, "ann")
    expected = [SUBTYPES[c] if c >= 0 else "" for c in labels]
    assert new.manifest["label_ann"].tolist() == expected
    rest = new.manifest.drop(columns="label_ann")
    assert rest.equals(cohort.manifest)
    assert {p.name: p.read_bytes() for p in cohort.path.iterdir() if p.is_file()} == before
    for rater, given_labels, told in (
        ("expert1", labels, "already"),
        ("ben", np.full(12, UNKNOWN), "not labelled"),
    ):
        with pytest.raises(InputError, match=told):
            export_cohort(cohort, rater, given_labels, tmp_path / "no")
    with pytest.raises(InputError, match="exists"):
        export_cohort(cohort, "ann", labels, out)


def test_labels_stay_with_patches_that_get_another_column(tmp_path):
    old = make_cohort(tmp_path / "old", 12)
    labels = np.full(12, UNKNOWN)
    labels[0] = 3
    new = Cohort.open(export_cohort(old, "ann", labels, tmp_path / "new"))
    other = make_cohort(tmp_path / "other", 11)
    before, after, others = (CohortPictures(cohort) for cohort in (old, new, other))
    assert before.subject == after.subject != others.subject
    assert before.key != after.key


def test_labels_stay_with_a_slide_that_moves_and_gets_more_candidates(shown, tmp_path):
    first = shown / "slides" / "slide.tif"
    moved = tmp_path / "slide.tif"
    moved.write_bytes(first.read_bytes())
    with SlidePool(first) as one, SlidePool(moved) as two:
        before = SlidePictures(one, np.array([[50.0, 50.0]]))
        after = SlidePictures(two, np.array([[50.0, 50.0], [60.0, 60.0]]))
        assert before.subject == after.subject
        assert before.key != after.key


def test_labels_stay_with_the_place_and_not_with_a_number(shown, tmp_path):
    """A detector that runs again gives the same numbers to other figures."""
    reviews = tmp_path / "reviews.sqlite"
    with SlidePool(shown / "slides" / "slide.tif") as pool:
        first = SlidePictures(pool, np.array([[50.0, 50.0], [60.0, 60.0], [60.0, 60.0]]))
        again = SlidePictures(pool, np.array([[10.0, 10.0], [50.0, 50.0]]))
    before = ReviewStore(reviews, first.subject, first.names)
    before.join("ann", blind=True)
    for number in range(3):
        before.give("ann", number, number)
    assert before.labels()["ann"].tolist() == [0, 1, 2]
    after = ReviewStore(reviews, again.subject, again.names)
    assert after.labels()["ann"].tolist() == [UNKNOWN, 0]
    # What is not shown is not taken back.
    assert [after.undo("ann"), after.undo("ann")] == [1, None]
    assert before.labels()["ann"].tolist() == [UNKNOWN, 1, 2]


def test_slides_that_differ_in_a_pixel_share_no_labels(tmp_path):
    pixels = np.full((400, 400, 3), 255, np.uint8)
    files = []
    for shade in (1, 2):
        pixels[200] = shade
        files.append(tmp_path / str(shade) / "slide.tif")
        files[-1].parent.mkdir()
        tifffile.imwrite(files[-1], pixels, photometric="rgb")
    assert files[0].stat().st_size == files[1].stat().st_size
    assert len({slide_content(file) for file in files}) == 2
    # A folder that happens to be called alike has no say; that of a MIRAX slide is the slide.
    (tmp_path / "1" / "slide").mkdir()
    before = slide_content(files[0])
    (tmp_path / "1" / "slide" / "Data0000.dat").write_bytes(b"1" * 9)
    assert slide_content(files[0]) == before
    mirax = files[0].rename(tmp_path / "1" / "slide.mrxs")
    first = slide_content(mirax)
    (tmp_path / "1" / "slide" / "Data0000.dat").write_bytes(b"2" * 9)
    assert slide_content(mirax) != first


def test_labels_of_a_cohort_cut_from_slides_open_on_each_slide(tmp_path):
    """What prepare cut from slides comes back to them, as annotations and as candidates."""
    (tmp_path / "s").mkdir()
    rows = []
    for slide in ("one.tif", "two.tif"):
        write_tiff(tmp_path / "s" / slide, noise(200, 200), 0.5)
        rows += [f"{slide},{x},{50 + x},nmf_ring,p" for x in (40, 90)]
    table = tmp_path / "s" / "t.csv"
    table.write_text("\n".join(["image,x,y,label_a,patient_id", *rows]))
    cohort = prepare(table, tmp_path / "cohort", PrepareOptions(field_um=16))
    labels = np.array([2, UNKNOWN, 4, 6])
    files = export_places(cohort, "ann", labels, tmp_path / "out")
    assert [file.name for file in files] == ["one.tif.geojson", "two.tif.geojson"]
    for file, slide, places in zip(
        files, ("one.tif", "two.tif"), ([(40, 90)], [(40, 90), (90, 140)]), strict=True
    ):
        with open_slide(tmp_path / "s" / slide) as opened:
            info = opened.info
        for source in (file, cohort.path):
            found = read_candidates(source, info).candidates
            if source == file:
                assert [(c.x, c.y) for c in found] == places
            else:
                assert [(c.x, c.y) for c in found] == [(40, 90), (90, 140)]
                assert found[0].about["label_a"] == "nmf_ring"
    scanned = cohort.manifest.assign(origin_x_px="30", origin_y_px="5")
    Cohort.write(cohort.path, "scanned", scanned, {})
    (file, _) = export_places(Cohort.open(cohort.path), "ann", labels, tmp_path / "again")
    (feature,) = json.loads(file.read_text())["features"]
    assert feature["geometry"]["coordinates"] == [10, 85]
    with pytest.raises(InputError, match="not labelled a figure with a place"):
        export_places(cohort, "ann", np.full(4, UNKNOWN), tmp_path / "no")
    with pytest.raises(InputError, match="does not tell where"):
        export_places(make_cohort(tmp_path / "c", 4), "ann", labels, tmp_path / "no")


def test_geojson_comes_back_as_candidates_at_the_same_places(shown, tmp_path):
    table = shown / "slides" / "figures.csv"
    (found,) = read_slides([table])
    labels = np.full(len(found), UNKNOWN)
    labels[[0, 9]] = [1, 6]
    with open_source(shown / "slides" / "slide.tif", results=table) as source:
        text = export_geojson(found, source.pool.info, "ann", labels)
        (tmp_path / "x.geojson").write_text(text, encoding="utf-8")
        back = read_candidates(tmp_path / "x.geojson", source.pool.info)
    places = np.array([(c.x, c.y) for c in back.candidates])
    assert places == pytest.approx(found.centres_px[[0, 9]])
    first = json.loads(text)["features"][0]["properties"]
    assert first["classification"]["name"] == "AMF multipolar"
    assert first["metadata"] == {
        "patch_id": str(found.figures.patch_ids[0]),
        "subtype": "amf_multipolar",
        "rater": "ann",
    }


def test_on_a_full_disk_labels_stay_readable_and_none_is_lost(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be made by root alone")
    try:
        store = ReviewStore(disk / "reviews.sqlite", "key", IDS)
        store.join("ann", blind=False)
        store.give("ann", 3, 5)
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(2**20))
        with pytest.raises(AtypiaError, match=r"reviews\.sqlite: .*\(.*(full|open|I/O)"):
            any(store.give("ann", number, 1) for number in range(4, 19))
        given = store.labels()["ann"]
        assert given[3] == 5
        assert not store.is_blind("ann")
        (disk / "filler").unlink()
        store.give("ann", 19, 2)
        after = store.labels()["ann"]
        assert after[19] == 2
        assert (after[:19] == given[:19]).all()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
