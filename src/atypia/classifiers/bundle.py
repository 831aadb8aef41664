"""The bundle on disk: ``model.json``, one ``.safetensors`` file per network, a model card.

It holds nothing that can run code. The top level of ``model.json`` describes the model at its best;
an entry ``fast``, where there is one, in the same words a model that trades skill for speed.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, field_validator

from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.decision import (
    Decision,  # noqa: TC001 - pydantic reads the annotations
    OperatingPoint,  # noqa: TC001
)
from atypia.classifiers.model_guard import ModelGuard
from atypia.core.choices import BEST, FAST, RELEASED
from atypia.core.config import InputSpec, ModelConfig  # noqa: TC001
from atypia.core.errors import InputError, Problem
from atypia.core.files import damaged, read_as, read_stamped, stamped, write_json, write_text
from atypia.core.labels import SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT_VERSION: Final = 1
MOST_MEMBERS: Final = 200
"""Far more than any training makes; each is read and kept in memory."""
NETWORK: Final = "network"
RULES: Final = "rules"
"""Kind of a model without learning, and the name of the one in the package."""
HYBRID: Final = "hybrid"
HYBRID_NETWORK: Final = "network"
"""Folder of a hybrid's bundle that holds the bundle of its network."""
STACK: Final = "stack"
MITOSIS: Final = "mitosis"
"""Kind of networks that name no subtype: a mitotic figure or a look-alike."""
HEADER: Final = "model.json"
CARD: Final = "model-card.md"
COPY_AGAIN: Final = "Copy the bundle again."
PATIENTS: Final = "patients"
"""Entry of the provenance: whom the model was trained on, public cases by the name that they have
in every cohort, others by a hash of their id."""
_PACKAGED: Final = {RELEASED: RELEASED, RULES: "classifiers/rules/bundle"}
"""Models in the package and their folders."""


class MemberFile(BaseModel):
    """One network's weights."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.safetensors$")]
    sha256: str
    network: ModelConfig | None = None
    """None: that of the quality."""
    input: InputSpec | None = None
    """None: that of the quality."""


class Thresholds(BaseModel):
    """Operating points."""

    atypical: Annotated[float, Field(allow_inf_nan=False)]
    """A figure is called atypical from this p_atypical on, unless another point is chosen."""
    points: dict[str, OperatingPoint] = {}
    """By name, :data:`atypia.core.choices.BALANCED` among them; none in older bundles."""


class PostprocessingHeader(BaseModel):
    """How a model's probabilities are post-processed."""

    calibration: dict[str, Any] = {"kind": "none"}
    """See :class:`atypia.classifiers.calibration.Calibration`."""
    conformal: dict[str, Any] | None = None
    """See :class:`atypia.classifiers.conformal.ConformalSets`."""
    decision: Decision
    thresholds: Thresholds
    errors: dict[str, Any] | None = None
    """See :class:`atypia.biomarker.error_model.ErrorModel`."""


def _each_once(members: list[MemberFile]) -> list[MemberFile]:
    if len({member.file for member in members}) < len(members):
        raise ValueError("expected each file once")
    return members


class GuardHeader(ModelGuard, frozen=True):
    """The guard, and the file of its heads."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.safetensors$")]
    sha256: str


class QualityHeader(PostprocessingHeader):
    """One way to predict: which networks, what they see, and how they are aggregated."""

    input: InputSpec
    network: ModelConfig
    members: Annotated[
        list[MemberFile],
        Field(min_length=1, max_length=MOST_MEMBERS),
        AfterValidator(_each_once),
    ]
    tta: bool
    """Average over the eight rotations and flips of a patch."""
    join: Aggregation = Aggregation()
    """Of the members' probabilities."""
    guard: GuardHeader | None = None
    """None: pixels alone decide whether there is an answer."""

    @property
    def files(self) -> list[MemberFile | GuardHeader]:
        """All files of weights."""
        return [*self.members, *([] if self.guard is None else [self.guard])]


