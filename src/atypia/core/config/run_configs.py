"""Whole configurations: all that a run depends on, apart from the cohort."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from atypia.core.config.settings import (
    AnswerConfig,
    AugmentConfig,
    Count,
    EnsembleConfig,
    Frozen,
    InputConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PoolingKind,
    Positive,
    RuntimeConfig,
    SplitConfig,
    StackKind,
    TargetConfig,
    UnlabelledConfig,
)


class RunConfig(Frozen):
    """What every run depends on, apart from the cohort."""

    label: str = "expert1"
    """The rater whose labels are learned and scored against, or ``agreed``."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Random draws behind each interval of a calibration error."""

    @property
    def fixed_threshold(self) -> float | None:
        """The binary threshold where data do not fix it; None where they do."""
        return None

    def to_yaml(self) -> str:
        """Every field, defaults included, in the order of this page."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class TrainConfig(RunConfig):
    """Everything that the training of a network depends on, apart from the cohort."""

    split: SplitConfig = SplitConfig()
    input: InputConfig
    model: ModelConfig
    target: TargetConfig = TargetConfig()
    loss: LossConfig = LossConfig()
    unlabelled: UnlabelledConfig = UnlabelledConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    ensemble: EnsembleConfig = EnsembleConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def answer(self) -> AnswerConfig:
        """From probabilities to answers."""
        return self.ensemble

    @property
    def fixed_threshold(self) -> float | None:
        """Shares of votes are no probabilities that a threshold could be fixed on."""
        return 0.5 if self.ensemble.join == "majority" else None

    @property
    def inner_folds(self) -> int:
        """Number of inner patient-level folds."""
        return self.ensemble.members

    @property
    def steered_by(self) -> list[str]:
        """Settings by which a member's validation fold steers its training: figures on it flatter.

        A layer that is fitted in one step, on a frozen backbone, has none of them.
        """
        optim = self.optim
        if self.model.frozen:
            return []
        return (
            ["optim.select=best"] * (optim.select == "best")
            + [f"optim.early_stopping={optim.early_stopping}"] * (optim.early_stopping is not None)
            + ["optim.schedule=plateau"] * (optim.schedule == "plateau")
        )

    @model_validator(mode="after")
    def _progressive_ends_at_the_input(self) -> TrainConfig:
        steps = self.optim.progressive
        starts = [start for start, _ in steps]
        if steps and (
            starts[0] != 0
            or starts[-1] == 1  # the network would never learn from what it is to see
            or starts != sorted(set(starts))
            or steps[-1][1] != self.input.size_px
            or max(size for _, size in steps) > self.input.size_px
        ):
            raise ValueError(
                "optim.progressive: expected rising shares of the epochs from 0 on and below 1, "
                f"the last with the largest side, input.size_px = {self.input.size_px}, but got "
                f"{[list(step) for step in steps]}"
            )
        return self

    @model_validator(mode="after")
    def _majorities_are_not_mixed(self) -> TrainConfig:
        if self.loss.of == "sides" and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                "loss.of=sides: expected augment.mixup=0 augment.cutmix=0, since what is learned "
                "is a majority, and two figures have that of the one or of the other"
            )
        return self

    @model_validator(mode="after")
    def _frozen_learns_from_labels_alone(self) -> TrainConfig:
        others = {
            "unlabelled.weight": self.unlabelled.weight,
            "optim.self_supervised_epochs": self.optim.self_supervised_epochs,
            "optim.sampling": self.optim.sampling,
            "optim.domain_balance": self.optim.domain_balance,
        }
        given = [f"{name}=0" for name, value in others.items() if value]
        if self.model.frozen and given:
            raise ValueError(
                f"model.frozen: expected {', '.join(given)}, since a layer that is fitted in one "
                "step has no use for them"
            )
        return self


class MitosisConfig(TrainConfig):
    """A training of networks that find look-alikes; they name no subtype."""

    kind: Literal["mitosis"] = "mitosis"
    label: Literal["mitosis"] = "mitosis"
    """The column of the cohort: ``False`` marks a look-alike, all else are mitotic figures."""
    before: str | None = None
    """The model of subtypes that the networks guard: ``released``, a bundle or a run. The bundle of
    this run is then a copy of it with the networks in it; None: the networks alone."""
    false_rejection: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    """Share of the mitotic figures that the threshold, fixed out of fold, takes for look-alikes."""

    @model_validator(mode="after")
    def _two_sides(self) -> MitosisConfig:
        ensemble = self.ensemble
        wrong = ["loss.of=sides"] * (self.loss.of != "sides")
        wrong += ["model.frozen=false"] * self.model.frozen
        wrong += ["ensemble.join=mean"] * (ensemble.join in ("weighted", "majority"))
        if wrong:
            raise ValueError(f"kind=mitosis: expected {', '.join(wrong)}: it learns two sides")
        return self


class RulesConfig(RunConfig):
    """A run of the rules, which learn nothing: only how answers are made of their probabilities."""

    kind: Literal["rules"]
    split: SplitConfig = SplitConfig()
    answer: AnswerConfig = AnswerConfig()
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Patient-level folds of the training part. They change no answer; they are there so that the
    splits serve other runs as well."""


