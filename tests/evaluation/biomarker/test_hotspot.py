"""The hot-spot holds the most figures that any window of its size can hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.biomarker import find_hotspot
from atypia.biomarker.hotspot import (
    LEAST_TISSUE,
    RESOLUTION_UM,
    Hotspot,
    Shape,
    TissueWindows,
)
from atypia.core.errors import InputError
from atypia.slides.tissue import Tissue

RADIUS_UM = np.sqrt(2.37e6 / np.pi)


def most_in_a_circle(points: np.ndarray, radius: float) -> int:
    """Exhaustive: the best disc can be moved until two of its points lie on its edge."""
    centres = list(points)
    for a, b in itertools.combinations(points, 2):
        between, length = (a + b) / 2, np.linalg.norm(b - a)
        if 0 < length <= 2 * radius:
            normal = np.array([b[1] - a[1], a[0] - b[0]]) / length
            height = np.sqrt(radius**2 - length**2 / 4)
            centres += [between + height * normal, between - height * normal]
    apart = np.linalg.norm(points[None] - np.array(centres)[:, None], axis=2)
    return int((apart <= radius * (1 + 1e-9)).sum(axis=1).max())


def most_in_a_rectangle(points: np.ndarray, width: float, height: float) -> int:
    """Exhaustive: the best window can be moved until points lie on its left and upper edge."""
    return max(
        int(((points >= (x, y)) & (points <= (x + width + 1e-6, y + height + 1e-6))).all(1).sum())
        for x in points[:, 0]
        for y in points[:, 1]
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [2, 7, 40])
def test_as_many_as_an_exhaustive_search_finds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 6000, (n, 2))
    points[: n // 3] = rng.normal(3000, 600, (n // 3, 2))
    circle = find_hotspot(points)
    assert circle is not None
    assert circle.contains(points).sum() == most_in_a_circle(points, RADIUS_UM)
    rectangle = find_hotspot(points, shape="rectangle")
    assert rectangle is not None
    width = np.sqrt(2.37e6 * 4 / 3)
    assert rectangle.contains(points).sum() == most_in_a_rectangle(points, width, width * 0.75)


@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=14),
    area=st.sampled_from([0.5, 2.37, 3.0]),
)
def test_on_a_lattice_with_ties_repeats_and_lines(
    places: list[tuple[int, int]], area: float
) -> None:
    points = np.array(places, dtype=float) * 250
    found = find_hotspot(points, area)
    assert found is not None
    radius = np.sqrt(area * 1e6 / np.pi)
    # A window may be missed whose points would not fit one drawn in by a tenth of a µm.
    least, most = (most_in_a_circle(points, r) for r in (radius - RESOLUTION_UM, radius))
    assert least <= found.contains(points).sum() <= most


def test_two_figures_that_only_just_fit_the_window() -> None:
    points = np.array([[0.0, 0.0], [2 * RADIUS_UM - 0.3, 0.0], [9000.0, 9000.0]])
    found = find_hotspot(points)
    assert found is not None
    assert found.contains(points).tolist() == [True, True, False]
    points[1, 0] += 0.4
    found = find_hotspot(points)
    assert found is not None
    assert found.contains(points).sum() == 1


def test_neither_the_order_nor_the_origin_matters() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 20_000, (3000, 2))
    one, other = find_hotspot(points), find_hotspot(rng.permutation(points))
    assert one == other
    moved = find_hotspot(points + 50_000)
    assert one is not None
    assert moved is not None
    assert moved.contains(points + 50_000).sum() == one.contains(points).sum()


def test_a_planted_cluster_is_found_among_100_000_figures() -> None:
    rng = np.random.default_rng(2)
    background = rng.uniform(0, 40_000, (98_000, 2))
    cluster = rng.normal((31_000, 8_000), 250, (2_000, 2))
    found = find_hotspot(np.concatenate([background, cluster]))
    assert found is not None
    assert np.linalg.norm(np.array(found.centre_um) - (31_000, 8_000)) < 300
    assert found.contains(cluster).sum() >= 1950


@pytest.mark.parametrize(("shape", "tolerance"), [("circle", 1e-3), ("rectangle", 1e-9)])
def test_the_outline_has_the_area_and_holds_the_figures(shape: str, tolerance: float) -> None:
    found = find_hotspot(np.array([[100.0, 200.0], [300.0, 250.0]]), 1.5, shape)  # type: ignore[arg-type]
    assert found is not None
    x, y = found.outline_um.T
    assert found.outline_um[0].tolist() == found.outline_um[-1].tolist()
    assert abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2 == pytest.approx(1.5e6, rel=tolerance)
    assert found.contains(found.outline_um * (1 - 1e-7) + np.array(found.centre_um) * 1e-7).all()
    if shape == "rectangle":
        assert np.ptp(x) / np.ptp(y) == pytest.approx(4 / 3)
    # The figures stand in the middle, not on the edge.
    assert found.centre_um == pytest.approx((200, 225))


def test_no_figures_have_no_hotspot_and_no_area_is_refused() -> None:
    assert find_hotspot(np.empty((0, 2))) is None
    for area in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="more than 0 mm²"):
            find_hotspot(np.zeros((1, 2)), area)


def fields(*boxes: tuple[int, int, int, int]) -> Tissue:
    """Tissue of boxes (x0, y0, x1, y1) in mm, on a slide of 12 × 8 mm."""
    mask = np.zeros((400, 600), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0 * 50 : y1 * 50, x0 * 50 : x1 * 50] = True
    return Tissue(mask)


@pytest.mark.parametrize("shape", ["circle", "rectangle"])
def test_a_window_lies_on_the_tissue(shape: Shape) -> None:
    """Many figures on a shred are no hot-spot; the fullest window on tissue is."""
    rng = np.random.default_rng(0)
    shred = rng.uniform(100, 900, (30, 2))
    tumour = rng.uniform([5000, 2000], [11_000, 7000], (60, 2))
    points = np.concatenate([shred, tumour])
    windows = TissueWindows(fields((0, 0, 1, 1), (5, 2, 11, 7)), 2.37, shape)
    assert windows.any
    free = find_hotspot(points, shape=shape)
    found = find_hotspot(points, shape=shape, windows=windows)
    alone = find_hotspot(tumour, shape=shape, windows=windows)
    assert free is not None
    assert found is not None
    assert alone is not None
    assert free.contains(points).sum() >= 30
    assert found.centre_um[0] > 5000
    assert windows.share(np.array([found.centre_um]))[0] >= LEAST_TISSUE
    assert found.contains(points).sum() == alone.contains(tumour).sum()
    # No window of a dense grid on the tissue holds more.
    grid = np.stack(np.meshgrid(np.arange(0, 12e3, 50), np.arange(0, 8e3, 50)), -1).reshape(-1, 2)
    grid = grid[windows.share(grid) >= LEAST_TISSUE]
    most = max(int(Hotspot(shape, 2.37, (x, y)).contains(points).sum()) for x, y in grid)
    assert found.contains(points).sum() >= most


def test_shares_of_tissue_are_areas() -> None:
    windows = TissueWindows(fields((2, 2, 6, 6)), 2.37, "rectangle")
    on_it, on_the_edge, off, beyond = windows.share(
        np.array([[4000.0, 4000.0], [2000.0, 4000.0], [9000.0, 4000.0], [-5000.0, 4000.0]])
    )
    assert on_it == pytest.approx(1)
    assert on_the_edge == pytest.approx(0.5, abs=0.02)
    assert (off, beyond) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))


def test_tissue_that_no_window_fits_on_has_no_hotspot() -> None:
    strip = TissueWindows(fields((0, 3, 12, 4)), 2.37, "circle")  # a core: 12 mm² but narrow
    assert not strip.any
    assert find_hotspot(np.array([[3000.0, 3500.0]]), windows=strip) is None
