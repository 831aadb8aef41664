"""Networks that find look-alikes: trained like those of subtypes, measured by what they reject."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from atypia.classifiers.bundle import HEADER, MITOSIS, find_bundle, read_header, write_header
from atypia.classifiers.calibration import fit_calibration
from atypia.classifiers.mitosis_network import p_mitosis, two_sides
from atypia.classifiers.postprocessing import Postprocessing
from atypia.core.errors import InputError
from atypia.core.files import sha256_file, write_json, write_text
from atypia.core.labels import ANSWERED, N_ATYPICAL, PROBABILITY_COLUMNS
from atypia.core.tables import csv_text
from atypia.data.cohort import MITOSIS_COLUMN, Cohort
from atypia.data.splits import with_true_patients
from atypia.evaluation.mitosis_scores import score_mitoses
from atypia.inference.patch_predictions import cohort_items, predict_items
from atypia.training.network_fitter import FittedNetworks, NetworkFitter
from atypia.training.outer_split import FittedModel, provenance_of
from atypia.training.targets import votes_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.core.config import MitosisConfig

_VOTES: Final = f"atypical_{MITOSIS_COLUMN}"
"""The question as the votes of a rater: atypical stands for a mitotic figure."""
_COLUMNS: Final = ("patch_id", "patient_id", "domain", "scanner")


class MitosisFitter(NetworkFitter):
    """Trains networks on mitotic figures against look-alikes; see :class:`MitosisConfig`."""

    config: MitosisConfig
    look_alikes = True

    def __init__(self, config: MitosisConfig) -> None:
        super().__init__(config)
        if config.before is None:
            return
        header, own = read_header(find_bundle(config.before)), config.input
        for seen in (quality.input for quality in header.qualities.values()):
            finest = seen.field_of_view_um / seen.size_px
            wide = own.field_of_view_um > seen.field_of_view_um
            if wide or own.field_of_view_um / own.size_px < 0.99 * finest:
                raise InputError(
                    f"input: expected a field of at most {seen.field_of_view_um:g} µm and pixels "
                    f"of at least {finest:g} µm, as {config.before} sees no more, but got "
                    f"{own.field_of_view_um:g} µm and {own.size_px} px."
                )

    def open_cohort(self, folder: Path) -> Cohort:
        """Open the cohort with its look-alikes; whether it is one is all that is learned."""
        cohort = super().open_cohort(folder)
        manifest = cohort.manifest
        marks = manifest.get(MITOSIS_COLUMN, pd.Series("", manifest.index))
        if (is_one := marks != "False").all() or not is_one.any():
            raise InputError(
                f"{folder}: expected mitotic figures and look-alikes (False in the column "
                f"{MITOSIS_COLUMN!r}) but got {int(is_one.sum())} and {int((~is_one).sum())}. "
                "atypia prepare reads both from the JSON of MIDOG++, or from a table with that "
                "column; atypia merge joins cohorts."
            )
        answers = [c for c in manifest.columns if c.startswith(("label_", "atypical_", "majority"))]
        votes = manifest.drop(columns=answers).assign(**{_VOTES: is_one.map(str)})
        return replace(cohort, manifest=votes)

    def finish(self, number: int, model: FittedModel) -> dict[str, Any]:
        """Calibrate, fix the threshold out of fold; save the bundle and the tables."""
        assert isinstance(model, FittedNetworks)
        run, part = self.run, model.part
        own = self._is_mitosis()[part.training]
        domains = run.cohort.manifest["domain"].to_numpy(dtype=str)[part.training]
        calibration = fit_calibration(
            two_sides(model.out_of_fold), np.where(own, 0, N_ATYPICAL), domains
        )
        p = p_mitosis(model.out_of_fold, calibration)
        threshold = float(np.quantile(p[own], self.config.false_rejection, method="lower"))
        facts = model.facts | {"threshold": threshold, "calibration": calibration.to_json()}
        folder = run.outer_folder(number)
        self._write(folder / "predictions-oof.csv", part.training, part.folds, p, threshold)
        provenance = provenance_of(run, number, facts)
        fitted = Postprocessing(threshold=threshold, calibration=calibration)
        networks = model.ensemble(fitted, provenance, MITOSIS)
        if self.config.before is None:
            networks.save(folder / "model")
        else:
            _put_into(find_bundle(self.config.before), networks, folder / "model")
        if len(part.test):
            items = list(cohort_items(run.cohort))
            plain = model.ensemble(Postprocessing(), {}).to(model.place.device)
            table, _ = predict_items(plain, [items[row] for row in part.test])
            p = p_mitosis(table[list(PROBABILITY_COLUMNS)].to_numpy(), calibration)
            folds = np.full(len(p), number)
            self._write(folder / "predictions-test.csv", part.test, folds, p, threshold)
        return facts

    def score(self, models: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write ``metrics.json`` of the test parts, or out of fold, and give its content."""
        run, several = self.run, len(models) > 1
        name = "predictions-oof.csv" if run.splits.kind == "all" else "predictions-test.csv"
        folders = [run.outer_folder(number) for number in range(len(models))]
        table = pd.concat(
            [pd.read_csv(folder / name, dtype=dict.fromkeys(_COLUMNS, str)) for folder in folders]
        )
        if several:
            write_text(run.folder / name, csv_text(table))
        metrics = score_mitoses(
            table["p_mitosis"].to_numpy(dtype=float),
            table[MITOSIS_COLUMN].to_numpy(dtype=bool),
            table["patient_id"].to_numpy(dtype=str),
            table["domain"].to_numpy(dtype=str),
            (table["status"] != ANSWERED).to_numpy(),
            self.config.resamples,
            self.config.seed,
        )
        metrics["part"] = "out of fold" if run.splits.kind == "all" else "test"
        metrics["at_threshold"]["threshold"] = None if several else models[0]["threshold"]
        write_json(run.folder / "metrics.json", metrics)
        return metrics

    def _is_mitosis(self) -> npt.NDArray[np.bool_]:
        return np.asarray(votes_in(self.run.cohort.manifest, _VOTES) == 1)

    def _write(
        self,
        file: Path,
        rows: npt.NDArray[np.int64],
        folds: npt.NDArray[np.int64],
        p: npt.NDArray[np.float32],
        threshold: float,
    ) -> None:
        manifest = with_true_patients(self.run.cohort.manifest)
        table = manifest.iloc[rows][list(_COLUMNS)].assign(
            fold=folds,
            mitosis=self._is_mitosis()[rows],
            p_mitosis=p,
            status=np.where(p < threshold, "not_a_mitosis", ANSWERED),
        )
        write_text(file, csv_text(table, float_format="%.9g"))


def _put_into(bundle: Path, networks: Ensemble, out: Path) -> None:
    """Copy a bundle of subtypes, and give it networks that decide what is a mitotic figure.

    An export inside the bundle is left out: its graph has another guard.
    """
    header = read_header(bundle)
    shutil.copytree(bundle, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx"))
    networks.save(out / MITOSIS)
    digest = sha256_file(out / MITOSIS / HEADER)
    write_header(out, header.model_copy(update={"mitosis_sha256": digest}))
