"""Groups of settings: what each may be, and what it does."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Stages: TypeAlias = Literal["one", "shared", "separate"]
JoinKind: TypeAlias = Literal["mean", "weighted", "median", "majority"]
StackKind: TypeAlias = Literal["logistic", "mean", "weighted", "median", "majority"]
PoolingKind: TypeAlias = Literal["attention", "mean"]
LEAK: Final = "leak_by_figure"
"""Kind of a split that lets figures of one patient stand on both sides, to show what that does."""


class Frozen(BaseModel):
    """Cannot be changed, and has no settings but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(Frozen):
    """What a network sees: the one value that data and models share."""

    field_of_view_um: Annotated[float, Field(ge=4, le=200)]
    """Side of the square around the figure's centre, in µm."""
    size_px: Annotated[int, Field(ge=32, le=1024)]
    """Side of the network's input, in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from RGB scaled to 0..1."""
    std: tuple[float, float, float]
    """Divides RGB after the mean is subtracted."""


class SplitConfig(Frozen):
    """Which patients train, and which test."""

    kind: str = "holdout"
    """``table1``, ``benchmark``, ``holdout``, ``cv``, ``monte_carlo`` (``repeats`` holdouts, each
    drawn anew), ``all`` (no test part), ``domains`` (each tests once), or the path of a split file.
    ``leak_by_figure`` is ``monte_carlo`` over figures: patients stand on both sides, and the
    measures that come out are WRONG; see :func:`atypia.data.splits.leaking`."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the figures in the test part of ``holdout`` and of each of ``monte_carlo``."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Outer folds of ``cv``."""
    repeats: Count = 1
    """How often ``cv`` is repeated with other folds; test parts of ``monte_carlo``."""


class InputConfig(Frozen):
    """Size of what the network sees; colour scaling comes with the backbone."""

    field_of_view_um: Annotated[float, Field(ge=4, le=200)]
    size_px: Annotated[int, Field(ge=32, le=1024)]


class ModelConfig(Frozen):
    """The network."""

    backbone: str
    """An encoder, such as ``virchow2`` (see :mod:`atypia.models.encoders`), or any timm model."""
    pretrained: bool = True
    weights: str | None = None
    """Local ``.safetensors`` or ``.pt`` file with the initial weights of the backbone."""
    dropout: Fraction = 0.0
    """Before the classification layer."""
    drop_path: Fraction = 0.0
    """Stochastic depth (Huang et al. 2016), where the backbone has residual blocks."""
    reduction: Literal[8, 16, 32] | None = None
    """Stop where feature maps have 1/reduction of the input's side. A field of 64 px leaves the
    last stages of a network for 224 px two pixels to look at: they cost more than they add. None
    keeps the whole backbone."""
    stages: Stages = "one"
    """``one``: eight scores side by side. Two stages, p(side) and p(subtype | side), are
    ``shared``: on one backbone, or ``separate``: a network for the side and one for the subtypes
    of each side, thrice the work. See :mod:`atypia.models.hierarchical`."""
    frozen: bool = False
    """A linear probe: the backbone stays as it is, what it makes of each patch is computed once and
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


class TargetConfig(Frozen):
    """What a network learns from. What it is scored against is ``label``."""

    second_rater: str | None = None
    """A rater whose subtypes are learned, too: mixed in where both raters named one, alone where
    `label` has none."""
    second_rater_mass: Fraction = 0.0
    """Share of the label mass that goes to that label."""
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
    figures and what is fixed by them see all. See :mod:`atypia.training.member_tasks`."""
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


class LossConfig(Frozen):
    """How a wrong answer costs."""

    of: Literal["subtypes", "sides"] = "subtypes"
    """What is learned: the subtypes, or, as a binary classifier does, only whether most experts
    call the figure atypical. P(atypical) is then the sum of the four subtypes below it; what is
    predicted within a side means nothing. With ``model.stages=shared`` it stays their frequency."""
    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Focusing parameter of the focal loss (Lin et al. 2017)."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: n / (classes x n_class), from the training part of each fold. The classes are
    what is learned: eight, or two."""
    atypical: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of a second term: the cross-entropy of P(atypical), the sum of the four subtypes
    below it, against the share of experts who voted so. It also trains on figures that carry an
    atypical vote but no subtype."""

    @property
    def hears_votes(self) -> bool:
        """Whether to train on figures that carry an atypical vote but no subtype."""
        return self.atypical > 0 or self.of == "sides"

    @model_validator(mode="after")
    def _sides_are_all(self) -> LossConfig:
        if self.of == "sides" and self.atypical:
            raise ValueError("of=sides: expected atypical=0: the sides are all that is learned")
        return self


class UnlabelledConfig(Frozen):
    """How training figures without a subtype are used; see :mod:`atypia.training.unlabelled`."""

    weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Of the term that asks for the same answer on a changed view of a figure as on a plain one. 0
    leaves such figures out."""
    threshold: Fraction = 0.0
    """Figures are used whose plain view has at least this probability. 0: all, with all
    probabilities (mean teacher: Tarvainen and Valpola, NeurIPS 2017). Above 0: the most probable
    subtype counts as the label (FixMatch: Sohn et al., NeurIPS 2020)."""
    ramp: Fraction = 0.25
    """Share of the epochs over which the weight rises to its value."""


class AugmentConfig(Frozen):
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


class OptimConfig(Frozen):
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
    """Whose frequency `sampling` goes by: of the subtype, or of atypical and normal by the
    majority of the votes."""
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


class AnswerConfig(Frozen):
    """From probabilities to answers; what is fixed for it is fixed out of fold."""

    prior_power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The predicted subtype is the one with the largest p / frequency**prior_power: 0 is the most
    probable one, 1 the one that the patch speaks for most (Menon et al. 2021, post-hoc logit
    adjustment). The probabilities themselves are not changed."""
    calibration: Literal["none", "temperature"] = "none"
    """Temperature scaling (Guo et al. 2017) fitted on the out-of-fold predictions, where every
    domain counts alike."""
    miss_cost: Positive = 3.0
    """How many normal figures called atypical cost as much as one atypical figure called normal:
    the binary threshold is where a call starts to save more than it costs. 1 is the most accurate
    call; 6 about that of best balanced accuracy where one figure of seven is atypical."""
    named_share: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Sensitivity out of fold of the operating point ``sensitive``, and specificity of
    ``specific``."""
    threshold_by: Literal["label", "label_and_majority"] = "label"
    """By whose calls the binary threshold is fixed out of fold: by the chosen label, or by that and
    the majority of the votes, both counted alike. What one expert calls atypical is not what the
    next hospital's experts will."""
    threshold: Literal["figures", "domains"] = "figures"
    """What counts alike when the binary threshold is fixed out of fold: every figure, or every
    domain, so that the threshold is not that of the largest one."""
    conformal_alpha: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Rate of prediction sets that may miss the subtype, guaranteed within every subtype; None
    makes no sets."""

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
    """How the members' probabilities are aggregated, see
    :class:`atypia.classifiers.aggregation.Aggregation`. ``weighted`` goes by each member's mean AUC
    on patients that it was not trained on; folds differ, so weights do by chance, too. With
    ``majority`` a figure is atypical where most of the votes are for it, and in a tie by the
    members' mean."""

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


class RuntimeConfig(Frozen):
    """Where and how fast; must not change what is learned beyond rounding."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of a training step. ``auto``: bf16 on hardware that multiplies bf16 natively, fp32 elsewhere.
    Answers are always computed in fp32."""
    channels_last: bool = True
    threads: Count | None = None
    """CPU threads of torch; None: all."""
