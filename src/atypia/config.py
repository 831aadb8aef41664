"""One frozen configuration behind the Python API, the YAML presets and ``key=value`` options.

A preset names every choice of a training; ``atypia train ... optim.epochs=30`` changes one.
Unknown keys and wrong values are all reported together.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from atypia.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Stages: TypeAlias = Literal["one", "shared", "separate"]
JoinKind: TypeAlias = Literal["mean", "weighted", "median", "majority"]
StackKind: TypeAlias = Literal["logistic", "mean", "weighted", "median", "majority"]
PoolingKind: TypeAlias = Literal["attention", "mean"]
LEAK: Final = "leak_by_figure"
"""Kind of a split that lets figures of one patient stand on both sides, to show what that does."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Frozen):
    """What a network sees: the one value that data and models share."""

    field_of_view_um: Annotated[float, Field(ge=4, le=200)]
    """Side of the square around the figure's centre, in µm."""
    size_px: Annotated[int, Field(ge=32, le=1024)]
    """Side of the network's input, in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from RGB scaled to 0..1."""
    std: tuple[float, float, float]
    """Divides RGB after the mean is subtracted."""


class SplitConfig(_Frozen):
    """Which patients train, and which test."""

    kind: str = "holdout"
    """``table1``, ``benchmark``, ``holdout``, ``cv``, ``monte_carlo`` (``repeats`` holdouts, each
    drawn anew), ``all`` (no test part), ``domains`` (each tests once), or the path of a split file.
    ``leak_by_figure`` is ``monte_carlo`` over figures: patients stand on both sides, and the
    measures that come out are WRONG; see :mod:`atypia.data.leak`."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the figures in the test part of ``holdout`` and of each of ``monte_carlo``."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Outer folds of ``cv``."""
    repeats: Count = 1
    """How often ``cv`` is repeated with other folds; test parts of ``monte_carlo``."""


class InputConfig(_Frozen):
    """Size of what the network sees; colour scaling comes with the backbone."""

    field_of_view_um: Annotated[float, Field(ge=4, le=200)]
    size_px: Annotated[int, Field(ge=32, le=1024)]


class ModelConfig(_Frozen):
    """The network."""

    backbone: str
    """An encoder, such as ``virchow2`` (see :mod:`atypia.models.foundation`), or any timm model."""
    pretrained: bool = True
    weights: str | None = None
    """Local ``.safetensors`` or ``.pt`` file with the initial weights of the backbone."""
    dropout: Fraction = 0.0
    """Before the classification layer."""
    drop_path: Fraction = 0.0
    """Stochastic depth (Huang et al. 2016), where the backbone has residual blocks."""
    reduction: Literal[8, 16, 32] | None = None
    """Stop where feature maps have 1/reduction of the input's side. A field of 64 px leaves the
    last stages of a network for 224 px two pixels to look at: they cost more than they tell. None
    keeps the whole backbone."""
    stages: Stages = "one"
    """``one``: eight scores side by side. Two stages, p(side) and p(subtype | side), are
    ``shared``: on one backbone, or ``separate``: a network for the side and one for the subtypes
    of each side, thrice the work. See :mod:`atypia.models.hierarchical`."""
    frozen: bool = False
    """A linear probe: the backbone stays as it is, what it says of each patch is computed once and
    kept, and the classification layer is fitted to it; see :mod:`atypia.training.probe`. ``optim``
    and dropout are not used, ``augment`` only for ``flip`` with ``rotate``: the eight views."""
    lora_rank: Annotated[int, Field(ge=0, le=256)] = 0
    """Rank of what the backbone learns beside its own matrices, which stay as they are (LoRA: Hu et
    al., ICLR 2022). 0 lets the whole backbone learn."""
    lora_alpha: Positive = 16.0
    """What is learned counts lora_alpha / lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Before what is learned."""
    lora_targets: Literal["attention", "attention_and_mlp"] = "attention"
    """Of a vision transformer; an EfficientNet learns beside its convolutions of 1 x 1 pixels."""

    @model_validator(mode="after")
    def _frozen_is_frozen(self) -> ModelConfig:
        if self.frozen and self.lora_rank:
            raise ValueError("frozen: expected no lora_rank: a frozen backbone learns nothing")
        if self.frozen and self.stages == "separate":
            raise ValueError(
                "frozen: expected stages one or shared: three frozen backbones are one"
            )
        return self


