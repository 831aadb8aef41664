"""Everything that the app shows, open: a source, its thumbnails, features, labels, a second run."""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import InputError
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions
from atypia.web.explanations import Explanations, find_explanations
from atypia.web.neighbours import Neighbours, embedder
from atypia.web.pictures import cache_of
from atypia.web.review import ReviewStore, has_places
from atypia.web.slide_view import SlideView
from atypia.web.source import answers_of
from atypia.web.tiles import LARGE_PX, PER_LARGE, PER_SMALL, SMALL_PX, Tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.web.figure_rows import FigureRows
    from atypia.web.source import Shown

RESAMPLES: Final = 500
"""Of patients, in a comparison. Fewer than ``atypia compare`` draws: somebody waits."""


@dataclass(frozen=True)
class Show:
    """What is asked to be shown."""

    source: Path
    """A run, a cohort or a slide."""
    reviews: Path = Path("atypia-reviews.sqlite")
    """Where labels of reviewers are saved."""
    cohort: Path | None = None
    results: Path | None = None
    against: Path | None = None
    """A run or a table to compare with."""
    mpp: float | None = None
    count_all: bool = False
    """Count what the model did not answer for, too."""
    blind: bool = False
    """The server gives out no answers of the model and no labels of others."""


class Comparison:
    """A second model's answers on the figures; `first` and `second` are runs or tables.

    Raises:
        InputError: One has no answers, or a problem of a table.
    """

    def __init__(self, figures: FigureRows, first: Path, second: Path) -> None:
        if figures.answers is None:
            raise InputError(
                f"--against {second}: there are no answers to compare it with. Show a run, or give "
                "--results."
            )
        self.name = second.resolve().stem if second.is_file() else second.resolve().name
        self._first, self._second = first, second
        self._label = figures.label
        self._shown_as = figures.name
        self._answers = answers_of(second, list(figures.patch_ids))
        self._measures: dict[str, Any] | None = None

    def columns(self) -> dict[str, Any]:
        """Give the second model's columns, as the first one's."""
        return {"name": self.name, "answers": self._answers.columns()}

    def record(self, number: int) -> dict[str, Any] | None:
        """Give the second model's answer on one figure; None where there is none."""
        answer = self._answers.record(number)
        return None if answer is None else {"name": self.name, **answer}

    def measures(self) -> dict[str, Any]:
        """Compare both on the test part (or the one table that each has), by patients.

        Raises:
            InputError: The tables have no common figures, or no label.
        """
        if self._measures is None:
            if self._label is None:
                raise InputError("Nobody labelled the figures: there is nothing to measure by.")
            tables = {
                f"A: {self._shown_as}": read_predictions(self._first),
                f"B: {self.name}": read_predictions(self._second),
            }
            self._measures = compare(tables, self._label, RESAMPLES, intersection=True)
        return self._measures


@dataclass(frozen=True)
class Site:
    """What the addresses answer from. Made by :func:`open_site`."""

    show: Show
    shown: Shown
    tiles: Tiles
    reviews: ReviewStore
    explanations: Explanations
    neighbours: Neighbours | None = None
    slide: SlideView | None = None
    comparison: Comparison | None = None

    def about(self) -> dict[str, Any]:
        """Describe to the browser what there is."""
        figures = self.shown.figures
        return {
            "name": figures.name,
            "kind": self.shown.kind,
            "n": len(figures),
            "mpp": self._mpp(),
            "blind": self.show.blind,
            "pages": self._pages(),
            "reviews": self.show.reviews.name,
            "exports": {
                "cohort": self.shown.cohort is not None,
                "geojson": self.shown.found is not None,
                "slides": self.shown.cohort is not None and has_places(self.shown.cohort),
            },
            "tiles": {
                "large": {"side": LARGE_PX, "per": PER_LARGE, "sheets": self.tiles.n_large},
                "small": {"side": SMALL_PX, "per": PER_SMALL, "sheets": self.tiles.n_small},
            },
        }

    def order(self, reviewer: str) -> list[int]:
        """Give the figures in the order in which a reviewer meets them: random, always the same."""
        seed = hashlib.sha256(f"{self.shown.pictures.subject} {reviewer}".encode()).digest()
        numbers = list(range(len(self.shown.figures)))
        random.Random(seed).shuffle(numbers)
        return numbers

    def _mpp(self) -> float | None:
        """µm per pixel of the pictures, where it is the same for all."""
        pictures = self.shown.pictures
        found = {pictures.mpp(number) for number in range(len(pictures))}
        return found.pop() if len(found) == 1 else None

    def _pages(self) -> list[str]:
        some = len(self.shown.figures) > 0
        if self.show.blind:
            return ["review"] if some else []
        return [
            page
            for page, there in {
                "slide": self.slide is not None,
                "explorer": some,
                "review": some,
                "drop": True,
                "compare": self.comparison is not None,
            }.items()
            if there
        ]


@contextmanager
def open_site(show: Show, shown: Shown, model: object) -> Iterator[Site]:
    """Put together what the app shows; what works in the background ends with the block.

    Raises:
        InputError: A problem of the run or table to compare with.
    """
    cache = cache_of(shown.pictures)
    with ExitStack() as stack:
        tiles = Tiles(shown.pictures, cache)
        tiles.start()
        stack.callback(tiles.stop)
        neighbours = None
        found = embedder(model)
        if found is not None and len(shown.figures):
            neighbours = Neighbours(shown.pictures, *found, cache)
            stack.callback(neighbours.stop)
        comparison = None
        if show.against is not None:
            first = show.results or show.source
            comparison = Comparison(shown.figures, first, show.against)
        yield Site(
            show=show,
            shown=shown,
            tiles=tiles,
            reviews=ReviewStore(show.reviews, shown.pictures.subject, shown.pictures.names),
            explanations=find_explanations(model),
            neighbours=neighbours,
            slide=None if shown.pool is None else SlideView(shown.pool, shown.found),
            comparison=comparison,
        )
