"""What a network learns from: distributions over the subtypes, and a share of atypical votes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atypia.core.config import TrainConfig
from atypia.core.errors import InputError, LeakError
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES, parse_atypical, subtype_index
from atypia.data.cohort import MAJORITY_COLUMN
from atypia.evaluation.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from atypia.core.config import AnyConfig, TargetConfig


def chosen_labels(manifest: pd.DataFrame, label: str) -> npt.NDArray[np.int64]:
    """Subtype index of every patch, (N,), by the chosen label; -1 where there is none.

    The label is the name of a rater, or ``agreed``: where all raters who gave a subtype gave the
    same.

    Raises:
        InputError: The cohort has no such rater, or no subtypes at all.
    """
    raters = [c.removeprefix("label_") for c in manifest.columns if c.startswith("label_")]
    if not raters:
        raise InputError(
            "label: expected a cohort in which at least one rater gave subtypes, by which training "
            "is steered and judged, but got one without subtypes. Join it with one that has them "
            "(atypia merge), beside which its figures teach."
        )
    if label == "agreed":
        table = manifest[[f"label_{r}" for r in raters]]
        first = table.replace("", None).bfill(axis=1).iloc[:, 0].fillna("")
        same = ((table == "") | table.eq(first, axis=0)).all(axis=1)
        names = first.where(same & (table != "").sum(axis=1).gt(1), "")
    elif label in raters:
        names = manifest[f"label_{label}"]
    else:
        raise InputError(
            f"label: expected a rater of the cohort {raters} or 'agreed' but got {label!r}."
        )
    return np.array([subtype_index(n) if n else -1 for n in names], dtype=np.int64)


def vote_column(manifest: pd.DataFrame, label: str) -> str | None:
    """Column of the votes that a label is; None where it is one of subtypes.

    It is named itself, or by a rater who gave votes and no subtypes.
    """
    votes = [c for c in manifest.columns if c.startswith("atypical_") or c == MAJORITY_COLUMN]
    if f"label_{label}" in manifest.columns:
        return None
    if label == MAJORITY_COLUMN and votes:
        return label
    return next((c for c in (label, f"atypical_{label}") if c in votes), None)


def scored_labels(manifest: pd.DataFrame, label: str) -> npt.NDArray[np.int64]:
    """Give :func:`chosen_labels`, or -1 throughout where the label is of votes."""
    if vote_column(manifest, label) is not None:
        return np.full(len(manifest), -1)
    return chosen_labels(manifest, label)


def scored_calls(manifest: pd.DataFrame, label: str) -> npt.NDArray[np.float64]:
    """Give 1 (atypical), 0 (normal) or NaN by a label of subtypes or of votes, (N,)."""
    column = vote_column(manifest, label)
    if column is None:
        return _side_of(chosen_labels(manifest, label))
    if column in manifest.columns:
        return votes_in(manifest, column)
    share = _share_of_votes(manifest)  # whose majority is in no column
    return np.where(share == 0.5, np.nan, _majority(share))


def require_learnable(manifest: pd.DataFrame, config: AnyConfig) -> None:
    """Refuse to learn subtypes where the label is of votes.

    Raises:
        InputError: With what can be learned.
    """
    if vote_column(manifest, config.label) is None:
        return
    if (
        isinstance(config, TrainConfig)
        and config.loss.of == "sides"
        and not config.model.frozen
        and config.ensemble.join != "weighted"
    ):
        return
    raise InputError(
        f"label: expected a rater who gave subtypes but {config.label!r} gave votes, atypical or "
        "normal. A network that is trained whole can learn these alone (loss.of=sides); for the "
        "subtypes join the cohort with one that has them (atypia merge), beside which its figures "
        "teach."
    )


@dataclass(frozen=True)
class Targets:
    """What is known of each of N patches; a row may lack either kind, or both."""

    subtypes: npt.NDArray[np.float32]
    """(N, raters, 8) distributions; zero where a rater gave no subtype."""
    atypical: npt.NDArray[np.float32]
    """(N,) share of the votes that call the figure atypical; NaN where there is none."""

    @property
    def n_raters(self) -> int:
        """Number of raters with scores of their own."""
        return int(self.subtypes.shape[1])

    @property
    def sides(self) -> npt.NDArray[np.float64]:
        """(N, 2) atypical and normal by most votes; a tie is half of each, none is zero."""
        atypical = _majority(self.atypical.astype(np.float64))
        return np.nan_to_num(np.stack([atypical, 1 - atypical], axis=1))

    def masses(
        self, rows: npt.NDArray[np.int64], often: npt.NDArray[np.float64] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Sum the first rater's subtypes (8,) and the sides (2,) of `rows`, each shown `often`."""
        often = np.ones(len(rows)) if often is None else often
        subtypes = (self.subtypes[rows, 0] * often[:, None]).sum(axis=0)
        sides = (self.sides[rows] * often[:, None]).sum(axis=0)
        return subtypes.astype(np.float32), sides.astype(np.float32)