class ModelHeader(BaseModel):
    """Entries of ``model.json`` that every kind of model has."""

    format: Literal[1] = FORMAT_VERSION
    created_with: str
    classes: tuple[str, ...] = SUBTYPES
    provenance: dict[str, Any]
    card: Annotated[str, Field(pattern=r"^[\w-]+\.md$")] | None = None
    mitosis_sha256: str | None = None
    """Of ``model.json`` in the folder :data:`MITOSIS`, where the bundle has networks of that kind:
    they decide what is a mitotic figure."""
    intended_use: str = "Research use. Not a medical device."

    @field_validator("classes")
    @classmethod
    def _our_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != SUBTYPES:
            raise ValueError(f"expected the classes {SUBTYPES}")
        return classes


class BundleHeader(QualityHeader, ModelHeader):
    """The content of ``model.json`` of networks."""

    kind: Literal["network"] = NETWORK
    fast: QualityHeader | None = None

    @property
    def qualities(self) -> dict[str, QualityHeader]:
        """What this model offers, by name; ``best`` is always there."""
        return {BEST: self} if self.fast is None else {BEST: self, FAST: self.fast}


class MitosisHeader(BundleHeader):
    """The content of ``model.json`` of networks that find look-alikes.

    The eight probabilities are of two sides alone: the sum of the first four is that of a mitotic
    figure, and ``thresholds.atypical`` is the least with which a figure is answered.
    """

    kind: Literal["mitosis"] = MITOSIS  # type: ignore[assignment]


class RulesHeader(PostprocessingHeader, ModelHeader):
    """The content of ``model.json`` of the rules, which are in the code."""

    kind: Literal["rules"] = RULES


class HybridHeader(PostprocessingHeader, ModelHeader):
    """The content of ``model.json`` of a hybrid."""

    kind: Literal["hybrid"] = HYBRID
    combiner: dict[str, Any]
    """See :class:`atypia.classifiers.combined.Combiner`."""
    network_sha256: str
    """Of ``model.json`` in the folder :data:`HYBRID_NETWORK`, which is a bundle of its own."""


class StackedModel(BaseModel):
    """One of the models of a stack, which is a bundle of its own."""

    folder: Annotated[str, Field(pattern=r"^[\w-]+$")]
    sha256: str
    """Of its ``model.json``."""


class StackHeader(PostprocessingHeader, ModelHeader):
    """The content of ``model.json`` of a stack of models."""

    kind: Literal["stack"] = STACK
    models: Annotated[list[StackedModel], Field(min_length=2, max_length=MOST_MEMBERS)]
    join: Aggregation = Aggregation()
    """Of the models, where there is no `combiner`."""
    combiner: dict[str, Any] | None = None
    """A logistic meta-learner; see :class:`atypia.classifiers.combined.Combiner`."""


AnyHeader: TypeAlias = BundleHeader | RulesHeader | HybridHeader | StackHeader


def find_bundle(model: Path | str = RELEASED) -> Path:
    """Find the folder of ``released`` or ``rules``, in the package, of a bundle or of a run.

    Raises:
        InputError: There is no model.
    """
    if str(model) in _PACKAGED:
        folder = Path(str(resources.files("atypia"))) / _PACKAGED[str(model)]
        if not (folder / HEADER).is_file():
            raise InputError(
                f"--model {model}: this installation of Atypia has no model in it (expected "
                f"{folder / HEADER}). Install it from a wheel, or give --model: a bundle or a run "
                f"folder. (For a folder of that name: ./{model})"
            )
        return folder
    for folder in (Path(model), Path(model) / "model"):  # a bundle, a run folder
        if (folder / HEADER).is_file():
            return folder
    raise InputError(
        f"{model} is not a model: expected {RELEASED!r}, {RULES!r}, a bundle with {HEADER}, or a "
        "run folder."
    )


