"""The ensemble: members whose probabilities are joined and calibrated.

It is saved and loaded as a bundle; see :mod:`atypia.classifiers.bundle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from atypia._version import __version__
from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.bundle import (
    HEADER,
    MITOSIS,
    NETWORK,
    BundleHeader,
    GuardHeader,
    MemberFile,
    MitosisHeader,
    QualityHeader,
    damaged_files,
    find_bundle,
    read_header,
    write_header,
)
from atypia.classifiers.model_guard import N_SCORES, ModelGuard
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing, check_answers
from atypia.core.choices import BEST, FAST, RELEASED
from atypia.core.config import InputConfig, InputSpec, ModelConfig
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import sha256_file, write_bytes
from atypia.core.labels import N_SUBTYPES
from atypia.data.field_of_view import check_patches
from atypia.models import lite
from atypia.models.guard_head import GuardHead, features_and_seen, heads_from, tensors_of
from atypia.models.network import (
    Network,
    assemble,
    at_most_parameters,
    make_network,
    n_backbones,
)
from atypia.models.transforms import dihedral, normalise, sample_field
from atypia.models.weight_files import read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from atypia.classifiers.answers import Answers

_MOST_WITHOUT_WEIGHTS: Final = 120_000_000
"""Parameters that a network may have however small its file is: later stages may be cut off."""

_MEMBER: Final = "member"
"""Beginning of the names of the files of quality best."""


def predict_network(
    network: Network,
    pixels: npt.NDArray[np.uint8],
    mpp: float,
    spec: InputSpec,
    *,
    device: torch.device,
    tta: bool = False,
    batch_size: int = 64,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Subtype probabilities (M, 8) of one network, in fp32: bf16 would round them by 0.001.

    Args:
        network: In evaluation mode afterwards.
        pixels: (N, H, W, 3) RGB at `mpp`; what the field of view lacks is mirrored.
        mpp: µm per pixel.
        spec: What the network sees.
        device: Of the network.
        tta: Average over the eight rotations and flips.
        batch_size: Patches per step; probabilities do not depend on it.
        rows: (M,) which of the patches, in which order; None is all.
    """
    rows = np.arange(len(pixels)) if rows is None else rows
    networks = [network.eval()]
    return np.asarray(
        _predict(networks, [], pixels, rows, mpp, spec, device, tta, batch_size)[0][0]
    )


