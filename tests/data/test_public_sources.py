"""Public cohorts as their authors publish them, in small."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from atypia.core.errors import InputError
from atypia.data.cohort import Cohort
from atypia.data.overlap import shared_cases
from atypia.data.patient_names import case_of, midog_patient, public_case, veiled, veiled_cases
from atypia.data.sources import PrepareOptions
from atypia.pipeline import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

RNG = np.random.default_rng(0)
MIDOG25 = "MIDOG25_Atypical_Classification_Train_Set.csv"
CROPS = "MIDOG25_Binary_Classification_Train_Set"


def crop(path: Path, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


def source_image(path: Path) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb")
    return pixels


def told(source: Path, out: Path, options: PrepareOptions) -> str:
    with pytest.raises(InputError) as caught:
        prepare(source, out, options)
    assert not out.exists()
    return str(caught.value)


# --- MIDOG 2025 ---------------------------------------------------------------------------------


def midog25(folder: Path, rows: Sequence[str]) -> Path:
    """The header and rows of the published table, and a crop for each."""
    header = (
        "image_id,filename,coordinateX,coordinateY,Tumor,Scanner,Origin,Species,"
        "expert1,expert2,expert3,majority"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MIDOG25).write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        crop(folder / CROPS / row.split(",")[0])
    return folder


ROWS = (
    "3.png,201.tiff,150,140,canine lung cancer,3D Histech,VMU Vienna,Canine,AMF,NMF,NMF,NMF",
    "8.png,002.tiff,100,120,human breast cancer,Hamamatsu XR,UMC Utrecht,Human,AMF,AMF,,AMF",
)


@pytest.mark.parametrize("as_file", [False, True])
def test_midog25_keeps_votes_cases_and_tumours(tmp_path: Path, as_file: bool) -> None:
    folder = midog25(tmp_path / "src", ROWS)
    cohort = prepare(folder / MIDOG25 if as_file else folder, tmp_path / "out")
    assert (cohort.name, cohort.source["kind"], cohort.raters) == ("MIDOG25", "midog25", ())
    assert cohort.manifest.iloc[0].to_dict() == {
        "patch_id": "3",
        "file": "patches/3.png",
        "patient_id": "MIDOG_201",
        "domain": "canine lung cancer",
        "scanner": "3D Histech",
        "mpp": 0.25,
        "atypical_expert1": "True",
        "atypical_expert2": "False",
        "atypical_expert3": "False",
        "majority_atypical": "False",
    }
    second = cohort.manifest.iloc[1]
    assert (second["atypical_expert3"], second["majority_atypical"]) == ("", "True")
    assert second["patient_id"] == "MIDOG_002"
    original = (folder / CROPS / "8.png").read_bytes()
    assert cohort.image_paths()[1].read_bytes() == original


def test_midog25_repeats_and_contradictions(tmp_path: Path) -> None:
    contradiction = ROWS[0].replace("AMF,NMF,NMF,NMF", "AMF,NMF,NMF,AMF")
    folder = midog25(tmp_path / "src", [ROWS[1], contradiction, ROWS[1]])
    text = told(folder, tmp_path / "out", PrepareOptions())
    assert "row 3, column 'majority': expected the majority of the votes, False by 2 of 3" in text
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(skip_bad=True))
    assert cohort.manifest["patch_id"].tolist() == ["8"]
    assert cohort.source["n_skipped"] == 1


def test_midog25_from_the_source_images(tmp_path: Path) -> None:
    folder = midog25(tmp_path / "src", ROWS[:1])
    pixels = source_image(tmp_path / "images" / "201.tiff")
    options = PrepareOptions(images=tmp_path / "images", field_um=16)
    cohort = prepare(folder, tmp_path / "out", options)
    np.testing.assert_array_equal(
        np.asarray(Image.open(cohort.image_paths()[0])), pixels[108:172, 118:182]
    )
    without = PrepareOptions(images=tmp_path / "images")
    assert "--field-um" in told(folder, tmp_path / "out2", without)


def test_midog25_faults_are_listed_at_once(tmp_path: Path) -> None:
    wrong = (
        ROWS[0],
        ROWS[1].replace("002.tiff", "slide.svs"),
        ROWS[1].replace("8.png", "9.png").replace(",AMF,AMF,,AMF", ",AMF,perhaps,,AMF"),
    )
    folder = midog25(tmp_path / "src", wrong)
    (folder / CROPS / "3.png").unlink()
    text = told(folder, tmp_path / "out", PrepareOptions())
    assert "row 2" in text
    assert "3.png: expected an image but there is no such file" in text
    assert "row 3, column 'filename': expected an image like 201.tiff but got 'slide.svs'" in text
    assert (
        "row 4, column 'expert2': expected True, False or an empty cell but got 'perhaps'" in text
    )
    for path in (folder / CROPS).iterdir():
        path.unlink()
    assert "expected the crops, such as '3.png', beside" in told(
        folder, tmp_path / "out", PrepareOptions()
    )


# --- OMG-Octo -----------------------------------------------------------------------------------


def omg_octo(folder: Path, labels: Sequence[str]) -> Path:
    names = [f"0228570{i % 2}aa_x10{i}_y11_577_371_609_403.png" for i in range(len(labels))]
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"image_file": names, "label": labels})
    table.to_csv(folder / "OMG-Octo.csv", index=False)
    for name in names:
        crop(folder / "images" / name)
    return folder


def test_omg_octo_tells_atypical_figures_from_others_and_leaves_out_what_is_none(
    tmp_path: Path,
) -> None:
    folder = omg_octo(tmp_path / "src", ["AMF", "MF", "NMF", "imposter", "MF"])
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert cohort.name == "OMG-Octo"
    assert cohort.source["n_not_mitotic"] == 2
    assert cohort.manifest["majority_atypical"].tolist() == ["True", "False", "False"]
    assert cohort.manifest["patient_id"].tolist() == [
        "OMG-Octo_02285700aa",
        "OMG-Octo_02285701aa",
        "OMG-Octo_02285700aa",
    ]


def test_omg_octo_without_mf_says_nmf(tmp_path: Path) -> None:
    folder = omg_octo(tmp_path / "src", ["AMF", "NMF"])
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert cohort.manifest["majority_atypical"].tolist() == ["True", "False"]


def test_omg_octo_needs_a_resolution_and_takes_better_patients(tmp_path: Path) -> None:
    folder = omg_octo(tmp_path / "src", ["AMF", "MF"])
    assert "resolution of the crops of OMG-Octo" in told(folder, tmp_path / "out", PrepareOptions())
    options = PrepareOptions(mpp=0.25, patient_regex=r"^(\d{4})")
    cohort = prepare(folder, tmp_path / "out", options)
    assert cohort.manifest["patient_id"].tolist() == ["0228", "0228"]


# --- AtNorM -------------------------------------------------------------------------------------


SIDES = ("Atypical", "Normal")


def atnorm(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "votes.csv", index=False)
    for row in rows:
        side = "Atypical" if str(row["majority"]) in ("AMF", "1") else "Normal"
        crop(folder / side / str(row["image"]))
    return folder


def test_atnorm_br_has_tcga_patients(tmp_path: Path) -> None:
    rows = [
        {
            "image": "TCGA-A1-A0SB-01Z_7.png",
            "Expert 1": "AMF",
            "Expert 2": "NMF",
            "majority": "AMF",
        },
        {"image": "TCGA-A2-A04P-01Z_9.png", "Expert 1": "NMF", "Expert 2": "", "majority": "NMF"},
    ]
    folder = atnorm(tmp_path / "AtNorM-Br", rows)
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert (cohort.name, cohort.source["kind"]) == ("AtNorM-Br", "atnorm")
    assert cohort.manifest.to_dict("list") == {
        "patch_id": ["Atypical/TCGA-A1-A0SB-01Z_7", "Normal/TCGA-A2-A04P-01Z_9"],
        "file": [
            "patches/Atypical/TCGA-A1-A0SB-01Z_7.png",
            "patches/Normal/TCGA-A2-A04P-01Z_9.png",
        ],
        "patient_id": ["TCGA-A1-A0SB", "TCGA-A2-A04P"],
        "domain": ["AtNorM-Br"] * 2,
        "scanner": [""] * 2,
        "mpp": [0.25] * 2,
        "atypical_expert1": ["True", "False"],
        "atypical_expert2": ["False", ""],
        "majority_atypical": ["True", "False"],
    }


def test_atnorm_md_has_cases_of_midog(tmp_path: Path) -> None:
    rows = [
        {"image": "17", "filename": "245.tiff", "expert1": 1, "expert2": 1, "majority": 1},
        {"image": "18", "filename": "002.tiff", "expert1": 0, "expert2": 1, "majority": 0},
    ]
    folder = atnorm(
        tmp_path / "AtNorM-MD", [{**row, "image": f"{row['image']}.png"} for row in rows]
    )
    pd.DataFrame(rows).to_csv(folder / "votes.csv", index=False)  # names without an extension
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert cohort.manifest["patient_id"].tolist() == ["MIDOG_245", "MIDOG_002"]
    assert cohort.manifest["atypical_expert2"].tolist() == ["True", "True"]


def test_atnorm_keeps_its_name_in_a_folder_of_another(tmp_path: Path) -> None:
    rows = [{"image": "1.png", "expert1": 1, "expert2": 1, "majority": 1}]
    rows += [{"image": "2.png", "expert1": 1, "expert2": 1, "majority": 0}]
    folder = atnorm(tmp_path / "downloads", rows)
    next(folder.glob("*.csv")).rename(folder / "AtNorM-MD_expert_votes.csv")
    options = PrepareOptions(mpp=0.25, patient_per_patch=True, skip_bad=True)
    cohort = prepare(folder, tmp_path / "some name", options)
    assert cohort.name == "AtNorM-MD"
    assert cohort.manifest["domain"].tolist() == ["AtNorM-MD"]
    problem = told(folder, tmp_path / "out", options.model_copy(update={"skip_bad": False}))
    assert (
        "'majority': expected the majority of the votes, True by 2 of 2, but got False" in problem
    )


def test_atnorm_faults_are_listed_at_once(tmp_path: Path) -> None:
    rows = [
        {"image": f"TCGA-A1-A0S{i}-01Z.png", "expert1": "AMF", "majority": side}
        for i, side in enumerate(["AMF", "AMF", "NMF"])
    ]
    folder = atnorm(tmp_path / "AtNorM-Br", rows)
    changed = pd.DataFrame(rows)
    changed.loc[0, "majority"] = "NMF"
    changed.loc[1, "image"] = "gone.png"
    changed.to_csv(folder / "votes.csv", index=False)
    text = told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert "row 2, column 'majority': expected what the folder Atypical says but got 'NMF'" in text
    assert "TCGA-A1-A0S1-01Z.png: expected a row for this crop in votes.csv" in text
    assert "row 3, column 'image': expected a crop 'gone.png'" in text
    assert "Give --mpp" in told(folder, tmp_path / "out", PrepareOptions())


def test_atnorm_tells_crops_of_one_name_by_their_folder(tmp_path: Path) -> None:
    rows = [
        {"image": "1.png", "case": "001.tiff", "expert1": "AMF", "majority": "AMF"},
        {"image": "1.png", "case": "002.tiff", "expert1": "NMF", "majority": "NMF"},
    ]
    folder = atnorm(tmp_path / "AtNorM-MD", rows)
    told_apart = [{**row, "image": f"{side}/1"} for side, row in zip(SIDES, rows, strict=True)]
    pd.DataFrame(told_apart).to_csv(folder / "votes.csv", index=False)
    manifest = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25)).manifest
    assert manifest[["patch_id", "patient_id", "atypical_expert1"]].to_numpy().tolist() == [
        ["Atypical/1", "MIDOG_001", "True"],
        ["Normal/1", "MIDOG_002", "False"],
    ]


def test_atnorm_refuses_votes_that_could_be_of_two_crops_or_contradict(tmp_path: Path) -> None:
    rows = [
        {"image": "1.png", "case": "001.tiff", "expert1": "AMF", "majority": "AMF"},
        {"image": "1.png", "case": "002.tiff", "expert1": "NMF", "majority": "NMF"},
    ]
    folder = atnorm(tmp_path / "AtNorM-MD", rows)
    both = told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert "Atypical/1.png: expected a row of this crop alone in votes.csv but row 2, 3" in both
    assert "could be of Normal/1.png, too. Write folder and extension there." in both
    assert "what the folder" not in both
    pd.DataFrame(rows[:1]).to_csv(folder / "votes.csv", index=False)
    one = told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert "Normal/1.png: expected a row of this crop alone in votes.csv but row 2 " in one
    twice = [{**rows[0], "image": "AtNorM/Atypical/1.png"}, {**rows[0], "image": "Atypical/1"}]
    pd.DataFrame([*twice, {**rows[1], "image": "Normal/1"}]).to_csv(
        folder / "votes.csv", index=False
    )
    again = told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert again.endswith("expected one row for this crop in votes.csv but got 2, 3.")


def test_atnorm_never_guesses_patients(tmp_path: Path) -> None:
    rows = [{"image": f"{m}.png", "expert1": "AMF", "majority": m} for m in ("AMF", "NMF")]
    folder = atnorm(tmp_path / "AtNorM-MD", rows)
    assert "whose patches these are" in told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    options = PrepareOptions(mpp=0.25, patient_per_patch=True)
    assert len(set(prepare(folder, tmp_path / "out", options).manifest["patient_id"])) == 2
    (folder / "Normal" / "NMF.png").rename(folder / "Normal" / "TCGA-A1-A0SB-1.png")
    rows[1]["image"] = "TCGA-A1-A0SB-1.png"
    pd.DataFrame(rows).to_csv(folder / "votes.csv", index=False)
    half = told(folder, tmp_path / "out2", PrepareOptions(mpp=0.25))
    assert half.endswith("row 2, column 'image': expected to find the patient but did not.")


def test_folders_without_votes_stay_class_folders(tmp_path: Path) -> None:
    folder = atnorm(tmp_path / "src", [{"image": "a.png", "majority": "AMF"}])
    crop(folder / "Normal" / "b.png")
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=1, patient_per_patch=True))
    assert cohort.source["kind"] == "folders"


# --- MIDOG++ ------------------------------------------------------------------------------------


def midog_json(folder: Path, **changes: Any) -> Path:
    """The keys and the style of boxes of the published file."""
    boxes = [
        ([125, 75, 175, 125], 1, 2, 6),
        ([10, 20, 60, 70], 2, 2, 8),
        ([150.5, 90, 200.5, 140], 1, 201, 9),
    ]
    tree = {
        "info": {"description": "MIDOG++: A Comprehensive Multi-Domain Data Set", "year": 2023},
        "licenses": [{"url": "https://creativecommons.org", "id": 1, "name": "CC0"}],
        "images": [
            {"license": 1, "file_name": "002.tiff", "id": 2, "width": 300, "height": 300},
            {"license": 1, "file_name": "201.tiff", "id": 201, "width": 300, "height": 300},
        ],
        "categories": [
            {"id": 1, "name": "mitotic figure"},
            {"id": 2, "name": "not mitotic figure"},
        ],
        "annotations": [
            {"bbox": box, "category_id": kind, "image_id": image, "labels": [kind], "id": number}
            for box, kind, image, number in boxes
        ],
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MIDOGpp.json").write_text(json.dumps(tree))
    return folder


def test_midog_figures_become_patches_without_a_label(tmp_path: Path) -> None:
    folder = midog_json(tmp_path / "src")
    pixels = source_image(folder / "002.tiff")
    source_image(folder / "201.tiff")
    (folder / "datasets_xvalidation.csv").write_text(
        "Slide;Dataset;Tumor;Scanner;Origin;Species\n"
        "2;train;human breast cancer;Hamammatsu XR;UMC Utrecht;Human\n"
    )
    cohort = prepare(folder, tmp_path / "out", PrepareOptions(mpp=0.25, domain="others"))
    assert cohort.source["n_not_mitotic"] == 1
    assert (cohort.raters, cohort.vote_columns) == ((), ())
    assert cohort.manifest.to_dict("list") == {
        "patch_id": ["MIDOG_002_6", "MIDOG_201_9"],
        "file": ["patches/MIDOG_002_6.png", "patches/MIDOG_201_9.png"],
        "patient_id": ["MIDOG_002", "MIDOG_201"],
        "domain": ["human breast cancer", "others"],
        "scanner": ["Hamammatsu XR", ""],
        "mpp": [0.25] * 2,
        "slide": ["002.tiff", "201.tiff"],
        "x_px": ["150", "175.5"],
        "y_px": ["100", "115"],
    }
    # 32 µm around the centre of the box, as AMi-Br has it.
    np.testing.assert_array_equal(
        np.asarray(Image.open(cohort.image_paths()[0])), pixels[36:164, 86:214]
    )
    Cohort.open(tmp_path / "out", verify=True)


def test_cases_of_2022_have_numbers_of_their_own(tmp_path: Path) -> None:
    folder = midog_json(tmp_path / "src", info={"description": "MIDOG 2022 training set"})
    for name in ("002", "201"):
        source_image(folder / f"{name}.tiff")
    cohort = prepare(folder / "MIDOGpp.json", tmp_path / "out", PrepareOptions(mpp=0.25))
    assert cohort.manifest["patient_id"].tolist() == ["MIDOG22_002", "MIDOG22_201"]
    assert [case_of(p) for p in cohort.manifest["patient_id"]] == ["MIDOG 2", "MIDOG22 201"]


def test_boxes_in_cocos_style_and_unknown_categories_are_refused(tmp_path: Path) -> None:
    box = {"category_id": 3, "image_id": 2, "id": 1, "bbox": [1000, 900, 50, 50]}
    folder = midog_json(tmp_path / "src", annotations=[box])
    text = told(folder, tmp_path / "out", PrepareOptions(mpp=0.25))
    assert "annotation 1: its category or image is not listed" in text
    assert "annotation 1: expected a box from corner to corner" in text
    other = midog_json(
        tmp_path / "other", categories=[{"id": 1, "name": "nucleus"}, {"id": 2, "name": "x"}]
    )
    assert "expected a category 'mitotic figure'" in told(
        other, tmp_path / "out", PrepareOptions(mpp=0.25)
    )


# --- Everything else ----------------------------------------------------------------------------


def test_named_columns_make_any_table_a_table(tmp_path: Path) -> None:
    folder = midog25(tmp_path / "src", ROWS)
    options = PrepareOptions.model_validate(
        {
            "mpp": 0.25,
            "columns": {"file": "image_id", "votes": {"anna": "expert1"}, "patient": "filename"},
        }
    )
    for path in (folder / CROPS).iterdir():
        path.rename(folder / path.name)
    cohort = prepare(folder / MIDOG25, tmp_path / "out", options)
    assert cohort.source["kind"] == "table"
    assert cohort.vote_columns == ("atypical_anna",)


def test_patches_without_a_label_are_taken_where_it_is_meant(tmp_path: Path) -> None:
    crop(tmp_path / "src" / "new" / "a.png")
    crop(tmp_path / "src" / "nmf_ring" / "b.png")
    options = PrepareOptions(mpp=1, patient_per_patch=True)
    told(tmp_path / "src", tmp_path / "out", options)
    cohort = prepare(
        tmp_path / "src", tmp_path / "out", options.model_copy(update={"unlabelled": True})
    )
    assert cohort.manifest["label_expert1"].tolist() == ["", "nmf_ring"]

    table = tmp_path / "src" / "list.csv"
    table.write_text("file\nnew/a.png\nnmf_ring/b.png\n")
    assert "--unlabelled" in told(table, tmp_path / "out2", options)
    bare = prepare(table, tmp_path / "out2", options.model_copy(update={"unlabelled": True}))
    assert len(bare) == 2
    assert bare.raters == ()


@pytest.mark.parametrize(
    ("patient", "case"),
    [
        ("MIDOG21_002", "MIDOG 2"),
        ("MIDOG_002", "MIDOG 2"),
        ("MIDOG++_2", "MIDOG 2"),
        ("MIDOGpp 012", "MIDOG 12"),
        ("MIDOG2021-7", "MIDOG 7"),
        ("MIDOG22_150", "MIDOG 150"),
        ("MIDOG22_151", "MIDOG22 151"),
        ("TUPAC16_01_stitched1", "TUPAC 1"),
        ("TUPAC16_73", "TUPAC 73"),
        ("TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB"),
        ("tcga-a1-a0sb", "TCGA-A1-A0SB"),
        ("P1", "P1"),
        ("MIDOG", "MIDOG"),
        ("MIDOG_0021", "MIDOG 21"),
        ("my MIDOG_002", "my MIDOG_002"),
    ],
)
def test_a_case_has_one_name_in_all_cohorts(patient: str, case: str) -> None:
    assert case_of(patient) == case
    assert case_of(case) == case


@pytest.mark.parametrize(
    ("patient", "case"),
    [
        ("MIDOG_002", "MIDOG 2"),
        ("MIDOG 2", "MIDOG 2"),
        ("TUPAC 1", "TUPAC 1"),
        ("TCGA-A1-A0SB", "TCGA-A1-A0SB"),
        ("P1", None),
        ("1", None),
    ],
)
def test_a_public_case_is_told_from_an_id_of_ones_own(patient: str, case: str | None) -> None:
    assert public_case(patient) == case


@pytest.mark.parametrize(
    "spelt",
    [
        "MIDOG21_002 ",
        "\u200bMIDOG21_002\u00a0",
        "midog21_002",
        "MIDOG21_002.tiff",
        "MIDOG21/002.tiff",
        "MIDOG21\\002.TIF",
        "MIDOG21  2",
        "MIDOG++-2",
    ],
)
def test_no_spelling_hides_a_public_case(spelt: str) -> None:
    assert public_case(spelt) == "MIDOG 2"
    (entry,) = shared_cases(["MIDOG 2"], [spelt])
    assert (entry.second, entry.same_case) == (spelt, True)


def test_a_model_of_a_version_that_hashed_ids_as_spelt_is_understood() -> None:
    old = "sha256:" + hashlib.sha256(b"Case-7").hexdigest()[:32]
    (entry,) = shared_cases([old], ["Case-7"])
    assert (entry.first, entry.by_id_alone) == ("Case-7", True)
    (entry,) = shared_cases(veiled_cases(["Case-7"]), ["case-7.svs"])
    assert entry.first == "case-7.svs"
    assert shared_cases(veiled_cases(["Case-7"]), ["Case-70"]) == []
    assert public_case("TUPAC16_01_stitched1.tif") == "TUPAC 1"


def test_cases_are_named_once_each() -> None:
    own = "sha256:" + hashlib.sha256(b"p1").hexdigest()[:32]
    assert veiled_cases(["P1", "MIDOG_002", "MIDOG21_002", "P1"]) == ["MIDOG 2", own]
    assert veiled(own) == own  # once is enough


def test_a_midog_image_is_a_case() -> None:
    assert midog_patient("images/002.tiff") == "MIDOG_002"
    assert midog_patient("7.tif") == "MIDOG_007"
    assert midog_patient("slide_2.tiff") is None
