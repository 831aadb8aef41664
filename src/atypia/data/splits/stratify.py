"""Deal patients into folds, the classes as even over them as patients allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESTARTS: Final = 16


def stratify(
    counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal patients into folds so that every class is spread by the folds' shares.

    Several times: patients in random order, those that hold the largest part of a class first,
    each go where they help most; then single patients move as long as a move helps. The best
    attempt is kept. What is minimised is, over folds and classes, the squared difference between
    the part of the class that the fold holds and the fold's share. A rare class so weighs as much
    as a common one, and leaving a fold without a class that could be there costs more than any
    unevenness. The numbers of figures and of patients count as one more class each.

    Args:
        counts: (P, C) figures of each class per patient.
        shares: (F,) positive, sum 1.
        rng: Decides between equals.

    Returns:
        (P,) fold of each patient. No fold is empty if P >= F.

    Raises:
        ValueError: There are fewer patients than folds.
    """
    n_patients, n_folds = len(counts), len(shares)
    if n_patients < n_folds:
        raise ValueError(f"expected at least {n_folds} patients but got {n_patients}")
    ones = np.ones((n_patients, 1), dtype=np.int64)
    counts = np.hstack([counts, counts.sum(1, keepdims=True), ones])  # (P, C + 2)
    counts = counts[:, counts.any(0)]
    totals = counts.sum(0)
    can_be_everywhere = (counts > 0).sum(0) >= n_folds

    def cost(held: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of folds that hold these counts: (..., F, C) -> (..., F)."""
        uneven = ((held / totals - shares[:, None]) ** 2).sum(-1)
        lacking = ((held == 0) & can_be_everywhere).sum(-1)
        return np.asarray(uneven + n_folds * len(totals) * lacking)

    def attempt() -> tuple[float, NDArray[np.int64]]:
        weight = (counts / totals).max(1) * rng.uniform(0.5, 1.5, n_patients)
        fold_of = np.zeros(n_patients, dtype=np.int64)
        held = np.zeros((n_folds, len(totals)), dtype=np.int64)
        for p in np.argsort(-weight):
            fold_of[p] = np.argmin(cost(held + counts[p]) - cost(held))
            held[fold_of[p]] += counts[p]
        everyone = np.arange(n_patients)
        while True:
            leave = cost(held - counts[:, None])[everyone, fold_of] - cost(held)[fold_of]  # (P,)
            change = leave[:, None] + cost(held + counts[:, None]) - cost(held)  # (P, F)
            change[everyone, fold_of] = 0
            p, f = np.unravel_index(np.argmin(change), change.shape)
            if change[p, f] > -1e-12:
                return float(cost(held).sum()), fold_of
            held[fold_of[p]] -= counts[p]
            held[f] += counts[p]
            fold_of[p] = f

    return min((attempt() for _ in range(_RESTARTS)), key=lambda result: result[0])[1]
