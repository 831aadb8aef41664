from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from atypia.core.errors import InputError, Problem
from atypia.server.refusals import RefusalError
from atypia.web.neighbours import Neighbours
from atypia.web.pictures import Cache, GoneError
from atypia.web.tiles import LARGE_PX, PER_LARGE, SMALL_PX, Tiles


class Flat:
    """Figures of one colour each; some cannot be read."""

    key = "k"

    def __init__(self, n: int, bad: frozenset[int] = frozenset()) -> None:
        self.n, self.bad, self.asked = n, bad, 0

    def __len__(self) -> int:
        return self.n

    def patch(self, number: int) -> np.ndarray:
        self.asked += 1
        if number in self.bad:
            raise InputError(Problem("damaged"))
        # A frame of another colour lies outside of what a thumbnail shows.
        pixels = np.zeros((128, 128, 3), np.uint8)
        pixels[8:-8, 8:-8] = colour(number)
        return pixels

    def mpp(self, _number: int) -> float:
        return 0.25


def colour(number: int) -> tuple[int, int, int]:
    return 40 + number % 200, 60 + number // 200 * 12, 200


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(int)


def test_every_figure_is_where_the_browser_looks_for_it(tmp_path):
    n = 1200
    tiles = Tiles(Flat(n), Cache(tmp_path))
    assert (tiles.n_large, tiles.n_small) == (19, 2)
    for figure in (0, 1, 8, 63, 64, 1023, 1024, 1199):
        place = figure % PER_LARGE
        x, y = (place % 8 * LARGE_PX + 40, place // 8 * LARGE_PX + 40)
        assert decoded(tiles.large(figure // PER_LARGE))[y, x] == pytest.approx(
            colour(figure), abs=12
        )
        block = figure // PER_LARGE % 16
        x = (block % 4 * 8 + place % 8) * SMALL_PX + 16
        y = (block // 4 * 8 + place // 8) * SMALL_PX + 16
        assert decoded(tiles.small(figure // 1024))[y, x] == pytest.approx(colour(figure), abs=12)


def test_sheets_are_made_once_and_kept(tmp_path):
    pictures = Flat(100)
    first = Tiles(pictures, Cache(tmp_path))
    sheets = [first.large(0), first.large(1), first.small(0)]
    assert pictures.asked == 100
    second = Tiles(pictures, Cache(tmp_path))
    assert [second.large(0), second.large(1), second.small(0)] == sheets
    assert pictures.asked == 100


def test_a_picture_that_cannot_be_read_is_grey_and_the_others_are_there(tmp_path):
    tiles = Tiles(Flat(3, frozenset({1})), Cache(tmp_path))
    sheet = decoded(tiles.large(0))
    assert sheet[40, LARGE_PX + 40] == pytest.approx((128, 128, 128), abs=6)
    assert sheet[40, 2 * LARGE_PX + 40] == pytest.approx(colour(2), abs=12)


def test_a_slide_that_is_gone_for_now_leaves_no_sheet_behind(tmp_path, caplog):
    class Away(Flat):
        here = False

        def patch(self, number: int) -> np.ndarray:
            if not self.here and number == 2:
                raise GoneError("the share does not answer")
            return super().patch(number)

    pictures = Away(3)
    tiles = Tiles(pictures, Cache(tmp_path))
    tiles.start()
    tiles._thread.join(30)
    tiles.stop()
    assert "the share does not answer" in caplog.text
    for ask in (tiles.large, tiles.small):
        with pytest.raises(GoneError):
            ask(0)
    assert list(tmp_path.iterdir()) == []
    pictures.here = True
    assert decoded(tiles.large(0))[40, 2 * LARGE_PX + 40] == pytest.approx(colour(2), abs=12)


def test_features_of_a_slide_that_is_gone_for_now_are_not_kept(tmp_path):
    class Away(Flat):
        def patch(self, number: int) -> np.ndarray:  # noqa: ARG002
            raise GoneError("the share does not answer")

    def embed(patches: np.ndarray, _mpp: float) -> np.ndarray:
        return np.ones((len(patches), 4), np.float32)

    for pictures, state in ((Away(3), "failed"), (Flat(3, frozenset({1})), "ready")):
        neighbours = Neighbours(pictures, embed, "0" * 64, Cache(tmp_path))
        labels = np.zeros(3, np.int64)
        neighbours.near(0, labels)
        assert neighbours._thread is not None
        neighbours._thread.join(30)
        assert neighbours.near(0, labels)["state"] == state
        assert bool(list(tmp_path.iterdir())) == (state == "ready")


def test_there_is_no_sheet_beyond_the_last(tmp_path):
    tiles = Tiles(Flat(65), Cache(tmp_path))
    for number in (-1, 2):
        with pytest.raises(RefusalError):
            tiles.large(number)
    with pytest.raises(RefusalError):
        tiles.small(1)


def test_a_folder_that_cannot_be_written_to_costs_the_cache_and_nothing_else(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    tiles = Tiles(Flat(3), Cache(blocked / "below"))
    assert tiles.large(0) == tiles.large(0)


def test_all_sheets_are_made_in_the_background(tmp_path):
    tiles = Tiles(Flat(130), Cache(tmp_path))
    tiles.start()
    tiles._thread.join(30)
    tiles.stop()
    assert len(list(tmp_path.iterdir())) == 4
