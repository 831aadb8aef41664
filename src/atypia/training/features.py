"""A backbone's features of every patch of a cohort: computed once, hashed, mapped into memory.

The file lies in the cohort, in ``features/``, so that every run on it finds it; where the cohort
cannot be written it lies in the run. Its name is a hash of all that the numbers depend on: pixels,
field of view, views, and the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from atypia.core.errors import AtypiaError
from atypia.core.files import read_json, sha256_file, write_json
from atypia.core.progress import OnStep, silent
from atypia.models.transforms import dihedral, normalise, sample_field

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

    from atypia.core.config import InputSpec
    from atypia.data.cohort import Cohort
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.patch_store import PatchStore

log = logging.getLogger("atypia")

N_VIEWS: Final = 8
"""Rotations and flips of a patch."""
_FORMAT: Final = 1
_BATCH: Final = 64
_LONG_AGO: Final = 7 * 24 * 3600
"""Seconds without a write after which no run is still computing a file."""


@dataclass(frozen=True)
class Features:
    """Features of N patches, V views of each."""

    values: npt.NDArray[np.float32]
    """(N, V, F), read-only; in the order of the manifest. The first view is the patch as it is."""
    sha256: str
    """Of the file."""

    @property
    def n_views(self) -> int:
        """V: 8, or 1 where only the patch as it is was looked at."""
        return int(self.values.shape[1])


def cohort_features(
    cohort: Cohort,
    store: PatchStore,
    network: Network,
    spec: InputSpec,
    place: ComputePlace,
    fallback: Path,
    *,
    all_views: bool = True,
    on_step: OnStep = silent,
) -> Features:
    """Find or compute the features of a cohort; of several processes the first one computes.

    Args:
        cohort: Whose patches.
        store: Their pixels.
        network: Its backbone maps images (B, 3, S, S) to (B, F); in evaluation mode afterwards.
        spec: What the network sees.
        place: Device and processes; numbers are fp32 everywhere.
        fallback: Folder for a cohort that cannot be written.
        all_views: Whether to look at all rotations and flips of each patch, not just as it is.
        on_step: Called with ``features``, patches done and patches in all.

    Raises:
        AtypiaError: The file cannot be written.
    """
    backbone = network.eval().backbone
    about = _identity(cohort, store, backbone, spec, N_VIEWS if all_views else 1)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    folder = cohort.path / "features" if os.access(cohort.path, os.W_OK) else fallback
    file = folder / f"{key[:16]}.npy"
    if place.world.is_main and not _is_whole(file):
        _compute(file, store, network, spec, place, all_views, on_step)
        write_json(file.with_suffix(".json"), about | {"file_sha256": sha256_file(file)})
    place.world.barrier()
    digest: str = read_json(file.with_suffix(".json"))["file_sha256"]
    return Features(np.load(file, mmap_mode="r"), digest)


def _identity(
    cohort: Cohort, store: PatchStore, backbone: nn.Module, spec: InputSpec, n_views: int
) -> dict[str, Any]:
    """All that the numbers depend on, beyond rounding."""
    weights = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        weights.update(f"{name} {tuple(tensor.shape)} ".encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    patches = "\n".join(cohort.manifest["patch_id"])  # a part of a cohort has the hash of the whole
    return {
        "format": _FORMAT,
        "cohort": cohort.name,
        "cohort_sha256": cohort.sha256,
        "patches_sha256": hashlib.sha256(patches.encode()).hexdigest(),
        "weights_sha256": weights.hexdigest(),
        "input": spec.model_dump(mode="json"),
        # A blur reaches beyond the field of view, to the edge of what was decoded.
        "pixels": {"side": int(store.pixels.shape[1]), "mpp": store.mpp},
        "views": n_views,
    }


def _is_whole(file: Path) -> bool:
    """Whether the features are there, as they were written."""
    record = file.with_suffix(".json")
    if not (file.is_file() and record.is_file()):
        return False
    if sha256_file(file) == read_json(record)["file_sha256"]:
        log.info("features: from %s", file)
        return True
    log.warning("%s is not what %s says; it is computed again", file, record.name)
    return False


@torch.inference_mode()
def _compute(
    file: Path,
    store: PatchStore,
    network: Network,
    spec: InputSpec,
    place: ComputePlace,
    all_views: bool,
    on_step: OnStep,
) -> None:
    """Write (N, V, F); a part that a kill leaves has another name."""
    n, n_views = len(store), N_VIEWS if all_views else 1
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    backbone = network.to(place.device, memory_format=place.layout).backbone  # type: ignore[call-overload]
    values: np.memmap[Any, np.dtype[np.float32]] | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for leftover in file.parent.glob(f".{file.name}.*"):  # of a run that was killed
            if time.time() - leftover.stat().st_mtime > _LONG_AGO:
                leftover.unlink(missing_ok=True)
        for start in range(0, n, _BATCH):
            batch = torch.from_numpy(store.pixels[start : start + _BATCH]).to(place.device)
            images = normalise(sample_field(batch, store.mpp, spec), spec)
            views = list(dihedral(images)) if all_views else [images]
            answers = [backbone(v.contiguous(memory_format=place.layout)).float() for v in views]
            block = torch.stack(answers, dim=1).cpu().numpy()  # (B, V, F)
            if values is None:
                shape = (n, n_views, block.shape[2])
                values = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
            values[start : start + len(block)] = block
            on_step("features", min(start + _BATCH, n), n)
        if values is not None:
            values.flush()
        partial.replace(file)
    except OSError as error:
        raise AtypiaError(
            f"{file} could not be written: {error.strerror or error}. Check free space and "
            "permissions of the folder."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
