"""A cohort folder: written whole, read strictly, and any change to it noticed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atypia.core.errors import InputError
from atypia.data.cohort import Cohort, manifest_problems, read_manifest

if TYPE_CHECKING:
    from pathlib import Path


def manifest(**changes: list[Any]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {
        "patch_id": ["a", "b"],
        "file": ["patches/a.png", "patches/b.png"],
        "patient_id": ["p", "q"],
        "domain": ["X", "X"],
        "scanner": ["", "S"],
        "mpp": [0.25, 0.5],
        "label_expert1": ["nmf_ring", ""],
        "label_anna": ["amf_other", "nmf_ring"],
        "atypical_anna": ["True", ""],
        "majority_atypical": ["False", "True"],
    }
    return pd.DataFrame(columns | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "patches").mkdir()
    for i, name in enumerate("ab"):
        Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(
            tmp_path / "patches" / f"{name}.png"
        )
    Cohort.write(tmp_path, "two", manifest(), {"kind": "test"})
    return tmp_path


def messages(path: Path, **options: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        Cohort.open(path, **options)
    return [str(problem) for problem in caught.value.problems]


def test_round_trip(folder):
    cohort = Cohort.open(folder, verify=True)
    pd.testing.assert_frame_equal(cohort.manifest, manifest())
    assert (cohort.name, len(cohort), cohort.source) == ("two", 2, {"kind": "test"})
    assert cohort.raters == ("expert1", "anna")
    assert cohort.vote_columns == ("atypical_anna", "majority_atypical")
    assert cohort.image_paths() == [folder / "patches/a.png", folder / "patches/b.png"]
    header = json.loads((folder / "cohort.json").read_text())
    assert (header["n_patches"], header["n_patients"], header["mpp"]) == (2, 2, [0.25, 0.5])
    assert set(header["files"]) == {"manifest.csv", "patches/a.png", "patches/b.png"}


def test_hash_is_of_the_bytes_alone(folder):
    before = Cohort.open(folder).sha256
    Cohort.write(folder, "another name", manifest(), {})
    assert Cohort.open(folder).sha256 == before
    Cohort.write(folder, "two", manifest(patient_id=["p", "r"]), {})
    assert Cohort.open(folder).sha256 != before


def test_changed_files_are_noticed(folder):
    (folder / "patches/a.png").write_bytes((folder / "patches/b.png").read_bytes())
    Cohort.open(folder)
    assert "a.png: expected the SHA-256" in messages(folder, verify=True)[0]
    (folder / "patches/b.png").unlink()
    with (folder / "manifest.csv").open("a") as stream:
        stream.write("c,patches/a.png,p,X,,0.25,,,,\nd,cohort.json,p,X,,0.25,,,,\n")
    told = messages(folder)
    assert len(told) == 3
    assert "manifest.csv: expected the SHA-256" in told[0]
    assert "b.png: expected a patch but the file is missing" in told[1]
    assert "cohort.json: is not listed" in told[2]


def test_folders_that_are_no_cohort(tmp_path, folder):
    assert "it has no cohort.json" in messages(tmp_path / "none")[0]
    header = json.loads((folder / "cohort.json").read_text())
    for change, what in (
        (header | {"format": 99}, "expected format 1 but got 99"),
        ([], "expected format 1 but got 'list'"),
        ({k: v for k, v in header.items() if k != "files"}, "the hash of every file"),
        ({k: v for k, v in header.items() if k != "name"}, "expected a name"),
    ):
        (folder / "cohort.json").write_text(json.dumps(change))
        assert what in messages(folder)[0]


def test_every_problem_of_a_manifest_has_its_place(tmp_path):
    table = manifest(
        patch_id=["a", "a"],
        file=["../secret.png", ""],
        patient_id=[" ", "q"],
        mpp=["NaN", "99"],
        label_anna=["NMF ring", "nmf_ring"],
        atypical_anna=["True", "1"],
    )
    table.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "manifest.csv")
    assert {(p.row, p.column) for p in caught.value.problems} == {
        (2, "file"),
        (2, "patient_id"),
        (2, "mpp"),
        (2, "label_anna"),
        (3, "patch_id"),
        (3, "file"),
        (3, "mpp"),
        (3, "atypical_anna"),
    }
    assert len(caught.value.problems) == 8
    assert {p.file for p in caught.value.problems} == {str(tmp_path / "manifest.csv")}


def test_missing_columns_of_a_manifest():
    (problem,) = manifest_problems(manifest().drop(columns=["mpp", "domain"]), "m.csv")
    assert "expected the columns ['domain', 'mpp']" in problem.what


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "starts empty"),
        (b"patch_id,file\n", "at least one row"),
        ("patch_id,ä\n1,2\n".encode("latin-1"), "expected UTF-8"),
        (b"patch_id,file\na,b,c\n", "row 2: expected 2 cells as in the header but got 3"),
    ],
)
def test_manifests_that_are_no_table(tmp_path, data, what):
    (tmp_path / "manifest.csv").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "manifest.csv")
    assert what in str(caught.value)


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_manifest(tmp_path / "manifest.csv")
