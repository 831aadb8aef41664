"""What each member of an ensemble learns from: its patients, and which labels are hidden."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from atypia.core.errors import InputError
from atypia.core.files import write_text
from atypia.core.labels import N_SUBTYPES
from atypia.core.tables import csv_text
from atypia.data.splits import rows
from atypia.training.targets import (
    make_targets,
    require_both_sides,
    require_every_class,
    require_unseen_test_part,
    scored_calls,
    scored_labels,
    vote_column,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.core.config import TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Outer
    from atypia.training.targets import Targets


@dataclass(frozen=True)
class MemberTask:
    """One member's share of the data."""

    name: str
    train_rows: npt.NDArray[np.int64]
    """Rows of the store to learn from."""
    valid_rows: npt.NDArray[np.int64]
    """Rows of other patients, to watch and to stop by."""
    targets: Targets
    """For every row of the store: what is learned."""
    labels: npt.NDArray[np.int64]
    """(N,) subtype index for every row of the store: what is scored."""
    seed: int
    bag: Counter[str] = field(default_factory=Counter)
    """Patients to learn from, and how often each was drawn."""
    silent_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows of the training patients without a target; a warm-up without labels sees them, too."""
    domains: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(N,) number of the domain of every row of the store."""

    @property
    def seen_rows(self) -> npt.NDArray[np.int64]:
        """Every row of the training patients once, whether it has a label or not."""
        return np.union1d(self.train_rows, self.silent_rows)

    @property
    def unlabelled_rows(self) -> npt.NDArray[np.int64]:
        """Rows of the training patients without a subtype to learn, once each."""
        rows = self.seen_rows
        return rows[~self.targets.subtypes[rows].any(axis=(1, 2))]


_DRAWS: Final = 100
"""How often a bag is drawn anew at most, where it lacks a subtype."""


def member_tasks(
    cohort: Cohort, outer: Outer, number: int, config: TrainConfig
) -> list[MemberTask]:
    """Divide the training patients of outer split `number` among the members.

    Raises:
        InputError: A member's training part lacks a subtype, or its validation part any label.
        LeakError: A teacher was trained on the test part.
    """
    labels = scored_labels(cohort.manifest, config.label)
    scored = ~np.isnan(scored_calls(cohort.manifest, config.label))
    hidden = hidden_rows(cohort.manifest, labels, outer, number, config)
    if config.target.teacher is not None:
        require_unseen_test_part(Path(config.target.teacher), outer.test, number)
    patients = cohort.manifest["patient_id"]
    domains = np.unique(cohort.manifest["domain"].to_numpy(dtype=str), return_inverse=True)[1]
    learned = np.where(hidden, -1, labels)
    tasks = []
    for i, bag in enumerate(make_bags(cohort.manifest, learned, outer, number, config)):
        mine = rows(cohort.manifest, bag)
        # What is hidden from the training is not hidden from those who watch it.
        targets = make_targets(cohort.manifest, labels, config.target, hidden & mine)
        learnable = targets.subtypes.any(axis=(1, 2))  # with heads of their own, by either rater
        if config.loss.hears_votes:  # a vote alone is learned from, too
            learnable |= ~np.isnan(targets.atypical)
        train, mute = np.flatnonzero(mine & learnable), np.flatnonzero(mine & ~learnable)
        train = np.repeat(train, [bag[patient] for patient in patients.iloc[train]])
        unseen = rows(cohort.manifest, outer.training) & ~mine
        valid = np.flatnonzero(unseen & scored)
        part = f"training part of member {i}, outer split {number}"
        if vote_column(cohort.manifest, config.label) is None:
            require_every_class(learned[train], part)
        if config.loss.of == "sides":
            require_both_sides(targets.sides[train], part)
        if not len(valid):
            raise InputError(
                f"validation part of member {i}, outer split {number}: expected labelled figures "
                "but found none. Use fewer members (ensemble.members) or another seed."
            )
        seed = int(np.random.SeedSequence([config.seed, number, i]).generate_state(1)[0]) >> 1
        known = np.where(mine, learned, labels)
        task = MemberTask(f"member {i}", train, valid, targets, known, seed, bag, mute, domains)
        if config.unlabelled.weight and not len(task.unlabelled_rows):
            raise InputError(
                f"unlabelled.weight: expected figures without a subtype in the training part of "
                f"member {i}, outer split {number}, but each has one. Leave it out."
            )
        tasks.append(task)
    return tasks


