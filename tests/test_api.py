"""The Python API: the same answers for files and arrays; cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import atypia
from atypia.api import Classifier
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.errors import InputError
from atypia.labels import PROBABILITY_COLUMNS


@pytest.fixture(scope="module")
def model(run_folder: Path) -> Classifier:
    return atypia.load_model(run_folder, device="cpu")


@pytest.fixture(scope="module")
def paths(cohort_folder: Path) -> list[Path]:
    return Cohort.open(cohort_folder).image_paths()[:4]


def p(table: pd.DataFrame) -> np.ndarray:
    return table[list(PROBABILITY_COLUMNS)].to_numpy(float)


def test_files_and_arrays_get_the_same_answers(model: Classifier, paths: list[Path]) -> None:
    from_files = model.predict(paths, mpp=0.25)
    assert from_files["patch_id"].tolist() == [path.stem for path in paths]
    pixels = [read_patch(path) for path in paths]
    for inputs in (pixels, np.stack(pixels)):
        from_arrays = model.predict(inputs, mpp=0.25)
        np.testing.assert_allclose(p(from_arrays), p(from_files), atol=1e-6)
        assert from_arrays["patch_id"].tolist() == ["0", "1", "2", "3"]
    for one in (paths[0], str(paths[0]), pixels[0]):
        np.testing.assert_allclose(p(model.predict(one, mpp=0.25)), p(from_files)[:1], atol=1e-5)


def test_arrays_of_many_sizes(model: Classifier, paths: list[Path]) -> None:
    pixels = [read_patch(path) for path in paths]
    wide = [np.pad(a, ((i, i), (2 * i, 2 * i), (0, 0)), "reflect") for i, a in enumerate(pixels)]
    np.testing.assert_allclose(
        p(model.predict(wide, mpp=0.25)), p(model.predict(pixels, mpp=0.25)), atol=1e-5
    )


def test_a_cohort_knows_its_own_resolution(model: Classifier, cohort_folder: Path) -> None:
    assert len(model.predict(cohort_folder)) == 240


def test_every_wrong_array_is_named(model: Classifier) -> None:
    good = np.zeros((80, 80, 3), np.uint8)
    with pytest.raises(InputError) as caught:
        model.predict([good, good[:40], good.astype(float), good[..., :2]], mpp=0.25)
    assert [str(problem)[:7] for problem in caught.value.problems] == [
        f"patch {i}" for i in (1, 2, 3)
    ]
    for inputs, mpp in (
        (good, None),
        (good, 40.0),
        ([], 0.25),
        (good[None][:0], 0.25),
        (good[0], 0.25),
    ):
        with pytest.raises(InputError):
            model.predict(inputs, mpp=mpp)


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, atypia\nassert not {'torch', 'pandas', 'pydantic'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], check=True)
