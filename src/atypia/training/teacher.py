"""Distillation: a student learns from the probabilities of a teacher, not from labels alone.

Hinton, Vinyals and Dean (NeurIPS Deep Learning Workshop 2014; arXiv 1503.02531, 2015). The
teacher's answers must be out of fold, each from a model that has not learned from the patch: an
answer to a patch that was learned by heart says no more than its label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.core.errors import InputError, LeakError
from atypia.evaluation.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy.typing as npt


def read_teacher(file: Path, patch_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Read what the teacher says of each patch.

    Args:
        file: A table of predictions; several rows of one patch are averaged.
        patch_ids: (N,) of a cohort.

    Returns:
        (N, 8) rows summing to 1, or to 0 where the teacher has no answer.

    Raises:
        InputError: The table is not sound, or has none of the patches.
    """
    table = read_predictions(file)
    mean = pd.DataFrame(table.probabilities).groupby(table.patch_ids).mean()
    answers = mean.reindex(list(patch_ids)).to_numpy(dtype=np.float64)
    known = ~np.isnan(answers).any(axis=1)
    if not known.any():
        raise InputError(
            f"target.teacher: expected predictions of patches of this cohort but {file} has "
            f"{len(table)} of others, the first {str(table.patch_ids[0])!r}."
        )
    answers = np.where(known[:, None], answers, 0)
    return answers / np.where(known, answers.sum(axis=1), 1)[:, None]


def with_teacher(
    own: npt.NDArray[np.floating[Any]], teacher: npt.NDArray[np.floating[Any]], mass: float
) -> npt.NDArray[np.float64]:
    """Mix the teacher's opinion into target distributions.

    Args:
        own: (N, 8) zero where there is no label; those rows get the teacher's opinion alone.
        teacher: (N, 8) zero where there is no opinion; those rows stay as they are.
        mass: The teacher's share where there are both, 0 to 1.

    Returns:
        (N, 8) rows summing to 1, or to 0 where neither says anything.
    """
    labelled, answered = own.any(axis=1, keepdims=True), teacher.any(axis=1, keepdims=True)
    share = np.where(labelled & answered, mass, answered)
    return np.asarray((1 - share) * own + share * teacher, dtype=np.float64)


def require_unseen_test_part(file: Path, patients: Collection[str], split: int) -> None:
    """Refuse a teacher that has learned from the patients that the student is tested on.

    An out-of-fold table has exactly the patients that its run trained on.

    Args:
        file: A table of out-of-fold predictions.
        patients: Of the test part.
        split: Number of the outer split, for the message.

    Raises:
        LeakError: The table has figures of these patients.
    """
    both = sorted(set(read_predictions(file).patients.tolist()) & set(patients))
    if both:
        raise LeakError(
            f"target.teacher: {file} has figures of {len(both)} patients of the test part of outer "
            f"split {split}, the first {both[:3]}: as out-of-fold predictions they say that the "
            "teacher has learned from these patients. Train teacher and student on the same split."
        )
