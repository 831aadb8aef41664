"""Classify the candidates of a slide.

Fields are read in processes of their own while the network works on those before; a bounded
number waits, so memory does not grow with the number of candidates.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from atypia.classifiers.answers import joined
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.labels import ORIGIN_COLUMNS
from atypia.core.progress import OnDone, silent
from atypia.inference.patch_predictions import prediction_table
from atypia.slides.reader import unknown_resolution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    import numpy.typing as npt

    from atypia.biomarker import SlideBiomarkers
    from atypia.classifiers.answers import Answers
    from atypia.classifiers.protocol import SubtypeModel
    from atypia.core.config import InputSpec
    from atypia.slides.candidates import Candidate, CandidateList
    from atypia.slides.reader import SlideInfo
    from atypia.slides.slide_pool import SlidePool

    Fields = list[npt.NDArray[np.uint8] | Problem]

_CHUNK: Final = 64
"""Candidates that one process reads in one go, and the network sees at once."""

_BAND_PX: Final = 1024
"""Height of the bands in which a slide is read."""

SCAN_40X_MPP: Final = 0.25
"""µm per pixel of a scan with a 40x objective; patches to learn from are of such scans."""


@dataclass(frozen=True)
class SlidePredictions:
    """What was found on a slide."""

    table: pd.DataFrame
    """One row per figure; see :func:`classify_slide`."""
    found: CandidateList
    """The candidates and annotated regions, and what was skipped."""
    unread: Sequence[Problem]
    """One for each candidate whose place on the slide cannot be read."""
    info: SlideInfo
    biomarkers: SlideBiomarkers
    """Densities and atypical fraction of the annotated regions, the hot-spot, and of all."""


def classify_slide(
    model: SubtypeModel,
    slide: SlidePool,
    candidates: Sequence[Candidate],
    *,
    count_all: bool = False,
    on_done: OnDone = silent,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Classify the candidates of an open slide; with `count_all` all are called.

    `on_done` is called with the number of candidates done since the last call.

    Returns:
        A table with one row per candidate in their order: the columns of ``predictions.csv`` and
        ``slide``, ``x_px``, ``y_px`` (level 0), ``x_um``, ``y_um``, on slides whose scanned part
        does not begin at the corner of level 0 also ``origin_x_px``, ``origin_y_px`` (where it
        begins); and a problem for each candidate that could not be read, which has no row.
        Without candidates both are empty.

    Raises:
        InputError: The slide's resolution is unknown.
        AtypiaError: Not one of the candidates could be read, or the model's answers are no numbers.
    """
    if slide.info.mpp is None:
        raise InputError(unknown_resolution(slide.info.path))
    field_um, out_mpp = field_to_read(model.specs or (), slide.info.mpp)
    centres = np.array([(c.x, c.y) for c in candidates], dtype=np.float64).reshape(-1, 2)
    parts: list[Answers] = []
    answered: list[int] = []
    faults: dict[int, Problem] = {}
    order = reading_order(centres)
    with ThreadPoolExecutor(slide.readers) as threads:
        starts = iter(range(0, len(candidates), _CHUNK))

        def request(start: int) -> tuple[npt.NDArray[np.intp], Future[Fields]]:
            chunk = order[start : start + _CHUNK]
            return chunk, threads.submit(slide.read, centres[chunk], field_um, out_mpp)

        waiting = deque(request(start) for start in islice(starts, 2 * slide.readers))
        while waiting:
            chunk, future = waiting.popleft()
            answers = future.result()
            waiting.extend(request(following) for following in islice(starts, 1))
            rows, patches = [], []
            for row, answer in zip(chunk.tolist(), answers, strict=True):
                if isinstance(answer, Problem):
                    faults[row] = _of(candidates[row], answer)
                else:
                    rows.append(row)
                    patches.append(answer)
            if patches:
                parts.append(model.answer(np.stack(patches), out_mpp, _CHUNK))
                answered += rows
            on_done(len(answers))
    problems = [faults[row] for row in sorted(faults)]
    found, done = joined(parts).take(np.argsort(answered)), sorted(answered)
    if not np.isfinite(found.probabilities).all():
        raise AtypiaError(
            f"{slide.info.path}: expected probabilities but the model gave what is no number. Is "
            "it damaged, or does it need another --device or --backend?"
        )
    if problems and not done:
        listing = "\n".join(str(problem) for problem in problems[:20])
        raise AtypiaError(f"{slide.info.path}: not one candidate could be read.\n{listing}")
    about = _about([candidates[i] for i in done], centres[done], slide)
    table = prediction_table(about, found, model.postprocessing, count_all=count_all)
    return table, problems


def reading_order(centres: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """(N,) order in which to read centres (N, 2): neighbours together, for they share tiles.

    Readers keep some decoded tiles; on a slide with many candidates most are decoded once then.
    """
    return np.lexsort((centres[:, 0], centres[:, 1] // _BAND_PX))


def field_to_read(specs: Sequence[InputSpec], mpp: float) -> tuple[float, float]:
    """Side of the field to read, µm, and its µm per pixel.

    The slide's own resolution is kept, as for patches, unless it is more than twice as fine as
    the networks' samples lie, or coarser than a 40x scan. A coarser scan is enlarged, which
    keeps more of its detail than the networks' bilinear sampling would. The field has an even
    number of pixels and a margin, so that the sampling finds pixels beyond its edge.
    """
    samples_um = [spec.field_of_view_um / spec.size_px for spec in specs]
    out_mpp = SCAN_40X_MPP if mpp > 1.1 * SCAN_40X_MPP else max(mpp, min(samples_um) / 2)
    margin = 2 + math.ceil(2 * max(samples_um) / out_mpp)
    field_um = max(spec.field_of_view_um for spec in specs)
    side = 2 * (math.ceil(field_um / out_mpp / 2) + margin)
    return side * out_mpp, out_mpp


def origin_of(info: SlideInfo) -> dict[str, int]:
    """Columns with where the scanned part begins; none where that is the corner of level 0.

    Who has the table alone can lay regions over it that were drawn in QuPath.
    """
    return dict(zip(ORIGIN_COLUMNS, info.origin, strict=True)) if any(info.origin) else {}


def _of(candidate: Candidate, problem: Problem) -> Problem:
    place = f"candidate {candidate.id!r} at x = {candidate.x:.6g}, y = {candidate.y:.6g} px"
    return Problem(f"{place}: {problem.what}", problem.file)


def _about(
    candidates: Sequence[Candidate], centres: npt.NDArray[np.float64], slide: SlidePool
) -> pd.DataFrame:
    assert slide.info.mpp is not None
    further = sorted({column for c in candidates for column in c.about})
    return pd.DataFrame(
        {
            "patch_id": [c.id for c in candidates],
            "patient_id": "",
            "domain": "",
            "slide": slide.info.path.name,
            "x_px": centres[:, 0],
            "y_px": centres[:, 1],
            "x_um": centres[:, 0] * slide.info.um_per_px[0],
            "y_um": centres[:, 1] * slide.info.um_per_px[1],
            **{column: [c.about.get(column, "") for c in candidates] for column in further},
            **origin_of(slide.info),
        }
    )