def read_kind(folder: Path) -> str:
    """Read what kind of model a bundle holds: networks, rules, a hybrid or a stack.

    Raises:
        InputError: There is no ``model.json``, or its kind is none of ours.
    """
    tree = read_stamped(folder / HEADER)
    kind = tree.get("kind", NETWORK) if isinstance(tree, dict) else None
    kinds = [NETWORK, RULES, HYBRID, STACK, MITOSIS]
    if kind not in kinds:
        what = f"expected a kind out of {kinds} but got {kind!r}."
        raise InputError(Problem(what, str(folder / HEADER), column="kind"))
    return str(kind)


def read_header(folder: Path, wanted: str = NETWORK) -> BundleHeader:
    """Read ``model.json`` of a bundle of networks, of subtypes or of the kind :data:`MITOSIS`.

    Raises:
        InputError: Lists every entry that is missing or wrong; or another kind of model.
    """
    kind = read_kind(folder)
    if kind == MITOSIS != wanted:
        raise InputError(
            f"{folder}: expected a model of subtypes but this one names none: it finds look-alikes "
            "of mitotic figures. Train it with before=MODEL to have both in one bundle."
        )
    if kind != wanted:
        made_by = " (atypia train --preset mitosis)" if wanted == MITOSIS else ""
        raise InputError(
            f"{folder}: expected a bundle of kind {wanted!r}{made_by} but got one of kind {kind!r}."
        )
    return read_as(MitosisHeader if kind == MITOSIS else BundleHeader, folder / HEADER)


def read_any_header(folder: Path) -> AnyHeader:
    """Read ``model.json`` of a bundle of any kind.

    Raises:
        InputError: Lists every entry that is missing or wrong.
    """
    kinds: dict[str, type[AnyHeader]] = {
        RULES: RulesHeader,
        HYBRID: HybridHeader,
        STACK: StackHeader,
        MITOSIS: MitosisHeader,
    }
    return read_as(kinds.get(read_kind(folder), BundleHeader), folder / HEADER)


def parts_of(folder: Path) -> list[Path]:
    """Find the bundles in a bundle: a hybrid's network, the models of a stack, a guard's networks.

    Raises:
        InputError: Lists every one that is missing or not that which the bundle was made with.
    """
    header = read_any_header(folder)
    parts: dict[str, str] = {}
    if isinstance(header, HybridHeader):
        parts = {HYBRID_NETWORK: header.network_sha256}
    elif isinstance(header, StackHeader):
        parts = {model.folder: model.sha256 for model in header.models}
    elif header.mitosis_sha256 is not None:
        parts = {MITOSIS: header.mitosis_sha256}
    problems = [
        problem
        for name, sha256 in parts.items()
        for problem in damaged(folder / name / HEADER, sha256, folder / HEADER, COPY_AGAIN)
    ]
    if problems:
        raise InputError(problems)
    return [folder / name for name in parts]


def write_header(folder: Path, header: ModelHeader) -> None:
    """Write ``model.json``, stamped, atomically. It comes last: a folder with it is complete."""
    tree = header.model_dump(mode="json", exclude_none=True)
    first = ("format", "created_with", "classes")
    write_json(folder / HEADER, stamped({key: tree[key] for key in first} | tree))


def write_card(folder: Path, text: str) -> None:
    """Put a model card (Markdown) into a bundle.

    Raises:
        InputError: `folder` holds no sound bundle.
    """
    header = read_any_header(folder)
    write_text(folder / CARD, text)
    write_header(folder, header.model_copy(update={"card": CARD}))


def read_card(folder: Path) -> str | None:
    """Read the model card of a bundle; None where there is none.

    Raises:
        InputError: ``model.json`` names a card that is missing.
    """
    name = read_any_header(folder).card
    if name is None:
        return None
    if not (folder / name).is_file():
        raise InputError(f"{folder / name}: expected the model card but there is no such file.")
    return (folder / name).read_text(encoding="utf-8")


def damaged_files(folder: Path, members: Iterable[MemberFile | GuardHeader]) -> list[Problem]:
    """List weights that are missing or not those that ``model.json`` was written for."""
    return [
        problem
        for member in members
        for problem in damaged(folder / member.file, member.sha256, folder / HEADER, COPY_AGAIN)
    ]
