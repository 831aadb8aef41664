"""NumPy and torch sample the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.core.config import InputSpec
from atypia.data.field_of_view import sample_field, sampling_matrix
from atypia.models.transforms import sample_field as sample_with_torch


def spec_of(field: float, size: int) -> InputSpec:
    return InputSpec(field_of_view_um=field, size_px=size, mean=(0, 0, 0), std=(1, 1, 1))


def noise(*shape: int) -> np.ndarray:
    """Pixels without any smoothness: the hardest to sample alike."""
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@given(
    height=st.integers(40, 150),
    width=st.integers(40, 150),
    mpp=st.floats(0.1, 1.2),
    field=st.floats(5, 40),
    size=st.sampled_from([32, 64, 96, 97]),
)
@settings(max_examples=40, deadline=None)
def test_the_pixels_are_those_of_torch(
    height: int, width: int, mpp: float, field: float, size: int
) -> None:
    """Enlarged or reduced, any shape, within the patch or beyond its edge."""
    pixels, spec = noise(2, height, width), spec_of(field, size)
    expected = sample_with_torch(torch.from_numpy(pixels), mpp, spec).numpy()
    np.testing.assert_allclose(sample_field(pixels, mpp, spec), expected, atol=1e-4)


@pytest.mark.parametrize(("mpp", "size"), [(0.25, 96), (0.25, 32), (0.125, 64), (0.5, 96)])
def test_usual_resolutions(mpp: float, size: int) -> None:
    pixels, spec = noise(70, 160, 160), spec_of(18, size)
    fields = sample_field(pixels, mpp, spec)
    assert fields.shape == (70, 3, size, size)
    assert fields.dtype == np.float32
    expected = sample_with_torch(torch.from_numpy(pixels), mpp, spec).numpy()
    np.testing.assert_allclose(fields, expected, atol=2e-5)


def test_every_sample_is_an_average() -> None:
    for side, mpp in ((128, 0.25), (300, 0.05), (20, 0.25)):
        weights = sampling_matrix(side, mpp, spec_of(18, 64))
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    pixels = np.full((1, 50, 50, 3), (10, 120, 255), np.uint8)
    fields = sample_field(pixels, 0.25, spec_of(30, 40))
    np.testing.assert_allclose(fields[0].mean((1, 2)), np.array([10, 120, 255]) / 255, atol=1e-6)


def test_a_field_of_the_patch_s_own_size_is_the_patch() -> None:
    pixels = noise(1, 64, 64)
    fields = sample_field(pixels, 0.25, spec_of(16, 64))
    np.testing.assert_allclose(fields[0], pixels[0].transpose(2, 0, 1) / 255, atol=1e-6)
