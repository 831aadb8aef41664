"""Patients in two cohorts are found however their pictures were saved, and stay one patient."""

from __future__ import annotations

import io
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atypia import pipeline
from atypia.core.errors import InputError, LeakError
from atypia.data.cohort import Cohort
from atypia.data.merged_cohort import find_copies, without_copies
from atypia.data.overlap import Shared, find_overlap, shared_cases
from atypia.data.splits import make_splits
from atypia.data.synthetic import make_synthetic_cohort

merge = partial(pipeline.merge, same_raters=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("merge") / "source"
    make_synthetic_cohort(folder, patients=12, patches=120, seed=3, size_px=96)
    return Cohort.open(folder)


def part(cohort: Cohort, folder: Path, rows: list[int], **changes: object) -> Cohort:
    """A cohort of some rows of another, under another name."""
    table = cohort.manifest.iloc[rows].assign(**changes).reset_index(drop=True)  # type: ignore[arg-type]
    for path, file in zip(np.array(cohort.image_paths())[rows], table["file"], strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(Path(path).read_bytes())
    Cohort.write(folder, folder.name, table, {"kind": "test"})
    return Cohort.open(folder)


def of(cohort: Cohort, *patients: int) -> list[int]:
    """Rows of the patients with these numbers."""
    names = sorted(set(cohort.manifest["patient_id"]))
    return np.flatnonzero(cohort.manifest["patient_id"].isin([names[p] for p in patients])).tolist()


def renamed(rows: list[int]) -> dict[str, object]:
    return {"patient_id": "anonymous", "patch_id": [f"x{i}" for i in range(len(rows))]}


def rewrite(cohort: Cohort, row: int, change: str) -> None:
    """Save a picture of a cohort anew, as others would have it."""
    path = cohort.image_paths()[row]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if change == "bmp":  # the same pixels in another file
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    else:
        down, right = {"jpeg": (0, 0), "shift": (2, -1), "far": (-3, 3)}[change]
        pixels = np.roll(pixels, (down, right), (0, 1))
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=60)
        moved = Image.open(content).convert("RGB")
        content = io.BytesIO()
        moved.crop((4, 4, 90, 90)).save(content, "PNG")  # and cropped to another size
    path.write_bytes(content.getvalue())


def test_cohorts_of_other_patients_have_nothing_in_common(source: Cohort, tmp_path: Path) -> None:
    a = part(source, tmp_path / "a", of(source, *range(6)))
    b = part(source, tmp_path / "b", of(source, *range(6, 12)))
    seen: list[tuple[int, int]] = []
    assert find_overlap(a, b, lambda *step: seen.append(step)) == []
    assert seen == [(i, len(source)) for i in range(1, len(source) + 1)]


@pytest.mark.parametrize("change", ["bmp", "jpeg", "shift", "far"])
def test_a_picture_is_found_however_it_was_saved(
    source: Cohort, tmp_path: Path, change: str
) -> None:
    rows = of(source, 0, 1)
    a = part(source, tmp_path / "a", rows)
    b = part(source, tmp_path / "b", of(source, 1), **renamed(of(source, 1)))
    others = find_overlap(a, b)
    for row in range(len(b)):
        rewrite(b, row, change)
    found = find_overlap(a, b)
    assert [(s.first, s.second) for s in found] == [
        (a.manifest["patient_id"].iloc[-1], "anonymous")
    ]
    pairs = found[0].same_pixels if change == "bmp" else found[0].alike
    assert others[0].same_pixels == sorted(pairs)
    assert len(pairs) == len(b)
    assert not found[0].same_case
    assert (found[0].alike if change == "bmp" else found[0].same_pixels) == []


def cropped(cohort: Cohort, row: int, side: int, quality: int = 0) -> None:
    """Cut the centre out of a picture of a cohort, and save it anew."""
    path = cohort.image_paths()[row]
    image = Image.open(path).convert("RGB")
    place = (image.width - side) // 2
    image = image.crop((place, place, place + side, place + side))
    if quality:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        image = Image.open(content).convert("RGB")
    content = io.BytesIO()
    image.save(content, "PNG")
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize("side", [16, 28])
def test_one_small_crop_makes_no_strangers_alike_and_hides_no_copy(
    source: Cohort, tmp_path: Path, side: int, caplog: pytest.LogCaptureFixture
) -> None:
    a = part(source, tmp_path / "a", of(source, *range(6)))
    b = part(source, tmp_path / "b", of(source, *range(6, 12)))
    cropped(a, 0, side)
    cropped(b, 0, side)
    assert find_overlap(a, b) == []
    assert "a: 1 patches are smaller than 32 px" in caplog.text
    c = part(source, tmp_path / "c", of(source, 1), **renamed(of(source, 1)))
    for row in range(len(c)):
        rewrite(c, row, "far")
    (shared,) = find_overlap(a, c)
    assert len(shared.alike) == len(c)


@pytest.mark.parametrize("side", [32, 48])
def test_a_smaller_crop_is_found_in_a_larger_one(source: Cohort, tmp_path: Path, side: int) -> None:
    rows = of(source, 0, 1)
    a = part(source, tmp_path / "a", rows)
    b = part(source, tmp_path / "b", of(source, 1), **renamed(of(source, 1)))
    for row in range(len(b)):
        cropped(b, row, side, quality=90)
    (shared,) = find_overlap(a, b)
    own = a.manifest["patch_id"][a.manifest["patient_id"] == shared.first]
    assert shared.alike == list(zip(own, b.manifest["patch_id"], strict=True))


def test_a_case_is_found_by_its_name_alone(source: Cohort, tmp_path: Path) -> None:
    a = part(source, tmp_path / "a", of(source, 0), patient_id="MIDOG21_002")
    b = part(source, tmp_path / "b", of(source, 1), patient_id="MIDOG_002")
    (shared,) = find_overlap(a, b)
    assert str(shared) == "MIDOG21_002 and MIDOG_002: one case"
    found = shared_cases(["TUPAC16_01_stitched1", "P1", "P2"], ["P2", "TUPAC_1", "TUPAC16_01"])
    assert list(map(str, found)) == [
        "TUPAC16_01_stitched1 and TUPAC_1: one case",
        "TUPAC16_01_stitched1 and TUPAC16_01: one case",
        "P2 and P2: an equal id",
    ]


def test_unreadable_patches_are_all_told(source: Cohort, tmp_path: Path) -> None:
    a = part(source, tmp_path / "a", of(source, 0))
    b = part(source, tmp_path / "b", of(source, 1))
    for path in b.image_paths()[:2]:
        path.write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        find_overlap(a, b)
    assert len(caught.value.problems) == 2


def test_common_patients_are_refused_with_a_list(source: Cohort, tmp_path: Path) -> None:
    rows = of(source, 2)
    a = part(source, tmp_path / "a", of(source, 0, 1, 2))
    b = part(source, tmp_path / "b", [*rows, *of(source, 3)])
    c = part(source, tmp_path / "c", of(source, 4))
    with pytest.raises(LeakError) as caught:
        merge([a.path, c.path, b.path], tmp_path / "out")
    first, second = map(str, caught.value.problems)
    patient = source.manifest["patient_id"].iloc[rows[0]]
    assert first.startswith("expected no patient in both a and b but got 1.")
    assert "--allow-overlap" in first
    assert "--distinct-ids" not in first
    patch = source.manifest["patch_id"].iloc[rows[0]]
    assert second == (
        f"{patient} and {patient}: an equal id, {len(rows)} figures with equal pixels "
        f"({patch} = {patch})"
    )
    assert not (tmp_path / "out").exists()


def test_a_merged_cohort_is_a_cohort_with_the_hash_of_its_parts(
    source: Cohort, tmp_path: Path
) -> None:
    a = part(source, tmp_path / "a", of(source, 0, 1))
    votes = {"label_expert1": "", "label_expert2": "", "majority_atypical": "True", "domain": "new"}
    b = part(source, tmp_path / "b", of(source, 2), **votes)
    seen: list[tuple[str, int, int]] = []
    merged = merge(
        [a.path, b.path], tmp_path / "out", "both", progress=lambda *step: seen.append(step)
    )
    assert merged.name == "both"
    assert [entry["name"] for entry in merged.source["parts"]] == ["a", "b"]
    assert [entry["sha256"] for entry in merged.source["parts"]] == [a.sha256, b.sha256]
    assert merged.source["shared_patients"] == []
    assert seen[-1] == ("patches", len(merged), len(merged))
    table = merged.manifest
    assert table["patch_id"].tolist() == [
        *("a/" + a.manifest["patch_id"]),
        *("b/" + b.manifest["patch_id"]),
    ]
    for column in ("patient_id", "scanner", "mpp", "label_expert1", "domain"):
        assert table[column].tolist() == [*a.manifest[column], *b.manifest[column]]
    assert list(table.columns[-1:]) == ["majority_atypical"]
    assert table["majority_atypical"].iloc[-1] == "True"
    for path, before in zip(
        merged.image_paths(), [*a.image_paths(), *b.image_paths()], strict=True
    ):
        assert path.read_bytes() == before.read_bytes()
    Cohort.open(tmp_path / "out", verify=True)


def test_raters_of_one_name_are_one_person_only_if_it_is_said(
    source: Cohort, tmp_path: Path
) -> None:
    a = part(source, tmp_path / "AMi-Br", of(source, 0))
    b = part(source, tmp_path / "AtNorM-MD", of(source, 1))
    folders = [a.path, b.path]
    with pytest.raises(InputError, match=r"'expert1' in AMi-Br and AtNorM-MD.*--distinct-raters"):
        pipeline.merge(folders, tmp_path / "out")
    merged = pipeline.merge(folders, tmp_path / "out", same_raters=False)
    labels = merged.manifest[["label_expert1", "label_AtNorM_MD_expert1"]]
    first = merged.manifest["patch_id"].str.startswith("AMi-Br/")
    assert labels["label_expert1"].tolist() == [*a.manifest["label_expert1"], *[""] * len(b)]
    assert (labels["label_AtNorM_MD_expert1"] != "").tolist() == (~first).tolist()
    assert "atypical_AtNorM_MD_expert3" in merged.vote_columns
    assert len(merge(folders, tmp_path / "same").raters) == len(source.raters)


def test_overlapping_patients_become_one_patient_of_one_domain(
    source: Cohort, tmp_path: Path
) -> None:
    """A chain: b has a picture of a's patient under another name, c one of that under a third."""
    a = part(source, tmp_path / "a", of(source, 0, 1), domain="A")
    rows = of(source, 1)
    b = part(source, tmp_path / "b", [*rows, *of(source, 5)], domain="B")
    table = b.manifest.assign(
        patient_id=["else"] * len(rows) + b.manifest["patient_id"].tolist()[len(rows) :],
        patch_id=[f"b{i}" for i in range(len(b))],
    )
    Cohort.write(b.path, "b", table, {})
    c = part(source, tmp_path / "c", of(source, 7), domain="C", patient_id="else")
    merged = merge([a.path, b.path, c.path], tmp_path / "out", allow_overlap=True)
    own = source.manifest["patient_id"].iloc[rows[0]]
    one = merged.manifest["patient_id"] == own
    assert one.sum() == len(rows) + len(c)
    assert set(merged.manifest["domain"][one]) == {"A"}
    others = merged.manifest["domain"].tolist()[len(a) : -len(c)]
    assert others == ["B"] * (len(b) - len(rows))
    pairs = {tuple(entry["cohorts"]) for entry in merged.source["shared_patients"]}
    assert pairs == {("a", "b"), ("b", "c")}
    assert (merged.manifest.groupby("patient_id")["domain"].nunique() == 1).all()


def test_two_patients_who_are_one_by_another_cohort_have_one_domain(
    source: Cohort, tmp_path: Path
) -> None:
    parts = {"B1": of(source, 0, 1), "B2": of(source, 2), "B3": of(source, 3, 4, 5)}
    domains = [domain for domain, rows in parts.items() for _ in rows]
    b = part(source, tmp_path / "b", [row for rows in parts.values() for row in rows],
             domain=domains)  # fmt: skip
    one, two = of(source, 1)[0], of(source, 2)[0]
    c = part(source, tmp_path / "c", [one, two, *of(source, 7)], patient_id="both", domain="C")
    merged = merge([b.path, c.path], tmp_path / "out", allow_overlap=True).manifest
    person = merged[merged["patient_id"] == source.manifest["patient_id"].iloc[one]]
    assert len(person) == len(of(source, 1)) + len(of(source, 2)) + len(of(source, 7))
    assert set(person["domain"]) == {"B1"}
    splits = make_splits(merged, "s", kind="domains", label="label_expert1", seed=0, inner_folds=2)
    assert [len(outer.test) for outer in splits.outer] == [2, 3]


def hospitals(source: Cohort, tmp_path: Path, case: tuple[str, str]) -> list[Path]:
    """Two hospitals, each with a patient 1 of its own, one of another id, and a third."""
    for i, name in enumerate("ab"):
        own, other, third = of(source, i), of(source, 2 + i), of(source, 4 + i)
        ids = ["1"] * len(own) + [f"{name}2"] * len(other) + [case[i]] * len(third)
        part(source, tmp_path / name, [*own, *other, *third], patient_id=ids, domain=name)
    return [tmp_path / "a", tmp_path / "b"]


def test_equal_ids_alone_are_told_from_public_cases_with_what_to_do(
    source: Cohort, tmp_path: Path
) -> None:
    folders = hospitals(source, tmp_path, ("TCGA-A1-A0SB", "TCGA-A1-A0SB"))
    with pytest.raises(LeakError) as caught:
        merge(folders, tmp_path / "out")
    first, *others = map(str, caught.value.problems)
    assert others == ["1 and 1: an equal id", "TCGA-A1-A0SB and TCGA-A1-A0SB: one case"]
    assert "1 of them have nothing in common but an equal id" in first
    assert "--distinct-ids" in first
    with pytest.raises(LeakError) as caught:  # a public case stays one
        merge(folders, tmp_path / "out", distinct_ids=True)
    assert [str(problem) for problem in caught.value.problems[1:]] == others[1:]


def test_different_people_of_one_id_stay_apart(
    source: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = hospitals(source, tmp_path, ("MIDOG21_007", "MIDOG_007"))
    merged = merge(folders, tmp_path / "out", allow_overlap=True, distinct_ids=True).manifest
    expected = {"a/1": "a", "a2": "a", "b/1": "b", "b2": "b", "MIDOG21_007": "a"}
    assert merged.groupby("patient_id")["domain"].agg(set).to_dict() == {
        patient: {domain} for patient, domain in expected.items()
    }
    assert (merged["patient_id"] == "a/1").sum() == len(of(source, 0))
    assert "an equal id alone" not in caplog.text
    merge(folders, tmp_path / "other", allow_overlap=True)
    assert "a and b: 1 patients are taken as one each because of an equal id alone" in caplog.text


def test_one_person_by_picture_is_one_whatever_is_said_of_ids(
    source: Cohort, tmp_path: Path
) -> None:
    a = part(source, tmp_path / "a", of(source, 0, 1))
    b = part(source, tmp_path / "b", of(source, 1, 2))
    with pytest.raises(LeakError, match="expected no patient in both a and b but got 1"):
        merge([a.path, b.path], tmp_path / "out", distinct_ids=True)


def test_a_name_that_is_taken_is_not_given_again(source: Cohort, tmp_path: Path) -> None:
    a = part(source, tmp_path / "a", of(source, 0), patient_id="1")
    b = part(source, tmp_path / "b", of(source, 1), patient_id="1")
    c = part(source, tmp_path / "c", of(source, 2), patient_id="b/1")
    with pytest.raises(InputError, match=r"expected no patient to be called \['b/1'\] already"):
        merge([a.path, b.path, c.path], tmp_path / "out", distinct_ids=True)


def test_a_figure_of_several_cohorts_is_taken_once_with_what_all_say(
    source: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """b and c have a's figures, c in other pixels; a has nothing of the second expert."""
    rows, other = of(source, 1), of(source, 2)
    ids = {name: [f"{name}{i}" for i in range(len(rows))] for name in "bc"}
    a = part(source, tmp_path / "a", rows, label_expert2="", atypical_expert2="")
    b = part(source, tmp_path / "b", rows, patch_id=ids["b"], label_expert2="nmf_ring")
    c = part(source, tmp_path / "c", [*rows, *other],
             patch_id=[*ids["c"], *(f"o{i}" for i in range(len(other)))],
             label_expert2="amf_other")  # fmt: skip
    for row in range(len(rows)):
        rewrite(c, row, "jpeg")
    Cohort.write(c.path, "c", c.manifest, {})
    with caplog.at_level(logging.INFO, "atypia"):
        merged = merge([a.path, b.path, c.path], tmp_path / "out", allow_overlap=True)
    told = merged.manifest
    assert told["patch_id"].tolist() == [
        *("a/" + a.manifest["patch_id"]),
        *("c/" + c.manifest["patch_id"].iloc[len(rows) :]),
    ]
    assert told["label_expert1"].tolist()[: len(rows)] == a.manifest["label_expert1"].tolist()
    assert told["label_expert2"].tolist() == ["nmf_ring"] * len(rows) + ["amf_other"] * len(other)
    for path, before in zip(merged.image_paths(), a.image_paths(), strict=False):
        assert path.read_bytes() == before.read_bytes()
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(told)
    assert [entry["copies_left_out"] for entry in merged.source["parts"]] == [
        *(0, len(rows), len(rows)),
    ]
    for name in "bc":
        assert f"{name}: {len(rows)} figures are in an earlier cohort, too" in caplog.text


def test_opinions_of_a_copy_are_never_mixed_with_those_of_the_figure_that_stays() -> None:
    columns = ("patch_id", "label_e1", "atypical_e1", "atypical_e2", "majority_atypical")
    rows = [
        ("a/voted", "", "True", "", ""),
        ("a/bare", "", "", "", ""),
        ("b/voted", "nmf_ring", "False", "False", "False"),
        ("b/bare", "nmf_ring", "False", "", "False"),
        ("c/bare", "amf_other", "True", "True", "True"),
    ]
    copies = {"b/voted": "a/voted", "b/bare": "a/bare", "c/bare": "a/bare"}
    told = without_copies(pd.DataFrame(rows, columns=list(columns)), copies)
    assert told.to_numpy().tolist() == [
        ["a/voted", "", "True", "False", ""],  # e1 has spoken here; no majority of other votes
        ["a/bare", "nmf_ring", "False", "True", "False"],
    ]


def test_two_pictures_of_one_cohort_are_no_copies_of_each_other() -> None:
    shared = {("a", "b"): [Shared("P", "P", alike=[("a1", "b1"), ("a2", "b1"), ("a3", "b2")])],
              ("b", "c"): [Shared("P", "P", same_pixels=[("b2", "c1"), ("b3", "c2")])]}  # fmt: skip
    assert find_copies("abc", shared) == {
        ("b", "b1"): ("a", "a1"),
        ("b", "b2"): ("a", "a3"),
        ("c", "c1"): ("a", "a3"),
        ("c", "c2"): ("b", "b3"),
    }


def test_what_cannot_be_merged_is_told(source: Cohort, tmp_path: Path) -> None:
    a = part(source, tmp_path / "a", of(source, 0))
    with pytest.raises(InputError, match="two or more cohorts but got 1"):
        merge([a.path], tmp_path / "out")
    other = part(source, tmp_path / "more" / "a", of(source, 1))
    with pytest.raises(InputError, match=r"different names but got several of \['a'\]"):
        merge([a.path, other.path], tmp_path / "out")
    a.image_paths()[0].write_bytes(b"changed")
    with pytest.raises(InputError, match="SHA-256"):
        merge([a.path, part(source, tmp_path / "b", of(source, 2)).path], tmp_path / "out")


@pytest.mark.realdata
@pytest.mark.slow
def test_no_two_patients_of_ami_br_have_a_picture_in_common(ami_br: Path, tmp_path: Path) -> None:
    from atypia.pipeline import prepare

    cohort = prepare(ami_br, tmp_path / "whole")
    midog = cohort.manifest["domain"] == "MIDOG21"
    halves = [
        part(cohort, tmp_path / name, np.flatnonzero(rows).tolist())
        for name, rows in (("midog", midog), ("tupac", ~midog))
    ]
    assert find_overlap(*halves) == []


def test_the_manifest_of_a_merged_cohort_is_sound(source: Cohort, tmp_path: Path) -> None:
    """Columns that only one part has are empty in the other."""
    bare = source.manifest[[c for c in source.manifest.columns if not c.startswith("label_")]]
    a = part(source, tmp_path / "a", of(source, 0))
    b = part(source, tmp_path / "b", of(source, 1))
    Cohort.write(b.path, "b", bare.iloc[of(source, 1)].reset_index(drop=True), {})
    merged = merge([a.path, b.path], tmp_path / "out").manifest
    assert (merged["label_expert1"].iloc[len(a) :] == "").all()
    assert merged.notna().all(axis=None)
    assert isinstance(merged, pd.DataFrame)
