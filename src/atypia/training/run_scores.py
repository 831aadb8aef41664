"""Score a run: its test predictions, and for model choice the out-of-fold ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from atypia.core.files import write_json
from atypia.data.splits import rows
from atypia.evaluation.predictions import read_predictions, write_predictions
from atypia.evaluation.scores import evaluate
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atypia.core.config import AnyConfig
    from atypia.training.run_folder import Run


def score_run(
    run: Run[AnyConfig],
    thresholds: Sequence[float],
    *,
    optimistic: bool,
    test_optimistic: bool = False,
) -> dict[str, Any]:
    """Score the predictions of every outer split and write ``metrics.json``.

    Args:
        run: With the predictions in it.
        thresholds: The binary threshold of each outer split.
        optimistic: Whether the out-of-fold figures are: of a model whose training was steered by
            the fold which it is scored on, or has seen its labels through a teacher.
        test_optimistic: Whether the figures of the test parts are, too.

    Returns:
        The content of ``metrics.json``.
    """
    n_outer = len(run.splits.outer)
    without_test = run.splits.kind == "all"  # the out-of-fold predictions are all there is
    if n_outer > 1:
        parts = [
            pd.read_csv(
                run.outer_folder(i) / "predictions-test.csv", dtype=str, keep_default_na=False
            )
            for i in range(n_outer)
        ]
        write_predictions(run.folder / "predictions-test.csv", pd.concat(parts))
    options: dict[str, Any] = {
        "label": run.config.label,
        "resamples": run.config.resamples,
        "seed": run.config.seed,
        "alpha": run.config.answer.conformal_alpha,
    }
    labels = chosen_labels(run.cohort.manifest, run.config.label)
    for number, threshold in enumerate(thresholds):
        folder = run.outer_folder(number)
        out_of_fold = read_predictions(folder / "predictions-oof.csv")
        scores = evaluate(out_of_fold, threshold=threshold, **options)
        scores["optimistic"] = optimistic
        write_json(folder / "metrics-oof.json", scores)
        in_test = rows(run.cohort.manifest, run.splits.outer[number].test)
        if n_outer > 1 and (labels[in_test] >= 0).any():  # a whole domain may lack this label
            tested = read_predictions(folder / "predictions-test.csv")
            write_json(folder / "metrics.json", evaluate(tested, threshold=threshold, **options))
    if without_test:
        metrics = scores | {"part": "out of fold"}
    else:
        one = thresholds[0] if n_outer == 1 else None
        metrics = evaluate(read_predictions(run.folder), threshold=one, **options)
        if test_optimistic:
            metrics["optimistic"] = True
    write_json(run.folder / "metrics.json", metrics)
    return metrics
