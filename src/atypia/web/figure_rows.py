"""The table of figures: their names, the raters' labels, and a model's answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.core.errors import InputError, Problem, first_few
from atypia.core.labels import ANSWERED, DISPLAY_NAMES, N_SUBTYPES, SUBTYPES
from atypia.evaluation.label_audit import NO_ISSUE
from atypia.evaluation.label_audit import audit as audit_labels
from atypia.evaluation.predictions import UNKNOWN, Predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray

OUT_OF_FOLD: Final = "out of fold"
TEST: Final = "test"
GIVEN: Final = "given"
"""Where predictions come from: the part of a run, or a table that was given."""
_PER_UNIT: Final = 10_000
"""Probabilities are sent as whole numbers of this unit: a third of the bytes."""


@dataclass(frozen=True)
class AlignedPredictions:
    """One model's answers on N figures; rows without one are :data:`UNKNOWN` or NaN."""

    probabilities: FloatArray
    """(N, 8)"""
    p_atypical: FloatArray
    predicted: IntArray
    called_atypical: IntArray
    """1, 0 or :data:`UNKNOWN`."""
    sets: BoolArray
    """(N, 8)"""
    has_set: BoolArray
    part: Sequence[str]
    fold: Sequence[str]
    status: Sequence[str]
    """(N,) empty where there is no row, else out of :data:`atypia.core.labels.STATUSES`."""
    p_mitosis: FloatArray

    @classmethod
    def align(
        cls, patch_ids: Sequence[str], tables: Mapping[str, Predictions]
    ) -> AlignedPredictions:
        """Bring tables of predictions, by part, into the order of the figures.

        Raises:
            InputError: Figures that are predicted twice, or that are not among the given ones.
        """
        row_of = {patch_id: row for row, patch_id in enumerate(patch_ids)}
        times = Counter(name for table in tables.values() for name in table.patch_ids.tolist())
        twice = [name for name, n in times.items() if n > 1 and name in row_of]
        strangers = [name for name in times if name not in row_of]
        problems = []
        if twice:
            what = f"expected each figure once but {len(twice)} are predicted again: "
            problems.append(
                Problem(f"{what}{first_few(twice)}. Give one fold or repeat at a time.")
            )
        if strangers:
            what = f"expected predictions of these figures but {len(strangers)} are of others: "
            advice = "Give the cohort that was predicted."
            problems.append(Problem(f"{what}{first_few(strangers)}. {advice}"))
        if problems:
            raise InputError(problems)

        rows = [row_of[name] for name in times]  # in the order of the tables

        def placed(values: Iterable[NDArray[Any]], missing: object) -> Any:
            given = np.concatenate([*values])
            column = np.full((len(patch_ids), *given.shape[1:]), missing, given.dtype)
            column[rows] = given
            return column

        every = tables.values()
        return cls(
            placed((t.probabilities for t in every), np.nan),
            placed((t.p_atypical for t in every), np.nan),
            placed((np.where(t.answered, t.predicted, UNKNOWN) for t in every), UNKNOWN),
            placed((np.where(t.answered, t.predicted_atypical, UNKNOWN) for t in every), UNKNOWN),
            placed((t.sets for t in every), missing=False),
            placed((t.has_set & t.answered for t in every), missing=False),
            placed((np.full(len(t), part) for part, t in tables.items()), "").tolist(),
            placed((t.folds for t in every), "").tolist(),
            placed((t.status for t in every), "").tolist(),
            placed((t.p_mitosis for t in every), np.nan),
        )

    def columns(self) -> dict[str, Any]:
        """Make the columns that a browser gets."""
        bits = 1 << np.arange(N_SUBTYPES)
        scaled = np.nan_to_num(self.probabilities * _PER_UNIT).round().astype(int)
        return {
            "probabilities": scaled.reshape(-1).tolist(),
            "atypical": np.nan_to_num(self.p_atypical * _PER_UNIT).round().astype(int).tolist(),
            "predicted": self.predicted.tolist(),
            "called": self.called_atypical.tolist(),
            "sets": np.where(self.has_set, self.sets @ bits, UNKNOWN).tolist(),
            "part": coded(self.part),
            "status": coded(self.status),
        }

    def record(self, number: int) -> dict[str, Any] | None:
        """Give the answer on one figure; None where there is none."""
        if not self.status[number]:
            return None
        p_mitosis = float(self.p_mitosis[number])
        called = self.status[number] == ANSWERED
        members = np.flatnonzero(self.sets[number]).tolist()
        return {
            "probabilities": [round(float(p), 6) for p in self.probabilities[number]],
            "p_atypical": round(float(self.p_atypical[number]), 6),
            "predicted": int(self.predicted[number]),
            "called_atypical": bool(self.called_atypical[number]) if called else None,
            "set": members if self.has_set[number] else None,
            "p_mitosis": None if np.isnan(p_mitosis) else round(p_mitosis, 6),
            "status": self.status[number],
            "part": self.part[number],
            "fold": self.fold[number],
        }