class TargetConfig(_Frozen):
    """What a network learns from. What it is scored against is ``label``."""

    second_rater: str | None = None
    """A rater whose subtypes are learned, too: mixed in where both raters named one, alone where
    `label` has none."""
    second_rater_mass: Fraction = 0.0
    """Share of the label mass that goes to that opinion."""
    smoothing: Fraction = 0.0
    """Label smoothing (Szegedy et al. 2016)."""
    per_rater: bool = False
    """The second rater gets scores of its own instead of a share of one target: two heads on one
    backbone, each with its rater's labels; the first one answers (Guan et al., AAAI 2018)."""
    teacher: str | None = None
    """A table of predictions whose probabilities are learned, too: distillation (Hinton et al.
    2015). They must be out of fold, as in a run's ``predictions-oof.csv``. A patch without a label
    learns from them alone."""
    teacher_mass: Fraction = 0.0
    """Share of the label mass that goes to the teacher."""
    labelled_patients: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training patients whose labels are learned from, to study what few labels give.
    A smaller share is part of a larger one. Labels are hidden from learning alone: out-of-fold
    figures and what is fixed by them see all. See :mod:`atypia.training.few_labels`."""
    others: Literal["none", "atypical"] = "none"
    """What is known of the other training patients' figures: nothing, or whether they are
    atypical."""

    @model_validator(mode="after")
    def _mass_needs_rater(self) -> TargetConfig:
        if (self.second_rater is None) != (self.second_rater_mass == 0):
            raise ValueError("expected second_rater and second_rater_mass together, or neither")
        if self.per_rater and self.second_rater is None:
            raise ValueError("per_rater: expected a second_rater")
        if (self.teacher is None) != (self.teacher_mass == 0):
            raise ValueError("expected teacher and teacher_mass together, or neither")
        return self


class LossConfig(_Frozen):
    """How a wrong answer costs."""

    of: Literal["subtypes", "sides"] = "subtypes"
    """What is learned: the subtypes, or, as a binary classifier does, only whether most experts
    call the figure atypical. P(atypical) is then the sum of the four subtypes below it; what is
    said within a side means nothing. With ``model.stages=shared`` it stays how common each is."""
    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Focusing parameter of the focal loss (Lin et al. 2017)."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: n / (classes x n_class), from the training part of each fold. The classes are
    what is learned: eight, or two."""
    atypical: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of a second term: the cross-entropy of P(atypical), the sum of the four subtypes
    below it, against the share of experts who voted so. It also lets figures teach that carry an
    atypical vote but no subtype."""

    @property
    def hears_votes(self) -> bool:
        """Whether figures teach that carry an atypical vote but no subtype."""
        return self.atypical > 0 or self.of == "sides"

    @model_validator(mode="after")
    def _sides_are_all(self) -> LossConfig:
        if self.of == "sides" and self.atypical:
            raise ValueError("of=sides: expected atypical=0: the sides are all that is learned")
        return self


class UnlabelledConfig(_Frozen):
    """What training figures without a subtype teach; see :mod:`atypia.training.unlabelled`."""

    weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Of the term that asks for the same answer on a changed view of a figure as on a plain one. 0
    leaves such figures out."""
    threshold: Fraction = 0.0
    """Figures teach whose plain view is answered with at least this probability. 0: all, with all
    probabilities (mean teacher: Tarvainen and Valpola, NeurIPS 2017). Above 0: the most probable
    subtype counts as the label (FixMatch: Sohn et al., NeurIPS 2020)."""
    ramp: Fraction = 0.25
    """Share of the epochs over which the weight rises to its value."""


