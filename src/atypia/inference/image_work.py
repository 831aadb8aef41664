"""Images of patches as items of a job: so many files at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from atypia.classifiers.answers import joined
from atypia.core.errors import InputError
from atypia.inference.job_parts import Failure, FinishedPart, hash_of
from atypia.inference.patch_predictions import (
    predict_items,
    prediction_table,
    with_abstained,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.inference.job import JobModel
    from atypia.inference.patch_predictions import PatchFile


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Some images; an item of a job."""

    job: str
    number: int
    images: Sequence[PatchFile]

    @property
    def key(self) -> str:
        """Hash of the job and the number."""
        return hash_of(self.job, self.number)

    @property
    def size(self) -> int:
        """Number of files."""
        return len(self.images)

    def inputs(self) -> list[tuple[str, str]]:
        """No slide, and the name of each image."""
        return [("", image.patch_id) for image in self.images]


def cut_images(images: Sequence[PatchFile], job: str, batch_size: int) -> list[ImageBatch]:
    """Cut a list of images into batches."""
    return [
        ImageBatch(job, number, images[start : start + batch_size])
        for number, start in enumerate(range(0, len(images), batch_size))
    ]


class ClassifyImages:
    """Worker that classifies images. Keeps the model."""

    def __init__(self, model: JobModel, min_confidence: float | None = None) -> None:
        self._model = model.load()
        self._min_confidence = min_confidence

    def __call__(self, item: ImageBatch) -> FinishedPart:
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

    def _no_rows(self, image: PatchFile) -> pd.DataFrame:
        about = pd.DataFrame(columns=["patch_id", *image.about])
        return prediction_table(about, joined([]), self._model.postprocessing)