@dataclass(frozen=True)
class Doubt:
    """The label audit, by figure."""

    label: str
    """Whose labels were audited."""
    rank: IntArray
    """(N,) from 1; 0 for a figure that was not audited."""
    issue: BoolArray
    suggested: IntArray
    evidence: Sequence[str]

    @classmethod
    def find(cls, patch_ids: Sequence[str], table: Predictions, label: str) -> Doubt:
        """Audit labels of these figures as :func:`atypia.evaluation.label_audit.audit` does."""
        # The intervals are not shown; two resamples are the fewest.
        audited = audit_labels(table, label, resamples=2).table.set_index("patch_id")
        suggested = audited["suggested_subtype"].map(SUBTYPES.index)
        ids = list(patch_ids)
        return cls(
            label,
            audited["rank"].reindex(ids, fill_value=0).to_numpy(),
            audited["is_issue"].reindex(ids, fill_value=False).to_numpy(),
            suggested.reindex(ids, fill_value=UNKNOWN).to_numpy(),
            audited["evidence"].reindex(ids, fill_value=NO_ISSUE).tolist(),
        )

    def record(self, number: int) -> dict[str, Any] | None:
        """Give the audit's findings on one figure; None where it was not audited."""
        if not self.rank[number]:
            return None
        return {
            "label": self.label,
            "rank": int(self.rank[number]),
            "of": int((self.rank > 0).sum()),
            "issue": bool(self.issue[number]),
            "suggested": int(self.suggested[number]),
            "evidence": self.evidence[number],
        }


@dataclass(frozen=True)
class FigureRows:
    """N figures, in the order of their manifest or table."""

    name: str
    patch_ids: Sequence[str]
    patients: Sequence[str]
    domains: Sequence[str]
    scanners: Sequence[str]
    labels: Mapping[str, IntArray] = field(default_factory=dict)
    """Rater to (N,) subtype indices, :data:`UNKNOWN` where none was given."""
    votes: Mapping[str, IntArray] = field(default_factory=dict)
    """Vote column to (N,) 1 (atypical), 0 (normal) or :data:`UNKNOWN`."""
    label: str | None = None
    """The label that answers are scored against at first; None where nobody labelled."""
    answers: AlignedPredictions | None = None
    doubt: Doubt | None = None

    def __len__(self) -> int:
        return len(self.patch_ids)

    def columns(self) -> dict[str, Any]:
        """Make the table that a browser gets: one list per column, names of groups as codes."""
        return {
            "name": self.name,
            "n": len(self),
            "subtypes": [{"key": s, "name": DISPLAY_NAMES[s]} for s in SUBTYPES],
            "label": self.label,
            "ids": list(self.patch_ids),
            "patient": coded(self.patients),
            "domain": coded(self.domains),
            "scanner": coded(self.scanners),
            "labels": {rater: codes.tolist() for rater, codes in self.labels.items()},
            "answers": None if self.answers is None else self.answers.columns(),
            "doubt": None
            if self.doubt is None
            else {
                "label": self.doubt.label,
                "rank": self.doubt.rank.tolist(),
                "issue": self.doubt.issue.astype(int).tolist(),
            },
        }

    def record(self, number: int) -> dict[str, Any]:
        """Give everything on one figure."""
        return {
            "number": number,
            "patch_id": self.patch_ids[number],
            "patient": self.patients[number],
            "domain": self.domains[number],
            "scanner": self.scanners[number],
            "labels": {rater: int(codes[number]) for rater, codes in self.labels.items()},
            "votes": {column: int(codes[number]) for column, codes in self.votes.items()},
            "label": self.label,
            "answer": None if self.answers is None else self.answers.record(number),
            "doubt": None if self.doubt is None else self.doubt.record(number),
        }


def coded(values: Sequence[str]) -> dict[str, Any]:
    """Split a column into its names, sorted, and one code for each row."""
    names = sorted(set(values))
    code = {name: i for i, name in enumerate(names)}
    return {"names": names, "codes": [code[value] for value in values]}
