"""The rules: nothing is trained; every patch's shape features are measured once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from atypia.classifiers.rules.rules_classifier import RulesClassifier
from atypia.classifiers.rules.shape_features import measure_patches, raw_probabilities
from atypia.core.config import RulesConfig
from atypia.core.files import write_text
from atypia.core.tables import csv_text
from atypia.data.images import read_patch
from atypia.data.patient_names import case_of
from atypia.data.splits import published_roles
from atypia.training.outer_split import FittedModel, ModelFitter, OuterRows
from atypia.training.run_folder import Config, run_splits, warn_of_missing_classes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.classifiers.rules.shape_features import ShapeFeatures
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Splits

MEASURES: Final = "measures.csv"
"""What was measured of every patch of the cohort: one row each, empty where nothing was found."""


class ShapeFitter(ModelFitter[Config]):
    """What fitters of the rules and of the hybrid share: shape features of every patch."""

    features: list[ShapeFeatures]
    """Of every patch, in the order of the manifest."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        RulesClassifier()  # a missing package is reported before the work

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Measure every patch of the cohort and write :data:`MEASURES`."""
        manifest = self.run.cohort.manifest
        mpp = manifest["mpp"].to_numpy(dtype=float)
        self.features = []
        for row, path in enumerate(self.run.cohort.image_paths()):
            self.features += measure_patches(read_patch(path)[None], float(mpp[row]))
            self.on_step("shapes", row + 1, len(mpp))
        table = pd.DataFrame([dict(features.measures) for features in self.features])
        table.insert(0, "patch_id", manifest["patch_id"].to_numpy())
        text = csv_text(table, float_format="%.6g")
        write_text(self.run.folder / MEASURES, text)
        yield

    def optimistic(self) -> tuple[bool, bool]:
        """Look for patients of the run that the rules were made with a look at."""
        outer = self.run.splits.outer
        return any(shaped_on(o.training) for o in outer), any(shaped_on(o.test) for o in outer)


class RulesFitter(ShapeFitter[RulesConfig]):
    """Applies the rules, so that every prediction for a training patient counts as out of fold.

    Where the rules were made with a look at these patients the measures are marked as optimistic;
    of AMi-Br only the test part of ``table1`` was not looked at.
    """

    def split(self, cohort: Cohort, out: Path) -> Splits:
        """Split the cohort by the configuration."""
        return run_splits(out, cohort, self.config)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Warn of what is missing; measure every patch."""
        warn_of_missing_classes(self.run)
        with super().prepared():
            yield

    def fit(self, number: int) -> FittedModel:
        """Apply the rules to one outer split."""
        part = OuterRows.of(self.run.cohort.manifest, self.run.splits.outer[number])
        raw = raw_probabilities(self.features)
        facts = {"initial_weights": "none: rules", "parameters": 0}
        return FittedRules(part, raw[part.training], raw[part.test], facts, self.features)


@dataclass(frozen=True)
class FittedRules(FittedModel):
    """The rules on one outer split."""

    features: Sequence[ShapeFeatures]
    """Of every patch of the cohort."""

    def save(
        self, folder: Path, postprocessing: Postprocessing, provenance: dict[str, Any]
    ) -> None:
        """Write the bundle."""
        RulesClassifier(postprocessing, provenance).save(folder)

    def reasons(self, rows: npt.NDArray[np.int64], subtypes: Sequence[str]) -> list[str]:
        """Name the criteria that speak for and against each subtype."""
        return [
            self.features[row].reason(subtype) for row, subtype in zip(rows, subtypes, strict=True)
        ]


def shaped_on(patients: Iterable[str]) -> bool:
    """Whether the rules were made with a look at one of these patients.

    Their constants were set by eye on the training patients of ``table1``, whatever cohort these
    come in now. Measures on them flatter the rules, and what was fitted to the rules' predictions.
    """
    seen = {case_of(p) for p, role in published_roles("table1").items() if role == "train"}
    return not seen.isdisjoint(map(case_of, patients))
