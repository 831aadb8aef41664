"""What the addresses do: the pipelines of ``predict`` and ``slide`` in threads, within limits."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pandas as pd

from atypia.core.errors import AtypiaError, InputError, Problem, collected
from atypia.core.labels import left_out
from atypia.data.images import read_pages
from atypia.inference.patch_predictions import predict_items, prediction_records
from atypia.inference.slide_predictions import classify_slide
from atypia.server.guard import Admission, ServerLimits
from atypia.server.refusals import RefusalError, sentences
from atypia.server.registered_slides import OpenSlides
from atypia.server.shared_model import ModelThread, SharedModel
from atypia.server.uploads import too_many, weigh
from atypia.slides.reader import unknown_resolution

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.inference.patch_predictions import PatchFile
    from atypia.server.schemas import About
    from atypia.server.uploads import Upload
    from atypia.slides import SlideInfo
    from atypia.slides.candidates import CandidateList

    ReadCandidates = Callable[[SlideInfo], CandidateList]
    """Reads the candidates of a slide once it is known what slide it is."""

T = TypeVar("T")

_THREADS: Final = 32
"""Requests that are worked on at once. The threads mostly wait for the model, and so are what its
batches gather from."""
_SLIDES: Final = 2
"""Slides that are worked on at once, and that stay open; each has processes of its own."""


class Service:
    """The model, the slides by id, and the limits. Use it as a context manager."""

    def __init__(
        self,
        model: SubtypeModel,
        about: About,
        slides: Mapping[str, Path] | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self.about = about
        self.slides = dict(slides or {})
        self.limits = limits or ServerLimits()
        self._model = ModelThread(model)
        self.admission = Admission(self.limits, lambda: self._model.seconds_per_patch)
        self._slide_seats = asyncio.Semaphore(_SLIDES)
        self._open_slides = OpenSlides(_SLIDES)
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._scratch = Path(
                opening.enter_context(tempfile.TemporaryDirectory(prefix="atypia-"))
            )
            opening.enter_context(self._model)
            opening.enter_context(self._open_slides)
            self._threads = opening.enter_context(ThreadPoolExecutor(_THREADS, "request"))
            self._closing = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Make a folder for the files of one request; it is gone afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def in_thread(self, work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
        """Run work in a thread. If nobody waits for it any more, `stop` it and see it end."""
        job = self._threads.submit(work)
        done = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if stop is not None:
                stop()
            if not job.cancel():
                # What it holds is counted until it ends, and its folder stays.
                await asyncio.wait([done])
            if not done.cancelled():
                done.exception()  # seen; nobody asks for it
            raise

    async def predict(self, uploads: Sequence[Upload], *, skip_bad: bool) -> dict[str, Any]:
        """Classify images; returns the content of :class:`atypia.server.schemas.PatchAnswers`.

        Raises:
            RefusalError: 413, 422, 503.
        """
        model = SharedModel(self._model)
        weighed = await self.in_thread(partial(weigh, uploads, model, self.limits))
        problems = weighed.problems
        tables: list[pd.DataFrame] = []
        with self.admission.hold(patches=weighed.patches):
            for items, n_bytes in weighed.parts(self.limits.buffer_bytes // 4):
                # With a problem there will be no answers; what is left is to find all problems.
                work = _check if problems and not skip_bad else partial(_classify, skip_bad)
                async with self.admission.pixels(n_bytes):
                    found, faults = await self.in_thread(partial(work, model, items), model.stop)
                problems += faults
                tables += found
        worded = sentences(problems, {str(upload.path): upload.name for upload in uploads})
        if not tables or (problems and not skip_bad):
            raise RefusalError(413 if weighed.oversized else 422, worded)
        warnings = []
        if weighed.mirrored:
            warnings.append(
                f"{weighed.mirrored} of {weighed.patches} patches are smaller than the model's "
                f"field of view, {model.field_of_view_um:g} µm: what lies beyond the edge is "
                "mirrored. Answers on whole patches are better."
            )
        table = pd.concat(tables, ignore_index=True)
        return {
            **self._answered(worded, table),
            "warnings": warnings,
            "predictions": prediction_records(table),
        }

    async def predict_slide(
        self,
        slide_id: str,
        candidates: ReadCandidates,
        names: Mapping[str, str],
        *,
        mpp: float | None = None,
    ) -> dict[str, Any]:
        """Classify the candidates of a slide.

        Args:
            slide_id: One of :attr:`slides`.
            candidates: Called in a thread.
            names: As for :func:`sentences`.
            mpp: µm per pixel of the slide; None is its own.

        Returns:
            The content of :class:`atypia.server.schemas.SlideAnswers`.

        Raises:
            RefusalError: 404, 413, 422, 503.
        """
        path = self.slides.get(slide_id)
        if path is None:
            raise RefusalError(404, f"There is no slide {slide_id!r}. GET /v1/slides lists them.")
        names = {str(path): slide_id, slide_id: slide_id, **names}
        model = SharedModel(self._model)
        work = partial(self._classify_slide, model, slide_id, candidates, mpp)
        async with self._slide_seats:
            try:
                table, info, problems = await self.in_thread(work, model.stop)
            except InputError as error:
                raise RefusalError(422, sentences(error.problems, names)) from None
            except AtypiaError as error:
                # Not one candidate could be read: that lies with the slide, and another try will
                # do no better.
                raise RefusalError(422, sentences([Problem(str(error))], names)) from None
        return {
            **self._answered(sentences(problems, names), table),
            "slide": slide_id,
            "width_px": info.width,
            "height_px": info.height,
            "mpp": info.mpp,
            "figures": prediction_records(table),
        }

    def _classify_slide(
        self, model: SharedModel, slide_id: str, candidates: ReadCandidates, mpp: float | None
    ) -> tuple[pd.DataFrame, SlideInfo, list[Problem]]:
        model.go_on()
        with self._open_slides.borrow(slide_id, self.slides[slide_id], mpp) as pool:
            if pool.info.mpp is None:
                raise InputError(unknown_resolution(pool.info.path))
            found = candidates(pool.info)
            if len(found.candidates) > self.limits.patches:
                raise too_many(self.limits)
            with self.admission.hold(patches=len(found.candidates)):
                table, unread = classify_slide(model, pool, found.candidates)
        return table, pool.info, [*found.problems, *unread]

    def _answered(self, problems: list[str], table: pd.DataFrame) -> dict[str, Any]:
        return {
            "model": self.about.model,
            "quality": self.about.quality,
            "operating_point": self.about.operating_point,
            "threshold": self.about.thresholds["atypical"],
            "problems": problems,
            "not_answered": left_out(table.get("status", ())),
        }


def _classify(
    skip_bad: bool, model: SharedModel, items: Sequence[PatchFile]
) -> tuple[list[pd.DataFrame], list[Problem]]:
    model.go_on()
    try:
        table, problems = predict_items(model, items, skip_bad=skip_bad)
    except InputError as error:
        # "Nothing is left", which names no file, may be true of this part alone.
        return [], [problem for problem in error.problems if problem.file]
    return [table], problems


def _check(
    model: SharedModel, items: Sequence[PatchFile]
) -> tuple[list[pd.DataFrame], list[Problem]]:
    """Find what :func:`predict_items` would find wrong, without the model."""
    problems: list[Problem] = []
    for item in items:
        model.go_on()
        with collected(problems):
            sides = [min(page.shape[:2]) for page in read_pages(item.path)]
            faults = [model.size_problem(side, item.mpp) for side in sides]
            problems += [Problem(fault, str(item.path)) for fault in faults if fault][:1]
    return [], problems