def make_bags(
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    outer: Outer,
    number: int,
    config: TrainConfig,
) -> list[Counter[str]]:
    """Choose the patients of every member that is trained, and how often each one counts.

    Without ``ensemble.bagging`` a member has all patients outside its inner fold once. With it,
    patients are drawn from these with replacement, as bagging does with samples (Breiman, Machine
    Learning 24, 1996); figures of one patient are alike, so that the patient is what is drawn. The
    fold stays out, so that every patient is out of bag at least once. A bag that lacks a subtype
    which its patients have, by `labels` (N,), is drawn anew.
    """
    patients = manifest["patient_id"].to_numpy(dtype=str)
    bags = []
    for i in range(config.ensemble.trained or len(outer.inner)):
        own, _ = outer.member(i)
        bag = Counter(own)
        if config.ensemble.bagging is not None:
            size = max(1, round(config.ensemble.bagging * len(own)))
            rng = np.random.default_rng([config.seed, 2, number, i])
            wanted = _subtypes(labels, patients, own)
            for _ in range(_DRAWS):
                bag = Counter(rng.choice(own, size).tolist())
                if _subtypes(labels, patients, list(bag)) == wanted:
                    break
        bags.append(bag)
    return bags


def write_bag(file: Path, bag: Counter[str]) -> None:
    """Write the patients of a bag and how often each was drawn, as CSV."""
    table = pd.DataFrame(sorted(bag.items()), columns=["patient_id", "times"])
    write_text(file, csv_text(table))


def _subtypes(
    labels: npt.NDArray[np.int64], patients: npt.NDArray[np.str_], chosen: Sequence[str]
) -> set[int]:
    """Subtypes of the figures of some patients."""
    return set(labels[np.isin(patients, chosen) & (labels >= 0)].tolist())


_JITTER = 0.5
"""How far chance, rather than the balance of the subtypes, decides who comes next."""


def hidden_rows(
    manifest: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    outer: Outer,
    number: int,
    config: TrainConfig,
) -> npt.NDArray[np.bool_]:
    """Rows of training patients whose labels are not learned from, (N,).

    Of each inner fold the first patients of an order keep their labels, so that the members of an
    ensemble share them and none is left with a fold that has none. The order follows from seed and
    split alone; a smaller share is a part of a larger one. At any place of it the patients up to
    there hold about as large a part of each subtype as of the patients: a tenth of the labels holds
    a tenth of the ring shapes, not none or all by chance.

    The share is ``target.labelled_patients``.
    """
    patients = manifest["patient_id"].to_numpy(dtype=str)
    hidden = np.zeros(len(manifest), bool)
    share = config.target.labelled_patients
    if share == 1:
        return hidden
    for i, fold in enumerate(outer.inner):
        order = order_patients(patients, labels, fold, [config.seed, 3, number, i])
        others = order[math.ceil(share * len(order) - 1e-9) :]
        hidden |= np.isin(patients, others)
    return hidden


def order_patients(
    patients: npt.NDArray[np.str_],
    labels: npt.NDArray[np.int64],
    chosen: tuple[str, ...],
    seed: list[int],
) -> list[str]:
    """Put the `chosen` patients into an order of which every beginning is like the whole.

    Each place goes to the patient after whom the parts that the patients up to there hold of each
    subtype differ least from their part of the patients, in squares, times a random factor.
    `patients` and `labels` (-1: none) are (N,), of each figure.
    """
    names = sorted(chosen)
    random = np.random.default_rng(seed)
    counts = np.zeros((len(names), N_SUBTYPES))
    for i, name in enumerate(names):
        known = labels[(patients == name) & (labels >= 0)]
        counts[i] = np.bincount(known, minlength=N_SUBTYPES)
    parts = counts / np.maximum(counts.sum(axis=0), 1)  # (P, 8), columns sum to 1 (or 0)
    present = counts.any(axis=0)
    held, left = np.zeros(N_SUBTYPES), list(range(len(names)))
    order: list[str] = []
    while left:
        wanted = (len(order) + 1) / len(names)
        cost = ((held + parts[left] - wanted)[:, present] ** 2).sum(axis=1)
        cost = cost * random.uniform(1 - _JITTER, 1 + _JITTER, len(left))
        best = left[int(np.argmin(cost))]
        held += parts[best]
        order.append(names[best])
        left.remove(best)
    return order
