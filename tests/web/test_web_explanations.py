"""What the page is told of the rules' reading, and the lines that are drawn on the figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from untrained import untrained_ensemble

from atypia.web.explanations import find_explanations

pytest.importorskip("skimage")

MPP = 0.25


def test_the_heat_map_is_of_the_network_that_answers():
    from atypia.web.neighbours import embedder

    model = untrained_ensemble()
    heat = find_explanations(model).heat
    patch = drawn((0, -3, 9, 3, 20), (2, 4, 5, 2, 70))
    maps = [heat(patch, MPP, target, "gradcam") for target in (0, 5)]
    for told in maps:
        assert told.shape == patch.shape[:2]
        assert 0 < np.abs(told).max() <= 1
        assert not told[:20].any()  # beyond the 18 µm that the network sees
    assert not np.allclose(*maps)
    # What neighbours are sought by is what the same network makes of the field.
    embed, key = embedder(model)
    patches = np.stack([patch, patch[::-1], drawn((0, 0, 11, 3, 0))])
    features = embed(patches, MPP)
    again = embed(patches[[2, 0]], MPP)
    np.testing.assert_allclose(again, features[[2, 0]], atol=1e-5)
    assert np.linalg.norm(features[0] - features[2]) > 1e-3
    margin = patches[:1].copy()
    margin[:, :20] = 0
    np.testing.assert_allclose(embed(margin, MPP), features[:1], atol=1e-5)
    with torch.no_grad():
        next(model.members[0].backbone.parameters()).mul_(2)
    assert embedder(model)[1] != key


def drawn(*bodies: tuple[float, float, float, float, float], side: int = 128) -> np.ndarray:
    """Dark ellipses (centre x, centre y, length, width in µm, angle in degrees) on pale tissue."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * MPP
    inside = np.zeros((side, side))
    for cx, cy, length, width, angle in bodies:
        turn = np.radians(angle)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        inside = np.maximum(inside, (2 * along / length) ** 2 + (2 * across / width) ** 2 <= 1)
    soft = ndimage.gaussian_filter(inside.astype(float), 1)[..., None]
    pixels = (1 - soft) * (232, 190, 220) + soft * (50, 25, 95)
    return np.asarray(pixels.round(), dtype=np.uint8)


def ends(line: dict) -> np.ndarray:
    return (np.array(line["ends"]) - 64) * MPP  # µm from the middle, x and y


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_a_plate_is_measured_along_and_across_where_it_lies(angle):
    read = find_explanations(object()).read
    told = read(drawn((0, 0, 11, 3, angle)), MPP)
    length, width = told["lines"]
    assert float(length["text"].removesuffix(" µm")) == pytest.approx(11, abs=0.8)
    assert float(width["text"].removesuffix(" µm")) == pytest.approx(3, abs=0.8)
    # The words say the same.
    assert f"main length {length['text']}" in told["measures"]
    assert f"main width {width['text']}" in told["measures"]
    # So does what is drawn: as long as it says, along the plate, through the middle.
    (a, b), (c, d) = ends(length), ends(width)
    assert np.hypot(*(a - b)) == pytest.approx(float(length["text"][:-3]), abs=0.1)
    assert np.hypot(*(c - d)) == pytest.approx(float(width["text"][:-3]), abs=0.1)
    direction = np.degrees(np.arctan2(*(b - a)[::-1])) % 180
    assert min(abs(direction - angle), 180 - abs(direction - angle)) < 5
    assert abs((a + b) / 2) == pytest.approx([0, 0], abs=0.4)
    (contour,) = told["contours"]
    inside = (np.array(contour) - 64) * MPP
    assert np.hypot(*inside.T).max() == pytest.approx(5.5, abs=0.6)
    assert told["text"].endswith(".")


def test_two_plates_are_told_apart_by_the_distance_of_their_centres():
    read = find_explanations(object()).read
    told = read(drawn((0, -3.5, 9, 2.5, 0), (0, 3.5, 9, 2.5, 0)), MPP)
    *_, apart = told["lines"]
    assert float(apart["text"][:-3]) == pytest.approx(7, abs=0.3)
    assert sorted(ends(apart)[:, 1]) == pytest.approx([-3.5, 3.5], abs=0.3)
    assert len(told["contours"]) == 2


def test_where_there_is_no_chromatin_nothing_is_drawn():
    told = find_explanations(object()).read(drawn(), MPP)
    assert told == {"text": "no chromatin found", "measures": [], "contours": [], "lines": []}


def test_a_model_without_a_network_has_no_heat_maps():
    found = find_explanations(object())
    assert found.heat is None
    assert not found.methods
