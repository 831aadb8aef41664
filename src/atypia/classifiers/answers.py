"""What a model answers on patches: probabilities, whether they can be relied on, and reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.core.labels import ANSWERED, N_SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


@dataclass(frozen=True)
class Explanation:
    """Why a patch got its predicted subtype."""

    reason: str
    """In words."""
    measures: Mapping[str, float]
    """What was measured, by name; see :class:`atypia.classifiers.rules.shape_measures.Measures`."""


@dataclass(frozen=True)
class Answers:
    """The answers on N patches."""

    probabilities: npt.NDArray[np.float32]
    """(N, 8), calibrated, each row summing to 1, whatever the status."""
    status: npt.NDArray[np.str_] | None = None
    """(N,) out of :data:`atypia.core.labels.STATUSES`; None where no guard looked at the patches,
    as in the out-of-fold predictions of a training."""
    p_mitosis: npt.NDArray[np.float32] | None = None
    """(N,) probability that the patch shows a mitotic figure, NaN where the model has no guard;
    None where `status` is."""
    reasons: Sequence[Explanation] = ()
    """One for each patch, or none at all."""

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which of the patches have a call, (N,)."""
        if self.status is None:
            return np.ones(len(self), dtype=np.bool_)
        return np.asarray(self.status == ANSWERED)

    @property
    def has_head(self) -> bool:
        """Whether the model's guard has been asked, not the pixels alone."""
        return self.p_mitosis is not None and bool(np.isfinite(self.p_mitosis).all())

    def take(self, rows: npt.NDArray[np.integer[Any]] | slice) -> Answers:
        """Take some of the patches, by their indices."""
        at = np.arange(len(self))[rows]
        return Answers(
            self.probabilities[at],
            None if self.status is None else self.status[at],
            None if self.p_mitosis is None else self.p_mitosis[at],
            [self.reasons[i] for i in at] if self.reasons else (),
        )


def joined(parts: Sequence[Answers]) -> Answers:
    """Lay the answers of one model on several batches one after the other; none on no batch."""
    if not parts:
        nothing = np.empty(0, np.float32)
        return Answers(np.empty((0, N_SUBTYPES), np.float32), nothing.astype(np.str_), nothing)
    status = [part.status for part in parts if part.status is not None]
    p_mitosis = [part.p_mitosis for part in parts if part.p_mitosis is not None]
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate(status) if status else None,
        np.concatenate(p_mitosis) if p_mitosis else None,
        [reason for part in parts for reason in part.reasons],
    )