class HybridConfig(RunConfig):
    """A run of the hybrid: a small classifier on a network's probabilities and the rules."""

    kind: Literal["hybrid"]
    network: str | None = None
    """Folder of the network's finished run, whose cohort and splits are taken: what to make of a
    member's answers can only be learned on patients that it was not trained on."""
    answer: AnswerConfig = AnswerConfig()


class StackConfig(RunConfig):
    """A run that joins the models of finished runs, each of any kind."""

    kind: Literal["stack"]
    runs: tuple[str, ...] = ()
    """Folders of two or more finished runs of one cohort with one test part; the first one's inner
    folds are taken."""
    join: StackKind = "logistic"
    """``logistic``: a meta-learner on the models' out-of-fold predictions (stacking: Wolpert,
    Neural Networks 5, 1992). ``weighted`` goes by each model's mean AUC out of fold; see
    :class:`atypia.classifiers.aggregation.Aggregation` for this, ``mean``, ``median`` and
    ``majority``. With ``majority`` a figure is atypical where most of the votes are for it, and in
    a tie by the models' mean."""
    answer: AnswerConfig = AnswerConfig()

    @property
    def fixed_threshold(self) -> float | None:
        """As of an ensemble that votes."""
        return 0.5 if self.join == "majority" else None

    @model_validator(mode="after")
    def _votes_are_no_probabilities(self) -> StackConfig:
        if self.join == "majority":
            self.answer.require_none_for_votes("answer")
        return self


class MilConfig(RunConfig):
    """One answer for each patient from all of their figures; see :mod:`atypia.training.mil`."""

    kind: Literal["mil"] = "mil"
    target: str
    """A CSV with a label for each patient, or a name out of
    :data:`atypia.training.mil.patient_target.DERIVED`."""
    column: str | None = None
    """Of the CSV; None where it has only one besides ``patient_id``."""
    input: InputConfig = InputConfig(field_of_view_um=18, size_px=96)
    model: ModelConfig = ModelConfig(backbone="tf_efficientnet_lite0", frozen=True)
    """Its backbone describes the figures; it is not trained."""
    answers: str | None = None
    """A table of predictions whose probabilities describe the figures instead. They must be of
    patients that its model was not trained on, as in a run's ``predictions-oof.csv``."""
    pooling: tuple[PoolingKind, ...] = ("attention", "mean")
    """How figures become one answer; of several, the first is the model that is kept."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Of the patient-level cross-validation."""
    repeats: Count = 3
    """Of the cross-validation, with other folds and seeds; a patient's answers are averaged."""
    components: Annotated[int, Field(ge=1, le=4096)] = 64
    """Principal components of the features that are kept."""
    attention_width: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """On the features of each figure."""
    epochs: Count = 40
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Patients in a step."""
    learning_rate: Positive = 1e-2
    """The highest one. Patients are few, and so are the steps: they have to be large."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.05
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _each_pooling_once(self) -> MilConfig:
        if not self.pooling or len(set(self.pooling)) < len(self.pooling):
            raise ValueError("pooling: expected one or more kinds, each once")
        if not self.model.frozen:
            raise ValueError("model.frozen: expected true: the backbone is not trained here")
        return self


AnyConfig = TrainConfig | RulesConfig | HybridConfig | StackConfig