@torch.inference_mode()
def _predict(
    networks: Sequence[Network],
    heads: Sequence[GuardHead],
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    mpp: float,
    spec: InputSpec,
    device: torch.device,
    tta: bool,
    batch_size: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities (K, M, 8) of K networks that share one backbone, which runs only once.

    Beside them, what the `heads` of its guard give of it: (H, M, 2).
    """
    predicted = [np.empty((len(networks), 0, N_SUBTYPES), np.float32)]
    guarded = [np.empty((len(heads), 0, N_SCORES), np.float32)]
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(pixels[rows[start : start + batch_size]])
        images = normalise(sample_field(batch.to(device), mpp, spec), spec)
        views = list(dihedral(images)) if tta else [images]
        total = torch.zeros(len(networks), len(batch), N_SUBTYPES, device=device)
        scores = torch.zeros(len(heads), len(batch), N_SCORES, device=device)
        for view in views:
            view = view.contiguous(memory_format=torch.channels_last)
            features, seen = features_and_seen(networks[0], view)
            total += torch.stack([network.scores(features) for network in networks]).softmax(dim=2)
            for i, head in enumerate(heads):
                scores[i] += head(seen)
        predicted.append((total / len(views)).cpu().numpy())
        guarded.append((scores / len(views)).cpu().numpy())
    return np.concatenate(predicted, axis=1), np.concatenate(guarded, axis=1)


@dataclass
class Ensemble(Postprocessed):
    """Trained members and how to use them."""

    members: list[Network]
    """Not changed after the first prediction."""
    spec: InputSpec
    """What the members see."""
    model: ModelConfig
    tta: bool
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    """How the members' aggregated probabilities are post-processed."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    specs: Sequence[InputSpec] = ()
    """What each member sees, where they differ; empty: `spec`."""
    models: Sequence[ModelConfig] = ()
    """Each member's configuration, where they differ; empty: `model`."""
    join: Aggregation = field(default_factory=Aggregation)
    """How the members' probabilities become one."""
    kind: str = NETWORK
    """Of the bundle: subtypes, or :data:`atypia.classifiers.bundle.MITOSIS`."""
    heads: list[GuardHead] = field(default_factory=list)
    """The guard's: one for each backbone, or none at all."""
    _fused: list[Network] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.specs = list(self.specs or [self.spec] * len(self.members))
        self.models = list(self.models or [self.model] * len(self.members))
        if not len(self.members) == len(self.specs) == len(self.models) > 0:
            raise InputError(
                f"expected members with one spec and one model each but got {len(self.members)} "
                f"members, {len(self.specs)} specs and {len(self.models)} models."
            )
        if self.join.weights is not None and len(self.join.weights) != len(self.members):
            raise InputError(
                f"expected a weight for each of {len(self.members)} members but got "
                f"{len(self.join.weights)}."
            )

    def to(self, device: torch.device) -> Ensemble:
        """Move all members to a device."""
        for head in self.heads:
            head.to(device)
        for member in self.members:
            member.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self._fused = device, None
        return self

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.answer`."""
        check_patches(patches, mpp, self.specs)
        predicted, scores = self._predict(patches, mpp, batch_size)
        members = check_answers(predicted)  # the join leaves out what is NaN
        probabilities = self.postprocessing.calibration.apply(self.join(members))
        return self.guarded(
            patches, mpp, probabilities, scores.mean(axis=0) if self.heads else None
        )

    @torch.inference_mode()
    def seen(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> list[npt.NDArray[np.float32]]:
        """Give what the guard's heads look at, (N, G) of each backbone, without turning patches."""
        seen: list[list[npt.NDArray[np.float32]]] = []
        for networks, _, spec in self._groups():
            seen.append([])
            for start in range(0, len(patches), batch_size):
                batch = torch.from_numpy(patches[start : start + batch_size]).to(self.device)
                images = normalise(sample_field(batch, mpp, spec), spec)
                seen[-1].append(features_and_seen(networks[0], images)[1].cpu().numpy())
        return [np.concatenate(parts) for parts in seen]

    def _groups(self) -> list[tuple[list[Network], list[GuardHead], InputSpec]]:
        """Networks that share a backbone, the head of their guard, and what they see."""
        if self._fused is None:
            self._fused = _fused(self.members)
        if len({id(network.backbone) for network in self._fused}) < len(self.members):
            return [(self._fused, self.heads[:1], self.spec)]
        return [
            ([network], self.heads[i : i + 1], spec)
            for i, (network, spec) in enumerate(zip(self._fused, self.specs, strict=True))
        ]

    def _predict(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        rows = np.arange(len(patches))
        parts = [
            _predict(networks, heads, patches, rows, mpp, spec, self.device, self.tta, batch_size)
            for networks, heads, spec in self._groups()
        ]
        predicted, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        return predicted, scores

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write the bundle; ``model.json`` comes last, so a folder with it is complete.

        With `half`, weights are stored in 16 bits (fp16): half the size; they are computed with in
        fp32.

        Raises:
            AtypiaError: The folder cannot be written, or a weight does not fit into 16 bits.
        """
        folder.mkdir(parents=True, exist_ok=True)
        quality = self._write_members(folder, _MEMBER, half)
        header = (MitosisHeader if self.kind == MITOSIS else BundleHeader)(
            created_with=f"atypia {__version__}",
            provenance=dict(self.provenance),
            **dict(quality),
        )
        write_header(folder, header)

    def _write_members(self, folder: Path, name: str, half: bool) -> QualityHeader:
        """Write the weights into a folder and describe the ensemble as it is used."""
        files = []
        for i, (member, model, spec) in enumerate(
            zip(self.members, self.models, self.specs, strict=True)
        ):
            file = folder / f"{name}-{i}.safetensors"
            save_network(member, file, half=half)
            entry = MemberFile(
                file=file.name,
                sha256=sha256_file(file),
                network=None if model == self.model else model,
                input=None if spec == self.spec else spec,
            )
            files.append(entry)
        return QualityHeader(
            guard=self._write_guard(folder, name),
            input=self.spec,
            network=self.model,
            members=files,
            tta=self.tta,
            join=self.join,
            **self.postprocessing.to_header(),
        )

    def _write_guard(self, folder: Path, name: str) -> GuardHeader | None:
        guard = self.postprocessing.guard
        if guard is None or not self.heads:
            return None
        file = folder / f"{name}-guard.safetensors"
        write_bytes(file, save(tensors_of(self.heads)))
        own = {name: getattr(guard, name) for name in ModelGuard.model_fields}
        return GuardHeader(**own, file=file.name, sha256=sha256_file(file))

    @classmethod
    def load(
        cls, model: Path | str = RELEASED, quality: str = BEST, kind: str = NETWORK
    ) -> Ensemble:
        """Read a bundle and check the hash of every file; see :func:`.loading.load_ensemble`.

        Raises:
            InputError: Not a bundle, another format, a quality that it does not have, or damaged
                files: all of them.
        """
        folder = find_bundle(model)
        header = read_header(folder, kind)
        if quality not in header.qualities:
            raise InputError(
                f"--quality: expected one of {list(header.qualities)}, which {folder} offers, but "
                f"got {quality!r}."
            )
        chosen = header.qualities[quality]
        damaged = damaged_files(folder, chosen.files)
        if damaged:
            raise InputError(damaged)
        postprocessing = Postprocessing.from_header(chosen, str(folder / HEADER))
        models = [member.network or chosen.network for member in chosen.members]
        specs = [member.input or chosen.input for member in chosen.members]
        members = [
            load_network(network, spec, folder / member.file)
            for network, spec, member in zip(models, specs, chosen.members, strict=True)
        ]
        if chosen.network.frozen and len(members) > 1 and set(models) == {chosen.network}:
            members = share_backbone(members)
        return cls(
            members=members,
            spec=chosen.input,
            model=chosen.network,
            tta=chosen.tta,
            postprocessing=postprocessing,
            provenance=header.provenance,
            specs=specs,
            models=models,
            join=chosen.join,
            kind=kind,
            heads=load_heads(folder / chosen.guard.file) if chosen.guard else [],
        )


def _fused(members: Sequence[Network]) -> list[Network]:
    """Members as they predict fastest; those of a linear probe keep their one backbone."""
    first = lite.fused(members[0].eval())
    if all(member.backbone is members[0].backbone for member in members):
        return [member.eval().on(first.backbone) for member in members]
    return [first, *(lite.fused(member.eval()) for member in members[1:])]


def share_backbone(members: Sequence[Network]) -> list[Network]:
    """Let networks whose backbones are equal to the last bit have one of them."""
    first = members[0].backbone
    own = first.state_dict()
    equal = all(
        torch.equal(tensor, own[name])
        for member in members[1:]
        for name, tensor in member.backbone.state_dict().items()
    )
    return [member.on(first) for member in members] if equal else list(members)


def add_quality(folder: Path, fast: Ensemble, *, half: bool = False) -> None:
    """Let a bundle offer the quality ``fast``; one that it had is replaced.

    The provenance of `fast` goes into that of the bundle. `half` as for :meth:`Ensemble.save`.

    Raises:
        InputError: `folder` holds no sound bundle.
    """
    header = read_header(folder)
    quality = fast._write_members(folder, FAST, half)
    provenance = header.provenance | {FAST: dict(fast.provenance)}
    write_header(folder, header.model_copy(update={"fast": quality, "provenance": provenance}))


def replace_guard(folder: Path, quality: str, guarded: Ensemble) -> None:
    """Give one quality of a bundle the guard of an ensemble of the same networks.

    Raises:
        InputError: `folder` holds no sound bundle.
    """
    header = read_header(folder)
    name = FAST if quality == FAST else _MEMBER
    update: dict[str, Any] = {"guard": guarded._write_guard(folder, name)}
    if quality == FAST and header.fast is not None:
        update = {"fast": header.fast.model_copy(update=update)}
    write_header(folder, header.model_copy(update=update))


def save_network(network: Network, file: Path, *, half: bool = False) -> None:
    """Write the weights of one network as ``.safetensors``, atomically.

    With `half`, matrices and kernels are in 16 bits. Vectors stay as they are: a variance of batch
    normalisation may be too large or too small for fp16, and they weigh little.

    Raises:
        AtypiaError: The file cannot be written, or a weight is too large for 16 bits.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.answering_tensors().items()}
    if half:
        tensors = {k: v.half() if _is_matrix(v) else v for k, v in tensors.items()}
        lost = [k for k, v in tensors.items() if _is_matrix(v) and not v.isfinite().all()]
        if lost:
            raise AtypiaError(f"{file}: these weights do not fit into 16 bits: {', '.join(lost)}.")
    write_bytes(file, save(tensors))


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1


def load_network(model: ModelConfig, spec: InputSpec, file: Path) -> Network:
    """Build a network for prediction, in fp32, and fill it with saved weights.

    Raises:
        InputError: Not a sound file of finite weights, or those of another or a smaller network.
    """
    tensors = read_weights(file)
    try:
        with at_most_parameters(max(2 * file.stat().st_size, _MOST_WITHOUT_WEIGHTS)):
            network = _empty_network(model, spec)
        network.load_state_dict(tensors)  # widens 16 bits to 32
    except InputError:
        raise
    except Exception as error:  # torch's and timm's own, few of them documented
        what = f"expected the weights of {model.backbone} but they do not fit it"
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(Problem(f"{what} ({' '.join(why[:3])[:300]}).", str(file))) from None
    return network.eval()


def load_heads(file: Path) -> list[GuardHead]:
    """Read the heads of a guard.

    Raises:
        InputError: Not a sound file of finite weights, or not those of heads.
    """
    try:
        heads = heads_from(read_weights(file))
    except (KeyError, RuntimeError, ValueError) as error:
        what = f"expected the heads of a guard but got other weights ({error})."
        raise InputError(Problem(what, str(file))) from None
    if not heads:
        raise InputError(Problem("expected the heads of a guard but there is none.", str(file)))
    return heads


def _empty_network(model: ModelConfig, spec: InputSpec) -> Network:
    if model.backbone in lite.SCALES:  # the same network without the wait for timm
        parts = [lite.Lite(model.backbone, model.reduction) for _ in range(n_backbones(model))]
        return assemble(parts, parts[0].n_features, model)
    size = InputConfig(field_of_view_um=spec.field_of_view_um, size_px=spec.size_px)
    return make_network(model, size, initial_weights=False)[0]
