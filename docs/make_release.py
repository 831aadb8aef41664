"""Make the model in the package from the run that trained it, or refit what follows its networks.

    python docs/make_release.py --out src/atypia/released --run runs/students --fast runs/fast
    python docs/make_release.py --out src/atypia/released --fast-answers cohorts/ami-br
    python docs/make_release.py --out src/atypia/released --refit [--votes AMI-BR.csv]
    python docs/make_release.py --out src/atypia/released --guard ../shared/ami-br

The first takes the weights, in 16 bits. The second writes ``docs/results/released-fast``: the
networks of the package without rotations and flips, as ``fast`` has them, each on the fold that it
was not trained on. The third refits decision, operating points and prediction sets out of fold:
those of ``best`` on ``docs/results/released-all`` (the same recipe, five folds), those of ``fast``
on ``released-fast``, those of the rules on ``rules-all``. So are the errors that biomarkers are
corrected for; ``--votes`` adds what the third expert called. The fourth fits the guard of either
quality. Afterwards: ``atypia export`` for each quality, ``make_model_card.py``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from make_guard import fit_guards
from make_results import DECIMALS, write_compressed

from atypia.biomarker import ErrorModel
from atypia.classifiers.bundle import RULES, BundleHeader, read_any_header, write_header
from atypia.classifiers.conformal import ConformalSets
from atypia.classifiers.decision import Decision, p_atypical
from atypia.classifiers.ensemble import Ensemble, add_quality
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.choices import BALANCED, BEST, FAST
from atypia.core.config import load_config
from atypia.core.labels import PROBABILITY_COLUMNS, parse_atypical
from atypia.evaluation.predictions import UNKNOWN, read_predictions
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.training.outer_split import fit_points
from atypia.training.targets import scored_labels

if TYPE_CHECKING:
    from atypia.classifiers.bundle import PostprocessingHeader
    from atypia.evaluation.predictions import Predictions

RULES_BUNDLE: Final = (
    Path(__file__).parents[1] / "src" / "atypia" / "classifiers" / "rules" / "bundle"
)
RESULTS: Final = Path(__file__).parent / "results"
TABLES: Final = {
    BEST: RESULTS / "released-all" / "predictions-oof.csv.bz2",
    FAST: RESULTS / "released-fast" / "predictions-oof.csv.bz2",
    RULES: RESULTS / "rules-all" / "predictions-oof.csv.bz2",
}


def main() -> None:
    """Do the step that the options name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--fast", type=Path, help="from atypia distill")
    parser.add_argument("--fast-answers", type=Path, metavar="COHORT")
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--votes", type=Path, help="AMI-BR.csv, for the third expert's votes")
    parser.add_argument("--guard", type=Path, metavar="AMI_BR")
    options = parser.parse_args()
    if options.run is not None:
        Ensemble.load(options.run).save(options.out, half=True)
        add_quality(options.out, Ensemble.load(options.fast), half=True)
    if options.fast_answers is not None:
        answer_fast(options.out, options.fast_answers)
    if options.refit:
        for bundle, answers in ((options.out, BEST), (RULES_BUNDLE, RULES)):
            refit_decisions(bundle, answers)
            refit_errors(bundle, options.votes, TABLES[answers])
    if options.guard is not None:
        fit_guards(options.out, options.guard)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


def answer_fast(bundle: Path, cohort: Path) -> None:
    """Write the out-of-fold answers of ``fast``, by the folds of ``released-all``."""
    about = read_table(BEST).drop(columns=[*PROBABILITY_COLUMNS])
    best, fast = Ensemble.load(bundle), Ensemble.load(bundle, FAST)
    own_temperature = Postprocessing(calibration=fast.postprocessing.calibration)
    items = {item.patch_id: item for item in find_items([cohort], None)}
    parts = []
    for fold, member in enumerate(best.members):
        own = about[about["fold"] == str(fold)]
        alone = Ensemble([member], fast.spec, fast.model, fast.tta, own_temperature)
        answers, _ = predict_items(alone, [items[name] for name in own["patch_id"]])
        for column in PROBABILITY_COLUMNS:
            texts = [f"{p:.{DECIMALS}f}".rstrip("0").rstrip(".") for p in answers[column]]
            own = own.assign(**{column: texts})
        parts.append(own)
    table = pd.concat(parts).drop(columns=["predicted_subtype", "predicted_atypical"])
    TABLES[FAST].parent.mkdir(exist_ok=True)
    write_compressed(TABLES[FAST], table.to_csv(index=False, lineterminator="\n"))


def read_table(quality: str) -> pd.DataFrame:
    """Read the out-of-fold answers of a quality, all cells as text."""
    return pd.read_csv(TABLES[quality], dtype=str, keep_default_na=False)


def refit_decisions(bundle: Path, answers: str) -> None:
    """Refit what makes answers of probabilities; networks, temperature and the rest stay."""
    header = read_any_header(bundle)
    update: dict[str, Any] = decided(answers, header)
    if isinstance(header, BundleHeader) and header.fast is not None:
        update["fast"] = header.fast.model_copy(update=decided(FAST, header.fast))
    write_header(bundle, header.model_copy(update=update))


def decided(quality: str, header: PostprocessingHeader) -> dict[str, Any]:
    """Refit decision, operating points and prediction sets of a quality, or of the rules."""
    table, config = read_table(quality), load_config("released")  # the rules' settings, too
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    labels = scored_labels(table, config.label)
    points = fit_points(config, table, p_atypical(probabilities), labels)
    fitted = Postprocessing(
        Decision.fit(probabilities, labels, header.decision.power),
        points[BALANCED].threshold,
        conformal=ConformalSets.fit(probabilities, labels, config.answer.conformal_alpha or 0.1),
        points=points,
    ).to_header()
    return {name: fitted[name] for name in ("decision", "thresholds", "conformal")}


def refit_errors(bundle: Path, votes: Path | None, answers: Path) -> None:
    """Refit the errors by every label that is known, of each quality."""
    header = read_any_header(bundle)

    def errors(of: PostprocessingHeader, table: Predictions) -> dict[str, Any]:
        if votes is not None:
            table = with_third_expert(table, votes)
        called = replace(table, predicted_atypical=table.p_atypical >= of.thresholds.atypical)
        return ErrorModel.fit(called, header.provenance["label"]).to_json()

    update: dict[str, Any] = {"errors": errors(header, read_predictions(answers))}
    if isinstance(header, BundleHeader) and header.fast is not None:
        of_fast = errors(header.fast, read_predictions(TABLES[FAST]))
        update["fast"] = header.fast.model_copy(update={"errors": of_fast})
    write_header(bundle, header.model_copy(update=update))


def with_third_expert(table: Predictions, votes: Path) -> Predictions:
    """Add the votes of the expert who gave no subtypes, which the tables lack."""
    rows = pd.read_csv(votes, dtype=str).fillna("")
    given = dict(zip(rows["dataset"] + "_" + rows["uid"], rows["expert3_atypical"], strict=True))
    calls = [parse_atypical(given[str(patch)]) for patch in table.patch_ids]
    third = np.array([UNKNOWN if call is None else int(call) for call in calls])
    return replace(table, votes={"atypical_expert3": third} | dict(table.votes))


if __name__ == "__main__":
    main()