class AugmentConfig(_Frozen):
    """Random changes of a patch in training; each sample draws its own."""

    flip: bool = True
    rotate: bool = True
    """By any angle."""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest relative change of size, either way."""
    shift_um: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Largest shift of the centre, in µm, in x and in y."""
    optical_density: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the factor on each channel's optical density; a tenth of it is added
    as an offset (stain jitter as in Tellez et al. 2018)."""
    stain: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the factor on the amount of haematoxylin, of eosin and of the residual
    (HED jitter: Tellez et al. 2018); a tenth of it is added as an offset."""
    style: Fraction = 0.0
    """Probability that a patch takes on colours of another training patch: mean and spread of its
    optical density move a random part of the way (Reinhard et al. 2001 with random targets)."""
    blur_um: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Largest standard deviation of a Gaussian blur, in µm: another focus, another lens."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest standard deviation of Gaussian noise on RGB in 0..1."""
    mixup: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Parameter of the Beta distribution of MixUp (Zhang et al., ICLR 2018); partners are drawn
    within a batch. 0 is off."""
    cutmix: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Parameter of the Beta distribution of CutMix (Yun et al., ICCV 2019): share of the image that
    a partner's rectangle takes. 0 is off. With `mixup`, each batch takes one of them by a coin."""


class OptimConfig(_Frozen):
    """Optimiser, schedule and length of a training."""

    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    progressive: tuple[tuple[Fraction, Annotated[int, Field(ge=32, le=1024)]], ...] = ()
    """Side of the input in px from which share of the epochs on, as in [[0, 64], [0.5, 96]]; the
    last one is ``input.size_px``. Small images first cost less and regularise (Tan and Le, ICML
    2021)."""
    micro_batch: Count | None = None
    """Samples per forward pass; gradients are accumulated to `batch_size`. Saves memory and, on a
    CPU, time. Exact for networks without batch normalisation."""
    batches_per_epoch: Count | None = None
    """None: as many as the training part fills."""
    sampling: Fraction = 0.0
    """Figures are drawn in proportion to 1 / frequency**sampling of their subtype: 0 shows each
    one equally often, 1 each subtype. The probabilities are then those of a cohort with the
    frequencies that were drawn."""
    sampling_of: Literal["subtype", "side"] = "subtype"
    """Whose frequency `sampling` goes by: of the subtype, or of atypical and normal by most
    opinions."""
    domain_balance: Fraction = 0.0
    """Figures are drawn in proportion to 1 / frequency**domain_balance of their domain: 0 shows
    each figure equally often, 1 each domain. With `sampling`, that is done within each domain."""
    self_supervised_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs of a warm-up without labels before all else: the backbone learns to describe two views
    of one crop alike (VICReg), from the member's training patients; see
    :mod:`atypia.training.self_supervised`."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which only the classification layer learns."""
    head_learning_rate: Positive = 1e-4
    epochs: Count
    """Largest number of epochs of the whole network."""
    learning_rate: Positive = 1e-3
    """The highest one of a schedule."""
    schedule: Literal["one_cycle", "plateau"] = "one_cycle"
    """``plateau`` lowers the rate where the validation loss stands still."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of ``one_cycle`` with a rising rate."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-7
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Count = 10
    early_stopping: Count | None = None
    """Stop after this many epochs without a better validation loss. With this, as with
    ``schedule=plateau`` and ``select=best``, out-of-fold figures are optimistic: the fold that
    steered is the fold reported."""
    select: Literal["best", "last"] = "last"
    """Which epoch's weights a member keeps: the one with the lowest validation loss, or the
    last."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of a moving average of the weights; 0 is off."""
    average: Fraction = 0.0
    """Share of the epochs, the last ones, whose weights are averaged, all alike (SWA: Izmailov et
    al., UAI 2018). The learning rate stays where it is from there on. 0 is off."""
    gradient_clip: Positive | None = None

    @model_validator(mode="after")
    def _one_average_of_known_epochs(self) -> OptimConfig:
        if not self.average:
            return self
        wrong = []
        if self.ema:
            wrong.append(f"ema=0 (two averages are one too many) but got {self.ema:g}")
        if self.select == "best":
            wrong.append("select=last, since the average is there at the end, but got best")
        if self.early_stopping is not None:
            wrong.append(
                f"no early_stopping, since the last epochs must be known, but got "
                f"{self.early_stopping}"
            )
        if self.schedule == "one_cycle" and self.average > 1 - self.warmup:
            wrong.append(
                f"average of at most {1 - self.warmup:g}, since the rate is still rising in the "
                f"warmup, but got {self.average:g}"
            )
        if wrong:
            raise ValueError(f"average: expected {'; '.join(wrong)}")
        return self


