"""Everything that the app shows, open: the source, its thumbnails, features, labels."""

from __future__ import annotations

import hashlib
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atypia.web.cache import Cache, cache_folder
from atypia.web.compared_runs import Comparison
from atypia.web.downloads import has_places
from atypia.web.embedding import embedder
from atypia.web.explanations import Explanations, find_explanations
from atypia.web.neighbours import Neighbours
from atypia.web.review import ReviewStore
from atypia.web.slide_view import SlideView
from atypia.web.tiles import LARGE_PX, PER_LARGE, PER_SMALL, SMALL_PX, Tiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atypia.web.source import Shown


@dataclass(frozen=True)
class Show:
    """What is asked to be shown."""

    source: Path
    """A run, a cohort or a slide."""
    reviews: Path
    """Where labels of reviewers are saved."""
    cohort: Path | None = None
    results: Path | None = None
    against: Path | None = None
    """A run or a table to compare with."""
    mpp: float | None = None
    blind: bool = False
    """Nobody sees what the model or other raters say: the server does not tell."""


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
        """Tell the browser what there is."""
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

    Args:
        show: What was asked for.
        shown: What was read; see :func:`atypia.web.source.open_source`.
        model: Gives the features of figures, and what is to be explained.

    Raises:
        InputError: A problem of the run or table to compare with.
    """
    folder = cache_folder() / hashlib.sha256(shown.pictures.key.encode()).hexdigest()[:32]
    cache = Cache(folder)
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
