"""Every kind of source becomes a cohort, and every fault of a source is told at once."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from PIL import Image
from pydantic import ValidationError

from atypia.core.errors import InputError, MissingExtraError
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.cohort_builder import summary
from atypia.data.sources import Columns, PrepareOptions
from atypia.data.sources.ami_br import scanner_of
from atypia.pipeline import prepare
from atypia.slides import open_slide

if TYPE_CHECKING:
    from collections.abc import Sequence

RNG = np.random.default_rng(0)


def image(path: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Path:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def table(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False, **options)
    return path


def faults(source: Path, out: Path, options: PrepareOptions) -> list[str]:
    """The problems that preparing raises, without the paths; nothing may be left behind."""
    before = set(out.parent.iterdir())
    with pytest.raises(InputError) as caught:
        prepare(source, out, options)
    assert set(out.parent.iterdir()) == before
    return [str(p).replace(f"{source}", "SOURCE") for p in caught.value.problems]


# --- AMi-Br -------------------------------------------------------------------------------------


def ami_br_row(uid: int, **changes: Any) -> dict[str, Any]:
    return {
        "": uid,
        "slide": "051.tiff",
        "dataset": "MIDOG21",
        "uid": uid,
        "x": 100,
        "y": 90,
        "expert1_label": "NMF ring shape",
        "expert2_label": "AMF bipolar assymetric",
        "expert1_atypical": False,
        "expert2_atypical": True,
        "expert3_atypical": True,
        "majority_atypical": True,
    } | changes


def ami_br_like(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    table(folder / "AMI-BR.csv", rows)
    for row in rows:
        vote = "atypical" if str(row["majority_atypical"]) == "True" else "normal"
        image(folder / "patches" / vote / f"{row['dataset']}_{row['uid']}.png")
    return folder


def test_ami_br_keeps_every_rater_and_every_byte(tmp_path):
    rows = [
        ami_br_row(7),
        ami_br_row(
            9,
            dataset="TUPAC16",
            slide="01_stitched1.tif",
            expert3_atypical=False,
            majority_atypical=False,
        ),
    ]
    source = ami_br_like(tmp_path / "src", rows)
    seen: list[tuple[int, int]] = []
    cohort = prepare(source, tmp_path / "out", progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
    assert (cohort.name, cohort.source["kind"], cohort.source["n_skipped"]) == (
        "AMi-Br",
        "ami-br",
        0,
    )
    assert cohort.manifest.iloc[0].to_dict() == {
        "patch_id": "MIDOG21_7",
        "file": "patches/MIDOG21_7.png",
        "patient_id": "MIDOG21_051",
        "domain": "MIDOG21",
        "scanner": "Hamamatsu S360",
        "mpp": 0.25,
        "label_expert1": "nmf_ring",
        "label_expert2": "amf_bipolar",
        "atypical_expert1": "False",
        "atypical_expert2": "True",
        "atypical_expert3": "True",
        "majority_atypical": "True",
    }
    second = cohort.manifest.iloc[1]
    assert (second["patient_id"], second["scanner"]) == ("TUPAC16_01_stitched1", "")
    assert (
        cohort.image_paths()[0].read_bytes()
        == (source / "patches" / "atypical" / "MIDOG21_7.png").read_bytes()
    )
    Cohort.open(tmp_path / "out", verify=True)


@pytest.mark.parametrize(
    ("stem", "scanner"),
    [
        ("001", "Hamamatsu XR"),
        ("050", "Hamamatsu XR"),
        ("051", "Hamamatsu S360"),
        ("100", "Hamamatsu S360"),
        ("101", "Aperio CS2"),
        ("150", "Aperio CS2"),
        ("151", ""),
        ("01_stitched1", ""),
    ],
)
def test_scanner_of_a_midog_case(stem, scanner):
    assert scanner_of("MIDOG21", stem) == scanner
    assert scanner_of("TUPAC16", stem) == ""


def test_ami_br_faults_are_listed_at_once(tmp_path):
    rows = [
        ami_br_row(1),
        ami_br_row(2, expert1_label="NMF rings"),
        ami_br_row(3, expert2_atypical="perhaps"),
        ami_br_row(4, dataset="MIDOG22"),
        ami_br_row(5),
        ami_br_row(5, expert1_label="NMF metaphase"),
        ami_br_row(6),
        ami_br_row(8, slide=""),
        ami_br_row(9),
    ]
    source = ami_br_like(tmp_path / "src", rows)
    (source / "patches/atypical/MIDOG21_6.png").rename(source / "patches/atypical/more.png")
    image(source / "patches/atypical/MIDOG21_9.png", mode="L")
    told = faults(source, tmp_path / "out", PrepareOptions())
    assert told[0].startswith("SOURCE/AMI-BR.csv, row 3, column 'expert1_label': expected one of")
    assert told[0].endswith("got 'NMF rings'.")
    assert "row 4, column 'expert2_atypical': expected True, False or an empty" in told[1]
    assert "row 5, column 'dataset': expected one of ['MIDOG21', 'TUPAC16'] but got" in told[2]
    assert "row 6, column 'patch_id': expected a unique id" in told[3]
    assert "row 7, column 'patch_id'" in told[4]
    assert "row 8" in told[5]
    assert "MIDOG21_6.png: expected an image but there is no such file" in told[5]
    assert "row 9, column 'slide': expected a value" in told[6]
    assert "row 10" in told[7]
    assert "got grayscale" in told[7]
    assert len(told) == 8

    cohort = prepare(source, tmp_path / "out", PrepareOptions(skip_bad=True))
    assert list(cohort.manifest["patch_id"]) == ["MIDOG21_1"]
    assert cohort.source["n_skipped"] == 8
    assert cohort.source["ignored_files"] == ["patches/atypical/more.png"]
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert list(skipped.columns) == ["file", "row", "column", "what"]
    assert list(skipped["row"]) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert [p.name for p in sorted((tmp_path / "out" / "patches").iterdir())] == ["MIDOG21_1.png"]


def test_a_bad_row_does_not_hide_its_bad_image(tmp_path):
    source = ami_br_like(tmp_path / "src", [ami_br_row(1, expert1_label="ring?")])
    image(source / "patches/atypical/MIDOG21_1.png", mode="L")
    label, grayscale = faults(source, tmp_path / "out", PrepareOptions())
    assert "got 'ring?'" in label
    assert "got grayscale" in grayscale


def test_renamed_columns_are_reported_with_the_nearest_name(tmp_path):
    rows = [{k.replace("expert1_label", "Expert1_Labels"): v for k, v in ami_br_row(1).items()}]
    del rows[0]["uid"]
    told = faults(
        table(tmp_path / "s" / "AMI-BR.csv", rows).parent, tmp_path / "out", PrepareOptions()
    )
    assert len(told) == 2
    assert "expected a column 'uid' but there is none" in told[0]
    assert "'expert1_label' but there is none; did you mean 'Expert1_Labels'?" in told[1]


def test_ami_br_from_source_images(tmp_path):
    pixels = RNG.integers(0, 256, (200, 220, 3), dtype=np.uint8)
    (tmp_path / "img").mkdir()
    tifffile.imwrite(tmp_path / "img" / "051.tiff", pixels, photometric="rgb")
    source = table(tmp_path / "src" / "AMI-BR.csv", [ami_br_row(1)]).parent
    options = PrepareOptions(images=tmp_path / "img", field_um=16)
    cohort = prepare(source, tmp_path / "out", options)
    np.testing.assert_array_equal(Image.open(cohort.image_paths()[0]), pixels[58:122, 68:132])
    with pytest.raises(InputError, match="Give --field-um"):
        prepare(source, tmp_path / "out2", PrepareOptions(images=tmp_path / "img"))


@pytest.mark.realdata
def test_ami_br_counts_are_those_of_the_paper(ami_br, tmp_path):
    cohort = prepare(ami_br, tmp_path / "out")
    counts = summary(cohort)
    assert list(counts.classes["expert1"]) == [59, 71, 154, 255, 253, 1349, 1527, 52]
    assert len(counts.patients) == 202
    assert counts.votes.loc["atypical"].to_dict() == {
        "atypical_expert1": 539,
        "atypical_expert2": 861,
        "atypical_expert3": 1068,
        "majority_atypical": 832,
    }
    assert counts.domains.to_dict("index") == {
        ("MIDOG21", "Aperio CS2"): {"patches": 688, "patients": 47},
        ("MIDOG21", "Hamamatsu S360"): {"patches": 582, "patients": 44},
        ("MIDOG21", "Hamamatsu XR"): {"patches": 451, "patients": 44},
        ("TUPAC16", ""): {"patches": 1999, "patients": 67},
    }
    labels = pd.read_csv(ami_br / "AMI-BR.csv")
    assert list(cohort.manifest["patch_id"]) == list(
        labels["dataset"] + "_" + labels["uid"].astype(str)
    )
    assert not (tmp_path / "out" / "skipped.csv").exists()


# --- Folders ------------------------------------------------------------------------------------


def folders(root: Path) -> Path:
    image(root / "AMF multipolar" / "p1_a.png")
    image(root / "nmf-ring" / "p1_b.jpg")
    image(root / "nmf-ring" / "deep" / "p2_c.png")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    return root


def test_folder_per_class(tmp_path):
    options = PrepareOptions(mpp=0.5, patient_regex=r"(?P<patient>p\d)_", rater="anna", scanner="S")
    cohort = prepare(folders(tmp_path / "src"), tmp_path / "mine", options)
    assert cohort.manifest.to_dict("list") == {
        "patch_id": ["AMF multipolar/p1_a", "nmf-ring/deep/p2_c", "nmf-ring/p1_b"],
        "file": [
            "patches/AMF multipolar/p1_a.png",
            "patches/nmf-ring/deep/p2_c.png",
            "patches/nmf-ring/p1_b.png",
        ],
        "patient_id": ["p1", "p2", "p1"],
        "domain": ["mine"] * 3,
        "scanner": ["S"] * 3,
        "mpp": [0.5] * 3,
        "label_anna": ["amf_multipolar", "nmf_ring", "nmf_ring"],
    }
    assert cohort.source["ignored_files"] == ["notes.txt"]


def test_atypical_and_normal_folders_give_votes(tmp_path):
    for name in ("atypical/a", "normal/b", "AMF/c"):
        image(tmp_path / "src" / f"{name}.png")
    cohort = prepare(
        tmp_path / "src", tmp_path / "o", PrepareOptions(mpp=1, patient_per_patch=True)
    )
    assert cohort.raters == ()
    assert dict(
        zip(cohort.manifest["patch_id"], cohort.manifest["atypical_expert1"], strict=True)
    ) == {
        "AMF/c": "True",
        "atypical/a": "True",
        "normal/b": "False",
    }
    assert list(cohort.manifest["patient_id"]) == list(cohort.manifest["patch_id"])


def test_patients_from_a_file(tmp_path):
    root = folders(tmp_path / "src")
    file = table(
        tmp_path / "patients.csv",
        [
            {"patch_id": "AMF multipolar/p1_a", "patient_id": "x"},  # id
            {"patch_id": "nmf-ring/p1_b.jpg", "patient_id": "y"},  # path
            {"patch_id": "p2_c.png", "patient_id": "z"},  # file name
        ],
    )
    cohort = prepare(root, tmp_path / "out", PrepareOptions(mpp=0.5, patients=file))
    assert list(cohort.manifest["patient_id"]) == ["x", "z", "y"]
    table(file, [{"patch_id": "p2_c.png", "patient_id": "z"}])
    told = faults(root, tmp_path / "out2", PrepareOptions(mpp=0.5, patients=file))
    assert len(told) == 2
    assert "expected a row in" in told[0]


def test_patients_are_never_guessed(tmp_path):
    root = folders(tmp_path / "src")
    told = faults(root, tmp_path / "out", PrepareOptions())
    assert len(told) == 2
    for advice in ("--patients FILE", "--patient-regex", "--patient-per-patch"):
        assert advice in told[0]
    assert "--mpp" in told[1]
    two = PrepareOptions(mpp=1, patient_per_patch=True, patient_regex="x")
    assert "got --patient-regex and --patient-per-patch" in faults(root, tmp_path / "o", two)[0]
    broken = PrepareOptions(mpp=1, patient_regex="(")
    assert "expected a regular expression" in faults(root, tmp_path / "o", broken)[0]
    none = PrepareOptions(mpp=1, patient_regex=r"q(\d+)")
    assert len(faults(root, tmp_path / "o", none)) == 3


def test_folder_faults(tmp_path):
    root = folders(tmp_path / "src")
    image(root / "unknown" / "p9_x.png")
    image(root / "nmf-ring" / "P1_B.png")  # the same file name on many disks
    image(root / "nmf-ring" / "p3_small.png", size=(24, 32))
    (root / "nmf-ring" / "p3_cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = PrepareOptions(mpp=0.5, patient_regex="(?i)p[0-9]")
    told = sorted(faults(root, tmp_path / "out", options))
    assert len(told) == 5
    assert "P1_B.png, column 'patch_id': expected a unique id" in told[0]
    assert "p1_b.jpg, column 'patch_id': expected a unique id" in told[1]
    assert "p3_cut.png: expected a PNG" in told[2] or "p3_cut.png: expected a whole" in told[2]
    assert "p3_small.png: expected 32 × 32 px like 2 other patches at 0.5" in told[3]
    assert "got 24 × 32 px" in told[3]
    assert "unknown" in told[4]
    cohort = prepare(root, tmp_path / "out", options.model_copy(update={"skip_bad": True}))
    assert len(cohort) == 2
    assert cohort.source["n_skipped"] == 5
    mixed = options.model_copy(update={"skip_bad": True, "mixed_sizes": True})
    assert len(prepare(root, tmp_path / "mixed", mixed)) == 3
    written = sorted(p.stem for p in (tmp_path / "out" / "patches").rglob("*.png"))
    assert written == ["p1_a", "p2_c"]


def test_nothing_to_prepare(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "found no image" in faults(tmp_path / "empty", tmp_path / "out", PrepareOptions())[0]
    assert "does not exist" in faults(tmp_path / "none", tmp_path / "out", PrepareOptions())[0]
    image(tmp_path / "one" / "nmf_ring" / "a.png", mode="L")
    options = PrepareOptions(mpp=1, patient_per_patch=True, skip_bad=True)
    assert "nothing is left" in faults(tmp_path / "one", tmp_path / "out", options)[-1]


# --- Tables -------------------------------------------------------------------------------------


def listing(folder: Path, **options: Any) -> Path:
    rows = [
        {"pfad": "a.png", "diag": "NMF Ring", "vote": "AMF", "pat": "p1", "site": "X", "µm": 0.5},
        {"pfad": "sub/b.png", "diag": "", "vote": "no", "pat": "p2", "site": "", "µm": 0.25},
    ]
    for row in rows:
        image(folder / row["pfad"])
    return table(folder / "t.csv", rows, **options)


COLUMNS = Columns(
    file="pfad", labels={"me": "diag"}, votes={"me": "vote"}, patient="pat", domain="site", mpp="µm"
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_table_with_its_own_columns(tmp_path, separator, encoding, newline):
    source = listing(tmp_path / "s", sep=separator, encoding=encoding, lineterminator=newline)
    cohort = prepare(source, tmp_path / "out", PrepareOptions(columns=COLUMNS))
    assert cohort.manifest.to_dict("list") == {
        "patch_id": ["a", "sub/b"],
        "file": ["patches/a.png", "patches/sub/b.png"],
        "patient_id": ["p1", "p2"],
        "domain": ["X", "out"],
        "scanner": ["", ""],
        "mpp": [0.5, 0.25],
        "label_me": ["nmf_ring", ""],
        "atypical_me": ["True", "False"],
    }


def test_manifest_of_a_cohort_is_a_table(tmp_path):
    options = PrepareOptions(columns=COLUMNS)
    first = prepare(listing(tmp_path / "s"), tmp_path / "a", options)
    again = prepare(tmp_path / "a" / "manifest.csv", tmp_path / "b")
    pd.testing.assert_frame_equal(first.manifest, again.manifest)


def test_table_faults_are_listed_at_once(tmp_path):
    good = {
        "file": "a.png",
        "label_x": "nmf_ring",
        "patient_id": "p",
        "mpp": "0.5",
        "patch_id": "1",
    }
    rows = [
        good,
        good | {"patch_id": "2", "label_x": "NaN"},
        good | {"patch_id": "3", "patient_id": "nan"},
        good | {"patch_id": "4", "mpp": "0,5"},
        good | {"patch_id": "5", "mpp": "inf"},
        good | {"patch_id": "6", "mpp": "250"},
        good | {"patch_id": "7", "file": ""},
        good | {"patch_id": "../8"},
        good | {"patch_id": ""},
        good | {"patch_id": "10", "label_x": ""},
        good | {"patch_id": "11", "file": "nowhere.png"},
    ]
    source = table(tmp_path / "s" / "t.csv", rows)
    image(tmp_path / "s" / "a.png")
    with source.open("a") as stream:
        stream.write("a.png,nmf_ring\n\na.png,nmf_ring,p,0.5,14,more\n")
    told = faults(source, tmp_path / "out", PrepareOptions())
    expected = [
        "row 3, column 'label_x': expected one of",
        "row 4, column 'patient_id': expected the patient of the patch but got nan",
        "row 5, column 'mpp': expected a number (µm per pixel) with a decimal point, not a comma",
        "row 6, column 'mpp': expected a number",
        "row 7, column 'mpp': expected µm per pixel (0.01 to 10) but got '250'",
        "row 8, column 'file': expected the path of an image",
        "row 9, column 'patch_id': expected an id that can be a file name",
        "row 10, column 'patch_id': expected a patch id but the cell is empty",
        "row 11: expected at least one label or vote",
        "row 12: ",
        "row 13: expected 5 cells as in the header but got 2",
        "row 13, column 'mpp': ",
        "row 13, column 'patient_id': ",
        "row 13, column 'patch_id': ",
        "row 15: expected 5 cells as in the header but got 6",
    ]
    for what, problem in zip(expected, told, strict=True):
        assert f"SOURCE, {what}" in problem
    assert "nowhere.png: expected an image but there is no such file" in told[9]


def test_one_picture_of_two_patients_or_labels_is_refused_with_both_rows(tmp_path):
    pixels = np.asarray(Image.open(image(tmp_path / "a.png")))
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    image(tmp_path / "b.png")
    for name in ("white", "blank"):  # shows nothing, and is nobody's
        Image.new("RGB", (32, 32), "white").save(tmp_path / f"{name}.png")
    rows = [
        ("a.png", "P1", "nmf_ring"),
        ("a.tif", "P2", "nmf_ring"),
        ("b.png", "P3", "nmf_ring"),
        ("b.png", "P3", "amf_other"),
        ("white.png", "P1", "nmf_ring"),
        ("blank.png", "P3", "nmf_ring"),
    ]
    columns = ("file", "patient_id", "label_e")
    listed = [{"patch_id": i, **dict(zip(columns, r, strict=True))} for i, r in enumerate(rows)]
    path = table(tmp_path / "t.csv", listed)
    told = faults(path, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert [line.partition(": ")[0][-5:] for line in told] == ["row 2", "row 3", "row 4", "row 5"]
    assert "one patient_id, but got it in row 2 and row 3." in told[0]
    assert "one label_e, but got it in row 4 and row 5." in told[3]
    cohort = prepare(path, tmp_path / "out", PrepareOptions(mpp=0.25, skip_bad=True))
    assert cohort.manifest["patch_id"].tolist() == ["4", "5"]
    assert len(list((tmp_path / "out" / "patches").iterdir())) == 2


def test_a_repeated_row_is_taken_once_and_counted(tmp_path, caplog):
    image(tmp_path / "a.png")
    row = {"file": "a.png", "patient_id": "P1", "label_e": "nmf_ring"}
    cohort = prepare(table(tmp_path / "t.csv", [row] * 3), tmp_path / "out", PrepareOptions(mpp=1))
    assert len(cohort) == 1
    assert "2 rows repeat another one" in caplog.text


def test_tables_as_spreadsheets_write_them(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    rows = 'patch_id;file;patient_id;label_e;"x,y,z,u,v,w"\n'
    rows += "'=1;a.png;007 ;nmf_ring;\n-b;b.png;NA;nmf_ring;\n;;;;\n"
    (tmp_path / "t.csv").write_text("sep=;\n" + rows)
    cohort = prepare(tmp_path / "t.csv", tmp_path / "out", PrepareOptions(mpp=0.25))
    assert cohort.manifest["patch_id"].tolist() == ["=1", "-b"]
    assert cohort.manifest["patient_id"].tolist() == ["007", "NA"]
    assert "\n'=1,patches/=1.png,007," in (tmp_path / "out" / "manifest.csv").read_text()


def test_long_ids_and_two_spellings_are_named_by_their_rows(tmp_path):
    image(tmp_path / "a.png")
    rows = [
        {"patch_id": "x" * 201, "file": "a.png", "patient_id": "P0", "label_e": "nmf_ring"},
        {"patch_id": "y", "file": "a.png", "patient_id": "P1", "label_e": "nmf_ring"},
        {"patch_id": "z", "file": "a.png", "patient_id": "p1", "label_e": "nmf_ring"},
    ]
    told = faults(table(tmp_path / "t.csv", rows), tmp_path / "out", PrepareOptions(mpp=0.25))
    assert "row 2, column 'patch_id': expected an id of at most 200 bytes" in told[0]
    assert [line.partition(":")[0][-5:] for line in told[1:]] == ["row 3", "row 4"]
    assert "'P1' and 'p1'" in told[1]


def test_table_without_what_it_needs(tmp_path):
    source = table(tmp_path / "s" / "t.csv", [{"File": "a.png", "label": "nmf_ring", "x": 1}])
    told = faults(source, tmp_path / "out", PrepareOptions(columns=Columns(scanner="device")))
    assert "'file' but there is none; did you mean 'File'?" in told[0]
    assert "expected a column 'device'" in told[1]
    assert "--field-um" in told[2]
    assert "--mpp" in told[3]
    assert "--label-column" in told[4]
    assert "whose patches these are" in told[5]
    assert len(told) == 6


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "starts empty"),
        (b"a,b\n", "at least one row"),
        (b"a,b,a\n1,2,3\n", "each column name once but got 'a' 2 times"),
        ("file,ä\n1,2\n".encode("utf-16"), "got UTF-16 or binary"),
        ("file\nä.png\n".encode("latin-1"), "row 2: expected UTF-8 but got the byte 0xe4"),
        (b"\x00\x01\x02", "got UTF-16 or binary"),
    ],
)
def test_files_that_are_no_table(tmp_path, data, what):
    (tmp_path / "t.csv").write_bytes(data)
    told = faults(tmp_path / "t.csv", tmp_path / "out", PrepareOptions())
    assert len(told) == 1
    assert what in told[0]


def test_options_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        PrepareOptions(mp=0.25)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Columns(labels={"a rater": "x"})
    with pytest.raises(ValidationError):
        PrepareOptions(mpp=0)


# --- Source images ------------------------------------------------------------------------------

SLIDE = Path(__file__).parents[3] / "shared" / "slides" / "small_HE.svs"


def tiff(path: Path, pixels: np.ndarray, mpp: float | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", **options)
    return path


PIXELS = RNG.integers(0, 256, (160, 208, 3), dtype=np.uint8)
PIXELS[0] = PIXELS[-1] = (240, 241, 242)  # glass along two borders


def centres(path: Path, *rows: tuple[str, Any, Any]) -> Path:
    return table(
        path,
        [
            {"image": name, "x": x, "y": y, "label_a": "nmf_ring", "patient_id": "p"}
            for name, x, y in rows
        ],
    )


@pytest.mark.parametrize(
    "layout", [{}, {"tile": (64, 64), "compression": "zlib"}], ids=["plain", "tiled"]
)
def test_crops_at_the_resolution_of_the_file(tmp_path, layout):
    tiff(tmp_path / "s" / "im.tif", PIXELS, mpp=0.5, **layout)
    source = centres(tmp_path / "s" / "t.csv", ("im.tif", 100, 80), ("im.tif", 3, 150))
    cohort = prepare(source, tmp_path / "out", PrepareOptions(field_um=16))
    assert list(cohort.manifest["patch_id"]) == ["im_100_80", "im_3_150"]
    assert list(cohort.manifest["mpp"]) == pytest.approx([0.5, 0.5], rel=1e-3)
    middle, corner = (np.asarray(Image.open(p)) for p in cohort.image_paths())
    np.testing.assert_array_equal(middle, PIXELS[64:96, 84:116])
    # Beyond the edge: glass, never black.
    np.testing.assert_array_equal(corner[:26, 13:], PIXELS[134:160, 0:19])
    np.testing.assert_array_equal(corner[26:], np.broadcast_to([240, 241, 242], (6, 32, 3)))
    np.testing.assert_array_equal(corner[:, :13], np.broadcast_to([240, 241, 242], (32, 13, 3)))


def test_a_patch_keeps_its_slide_and_place(tmp_path):
    for folder in ("p1", "p2"):
        tiff(tmp_path / "s" / folder / "im.tif", PIXELS, mpp=0.5)
    tiff(tmp_path / "s" / "other.tif", PIXELS, mpp=0.5)
    rows = (("p1/im.tif", 100, 80), ("p2/im.tif", 100.5, 80), ("other.tif", 30, 40))
    options = PrepareOptions(field_um=16)
    source = centres(tmp_path / "s" / "t.csv", *rows)
    cohort = prepare(source, tmp_path / "out", options)
    assert cohort.manifest[["slide", "x_px", "y_px"]].to_numpy().tolist() == [
        ["p1/im.tif", "100", "80"],
        ["p2/im.tif", "100.5", "80"],
        ["other.tif", "30", "40"],
    ]
    second = prepare(source, tmp_path / "second", options)
    assert "origin_x_px" not in second.manifest.columns
    manifest = cohort.manifest.assign(x_px="far")
    Cohort.write(cohort.path, "far", manifest, {})
    with pytest.raises(InputError, match="expected px on level 0"):
        Cohort.open(cohort.path)


def test_centres_in_micrometres(tmp_path):
    tiff(tmp_path / "img" / "im.tif", PIXELS)
    source = centres(tmp_path / "t.csv", ("im.tif", 50, 40))
    options = PrepareOptions(
        field_um=16, mpp=0.5, centre_unit="um", images=tmp_path / "img", skip_bad=False
    )
    cohort = prepare(source, tmp_path / "out", options)
    np.testing.assert_array_equal(Image.open(cohort.image_paths()[0]), PIXELS[64:96, 84:116])


def test_background_without_glass_is_white(tmp_path):
    dark = np.full((64, 64, 3), 90, np.uint8)
    with open_slide(tiff(tmp_path / "d.tif", dark)) as source:
        assert source.info.background == (255, 255, 255)
        assert source.info.mpp is None
        assert source.crop(0, 0, 16)[0, 0].tolist() == [255, 255, 255]


def test_default_dpi_is_not_a_resolution(tmp_path):
    path = tiff(tmp_path / "d.tif", PIXELS, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(path) as source:
        assert source.info.mpp is None
    oblong = tiff(tmp_path / "o.tif", PIXELS, resolution=(2e4, 2.2e4), resolutionunit="CENTIMETER")
    listed = centres(tmp_path / "t.csv", (oblong.name, 50, 50))
    with pytest.raises(InputError, match="expected square pixels"):
        prepare(listed, tmp_path / "out", PrepareOptions(field_um=16))


def test_source_image_faults_are_listed_at_once(tmp_path):
    folder = tmp_path / "s"
    tiff(folder / "ok.tif", PIXELS, mpp=0.5)
    tiff(folder / "no_mpp.tif", PIXELS)
    tifffile.imwrite(folder / "16.tif", PIXELS.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(folder / "gray.tif", PIXELS[..., 0])
    (folder / "junk.svs").write_bytes(b"junk")
    cut = tiff(folder / "cut.tif", PIXELS, mpp=0.5)
    cut.write_bytes(cut.read_bytes()[: PIXELS.nbytes // 2])
    source = centres(
        folder / "t.csv",
        ("ok.tif", 50, 50),
        ("ok.tif", 208, 50),
        ("ok.tif", "NaN", 50),
        ("no_mpp.tif", 50, 50),
        ("16.tif", 50, 50),
        ("gray.tif", 50, 50),
        ("junk.svs", 50, 50),
        ("cut.tif", 50, 50),
        ("gone.tif", 50, 50),
        ("", 50, 50),
    )
    told = faults(source, tmp_path / "out", PrepareOptions(field_um=16))
    expected = [
        ("row 3", "expected a centre inside ok.tif (208 × 160 px)"),
        ("row 4, column 'x'", "expected a number (px)"),
        ("row 5", "does not say its µm per pixel. Give --mpp"),
        ("row 6", "expected 8-bit RGB"),
        ("row 7", "expected 8-bit RGB"),
        ("row 8", "cannot be read"),
        ("row 9", "cannot be read"),
        ("row 10", "there is no such file"),
        ("row 11, column 'image'", "expected the path of an image"),
    ]
    for (place, what), problem in zip(expected, told, strict=True):
        assert f"SOURCE, {place}: " in problem
        assert what in problem
    options = PrepareOptions(field_um=16, skip_bad=True)
    assert len(prepare(source, tmp_path / "out", options)) == 1


def test_missing_extra_is_named(tmp_path, monkeypatch):
    tiff(tmp_path / "s" / "im.tif", PIXELS, mpp=0.5)
    source = centres(tmp_path / "s" / "t.csv", ("im.tif", 100, 80))
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "openslide":
            raise ImportError("No module named 'openslide'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'atypia\[slides\]'"):
        prepare(source, tmp_path / "out", PrepareOptions(field_um=16, skip_bad=True))


@pytest.mark.realdata
def test_crops_of_a_real_slide(tmp_path):
    if not SLIDE.is_file():
        pytest.skip(f"slide not found at {SLIDE}")
    source = centres(tmp_path / "t.csv", (SLIDE.name, 1000, 1200), (SLIDE.name, 2219, 2966))
    options = PrepareOptions(field_um=32, images=SLIDE.parent)
    cohort = prepare(source, tmp_path / "out", options)
    assert set(cohort.manifest["mpp"]) == {0.499}
    middle, corner = (np.asarray(Image.open(p)) for p in cohort.image_paths())
    with openslide.OpenSlide(SLIDE) as slide:
        reference = slide.read_region((1000 - 32, 1200 - 32), 0, (64, 64)).convert("RGB")
    np.testing.assert_array_equal(middle, reference)
    assert middle.shape == (64, 64, 3)
    assert corner[40:, 40:].min() >= 200


def test_summary_counts(tmp_path):
    cohort = prepare(listing(tmp_path / "s"), tmp_path / "out", PrepareOptions(columns=COLUMNS))
    counts = summary(cohort)
    assert list(counts.classes.index) == list(SUBTYPES)
    assert counts.classes["me"].to_dict() == dict.fromkeys(SUBTYPES, 0) | {"nmf_ring": 1}
    assert counts.class_patients["me"].sum() == 1
    assert counts.votes["atypical_me"].to_dict() == {"atypical": 1, "normal": 1, "none": 0}
    assert counts.patients.to_dict("index") == {
        "p1": {"domain": "X", "patches": 1},
        "p2": {"domain": "out", "patches": 1},
    }
