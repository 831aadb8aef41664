"""What a configuration is worth: on which patients, by which answers, and again after a stop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from atypia import pipeline
from atypia.classifiers.decision import decide
from atypia.core.config import TrainConfig, load_config
from atypia.core.errors import InputError, TrainingError
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.splits import Outer, Splits, rows
from atypia.evaluation.metrics import balanced_accuracy, confusion_matrix, log_loss, one_vs_rest_auc
from atypia.evaluation.predictions import read_predictions
from atypia.training.distributed import ComputePlace, World
from atypia.training.search_space import Choices, Measure, NumberRange, SearchSpace, default_measure
from atypia.training.study import ProposedTrial, Pruned
from atypia.training.targets import chosen_labels
from atypia.training.trial import FoldTrainings, training_part

if TYPE_CHECKING:
    from collections.abc import Callable

PLACE = ComputePlace(torch.device("cpu"), torch.float32, World())
SPACE = SearchSpace({"optim.learning_rate": NumberRange(low=1e-6, high=1e30, log=True)})


def trainings(
    cohort: Cohort, outer: Outer, config: TrainConfig, folder: Path, **options: object
) -> FoldTrainings:
    known: dict[str, object] = {"measure": "log_loss", "folds": 2}
    return FoldTrainings(
        cohort, outer, config, SPACE, place=PLACE, folder=folder, **(known | options)
    )  # type: ignore[arg-type]


def candidate(
    rate: float = 1e-3, report: Callable[[int, float], None] = lambda *_: None, number: int = 0
) -> ProposedTrial:
    return ProposedTrial(number, {"optim.learning_rate": rate}, report)


@pytest.fixture(scope="module")
def config(tiny: tuple[str, ...]) -> TrainConfig:
    return load_config("quick", tiny)


@pytest.fixture(scope="module")
def outer(run_folder: Path, cohort_folder: Path) -> Outer:
    cohort = Cohort.open(cohort_folder)
    return Splits.read(run_folder / "splits.json", cohort.manifest, cohort.sha256).outer[0]


@pytest.mark.parametrize(
    ("preset", "measure"), [("released", "calibrated_log_loss"), ("binary-lite0", "log_loss")]
)
def test_log_loss_is_calibrated_where_the_configuration_calibrates(
    preset: str, measure: Measure
) -> None:
    assert default_measure(load_config(preset)) == measure


@pytest.mark.parametrize("measure", [m for m in get_args(Measure) if m != "calibrated_log_loss"])
def test_a_trial_is_worth_what_a_run_scores_out_of_fold(
    measure: Measure,
    run_folder: Path,
    cohort_folder: Path,
    outer: Outer,
    config: TrainConfig,
    tmp_path: Path,
) -> None:
    """The same configuration, trained as a run, is the independent reference."""
    part = training_part(Cohort.open(cohort_folder), outer)
    train = trainings(*part, config, tmp_path, measure=measure)
    value = train(candidate(config.optim.learning_rate))
    answers = read_predictions(run_folder / "predictions-oof.csv")
    truth = answers.labels["expert1"]
    prior = np.bincount(truth, minlength=8) / len(truth)
    values = []
    for fold in ("0", "1"):
        mine = answers.folds == fold
        y, p = truth[mine], answers.probabilities[mine]
        chosen = decide(p, prior, config.ensemble.prior_power)
        values.append(
            {
                "log_loss": log_loss(y, p)[0],
                "mean_auc": np.nanmean(one_vs_rest_auc(y, p)),
                "balanced_accuracy": balanced_accuracy(confusion_matrix(y, chosen))[0],
                "binary_auc": roc_auc_score(y < 4, p[:, :4].sum(axis=1)),
            }[measure]
        )
    assert value == pytest.approx(np.mean(values), abs=2e-6)  # a table has six decimals


def test_a_calibrated_trial_is_worth_what_its_last_epoch_was(
    cohort_folder: Path, outer: Outer, config: TrainConfig, tmp_path: Path
) -> None:
    """Six decimals of a table are too few for a temperature; networks answer with one view here."""
    assert not config.ensemble.tta
    told: list[float] = []
    train = trainings(
        *training_part(Cohort.open(cohort_folder), outer),
        config,
        tmp_path,
        measure="calibrated_log_loss",
    )
    value = train(candidate(report=lambda _, value: told.append(value)))
    assert value == pytest.approx(told[-1], abs=1e-6)
    history = np.genfromtxt(tmp_path / "0" / "fold-0" / "history.csv", delimiter=",", names=True)
    assert (history["valid_calibrated_log_loss"] < history["valid_log_loss"]).all()


def test_a_model_of_sides_is_measured_by_the_majority_of_the_votes(
    cohort_folder: Path, outer: Outer, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    config = load_config("quick", [*tiny, "loss.of=sides"])
    pipeline.train(cohort_folder, tmp_path / "run", config)
    answers = read_predictions(tmp_path / "run" / "predictions-oof.csv")
    manifest = Cohort.open(cohort_folder).manifest.set_index("patch_id").loc[answers.patch_ids]
    majority = manifest["majority_atypical"].astype(str).to_numpy() == "True"
    assert (majority != (answers.labels["expert1"] < 4)).any()
    p = answers.probabilities[:, :4].sum(axis=1)
    folds = [answers.folds == fold for fold in ("0", "1")]
    expected = np.mean([roc_auc_score(majority[mine], p[mine]) for mine in folds])
    told: list[float] = []
    train = trainings(
        *training_part(Cohort.open(cohort_folder), outer),
        config,
        tmp_path / "trials",
        measure="binary_auc",
    )
    value = train(candidate(config.optim.learning_rate, report=lambda _, value: told.append(value)))
    assert value == pytest.approx(expected, abs=2e-3)  # a table has six decimals: ties
    assert told[-1] == pytest.approx(value)  # what prunes is what counts in the end


def test_no_test_patient_has_a_part_in_it(
    cohort_folder: Path, outer: Outer, config: TrainConfig, tmp_path: Path
) -> None:
    """Labels of test patients are turned round, and their images are no images any more."""
    poisoned = tmp_path / "cohort"
    shutil.copytree(cohort_folder, poisoned)
    clean = Cohort.open(cohort_folder)
    manifest = clean.manifest.copy()
    test = rows(manifest, outer.test)
    for column in ("label_expert1", "label_expert2"):
        others = {name: SUBTYPES[7 - i] for i, name in enumerate(SUBTYPES)}
        manifest.loc[test, column] = manifest.loc[test, column].map(lambda n, o=others: o.get(n, n))
    for name in manifest.loc[test, "file"]:
        (poisoned / name).write_bytes(b"poison")
    Cohort.write(poisoned, "poisoned", manifest, {})
    one = config.model_copy(update={"optim": config.optim.model_copy(update={"epochs": 1})})
    values = []
    for i, cohort in enumerate((clean, Cohort.open(poisoned, verify=True))):
        part, inner = training_part(cohort, outer)
        assert not set(part.manifest["patient_id"]) & set(outer.test)
        assert len(part) == int((~test).sum())
        folder = tmp_path / str(i)
        values.append(trainings(part, inner, one, folder, measure="balanced_accuracy")(candidate()))
    assert values[0] == values[1]
    assert (chosen_labels(manifest, "expert1") != chosen_labels(clean.manifest, "expert1")).any()


def test_reports_are_tenths_of_folds_and_weights_do_not_stay(
    cohort_folder: Path, outer: Outer, config: TrainConfig, tmp_path: Path
) -> None:
    told: list[tuple[int, float]] = []
    train = trainings(*training_part(Cohort.open(cohort_folder), outer), config, tmp_path)
    train(candidate(report=lambda *pair: told.append(pair)))
    assert [step for step, _ in told] == [5, 10, 15, 20]
    histories = [
        np.genfromtxt(tmp_path / "0" / f"fold-{i}" / "history.csv", delimiter=",", names=True)[
            "valid_log_loss"
        ]
        for i in range(2)
    ]
    means = [*histories[0], *((histories[0][-1] + h) / 2 for h in histories[1])]
    np.testing.assert_allclose([value for _, value in told], means)
    left = {path.name for path in (tmp_path / "0").rglob("*") if path.is_file()}
    assert left == {"history.csv"}


def test_after_an_interruption_it_goes_on_with_the_same_numbers(
    cohort_folder: Path, outer: Outer, config: TrainConfig, tmp_path: Path
) -> None:
    part = training_part(Cohort.open(cohort_folder), outer)
    whole: list[tuple[int, float]] = []
    value = trainings(*part, config, tmp_path / "a")(
        candidate(report=lambda *pair: whole.append(pair))
    )
    steps: list[tuple[str, int]] = []

    def stop(name: str, done: int, total: int) -> None:
        steps.append((name, done))
        if name == "trial 0, member 1" and done == 4 and total == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainings(*part, config, tmp_path / "b", on_step=stop)(candidate())
    before, again = len(steps), []
    resumed = trainings(*part, config, tmp_path / "b", on_step=lambda *s: steps.append(s[:2]))
    assert resumed(candidate(report=lambda *pair: again.append(pair))) == value
    assert again == whole  # for the pruner, too
    # Only the epoch that was cut off is trained again.
    assert steps[before:] == [("trial 0, member 1", done) for done in (4, 5, 6)]


def test_what_is_pruned_or_fails_leaves_no_weights(
    cohort_folder: Path, outer: Outer, config: TrainConfig, tmp_path: Path
) -> None:
    def prune(*_: object) -> None:
        raise Pruned

    train = trainings(*training_part(Cohort.open(cohort_folder), outer), config, tmp_path)
    with pytest.raises(Pruned):
        train(candidate(report=prune))
    assert not (tmp_path / "0" / "fold-1").exists()
    with pytest.raises(TrainingError, match="not finite"):
        train(candidate(1e30, number=1))
    train.space = SearchSpace({"model.reduction": Choices((None, 8))})
    with pytest.raises(InputError, match="reduction"):
        train(ProposedTrial(2, {"model.reduction": 8}, lambda *_: None))
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".safetensors")]


def test_a_field_that_changes_is_decoded_anew_and_else_it_is_not(
    cohort_folder: Path,
    outer: Outer,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from atypia.training import trial as module

    opened = []

    def counted(*args: object) -> object:
        opened.append(args[1])
        return open_store(*args)  # type: ignore[arg-type]

    open_store = module.open_store
    monkeypatch.setattr(module, "open_store", counted)
    short = config.model_copy(update={"optim": config.optim.model_copy(update={"epochs": 1})})
    train = trainings(*training_part(Cohort.open(cohort_folder), outer), short, tmp_path, folds=1)
    train.space = SearchSpace({"input.field_of_view_um": Choices((12.0, 18.0))})
    for number, field in enumerate((18.0, 18.0, 12.0)):
        train(ProposedTrial(number, {"input.field_of_view_um": field}, lambda *_: None))
    assert [spec.field_of_view_um for spec in opened] == [18.0, 12.0]  # type: ignore[attr-defined]
    train.close()
    assert not list(tmp_path.glob(".pixels*"))
