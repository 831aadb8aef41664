"""Images of patches as work: so many files at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atypia.classifiers.loading import load_ensemble
from atypia.core.errors import InputError
from atypia.core.labels import N_SUBTYPES
from atypia.inference.jobs.work import Failure, FinishedPart, hash_of
from atypia.inference.patch_predictions import predict_items, prediction_table, with_abstained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atypia.inference.patch_predictions import PatchFile as Image


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images."""

    job: str
    number: int
    images: Sequence[Image]

    @property
    def key(self) -> str:
        """See :class:`atypia.inference.jobs.work.WorkItem`."""
        return hash_of(self.job, self.number)

    @property
    def size(self) -> int:
        """Number of files."""
        return len(self.images)


class ClassifyImages:
    """Worker that classifies images. Keeps the model.

    Args:
        model: See :func:`atypia.classifiers.loading.load_ensemble`.
        quality: Likewise.
        backend: Likewise.
        device: Likewise.
        threads: Of the network; None: as the machine has it.
        min_confidence: Adds the column ``abstained``; see
            :func:`atypia.inference.patch_predictions.with_abstained`.
    """

    def __init__(
        self,
        model: Path | str,
        quality: str,
        backend: str,
        device: str,
        threads: int | None,
        min_confidence: float | None = None,
    ) -> None:
        self._model = load_ensemble(model, quality, backend=backend, device=device, threads=threads)
        self._min_confidence = min_confidence

    def __call__(self, item: Batch) -> FinishedPart:
        """Classify images; one that cannot be read fails alone."""
        try:
            table, problems = predict_items(self._model, item.images, skip_bad=True)
        except InputError as error:
            table, problems = self._no_rows(item.images[0]), error.problems
        reasons = {problem.file: problem.what for problem in reversed(problems)}
        failures = [
            Failure("", image.patch_id, f"{image.path}: {reasons[str(image.path)]}")
            for image in item.images
            if str(image.path) in reasons
        ]
        if table.empty and len(failures) < item.size:
            raise InputError(problems)
        if self._min_confidence is not None:
            table = with_abstained(table, self._min_confidence)
        return FinishedPart(table, item.size - len(failures), failures)

    def close(self) -> None:
        """Nothing is open."""

    def _no_rows(self, image: Image) -> pd.DataFrame:
        about = pd.DataFrame(columns=["patch_id", *image.about])
        model = self._model
        return prediction_table(
            about,
            np.empty((0, N_SUBTYPES), np.float32),
            model.decision,
            model.threshold,
            conformal=model.conformal,
        )


def cut(images: Sequence[Image], job: str, batch_size: int) -> list[Batch]:
    """Cut a list of images into batches."""
    return [
        Batch(job, number, images[start : start + batch_size])
        for number, start in enumerate(range(0, len(images), batch_size))
    ]
