"""The ensemble: members whose probabilities are averaged; saved and loaded as a bundle.

A bundle is a folder with ``model.json`` and one ``.safetensors`` file per member. It holds all
that prediction needs and nothing that can run code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from atypia import __version__
from atypia.config import InputConfig, InputSpec, ModelConfig
from atypia.data.transforms import dihedral, normalise, sample_field
from atypia.errors import InputError
from atypia.labels import N_ATYPICAL, N_SUBTYPES, SUBTYPES
from atypia.models.network import Network, make_network
from atypia.runs import read_json, sha256_file, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

FORMAT_VERSION = 1


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

    Returns:
        (N, 8), rows summing to 1.
    """
    network.eval()
    answers = [np.empty((0, N_SUBTYPES), np.float32)]
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size]))
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
            files.append({"file": file.name, "sha256": sha256_file(file)})
        write_json(
            folder / "model.json",
            {
                "format": FORMAT_VERSION,
                "created_with": f"atypia {__version__}",
                "classes": list(SUBTYPES),
                "input": self.spec.model_dump(mode="json"),
                "network": self.model.model_dump(mode="json"),
                "members": files,
                "tta": self.tta,
                "calibration": {"kind": "none"},
                "thresholds": {"atypical": self.threshold},
                "provenance": dict(self.provenance),
                "intended_use": "Research use. Not a medical device.",
            },
        )

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
        header = read_json(folder / "model.json")
        if header.get("format") != FORMAT_VERSION or header.get("classes") != list(SUBTYPES):
            raise InputError(
                f"{folder / 'model.json'}: expected format {FORMAT_VERSION} with the classes "
                f"{list(SUBTYPES)} but got format {header.get('format')!r} with "
                f"{header.get('classes')}."
            )
        model = ModelConfig.model_validate(header["network"])
        spec = InputSpec.model_validate(header["input"])
        members = []
        for entry in header["members"]:
            file = folder / entry["file"]
            if not file.is_file() or sha256_file(file) != entry["sha256"]:
                raise InputError(
                    f"{file}: expected the SHA-256 that model.json gives, but the file "
                    f"{'differs' if file.is_file() else 'is missing'}. Copy the bundle again."
                )
            members.append(load_network(model, spec, file))
        return cls(
            members=members,
            spec=spec,
            model=model,
            tta=header["tta"],
            threshold=float(header["thresholds"]["atypical"]),
            provenance=header["provenance"],
        )


def p_atypical(probabilities: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Probability of an atypical figure, (N,), from subtype probabilities (N, 8)."""
    return np.asarray(probabilities[:, :N_ATYPICAL].sum(axis=1))


def save_network(network: Network, file: Path) -> None:
    """Write the weights of one network, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    temporary = file.with_name(f".{file.name}.part")
    save_file(tensors, temporary)
    temporary.replace(file)


def load_network(model: ModelConfig, spec: InputSpec, file: Path) -> Network:
    """Build a network and fill it with saved weights."""
    size = InputConfig(field_of_view_um=spec.field_of_view_um, size_px=spec.size_px)
    network, _, _ = make_network(model, size, initial_weights=False)
    network.load_state_dict(load_file(file))
    return network.eval()