def make_targets(
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    config: TargetConfig,
    hidden: npt.NDArray[np.bool_] | None = None,
) -> Targets:
    """Gather the raters' labels of each patch.

    Where both raters named a subtype, the second one's takes its share of the mass; where one did,
    that is learned. With `per_rater` the second stands beside the first. A cohort without that
    rater is learned from the chosen label alone. A teacher takes its share of what the first
    rater's scores learn, and all of it where there is no label. The share of atypical votes is
    that of the votes, where there are any, else that of the chosen label.

    `labels` (N,) are those of :func:`chosen_labels`. Of rows that are `hidden` (N,) no rater's
    subtype is learned and, with ``others`` = ``none``, no vote either.
    """
    hidden = np.zeros(len(manifest), bool) if hidden is None else hidden
    first = _one_hot(np.where(hidden, -1, labels))
    subtypes = [first]
    column = f"label_{config.second_rater}"
    if config.second_rater is not None and column in manifest.columns:
        second = _one_hot(np.where(hidden, -1, chosen_labels(manifest, config.second_rater)))
        if config.per_rater:
            subtypes.append(second)
        else:
            both = first.any(axis=1, keepdims=True) & second.any(axis=1, keepdims=True)
            mass = config.second_rater_mass
            subtypes = [np.where(both, (1 - mass) * first + mass * second, first + second)]
    known = [part.any(axis=1, keepdims=True) for part in subtypes]
    smoothed = [
        np.where(k, (1 - config.smoothing) * part + config.smoothing / N_SUBTYPES, 0)
        for k, part in zip(known, subtypes, strict=True)
    ]
    if config.teacher is not None:
        teacher = read_teacher(Path(config.teacher), manifest["patch_id"].tolist())
        smoothed[0] = with_teacher(smoothed[0], teacher, config.teacher_mass)
    atypical = atypical_share(manifest, labels)
    if config.others == "none":
        atypical[hidden] = np.nan
    return Targets(np.stack(smoothed, axis=1).astype(np.float32), atypical.astype(np.float32))


def atypical_share(
    manifest: pd.DataFrame, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Share of the votes for atypical, (N,); without votes by the label; NaN without both."""
    votes = _share_of_votes(manifest)
    return np.where(np.isnan(votes), _side_of(labels), votes)


def atypical_calls(
    labels: npt.NDArray[np.int64], share: npt.NDArray[np.floating[Any]], of: str
) -> npt.NDArray[np.float64]:
    """By what a binary answer is measured, (N,): 1 atypical, 0 normal, NaN not known or a tie.

    Where only the ``sides`` are learned (``loss.of``), it is the majority of the votes, by the
    `share` of :func:`atypical_share`; else the label.
    """
    if of == "sides":
        return np.where(share == 0.5, np.nan, _majority(share))
    return _side_of(labels)


def _majority(share: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Give 1 where most votes are atypical, 0 where few are, 0.5 in a tie; NaN stays."""
    return np.asarray((np.sign(share - 0.5) + 1) / 2, dtype=np.float64)


def _side_of(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.where(labels >= 0, (labels < N_ATYPICAL).astype(float), np.nan)


def _one_hot(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N, 8); rows without a label are zero."""
    return np.where(labels[:, None] >= 0, np.eye(N_SUBTYPES)[labels], 0)


def _share_of_votes(manifest: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Share of the experts who voted atypical, (N,); the majority where only that is known."""
    experts = [c for c in manifest.columns if c.startswith("atypical_")]
    votes = np.array([votes_in(manifest, expert) for expert in experts])
    votes = votes.reshape(len(experts), len(manifest))
    n = (~np.isnan(votes)).sum(axis=0)
    share = np.nansum(votes, axis=0) / np.maximum(n, 1)
    return np.where(n > 0, share, votes_in(manifest, MAJORITY_COLUMN))


def votes_in(manifest: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Parse the calls of a column, (N,): 1 atypical, 0 normal, NaN where there is none."""
    if column not in manifest.columns:
        return np.full(len(manifest), np.nan)
    votes = [parse_atypical(str(vote)) if str(vote) else None for vote in manifest[column]]
    return np.array(votes, dtype=float)  # None becomes NaN


def require_both_sides(sides: npt.NDArray[np.floating[Any]], part: str) -> None:
    """Raise InputError for a part of the data that most votes call all atypical, or all normal."""
    for side, name in enumerate(("atypical", "normal")):
        if not (sides[:, side] == 1).any():
            raise InputError(
                f"{part}: expected figures that most votes call {name} but found none. Use another "
                "seed, or a cohort with more of them."
            )


def require_every_class(labels: npt.NDArray[np.int64], part: str) -> None:
    """Raise InputError for a part of the data in which a subtype is missing."""
    missing = [SUBTYPES[i] for i in range(N_SUBTYPES) if not (labels == i).any()]
    if missing:
        raise InputError(
            f"{part}: expected at least one figure of each subtype but found none of "
            f"{', '.join(missing)}. Use fewer folds (ensemble.members), another seed, or a cohort "
            "in which more patients have these subtypes."
        )


def read_teacher(file: Path, patch_ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Read a teacher's probabilities of each patch, for distillation.

    The student learns from them, not from labels alone (Hinton, Vinyals and Dean, arXiv 1503.02531,
    2015). They must be out of fold, each from a model that was not trained on the patch: of a
    patch learned by heart they hold no more than its label. Several rows of a patch are averaged.

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
    """Mix the teacher's probabilities into target distributions, (N, 8) all.

    Where there are both, `mass` (0 to 1) is the teacher's share; where one is zero, the other alone
    counts.
    """
    labelled, answered = own.any(axis=1, keepdims=True), teacher.any(axis=1, keepdims=True)
    share = np.where(labelled & answered, mass, answered)
    return np.asarray((1 - share) * own + share * teacher, dtype=np.float64)


def require_unseen_test_part(file: Path, patients: Collection[str], split: int) -> None:
    """Refuse a teacher that was trained on the patients that the student is tested on.

    An out-of-fold table, `file`, has exactly the patients that its run trained on.

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
