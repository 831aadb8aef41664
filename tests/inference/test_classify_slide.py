"""Candidates of a slide: the right pixels, the right order, bounded memory, nothing lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from slide_files import noise, smooth, spoil_tile, write_pyramid, write_tiff
from untrained import untrained_ensemble

from atypia.classifiers.answers import Answers
from atypia.classifiers.decision import Decision
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.core.config import InputSpec
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.labels import N_SUBTYPES, PROBABILITY_COLUMNS
from atypia.inference.patch_predictions import predict_arrays
from atypia.inference.slide_predictions import classify_slide, field_to_read
from atypia.slides import SlideInfo
from atypia.slides.candidates import Candidate
from atypia.slides.slide_pool import SlidePool

if TYPE_CHECKING:
    import numpy.typing as npt


def spec(field_um: float, size_px: int) -> InputSpec:
    return InputSpec(field_of_view_um=field_um, size_px=size_px, mean=(0, 0, 0), std=(1, 1, 1))


class Colours(Postprocessed):
    """A model whose probabilities are the colours of the field's centre."""

    def __init__(self, *specs: InputSpec) -> None:
        self.specs = specs or (spec(16, 32),)
        self.postprocessing = Postprocessing()

    def answer(self, patches: npt.NDArray[np.uint8], *_: float) -> Answers:
        middle = patches.shape[1] // 2
        p = np.zeros((len(patches), N_SUBTYPES), np.float32)
        p[:, :3] = patches[:, middle, middle] / 1000
        p[:, 7] = 1 - p.sum(axis=1)
        return Answers(p)


class Imagined:
    """A slide in memory that counts the fields which wait to be classified."""

    readers = 2

    def __init__(self) -> None:
        self.info = SlideInfo(Path("a.svs"), 4000, 4000, 0.5, (255, 255, 255), (0, 0))
        self.asked = self.done = self.most_waiting = 0

    def read(self, centres: npt.NDArray[np.float64], *_: float) -> list[Any]:
        self.asked += len(centres)
        self.most_waiting = max(self.most_waiting, self.asked - self.done)
        fields = [np.full((4, 4, 3), int(x) % 250, np.uint8) for x, _ in centres]
        return [
            Problem("died") if x % 10 == 3 else f for (x, _), f in zip(centres, fields, strict=True)
        ]


def test_rows_are_in_order_with_places_and_the_pixels_at_those_places(tmp_path):
    path = write_tiff(tmp_path / "a.tif", smooth(300, 400), 0.25)
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(2, 398, 150), rng.uniform(2, 298, 150)])
    candidates = [
        Candidate(f"c{i}", x, y, about={"label_a": "nmf_ring"}) for i, (x, y) in enumerate(places)
    ]
    done: list[int] = []
    with SlidePool(path, readers=2) as pool:
        table, problems = classify_slide(Colours(), pool, candidates, on_done=done.append)
    assert not problems
    assert sum(done) == 150
    assert list(table["patch_id"]) == [c.id for c in candidates]
    np.testing.assert_allclose(table[["x_px", "y_px"]], places)
    np.testing.assert_allclose(table[["x_um", "y_um"]], places * 0.25, rtol=1e-4)
    assert set(table["slide"]) == {"a.tif"}
    assert set(table["label_a"]) == {"nmf_ring"}
    np.testing.assert_allclose(table["p_amf_bipolar"] * 1000, places[:, 0] / 400 * 250, atol=2)
    np.testing.assert_allclose(table["p_amf_multipolar"] * 1000, places[:, 1] / 300 * 250, atol=2)


def test_a_bounded_number_of_fields_waits_and_each_failure_is_told():
    slide = Imagined()

    def on_done(n: int) -> None:
        slide.done += n

    candidates = [Candidate(f"c{i}", i, 0) for i in range(5000)]
    table, problems = classify_slide(Colours(), slide, candidates, on_done=on_done)
    assert slide.most_waiting <= 64 * (2 * slide.readers + 1)
    assert len(table) == 4500
    assert [p.what.split("'")[1] for p in problems] == [f"c{i}" for i in range(3, 5000, 10)]
    assert list(table["x_px"]) == [i for i in range(5000) if i % 10 != 3]
    np.testing.assert_allclose(table["p_amf_bipolar"] * 1000, table["x_px"] % 250, atol=1e-3)


def test_neighbours_are_read_together_and_answers_keep_their_order():
    slide = Imagined()
    read: list[tuple[float, float]] = []
    slide.read, before = (
        lambda centres, *_: read.extend(map(tuple, centres)) or before(centres),
        (slide.read),
    )
    slide.readers = 1
    rng = np.random.default_rng(0)
    places = rng.integers(0, 800, (3000, 2)) * 10.0
    table, problems = classify_slide(
        Colours(), slide, [Candidate(f"c{i}", x, y) for i, (x, y) in enumerate(places)]
    )
    assert not problems
    np.testing.assert_array_equal(table[["x_px", "y_px"]], places)
    np.testing.assert_allclose(table["p_amf_bipolar"] * 1000, places[:, 0] % 250, atol=1e-3)
    steps = np.abs(np.diff(read, axis=0)).max(axis=1)
    assert np.median(steps) < 1024  # at random, half of them are longer than 3000


