"""What is explained: the log-odds of one subtype against all others, or of atypical figures.

Log-odds are the same for scores that differ by a constant, hence for the logits of a flat head and
the log-probabilities of a staged one; and they do not saturate where a probability is near 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from atypia.core.errors import InputError
from atypia.core.labels import (
    DISPLAY_NAMES,
    N_ATYPICAL,
    N_SUBTYPES,
    SUBTYPES,
    parse_subtype,
    subtype_index,
)

if TYPE_CHECKING:
    import numpy.typing as npt

PREDICTED: Final = "predicted"
ATYPICAL: Final = "atypical"
ANY_ATYPICAL: Final = N_SUBTYPES
"""The target "any of the four atypical subtypes"; the others are subtype indices."""


def parse_target(subtype: str) -> str:
    """Canonical name of what is to be explained."""
    name = subtype if subtype in (PREDICTED, ATYPICAL) else parse_subtype(subtype)
    if name is None:
        raise InputError(
            f"--subtype: expected {PREDICTED}, {ATYPICAL} or one of {', '.join(SUBTYPES)} but got "
            f"{subtype!r}."
        )
    return name


def target_indices(subtype: str, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Targets (N,) of figures whose predicted subtypes are `predicted`, (N,)."""
    if subtype == PREDICTED:
        return predicted
    return np.full(len(predicted), ANY_ATYPICAL if subtype == ATYPICAL else subtype_index(subtype))


def target_name(target: int) -> str:
    """Name a target for people."""
    return "Atypical" if target == ANY_ATYPICAL else DISPLAY_NAMES[SUBTYPES[target]]


def log_odds(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-odds (B,) of targets (B,), from logits or log-probabilities (B, 8)."""
    inside = _inside().to(scores.device)[targets]  # (B, 8)
    for_it = scores.masked_fill(~inside, -torch.inf).logsumexp(1)
    against = scores.masked_fill(inside, -torch.inf).logsumexp(1)
    return for_it - against


def target_probability(
    probabilities: npt.NDArray[np.floating[Any]], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating[Any]]:
    """Probability of targets, (N,), from those of the subtypes, (N, 8)."""
    return np.asarray((probabilities * _inside().numpy()[targets]).sum(axis=1))


def _inside() -> torch.Tensor:
    """Which subtypes are part of each target: (9, 8)."""
    table = torch.eye(N_SUBTYPES + 1, N_SUBTYPES, dtype=torch.bool)
    table[ANY_ATYPICAL, :N_ATYPICAL] = True
    return table
