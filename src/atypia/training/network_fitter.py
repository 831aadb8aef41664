"""Networks: the members of each outer split are trained, and their predictions aggregated."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from atypia.classifiers.bundle import NETWORK
from atypia.core.config import LEAK, TrainConfig
from atypia.core.labels import N_SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.data.splits import leaking, rows, with_true_patients
from atypia.inference.patch_predictions import cohort_items, predict_items
from atypia.reports.run_report import write_report
from atypia.training.outer_split import FittedModel, ModelFitter, OuterRows, finish_outer
from atypia.training.run_folder import (
    run_splits,
    score_run,
    warn_of_another_scale,
    warn_of_missing_classes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.core.config import AnyConfig
    from atypia.data.cohort import Cohort
    from atypia.data.splits import Splits
    from atypia.training.crossval import Members
    from atypia.training.distributed import ComputePlace, World
    from atypia.training.patch_store import PatchStore
    from atypia.training.run_folder import Run


class NetworkFitter(ModelFitter[TrainConfig]):
    """Trains an ensemble of networks; by all processes of ``torchrun``, where it started them."""

    _place: ComputePlace
    _store: PatchStore

    def open_cohort(self, folder: Path) -> Cohort:
        """Open the cohort; for a split that leaks on purpose, each figure as a patient."""
        cohort = super().open_cohort(folder)
        return leaking(cohort) if self.config.split.kind == LEAK else cohort

    @contextmanager
    def processes(self) -> Iterator[World]:
        """Choose the device and the number format, and join the processes of ``torchrun``."""
        import torch

        from atypia.models.hardware import choose_device
        from atypia.training.distributed import ComputePlace, world

        with world(choose_device(self.config.runtime.device)) as processes:
            self._place = ComputePlace.of(self.config.runtime, processes)
            self.machine = {
                "device": str(self._place.device),
                "precision": str(self._place.precision).removeprefix("torch."),
                "threads": torch.get_num_threads(),
                "processes": processes.size,
            }
            yield processes

    def split(self, cohort: Cohort, out: Path) -> Splits:
        """Split the cohort by the configuration."""
        return run_splits(out, cohort, self.config)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Check every member's share of the data, then decode the cohort once for all members."""
        from atypia.models.network import make_network
        from atypia.training.member_tasks import member_tasks
        from atypia.training.patch_store import open_store

        run = self.run
        for number, outer in enumerate(run.splits.outer):  # every fault before an hour of work
            member_tasks(run.cohort, outer, number, self.config)
        if run.writes:
            warn_of_missing_classes(run)
            warn_of_another_scale(self.config)
        _, spec, _ = make_network(self.config.model, self.config.input, initial_weights=False)
        cache = run.folder / f".pixels-{self._place.world.rank}.npy"
        try:
            self._store = open_store(run.cohort, spec, self.config.augment, cache)
            yield
        finally:
            cache.unlink(missing_ok=True)

    def fit(self, number: int) -> FittedModel:
        """Train the members that are not finished and aggregate their predictions."""
        from atypia.training.crossval import train_members

        run, on_step = self.run, self.on_step
        outer, n_outer = run.splits.outer[number], len(run.splits.outer)
        prefix = f"split {number + 1}/{n_outer} " if n_outer > 1 else ""
        members = train_members(
            run.cohort,
            outer,
            number,
            self.config,
            self._store,
            self._place,
            run.outer_folder(number),
            lambda name, done, total: on_step(prefix + name, done, total),
        )
        test = np.flatnonzero(rows(run.cohort.manifest, outer.test))
        return FittedNetworks(
            OuterRows(members.oof_rows, members.oof_folds, test),
            members.oof_probabilities,
            np.empty((0, N_SUBTYPES)),
            {
                "initial_weights": members.origin,
                "parameters": sum(p.numel() for p in members.networks[0].parameters()),
                "join": members.join.model_dump(mode="json", exclude_none=True),
            },
            members,
            self.config,
            self._place,
        )

    def optimistic(self) -> tuple[bool, bool]:
        """Doubt a fold that steered the training, and one whose labels a teacher has seen."""
        return bool(self.config.steered_by) or self.config.target.teacher is not None, False


@dataclass(frozen=True)
class FittedNetworks(FittedModel):
    """Trained members of one outer split."""

    members: Members
    config: TrainConfig
    place: ComputePlace

    def save(
        self, folder: Path, postprocessing: Postprocessing, provenance: dict[str, Any]
    ) -> None:
        """Write the bundle."""
        self.ensemble(postprocessing, provenance).save(folder)

    def predict_test(self, run: Run[AnyConfig], postprocessing: Postprocessing) -> pd.DataFrame:
        """Classify the files of the test part as ``atypia predict`` does."""
        manifest = with_true_patients(run.cohort.manifest)
        items = list(cohort_items(replace(run.cohort, manifest=manifest)))
        ensemble = self.ensemble(postprocessing, {}).to(self.place.device)
        return predict_items(ensemble, [items[row] for row in self.part.test])[0]

    def ensemble(
        self, postprocessing: Postprocessing, provenance: dict[str, Any], kind: str = NETWORK
    ) -> Ensemble:
        """Join the members."""
        from atypia.classifiers.ensemble import Ensemble

        return Ensemble(
            self.members.networks,
            self.members.spec,
            self.config.model,
            self.config.ensemble.tta,
            postprocessing,
            provenance,
            join=self.members.join,
            kind=kind,
        )


def train_on_one_split(
    cohort_folder: Path,
    out: Path,
    config: TrainConfig,
    *,
    command: str = "",
    on_step: OnStep = silent,
) -> dict[str, Any] | None:
    """Train networks on the first outer split, as :func:`atypia.pipeline.train` on each of them."""
    fitter = NetworkFitter(config)
    with fitter.start(cohort_folder, out, command, on_step) as (run, note):
        model = fitter.fit(0)
        if not run.writes:
            return None
        models = [finish_outer(run, 0, model)]
        metrics = score_run(run, models, fitter.optimistic())
        note(models=models)
        write_report(out, run.cohort)
    return metrics
