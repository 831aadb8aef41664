"""Two runs side by side: their measures, and the figures on which they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from atypia.core.errors import InputError
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import read_predictions
from atypia.web.source import answers_of

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.web.figure_rows import FigureRows

RESAMPLES: Final = 500
"""Of patients. Fewer than ``atypia compare`` draws: somebody waits."""


class Comparison:
    """A second model's answers on the figures.

    Args:
        figures: With the first model's answers.
        first: The first model's run or table.
        second: The second's.

    Raises:
        InputError: One has no answers, or a problem of a table.
    """

    def __init__(self, figures: FigureRows, first: Path, second: Path) -> None:
        if figures.answers is None:
            raise InputError(
                f"--against {second}: there are no answers to compare it with. Show a run, or give "
                "--results."
            )
        self.name = second.resolve().stem if second.is_file() else second.resolve().name
        self._first, self._second = first, second
        self._label = figures.label
        self._shown_as = figures.name
        self._answers = answers_of(second, list(figures.patch_ids))
        self._measures: dict[str, Any] | None = None

    def columns(self) -> dict[str, Any]:
        """Make the second model's columns, as the first one's."""
        return {"name": self.name, "answers": self._answers.columns()}

    def record(self, number: int) -> dict[str, Any] | None:
        """Tell what the second model says of one figure."""
        answer = self._answers.record(number)
        return None if answer is None else {"name": self.name, **answer}

    def measures(self) -> dict[str, Any]:
        """Compare both on the test part (or the one table that each has), by patients.

        Raises:
            InputError: The tables have no common figures, or no label.
        """
        if self._measures is None:
            if self._label is None:
                raise InputError("Nobody labelled the figures: there is nothing to measure by.")
            tables = {
                f"A: {self._shown_as}": read_predictions(self._first),
                f"B: {self.name}": read_predictions(self._second),
            }
            self._measures = compare(tables, self._label, RESAMPLES, intersection=True)
        return self._measures