def test_a_damaged_tile_costs_its_candidates_only(tmp_path):
    path = write_pyramid(tmp_path / "a.tif", noise(200, 300), 0.5)
    spoil_tile(path, 6)  # columns 64..128, rows 64..128
    candidates = [Candidate("bad", 96, 96), Candidate("good", 200, 30)]
    model = Colours(spec(4, 32))
    with SlidePool(path, readers=1) as pool:
        table, problems = classify_slide(model, pool, candidates)
        assert list(table["patch_id"]) == ["good"]
        (problem,) = problems
        assert "candidate 'bad' at x = 96, y = 96 px: expected a sound slide" in str(problem)
        with pytest.raises(AtypiaError, match="not one candidate could be read"):
            classify_slide(model, pool, candidates[:1])


def test_a_slide_without_resolution_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", noise(64, 64))
    with SlidePool(path, readers=1) as pool, pytest.raises(InputError, match="Give --mpp"):
        classify_slide(Colours(), pool, [Candidate("a", 1, 1)])


@pytest.mark.parametrize("mpp", [0.1, 0.23, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("specs", [(spec(18, 96),), (spec(32, 64),), (spec(18, 96), spec(32, 64))])
def test_the_field_to_read_is_the_model_s_with_a_margin_at_the_slide_s_resolution(specs, mpp):
    field_um, out_mpp = field_to_read(specs, mpp)
    side = field_um / out_mpp
    assert side == pytest.approx(round(side))
    assert round(side) % 2 == 0
    widest = max(s.field_of_view_um for s in specs)
    coarsest = max(s.field_of_view_um / s.size_px for s in specs)
    assert (field_um - widest) / 2 >= 2 * max(out_mpp, coarsest)
    finest = min(s.field_of_view_um / s.size_px for s in specs)
    assert out_mpp == (0.25 if mpp > 0.3 else max(mpp, finest / 2))


# --- Real figures -------------------------------------------------------------------------------


@pytest.mark.realdata
def test_a_mosaic_of_real_patches_is_answered_like_the_patches(tmp_path, ami_br):
    model = untrained_ensemble()
    files = sorted(ami_br.glob("patches/*/*.png"))[::37][:90]
    patches = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    mosaic = np.full((10 * 128, 9 * 128, 3), 245, np.uint8)
    candidates = []
    for i, patch in enumerate(patches):
        y, x = divmod(i, 9)
        mosaic[y * 128 : y * 128 + 128, x * 128 : x * 128 + 128] = patch
        candidates.append(Candidate(str(i), x * 128 + 64, y * 128 + 64))
    # An untrained network predicts nearly the same for all figures; the differences are enlarged.
    raw = predict_arrays(model, patches, 0.25)[list(PROBABILITY_COLUMNS)].to_numpy()
    prior = np.exp(np.log(raw).mean(axis=0))
    decision = Decision(prior=list(prior / prior.sum()), power=1)
    model.postprocessing = replace(model.postprocessing, decision=decision)
    expected = predict_arrays(model, patches, 0.25)
    assert expected["predicted_subtype"].nunique() >= 4

    fine = write_pyramid(tmp_path / "fine.tif", mosaic, 0.25)
    with SlidePool(fine, readers=2) as pool:
        table, _ = classify_slide(model, pool, candidates)
    same = table["predicted_subtype"].to_numpy() == expected["predicted_subtype"].to_numpy()
    assert same.all()
    pd.testing.assert_frame_equal(
        table[list(PROBABILITY_COLUMNS)], expected[list(PROBABILITY_COLUMNS)], atol=1e-5
    )

    halved = mosaic.reshape(640, 2, 576, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    coarse = write_pyramid(tmp_path / "coarse.tif", halved, 0.5)
    half = [Candidate(c.id, c.x / 2, c.y / 2) for c in candidates]
    with SlidePool(coarse, readers=2) as pool:
        table, _ = classify_slide(model, pool, half)
    # An untrained network is in two minds about many figures, a trained one about few.
    scores = np.sort(expected[list(PROBABILITY_COLUMNS)].to_numpy() / prior, axis=1)
    margin = scores[:, -1] / scores[:, -2]
    clear = margin >= np.quantile(margin, 0.25)
    same = table["predicted_subtype"].to_numpy() == expected["predicted_subtype"].to_numpy()
    assert same[clear].mean() >= 0.95
