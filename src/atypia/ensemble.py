"""The ensemble: members whose probabilities are averaged; saved and loaded as a bundle.

A bundle is a folder with ``model.json`` and one ``.safetensors`` file per member. It holds all
that prediction needs and nothing that can run code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, ValidationError, field_validator
from safetensors.torch import load_file, save

from atypia import __version__
from atypia.config import InputConfig, InputSpec, ModelConfig
from atypia.data.transforms import dihedral, normalise, sample_field
from atypia.errors import InputError, Problem
from atypia.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES
from atypia.models.network import Network, make_network
from atypia.runs import atomic_write, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION: Final = 1


class MemberFile(BaseModel):
    """One member's weights."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.safetensors$")]
    sha256: str


class Decision(BaseModel):
    """From probabilities to one subtype; fixed on the training part."""

    prior: Annotated[list[float], Field(min_length=N_SUBTYPES, max_length=N_SUBTYPES)]
    """Frequency of each subtype among the training labels."""
    power: float

    def subtypes(self, probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """Predicted subtype indices, (N,), from probabilities (N, 8); see :func:`decide`."""
        return decide(probabilities, np.array(self.prior), self.power)


class Thresholds(BaseModel):
    """Operating points."""

    atypical: float
    """A figure is called atypical from this p_atypical on."""


class BundleHeader(BaseModel):
    """The content of ``model.json``."""

    format: Literal[1] = FORMAT_VERSION
    created_with: str
    classes: tuple[str, ...] = SUBTYPES
    input: InputSpec
    network: ModelConfig
    members: Annotated[list[MemberFile], Field(min_length=1)]
    tta: bool
    calibration: dict[str, Any] = {"kind": "none"}
    decision: Decision
    thresholds: Thresholds
    provenance: dict[str, Any]
    intended_use: str = "Research use. Not a medical device."

    @field_validator("classes")
    @classmethod
    def _our_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != SUBTYPES:
            raise ValueError(f"expected the classes {SUBTYPES}")
        return classes


@torch.inference_mode()
def predict_network(
    network: Network,
    pixels: npt.NDArray[np.uint8],
    mpp: float,
    spec: InputSpec,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    tta: bool = False,
    batch_size: int = 64,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Subtype probabilities of one network.

    Args:
        network: In evaluation mode afterwards.
        pixels: (N, H, W, 3) RGB at `mpp`; at least the field of view.
        mpp: µm per pixel.
        spec: What the network sees.
        device: Of the network.
        precision: For autocast; fp32 is without.
        tta: Average over the eight rotations and flips.
        batch_size: Patches per step; the answer does not depend on it.
        rows: (M,) which of the patches, in which order; None is all.

    Returns:
        (M, 8), rows summing to 1.
    """
    network.eval()
    rows = np.arange(len(pixels)) if rows is None else rows
    answers = [np.empty((0, N_SUBTYPES), np.float32)]
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(pixels[rows[start : start + batch_size]])
        images = normalise(sample_field(batch.to(device), mpp, spec), spec)
        views = list(dihedral(images)) if tta else [images]
        total = torch.zeros(len(batch), N_SUBTYPES, device=device)
        for view in views:
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                logits = network(view.contiguous(memory_format=torch.channels_last))
            total += logits.float().softmax(dim=1)
        answers.append((total / len(views)).cpu().numpy())
    return np.concatenate(answers)


@dataclass
class Ensemble:
    """Trained members and how to use them."""

    members: list[Network]
    spec: InputSpec
    model: ModelConfig
    tta: bool
    decision: Decision
    threshold: float
    """A figure is called atypical from this p_atypical on; fixed on out-of-fold predictions."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: torch.dtype = torch.float32

    def to(self, device: torch.device, precision: torch.dtype = torch.float32) -> Ensemble:
        """Move all members to a device."""
        for member in self.members:
            member.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.precision = device, precision
        return self

    def predict_proba(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Mean of the members' subtype probabilities.

        Args:
            patches: (N, H, W, 3) uint8 RGB, each centred on one mitotic figure.
            mpp: µm per pixel.
            batch_size: Patches per step; the answer does not depend on it.

        Returns:
            (N, 8) float32 in the order of :data:`atypia.labels.SUBTYPES`; rows sum to 1.

        Raises:
            InputError: Patches of another type, or smaller than the field of view.
        """
        self._check(patches, mpp)
        total = np.zeros((len(patches), N_SUBTYPES), np.float64)
        for member in self.members:
            total += predict_network(
                member,
                patches,
                mpp,
                self.spec,
                device=self.device,
                precision=self.precision,
                tta=self.tta,
                batch_size=batch_size,
            )
        return np.asarray(total / total.sum(axis=1, keepdims=True), dtype=np.float32)

    def _check(self, patches: npt.NDArray[np.uint8], mpp: float) -> None:
        if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != np.uint8:
            raise InputError(
                f"Expected patches of shape (N, H, W, 3) and type uint8 but got {patches.shape}, "
                f"{patches.dtype}."
            )
        side_um = min(patches.shape[1:3]) * mpp
        if side_um < self.spec.field_of_view_um * 0.999:
            raise InputError(
                f"Expected patches of at least {self.spec.field_of_view_um:g} µm, the model's "
                f"field of view, but got {side_um:g} µm ({min(patches.shape[1:3])} px at {mpp:g} "
                "µm per pixel). Is the resolution (--mpp) right?"
            )

    def save(self, folder: Path) -> None:
        """Write the bundle; ``model.json`` comes last, so a folder with it is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for i, member in enumerate(self.members):
            file = folder / f"member-{i}.safetensors"
            save_network(member, file)
            files.append(MemberFile(file=file.name, sha256=sha256_file(file)))
        header = BundleHeader(
            created_with=f"atypia {__version__}",
            input=self.spec,
            network=self.model,
            members=files,
            tta=self.tta,
            decision=self.decision,
            thresholds=Thresholds(atypical=self.threshold),
            provenance=dict(self.provenance),
        )
        write_json(folder / "model.json", header.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path | str) -> Ensemble:
        """Read a bundle and check every hash.

        Raises:
            InputError: Not a bundle, another format, or a damaged file.
        """
        folder = Path(folder)
        if not (folder / "model.json").is_file() and (folder / "model" / "model.json").is_file():
            folder = folder / "model"  # a run folder
        if not (folder / "model.json").is_file():
            raise InputError(
                f"{folder} is not a model: expected a bundle with model.json, or a run folder."
            )
        try:
            header = BundleHeader.model_validate(read_json(folder / "model.json"))
        except ValidationError as error:
            raise InputError(
                [
                    Problem(
                        f"{fault['msg']}, but got {fault['input']!r}.",
                        str(folder / "model.json"),
                        column=".".join(map(str, fault["loc"])) or None,
                    )
                    for fault in error.errors()
                ]
            ) from None
        members = []
        for entry in header.members:
            file = folder / entry.file
            if not file.is_file() or sha256_file(file) != entry.sha256:
                raise InputError(
                    f"{file}: expected the SHA-256 that model.json gives, but the file "
                    f"{'differs' if file.is_file() else 'is missing'}. Copy the bundle again."
                )
            members.append(load_network(header.network, header.input, file))
        return cls(
            members=members,
            spec=header.input,
            model=header.network,
            tta=header.tta,
            decision=header.decision,
            threshold=header.thresholds.atypical,
            provenance=header.provenance,
        )


def p_atypical(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Probability of an atypical figure, (N,), from subtype probabilities (N, 8)."""
    return np.asarray(probabilities[:, :N_ATYPICAL].sum(axis=1))


def decide(
    probabilities: npt.NDArray[np.floating[Any]], prior: npt.NDArray[np.floating[Any]], power: float
) -> npt.NDArray[np.int64]:
    """Choose the subtype with the largest p / prior**power.

    The most probable subtype (power 0) is right most often; it is hardly ever a rare one. With
    power 1 every subtype counts alike, which maximises the expected balanced accuracy if the
    probabilities are right (post-hoc logit adjustment: Menon et al., ICLR 2021).

    Args:
        probabilities: (N, 8).
        prior: (8,) frequency of each subtype, all above 0.
        power: 0 to 1.

    Returns:
        (N,) indices into :data:`atypia.labels.SUBTYPES`.
    """
    return np.asarray((probabilities / prior**power).argmax(axis=1), dtype=np.int64)


def save_network(network: Network, file: Path) -> None:
    """Write the weights of one network, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_write(file, "wb") as stream:
        stream.write(save(tensors))


def load_network(model: ModelConfig, spec: InputSpec, file: Path) -> Network:
    """Build a network and fill it with saved weights."""
    size = InputConfig(field_of_view_um=spec.field_of_view_um, size_px=spec.size_px)
    network, _, _ = make_network(model, size, initial_weights=False)
    network.load_state_dict(load_file(file))
    return network.eval()
