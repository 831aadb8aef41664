"""The hybrid: a small classifier on a network's probabilities and the rules' shape features."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.classifiers.answers import Answers
from atypia.classifiers.combined import explain, feature_table, save_hybrid
from atypia.classifiers.rules.shape_features import raw_probabilities
from atypia.core.config import HybridConfig
from atypia.core.errors import InputError
from atypia.core.files import sha256_file, write_text
from atypia.core.tables import csv_text
from atypia.evaluation.comparison import trade, trade_table
from atypia.evaluation.predictions import predictions_from_table, read_cells
from atypia.inference.patch_predictions import prediction_table
from atypia.training.base_predictions import BasePredictions, splits_of
from atypia.training.combiner_fit import choose, cross_fitted, fit_choice
from atypia.training.outer_split import FittedModel, fit_postprocessing
from atypia.training.rules_fitter import ShapeFitter
from atypia.training.targets import chosen_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.classifiers.combined import Combiner
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.classifiers.rules.shape_features import ShapeFeatures
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Splits

log = logging.getLogger("atypia")

TRADE: Final = "trade"
"""Files of a run: what the rules buy, ``.csv`` and ``.md``."""
_PARTS: Final = {"out of fold": "predictions-oof.csv", "test": "predictions-test.csv"}
_TRADE_HEADER: Final = """# Sensitivity against specificity

Each model at its own out-of-fold threshold; differences are to the network alone; 95 % intervals
over patients.
"""


class HybridFitter(ShapeFitter[HybridConfig]):
    """Fits a small classifier on a network's out-of-fold probabilities and the shape features.

    What it uses (the network alone, the rules' truths, all measures) and how strongly it is
    regularised is chosen by cross-validation over the patients of the training part; its own
    out-of-fold predictions come from that whole recipe, fold by fold.

    The network predicts the test part with all its members, out of fold with one: the classifier
    therefore trusts it a little less than it could.
    """

    base: list[BasePredictions]
    """Of the network, one for each outer split."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        if config.network is None:
            raise InputError(
                "network: expected the folder of a network's finished run: network=RUN"
            )
        self.network = Path(config.network)

    def split(self, cohort: Cohort, out: Path) -> Splits:  # noqa: ARG002
        """Take the splits of the network's run."""
        splits = splits_of("network", self.network, cohort)
        self.base = BasePredictions.of_run(self.network, cohort, splits)
        return splits

    def fit(self, number: int) -> FittedModel:
        """Choose, cross-validate and fit the combiner of one outer split."""
        base = self.base[number]
        part = base.part
        labels = chosen_labels(self.run.cohort.manifest, self.config.label)[part.training]
        table = feature_table(base.training, [self.features[row] for row in part.training])
        choices = choose(table, labels, part.folds)
        best = choices[0]
        log.info("hybrid: %s with C = %g is best out of fold", " + ".join(best.uses), best.strength)
        combiner = fit_choice(table, labels, best)
        test = feature_table(base.test, [self.features[row] for row in part.test])
        facts = {
            "initial_weights": f"network: {os.path.relpath(base.bundle, self.run.folder)}",
            "network_sha256": sha256_file(base.bundle / "model.json"),
            "parameters": combiner.coefficients.size + combiner.intercept.size,
            "choice": [choice.to_json() for choice in choices],
        }
        return FittedHybrid(
            part,
            cross_fitted(table, labels, part.folds),
            combiner.predict_proba(test),
            facts,
            self.features,
            base,
            combiner,
        )

    def optimistic(self) -> tuple[bool, bool]:
        """Consider the network as well as the rules."""
        out_of_fold, test = super().optimistic()
        return out_of_fold or any(base.optimistic for base in self.base), test

    def write_more(self) -> None:
        """Compare the calls of network, rules and hybrid, each at its own out-of-fold threshold."""
        run = self.run
        ruled = [self._of_rules(number) for number in range(len(self.base))]
        tables, lines = [], []
        for index, (part, file) in enumerate(_PARTS.items()):
            if run.splits.kind == "all" if part == "test" else len(self.base) > 1:
                continue  # no such part, or one in which every patch is several times
            files = {
                "network": [base.folder / file for base in self.base],
                "hybrid": [run.outer_folder(number) / file for number in range(len(self.base))],
            }
            frames = {name: pd.concat(map(_read, paths)) for name, paths in files.items()}
            frames["rules"] = pd.concat([of_outer[index] for of_outer in ruled])
            named = {
                name: predictions_from_table(frames[name])
                for name in ("network", "rules", "hybrid")
            }
            table = trade(named, run.config.label, run.config.resamples, run.config.seed)
            tables.append(table.assign(part=part))
            lines.append(f"## {part.capitalize()}\n\n{trade_table(table)}")
        text = csv_text(pd.concat(tables), float_format="%.6g")
        write_text(run.folder / f"{TRADE}.csv", text)
        write_text(run.folder / f"{TRADE}.md", "\n".join([_TRADE_HEADER, *lines]))

    def _of_rules(self, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predictions of the rules alone: out of fold, and of the test part."""
        run = self.run
        manifest, raw = run.cohort.manifest, raw_probabilities(self.features)
        part = self.base[number].part
        labels = chosen_labels(manifest, run.config.label)[part.training]
        fitted, out_of_fold = fit_postprocessing(
            run.config, manifest.iloc[part.training], labels, raw[part.training], part.folds
        )
        test = prediction_table(
            manifest.iloc[part.test],
            Answers(fitted.calibration.apply(raw[part.test])),
            fitted,
            number,
            sets=False,
        )
        return out_of_fold, test


@dataclass(frozen=True)
class FittedHybrid(FittedModel):
    """The hybrid of one outer split."""

    features: Sequence[ShapeFeatures]
    """Of every patch of the cohort."""
    base: BasePredictions
    combiner: Combiner

    def save(
        self, folder: Path, postprocessing: Postprocessing, provenance: dict[str, Any]
    ) -> None:
        """Write the bundle, the network's in it."""
        save_hybrid(folder, self.base.bundle, self.combiner, postprocessing, provenance)

    def reasons(self, rows: npt.NDArray[np.int64], subtypes: Sequence[str]) -> list[str]:
        """Name what the network predicts, and the criteria for and against each subtype."""
        network = np.full((len(self.features), 8), np.nan)
        network[self.part.training], network[self.part.test] = self.base.training, self.base.test
        features = [self.features[row] for row in rows]
        return [explanation.reason for explanation in explain(network[rows], features, subtypes)]


def _read(file: Path) -> pd.DataFrame:
    return read_cells(file, ())[0]