class AnswerConfig(_Frozen):
    """From probabilities to answers; what is fixed for it is fixed out of fold."""

    prior_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The predicted subtype is the one with the largest p / frequency**prior_power: 0 is the most
    probable one, 1 the one that the patch speaks for most (Menon et al. 2021, post-hoc logit
    adjustment). The probabilities themselves are not changed."""
    calibration: Literal["none", "temperature"] = "none"
    """Temperature scaling (Guo et al. 2017) fitted on the out-of-fold predictions, where every
    domain counts alike."""
    threshold_by: Literal["label", "label_and_majority"] = "label"
    """By whose calls the binary threshold is fixed out of fold: by the chosen label, or by that and
    the majority of the votes, both counted alike. What one expert calls atypical is not what the
    next hospital's experts will."""
    threshold: Literal["figures", "domains"] = "figures"
    """What counts alike when the binary threshold is fixed out of fold: every figure, or every
    domain, so that the threshold is not that of the largest one."""
    conformal_alpha: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Rate of prediction sets that may miss the subtype, promised within every subtype; None makes
    no sets."""

    def require_none_for_votes(self, group: str) -> None:
        """Refuse what cannot be fixed on shares of votes; `group` is what the settings are in."""
        wanted = {"prior_power": 0, "calibration": "none", "conformal_alpha": None}
        named = [
            f"{group}.{name}={'null' if value is None else value}"
            for name, value in wanted.items()
            if getattr(self, name) != value
        ]
        if named:
            raise ValueError(
                f"join=majority: expected {', '.join(named)}, since these are fixed on "
                "probabilities of single members, which shares of votes are not"
            )


class EnsembleConfig(AnswerConfig):
    """Members, and how their answers are joined."""

    members: Annotated[int, Field(ge=2, le=20)] = 3
    """Inner patient-level folds; each member validates on another one."""
    trained: Count | None = None
    """Train only the first so many of the members; None: all."""
    tta: bool = False
    """Average over the eight rotations and flips of a patch."""
    bagging: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each member learns from patients drawn with replacement from those outside its inner fold:
    this share of their number (bagging: Breiman, Machine Learning 24, 1996). An answer out of fold
    is then joined from all members that have not drawn the patient, its fold's among them. None:
    each member learns from every patient outside its fold once."""
    join: JoinKind = "mean"
    """What becomes of the members' probabilities, see :class:`atypia.join.Join`. ``weighted`` goes
    by each member's mean AUC on patients that it has not learned from; folds differ, so weights do
    by chance, too. With ``majority`` a figure is atypical where half of the votes say so."""

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> EnsembleConfig:
        if self.trained is not None and self.trained > self.members:
            raise ValueError(f"trained: expected at most the {self.members} members")
        return self

    @model_validator(mode="after")
    def _votes_are_no_probabilities(self) -> EnsembleConfig:
        if self.join == "majority":
            self.require_none_for_votes("ensemble")
        return self


