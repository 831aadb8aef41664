"""Decoded patches and the plan of an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atypia.core.config import AugmentConfig, InputSpec
from atypia.core.errors import InputError
from atypia.data.cohort import Cohort
from atypia.training import patch_store as loader
from atypia.training.epoch_batches import plan_epoch, prefetch
from atypia.training.patch_store import central_window, open_store

if TYPE_CHECKING:
    from pathlib import Path

HALF = (0.5, 0.5, 0.5)
SPEC = InputSpec(field_of_view_um=16, size_px=64, mean=HALF, std=HALF)


def test_the_store_holds_the_centre_of_every_patch(cohort_folder: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(cohort_folder)
    store = open_store(cohort, SPEC, None, tmp_path / "pixels.npy")
    assert store.pixels.shape == (len(cohort), 64, 64, 3)
    assert store.mpp == 0.25
    image = np.asarray(Image.open(cohort.image_paths()[7]))
    np.testing.assert_array_equal(store.pixels[7], image[8:72, 8:72])


def test_a_large_store_lives_in_a_file_with_the_same_pixels(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Cohort.open(cohort_folder)
    augment = AugmentConfig(rotate=True, scale=0.1, shift_um=1)
    small = open_store(cohort, SPEC, augment, tmp_path / "unused.npy")
    monkeypatch.setattr(loader, "IN_MEMORY_BYTES", 1000)
    large = open_store(cohort, SPEC, augment, tmp_path / "pixels.npy")
    assert isinstance(large.pixels, np.memmap)
    assert small.pixels.shape[1] == 80  # as much margin as the patches have
    np.testing.assert_array_equal(small.pixels, large.pixels)


def test_every_patch_below_the_field_of_view_is_named(cohort_folder: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(cohort_folder)
    wide = SPEC.model_copy(update={"field_of_view_um": 30.0})
    with pytest.raises(InputError, match="field of view") as caught:
        open_store(cohort, wide, None, tmp_path / "pixels.npy")
    assert len(caught.value.problems) == len(cohort)


@pytest.mark.parametrize("source_mpp", [0.125, 0.5])
def test_other_resolutions_are_brought_to_one(source_mpp: float) -> None:
    """The same gradient, in µm, comes out whatever the resolution it was scanned at."""
    side = round(32 / source_mpp)
    x_um = (np.arange(side) + 0.5) * source_mpp
    patch = np.repeat((x_um * 7)[None, :], side, 0).astype(np.uint8)[..., None].repeat(3, 2)
    window = central_window(patch, source_mpp, 0.25, 64)
    expected = 7 * (8 + (np.arange(64) + 0.5) * 0.25)
    assert window.shape == (64, 64, 3)
    assert np.abs(window[20, :, 0] - expected)[4:-4].max() <= 1.5


@given(
    n=st.integers(2, 200),
    size=st.integers(2, 64),
    batches=st.one_of(st.none(), st.integers(1, 12)),
    seed=st.integers(0, 2**31 - 1),
)
def test_samples_are_seen_equally_often(n: int, size: int, batches: int | None, seed: int) -> None:
    plans = [plan_epoch(n, size, batches, seed, epoch) for epoch in range(4)]
    samples = np.concatenate([p.samples.ravel() for p in plans])
    passes = np.concatenate([p.passes.ravel() for p in plans])
    assert samples.min() >= 0
    assert samples.max() < n
    # A sample is shown at most once in a pass: (sample, pass) names one augmentation.
    assert len(set(zip(samples.tolist(), passes.tolist(), strict=True))) == len(samples)
    if batches is not None:
        counts = np.bincount(samples, minlength=n)
        assert counts.max() - counts.min() <= 1


def test_an_epoch_depends_on_seed_and_number_only() -> None:
    assert np.array_equal(plan_epoch(50, 8, 5, 1, 3).samples, plan_epoch(50, 8, 5, 1, 3).samples)
    assert not np.array_equal(
        plan_epoch(50, 8, 5, 1, 3).samples, plan_epoch(50, 8, 5, 1, 4).samples
    )
    assert not np.array_equal(
        plan_epoch(50, 8, 5, 1, 3).samples, plan_epoch(50, 8, 5, 2, 3).samples
    )


def test_weights_decide_how_often_a_sample_is_seen() -> None:
    weights = np.array([0.0, 1.0, 3.0, 4.0])
    plans = [plan_epoch(4, 4, 50, 1, epoch, weights) for epoch in range(20)]
    seen = np.bincount(np.concatenate([p.samples.ravel() for p in plans]), minlength=4) / 4000
    np.testing.assert_allclose(seen, weights / 8, atol=0.03)
    draws = np.concatenate([p.passes.ravel() for p in plans])
    assert len(np.unique(draws)) == len(draws)  # no two are augmented alike
    assert np.array_equal(plan_epoch(4, 4, 50, 1, 3, weights).samples, plans[3].samples)


def test_prefetch_keeps_order_and_passes_errors_on() -> None:
    batches = np.arange(12).reshape(4, 3)
    shown = list(prefetch(lambda b: b.astype(np.uint8), batches))
    np.testing.assert_array_equal(np.stack(shown), batches)

    def broken(batch: np.ndarray) -> np.ndarray:
        if 6 in batch:
            raise OSError("gone")
        return batch.astype(np.uint8)

    with pytest.raises(OSError, match="gone"):
        list(prefetch(broken, batches))
