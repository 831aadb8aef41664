"""Tables of predictions: ``predictions.csv``, ours or anyone's, read, checked and written.

=======================  ==========================================================================
``patch_id``             required; with ``fold`` unique
``patient_id``           required; the unit of every interval
``domain``, ``scanner``  optional; groups that are evaluated apart
``fold``                 optional; the fold or part of the split that the patch was predicted in
``p_<subtype>``          required, eight columns; 0 to 1, each row summing to 1
``p_atypical``           optional; where absent, the sum of the four atypical probabilities
``predicted_subtype``    optional; where absent, the most probable subtype
``predicted_atypical``   optional; where absent, whether ``p_atypical`` is at least 0.5
``conformal_set``        optional; the subtypes of the prediction set joined by ``|``, ``empty``
                         where it holds none; may be empty, where no set is known
``p_mitosis``            optional; probability of a mitotic figure, may be empty
``status``               optional; ``answered`` (so is an empty cell), or why the row is in no
                         measure: then subtype, call and set may be empty
``label_<rater>``        optional; one subtype per rater, may be empty
``atypical_<rater>``     optional; one vote per rater, may be empty
``majority_atypical``    optional; the majority of the votes, may be empty
=======================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from atypia.core.errors import InputError, Problem
from atypia.core.files import read_json, write_text
from atypia.core.labels import (
    ANSWERED,
    N_ATYPICAL,
    N_SUBTYPES,
    PROBABILITY_COLUMNS,
    STATUSES,
    SUBTYPES,
    in_words,
    left_out,
    parse_atypical,
    parse_subtype,
    subtype_index,
)
from atypia.core.tables import csv_text, read_table
from atypia.data.patient_names import spelling_problems
from atypia.evaluation.prediction_sets import EMPTY, parse_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from atypia.evaluation.metrics import BoolArray, FloatArray, IntArray

    Names: TypeAlias = NDArray[np.str_]

REQUIRED_COLUMNS = ("patch_id", "patient_id", *PROBABILITY_COLUMNS)
MAJORITY = "majority_atypical"
AGREED = "agreed"
UNKNOWN = -1
"""Index of a label or vote that was not given."""

_ORDER = (
    "patch_id",
    "patient_id",
    "domain",
    "fold",
    *PROBABILITY_COLUMNS,
    "p_atypical",
    "predicted_subtype",
    "predicted_atypical",
    "conformal_set",
    "p_mitosis",
    "status",
)
_SUM_TOLERANCE = 1e-3
_ROUNDING = 1e-6  # a sum of float32 probabilities may exceed 1 by this much


@dataclass(frozen=True)
class Predictions:
    """A table of N predictions that has been read and checked, one array per column."""

    patch_ids: Names
    patients: Names
    domains: Names
    scanners: Names
    folds: Names
    probabilities: FloatArray
    """(N, 8), in the order of :data:`atypia.core.labels.SUBTYPES`."""
    p_atypical: FloatArray
    predicted: IntArray
    """(N,) indices into :data:`atypia.core.labels.SUBTYPES`, :data:`UNKNOWN` without a call."""
    predicted_atypical: BoolArray
    """(N,) the call as the table has it, at its own operating point; False without one."""
    sets: BoolArray
    """(N, 8) the subtypes in each prediction set."""
    has_set: BoolArray
    """(N,) whether a prediction set is known; it may be empty."""
    p_mitosis: FloatArray
    """(N,) probability of a mitotic figure; NaN where it is not known."""
    status: Names
    """(N,) out of :data:`atypia.core.labels.STATUSES`."""
    labels: Mapping[str, IntArray]
    """Rater to (N,) subtype indices, :data:`UNKNOWN` where none was given."""
    votes: Mapping[str, IntArray]
    """Vote column to (N,) 1 (atypical), 0 (normal) or :data:`UNKNOWN`."""

    def __len__(self) -> int:
        return len(self.patch_ids)

    def take(self, rows: NDArray[np.generic]) -> Predictions:
        """Take the rows that a mask or an array of indices selects, in its order."""
        taken: dict[str, Any] = {
            name: {key: column[rows] for key, column in value.items()}
            if name in ("labels", "votes")
            else value[rows]
            for name, value in vars(self).items()
        }
        return Predictions(**taken)

    @property
    def answered(self) -> BoolArray:
        """Which rows have a call, (N,)."""
        return np.asarray(self.status == ANSWERED)

    @property
    def left_out(self) -> dict[str, int]:
        """Rows that are in no measure, by status."""
        return left_out(self.status.tolist())

    def only_answered(self) -> Predictions:
        """Take the rows that have a call, which alone can be scored.

        Raises:
            InputError: None has.
        """
        if not self.answered.any():
            raise InputError(f"expected rows with a call but got {in_words(self.left_out)}.")
        return self if self.answered.all() else self.take(self.answered)

    def all_answered(self) -> Predictions:
        """Take every row for answered, as those do who have looked at all candidates themselves.

        Raises:
            InputError: Some have no call.
        """
        if (lacking := self.predicted == UNKNOWN).any():
            raise InputError(
                f"--count-all: expected a call for each of {len(self)} candidates but "
                f"{int(lacking.sum())} have none ({in_words(self.take(lacking).left_out)}). "
                "Classify them with --count-all, too."
            )
        return replace(self, status=np.full(len(self), ANSWERED))

    def rows_with(self, truth: IntArray, label: str) -> BoolArray:
        """Mark the rows, (N,), that have a label, whose codes `truth` holds.

        Raises:
            InputError: None has it.
        """
        known = truth != UNKNOWN
        if not known.any():
            raise InputError(
                f"expected at least one row with the label {label!r} but none of the {len(self)} "
                f"rows has it. Choose one of {list(self.label_choices)}."
            )
        return np.asarray(known)

    def averaged(self) -> Predictions:
        """Aggregate the predictions of a patch that is in the table several times, as of repeats.

        Probabilities are averaged. The call and the members of the prediction set are those of most
        repeats, in a tie atypical, and in the set. The subtype is that of most repeats with this
        call, in a tie the one with the largest mean probability; it stays in the set. Repeats
        without a call count only where a patch has no other. All else is that of the first row; the
        fold is empty.
        """
        called = np.isin(self.patch_ids, self.patch_ids[self.answered])
        if (called & ~self.answered).any():
            return self.take(self.answered | ~called).averaged()
        patches, first, row_of = np.unique(self.patch_ids, return_index=True, return_inverse=True)
        if len(patches) == len(self):
            return self
        times = np.bincount(row_of)

        def total(values: FloatArray) -> FloatArray:
            summed = np.zeros((len(patches), *values.shape[1:]))
            np.add.at(summed, row_of, values)
            return summed

        probabilities = total(self.probabilities) / times[:, None]
        calls = total(self.predicted_atypical.astype(np.float64)) >= times / 2
        voted = self.predicted[:, None] == np.arange(N_SUBTYPES)
        voted &= (self.predicted_atypical == calls[row_of])[:, None]
        votes = total(voted.astype(np.float64))
        tied = np.where(votes == votes.max(axis=1, keepdims=True), probabilities, -1)
        named = tied.argmax(axis=1)
        in_set = self.sets & self.has_set[:, None]
        n_sets = total(self.has_set.astype(np.float64))
        sets = (total(in_set.astype(np.float64)) >= n_sets[:, None] / 2) & (n_sets[:, None] > 0)
        of_named = total((voted & in_set).astype(np.float64)) > 0
        return replace(
            self.take(first),
            folds=np.full(len(patches), ""),
            probabilities=probabilities,
            p_atypical=total(self.p_atypical) / times,
            predicted=np.where(self.answered[first], named, UNKNOWN),
            predicted_atypical=self.answered[first] & calls,
            sets=sets | (of_named & (np.arange(N_SUBTYPES) == named[:, None])),
            has_set=n_sets > 0,
        )

    @property
    def label_choices(self) -> tuple[str, ...]:
        """Names that :meth:`subtypes_of` or :meth:`atypical_of` accept for this table."""
        return (*self.labels, *([AGREED] if self.labels else []), *self.votes)

    @property
    def raters(self) -> tuple[str, ...]:
        """All raters, those who gave subtypes first; :meth:`atypical_of` accepts each."""
        voted = (c.removeprefix("atypical_") for c in self.votes if c != MAJORITY)
        return tuple(dict.fromkeys((*self.labels, *voted)))

    def vote_column(self, label: str) -> str | None:
        """Column of the votes that a label is; None where it is one of subtypes.

        It is named itself, or by a rater who gave votes and no subtypes; a majority that is in no
        column is counted.
        """
        if label in self.labels:
            return None
        if label == MAJORITY and self.votes:
            return MAJORITY
        return next((c for c in (label, f"atypical_{label}") if c in self.votes), None)

    def subtypes_of(self, label: str) -> IntArray:
        """Subtype indices (N,) by a named choice, :data:`UNKNOWN` where a row has none.

        The choice is a rater, or ``agreed``: where at least two raters gave a subtype, and all who
        did gave the same.

        Raises:
            InputError: The table has no such subtypes.
        """
        if label in self.labels:
            return self.labels[label]
        if label == AGREED and self.labels:
            every = np.stack(list(self.labels.values()))
            first = every.max(0)  # of those who gave one; UNKNOWN is below every index
            agreed = ((every == first) | (every == UNKNOWN)).all(0)
            agreed &= (every != UNKNOWN).sum(0) > 1
            return np.where(agreed, first, UNKNOWN)
        votes = f"; {label!r} says atypical or normal, not the subtype"
        raise InputError(
            f"expected a label out of {list(self.label_choices)} but got {label!r}. A table offers "
            "one label per column label_<rater>, 'agreed' for where they agree, and the votes"
            f"{votes if self.vote_column(label) else ''}."
        )

    def atypical_of(self, label: str) -> IntArray:
        """Give 1 (atypical), 0 (normal) or :data:`UNKNOWN`, by a rater, ``agreed`` or votes.

        Raises:
            InputError: The table has no such label.
        """
        column = self.vote_column(label)
        if column is not None and column in self.votes:
            return self.votes[column]
        if column is not None:
            return majority(list(self.votes.values()))
        subtypes = self.subtypes_of(label)
        return np.where(subtypes == UNKNOWN, UNKNOWN, (subtypes < N_ATYPICAL).astype(np.int64))


def majority(votes: Sequence[IntArray]) -> IntArray:
    """Give what most of the votes, each (N,), are; :data:`UNKNOWN` in a tie or without any."""
    every = np.stack(votes)
    balance = (2 * every - 1).sum(axis=0, where=every != UNKNOWN)
    return np.where(balance == 0, UNKNOWN, (balance > 0).astype(np.int64))


def read_predictions(path: Path | str) -> Predictions:
    """Read and check a table of predictions, or the test predictions of a run folder.

    Args:
        path: A CSV, or a run folder: its ``predictions-test.csv``, or, of a run without a test
            part, its ``predictions-oof.csv``. Each may be compressed: ``.csv.gz``, ``.csv.bz2``.

    Raises:
        InputError: Lists every problem of the table with row and column.
    """
    path = Path(path)
    if path.is_dir():
        path = _table_of(path)
    cells, problems = read_cells(path, REQUIRED_COLUMNS)
    try:
        predictions = parse_cells(cells, str(path))
    except InputError as error:
        problems += error.problems if len(cells) or not problems else []
    if problems:  # the sound rows are checked as well: all problems at once
        raise InputError(_sorted(problems))
    return predictions


def _table_of(run: Path) -> Path:
    """Find the table of a run folder that :func:`read_predictions` reads."""
    parts = ["test", "oof"] if _has_no_test_part(run) else ["test"]
    tables = [run / f"predictions-{p}.csv{packed}" for p in parts for packed in ("", ".gz", ".bz2")]
    return next((table for table in tables if table.exists()), tables[0])


def _has_no_test_part(run: Path) -> bool:
    """Whether a run is of the split ``all``; else its test predictions are still to come."""
    splits = run / "splits.json"
    return splits.is_file() and read_json(splits).get("kind") == "all"


def predictions_from_table(table: pd.DataFrame, name: str = "predictions") -> Predictions:
    """Check a table in memory as :func:`read_predictions` does; a missing cell is None or NaN.

    Raises:
        InputError: Lists every problem of the table with row and column.
    """
    cells = pd.DataFrame({c: table[c].map(_as_text).astype(object) for c in table.columns})
    cells.index = pd.RangeIndex(2, len(cells) + 2)
    return parse_cells(cells, name)


def write_predictions(path: Path, table: pd.DataFrame, *, patients_known: bool = True) -> None:
    """Check a table and write it atomically, columns in the agreed order, 9 significant digits.

    Without `patients_known`, ``patient_id`` may be empty; such a table cannot be evaluated.

    Raises:
        InputError: Lists every problem of the table; nothing is written.
    """
    checked = table
    if not patients_known:
        checked = table.assign(patient_id=table["patient_id"].replace("", "unknown"))
    predictions_from_table(checked, str(path))
    columns = in_order(table.columns)
    write_text(path, csv_text(table[columns], float_format="%.9g"))


def in_order(columns: Iterable[str]) -> list[str]:
    """Columns of a table of predictions in the agreed order: the named ones, labels, the rest."""
    given = list(columns)
    ordered = [c for c in _ORDER if c in given]
    ordered += [c for c in given if c.startswith("label_")]
    return ordered + [c for c in given if c not in ordered]


def _as_text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)


def read_cells(path: Path, required: Sequence[str]) -> tuple[pd.DataFrame, list[Problem]]:
    """Read a CSV by :func:`atypia.core.tables.read_table`; the index is the line in the file.

    Rows of another length than the header's are left out, a problem each. Where semicolons or tabs
    separate, probabilities may have a decimal comma.

    Raises:
        InputError: The file cannot be read, or lists the faults of its header.
    """
    table = read_table(path, may_be_empty=True)
    if problems := _missing(table.columns, required, str(path)):
        raise InputError(problems)
    sound = [row for row in table.rows if row.problem is None]
    index = pd.Index([row.line for row in sound], dtype="int64")
    cells = pd.DataFrame(
        [row.cells for row in sound], columns=list(table.columns), index=index, dtype=object
    )
    if table.separator != ",":
        numbers = [c for c in cells.columns if c in (*PROBABILITY_COLUMNS, "p_atypical")]
        cells[numbers] = cells[numbers].map(lambda text: text.replace(",", "."))
    return cells, [row.problem for row in table.rows if row.problem is not None]


def _missing(columns: Sequence[str], required: Sequence[str], file: str) -> list[Problem]:
    missing = [column for column in required if column not in columns]
    what = f"expected the columns {missing} but got {columns}."
    return [Problem(what, file, 1)] if missing else []


def parse_cells(table: pd.DataFrame, file: str) -> Predictions:
    """Check cells that are all strings; the index of `table` is the line in `file`.

    Raises:
        InputError: Lists every problem of the table with row and column.
    """
    if missing := _missing(list(table.columns), REQUIRED_COLUMNS, file):
        raise InputError(missing)
    if table.empty:
        raise InputError(Problem("expected at least one row but got none.", file))
    problems: list[Problem] = []
    lines = table.index.to_numpy()

    def report(wrong: Iterable[bool] | NDArray[np.bool_], column: str, what: str) -> None:
        """Note a problem for each wrong row; ``{value}`` in `what` is the cell."""
        for i in np.flatnonzero(np.asarray(wrong)):
            text = what.format(value=repr(table[column].iloc[i]))
            problems.append(Problem(text, file, int(lines[i]), column))

    def names(column: str) -> Names:
        values = table[column] if column in table.columns else pd.Series("", index=table.index)
        return values.to_numpy(dtype=str)

    def numbers(column: str, *, optional: bool = False) -> FloatArray:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
        inside = (values >= 0) & (values <= 1 + _ROUNDING)
        wrong = ~inside & (table[column] != "").to_numpy() if optional else ~inside
        report(wrong, column, "expected a probability from 0 to 1 but got {value}.")
        return np.where(inside, np.minimum(values, 1), np.nan)

    def codes(
        column: str,
        parse: Callable[[str], int | None],
        expected: str,
        required: BoolArray | None = None,
    ) -> IntArray:
        """Parse a column; a cell that is not required may be empty."""
        known = {text: parse(text) for text in table[column].unique()}
        wrong = table[column].map(lambda text: known[text] is None).to_numpy(dtype=bool)
        empty = (table[column] == "").to_numpy()
        report(
            wrong & ~empty if required is None else wrong & required,
            column,
            f"expected {expected} but got {{value}}.",
        )
        return np.array([UNKNOWN if (k := known[t]) is None else k for t in table[column]], int)

    for column in ("patch_id", "patient_id"):
        report(table[column].str.strip() == "", column, "expected a value but the cell is empty.")
    problems += spelling_problems(table["patient_id"], file)
    keys = ["patch_id", "fold"] if "fold" in table.columns else ["patch_id"]
    report(
        table.duplicated(keys),
        "patch_id",
        f"expected each {' and '.join(keys)} once but got {{value}} again.",
    )

    probabilities = np.stack([numbers(column) for column in PROBABILITY_COLUMNS], axis=1)
    total = probabilities.sum(1)
    rounded = np.abs(total - 1) > _SUM_TOLERANCE
    for i in np.flatnonzero(np.abs(total - 1) > _tolerance(table)):
        what = f"expected the eight probabilities to sum to 1 but got {total[i]:.6g}."
        problems.append(Problem(what, file, int(lines[i])))
    probabilities[rounded] /= np.maximum(total[rounded], 0.5)[:, None]

    p_atypical = (
        numbers("p_atypical")
        if "p_atypical" in table.columns
        else np.minimum(probabilities[:, :N_ATYPICAL].sum(1), 1)
    )
    p_mitosis = (
        numbers("p_mitosis", optional=True)
        if "p_mitosis" in table.columns
        else np.full(len(table), np.nan)
    )
    status = np.where(names("status") == "", ANSWERED, names("status"))
    report(~np.isin(status, STATUSES), "status", f"expected one of {STATUSES} but got {{value}}.")
    answered = status == ANSWERED
    subtype_names, vote_names = f"one of {list(SUBTYPES)}", "True or False"
    predicted = (
        codes("predicted_subtype", _subtype_code, subtype_names, answered)
        if "predicted_subtype" in table.columns
        else probabilities.argmax(1)
    )
    predicted_atypical = (
        codes("predicted_atypical", _vote_code, vote_names, answered) == 1
        if "predicted_atypical" in table.columns
        else p_atypical >= 0.5
    )
    set_texts = names("conformal_set")
    has_set = set_texts != ""
    known_sets = {text: parse_set(text) for text in np.unique(set_texts[has_set])}
    unreadable = np.array([t in known_sets and known_sets[t] is None for t in set_texts])
    report(
        unreadable,
        "conformal_set",
        f"expected names out of {list(SUBTYPES)} joined by '|', {EMPTY!r} or nothing but got "
        "{value}.",
    )
    sets = np.zeros((len(table), N_SUBTYPES), dtype=bool)
    for i in np.flatnonzero(has_set & ~unreadable):
        sets[i] = known_sets[set_texts[i]]
    labels = {
        column.removeprefix("label_"): codes(column, _subtype_code, f"{subtype_names} or nothing")
        for column in table.columns
        if column.startswith("label_")
    }
    votes = {
        column: codes(column, _vote_code, f"{vote_names} or nothing")
        for column in table.columns
        if column.startswith("atypical_") or column == MAJORITY
    }
    if problems:
        raise InputError(_sorted(problems))
    return Predictions(
        patch_ids=names("patch_id"),
        patients=names("patient_id"),
        domains=names("domain"),
        scanners=names("scanner"),
        folds=names("fold"),
        probabilities=probabilities,
        p_atypical=p_atypical,
        predicted=predicted,
        predicted_atypical=predicted_atypical,
        sets=sets,
        has_set=has_set,
        p_mitosis=p_mitosis,
        status=status,
        labels=labels,
        votes=votes,
    )


def _tolerance(table: pd.DataFrame) -> float:
    """Give what eight rounded probabilities may miss 1 by, from the decimals that the table has."""
    decimals = 0
    for column in PROBABILITY_COLUMNS:
        for text in table[column]:
            fraction = str(text).lower().partition(".")[2]
            decimals = max(decimals, 9 if "e" in str(text).lower() else len(fraction))
    return max(_SUM_TOLERANCE, 1.001 * N_SUBTYPES * 0.5 * 10.0 ** -max(decimals, 2))


def _subtype_code(text: str) -> int | None:
    subtype = parse_subtype(text)
    return None if subtype is None else subtype_index(subtype)


def _vote_code(text: str) -> int | None:
    vote = parse_atypical(text)
    return None if vote is None else int(vote)


def _sorted(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.row or 0)