class RuntimeConfig(_Frozen):
    """Where and how fast; must not change what is learned beyond rounding."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of a training step. ``auto``: bf16 on hardware that multiplies bf16 natively, fp32 elsewhere.
    Answers are always computed in fp32."""
    channels_last: bool = True
    threads: Count | None = None
    """CPU threads of torch; None: all."""


class _RunConfig(_Frozen):
    """What every run depends on, apart from the cohort."""

    label: str = "expert1"
    """The rater whose labels are learned and scored against, or ``agreed``."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples of patients behind each interval."""

    @property
    def fixed_threshold(self) -> float | None:
        """The binary threshold where data do not fix it; None where they do."""
        return None

    def to_yaml(self) -> str:
        """Every field, defaults included, in the order of this page."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class TrainConfig(_RunConfig):
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

        A layer that is fitted in one step, on a frozen backbone, knows none of them.
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


class RulesConfig(_RunConfig):
    """A run of the rules, which learn nothing: only how answers are made of their probabilities."""

    kind: Literal["rules"]
    split: SplitConfig = SplitConfig()
    answer: AnswerConfig = AnswerConfig()
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Patient-level folds of the training part. They change no answer; they are there so that the
    splits serve other runs as well."""


class HybridConfig(_RunConfig):
    """A run of the hybrid: a small classifier on a network's probabilities and the rules."""

    kind: Literal["hybrid"]
    network: str | None = None
    """Folder of the network's finished run, whose cohort and splits are taken: what to make of a
    member's answers can only be learned on patients that it has not learned from."""
    answer: AnswerConfig = AnswerConfig()


class StackConfig(_RunConfig):
    """A run that joins the models of finished runs, each of any kind."""

    kind: Literal["stack"]
    runs: tuple[str, ...] = ()
    """Folders of two or more finished runs of one cohort with one test part; the first one's inner
    folds are taken."""
    join: StackKind = "logistic"
    """``logistic``: a meta-learner on what the models say out of fold (stacking: Wolpert, Neural
    Networks 5, 1992). ``weighted`` goes by each model's mean AUC out of fold; see
    :class:`atypia.join.Join` for this, ``mean``, ``median`` and ``majority``. With ``majority`` a
    figure is atypical where half of the votes say so."""
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


class MilConfig(_RunConfig):
    """One answer for each patient from all of their figures; see :mod:`atypia.mil`."""

    kind: Literal["mil"] = "mil"
    target: str
    """A CSV with a label for each patient, or a name out of :data:`atypia.mil.target.DERIVED`."""
    column: str | None = None
    """Of the CSV; None where it has only one besides ``patient_id``."""
    input: InputConfig = InputConfig(field_of_view_um=18, size_px=96)
    model: ModelConfig = ModelConfig(backbone="tf_efficientnet_lite0", frozen=True)
    """Its backbone describes the figures; it is not trained."""
    answers: str | None = None
    """A table of predictions whose probabilities describe the figures instead. They must be of
    patients that its model has not learned from, as in a run's ``predictions-oof.csv``."""
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
_KINDS: Final[dict[str, type[RulesConfig | HybridConfig | StackConfig]]] = {
    "rules": RulesConfig,
    "hybrid": HybridConfig,
    "stack": StackConfig,
}
"""By the key ``kind``; a network's configuration has none."""


def presets() -> list[str]:
    """Names of the presets in the package."""
    folder = resources.files("atypia") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_config(preset: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Resolve a preset of a network and ``key=value`` overrides.

    Raises:
        InputError: See :func:`load_any_config`; or the preset is not of a network.
    """
    config = load_any_config(preset, overrides)
    if not isinstance(config, TrainConfig):
        raise InputError(
            f"{preset}: expected the preset of a network but got one of {config.kind}."
        )
    return config


def load_any_config(preset: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Resolve a preset and ``key=value`` overrides.

    Args:
        preset: Name of a preset in the package, or path of a YAML file.
        overrides: Like ``"optim.epochs=30"``; values are YAML.

    Raises:
        InputError: Lists every unknown key and wrong value.
    """
    if preset in presets():
        text = (resources.files("atypia") / "presets" / f"{preset}.yaml").read_text("utf-8")
    elif Path(preset).suffix in {".yaml", ".yml"} and Path(preset).is_file():
        text = Path(preset).read_text("utf-8")
    else:
        raise InputError(
            f"--preset: expected one of {presets()} or the path of a YAML file but got {preset!r}."
        )
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{preset}: expected YAML but got: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{preset}: expected a mapping of settings but got {type(tree).__name__}.")
    problems = _apply(tree, overrides)
    config, more = _validated(tree, f"preset {preset} and key=value" if overrides else preset)
    if problems or config is None or more:
        raise InputError([*problems, *more])
    return config


def mil_config(settings: Sequence[str], tree: Mapping[str, Any] | None = None) -> MilConfig:
    """Resolve ``key=value`` settings of a prediction for patients.

    Args:
        settings: Like ``"epochs=60"``; values are YAML.
        tree: What they change, such as the content of a run's ``config.yaml``.

    Raises:
        InputError: Lists every unknown key and wrong value.
    """
    own = dict(tree or {})
    # A group is given in part: the rest is that of the defaults.
    defaults = MilConfig(target="").model_dump(mode="json")
    groups = {k: {**v, **own.get(k, {})} for k, v in defaults.items() if isinstance(v, dict)}
    own |= groups
    problems = _apply(own, settings)
    try:
        config = MilConfig.model_validate(own)
    except ValidationError as error:
        raise InputError([*problems, *_problems(error, "key=value")]) from None
    if problems:
        raise InputError(problems)
    return config


def config_from_tree(tree: Mapping[str, Any], origin: str) -> TrainConfig:
    """Validate the ``config.yaml`` of a network's run; raises InputError with all problems."""
    config = any_config_from_tree(tree, origin)
    if not isinstance(config, TrainConfig):
        raise InputError(f"{origin}: expected the run of a network but got one of {config.kind}.")
    return config


def any_config_from_tree(tree: Mapping[str, Any], origin: str) -> AnyConfig:
    """Validate a mapping, such as a run's ``config.yaml``; raises InputError with all problems."""
    config, problems = _validated(tree, origin)
    if config is None:
        raise InputError(problems)
    return config


def _apply(tree: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    problems = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(Problem(f"expected key=value but got {override!r}."))
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                problems.append(Problem(f"{key!r}: {parent!r} is a value, not a group."))
                break
            node = child
        else:
            try:
                node[leaf] = yaml.safe_load(value)
            except yaml.YAMLError:
                node[leaf] = value
            # YAML 1.1 reads 1e-4 as a string; people mean the number.
            if isinstance(node[leaf], str):
                node[leaf] = _number(node[leaf])
    return problems


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _validated(tree: Mapping[str, Any], origin: str) -> tuple[AnyConfig | None, list[Problem]]:
    kind = tree.get("kind")
    if "kind" in tree and kind not in _KINDS:
        what = f"expected one of {list(_KINDS)}, or no such key for a network, but got {kind!r}."
        return None, [Problem(what, origin, column="kind")]
    try:
        return (_KINDS[str(kind)] if "kind" in tree else TrainConfig).model_validate(tree), []
    except ValidationError as error:
        return None, _problems(error, origin)


def _problems(error: ValidationError, origin: str) -> list[Problem]:
    """Say of each fault which key it is of, what was expected and what came."""
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            what = "is not a setting. The config.yaml of a run lists them all."
        elif item["type"] == "missing":
            what = "is required but missing."
        elif not item["loc"]:  # of the whole; the message says what came
            what = f"{item['msg']}."
        else:
            what = f"{item['msg']}, but got {item['input']!r}."
        problems.append(Problem(what, origin, column=key))
    return problems
