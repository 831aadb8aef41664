"""Devices and number formats: what this machine has, and what is worth using.

Functions import torch themselves: the other ones are of use without it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import TYPE_CHECKING

from atypia.core.errors import InputError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """Resolve ``auto`` to the best device present, or check a named one.

    Raises:
        InputError: The named device does not exist here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"runtime.device: {name!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Try runtime.device=cpu, or see: atypia doctor"
        ) from None
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto`` to bf16 where the hardware multiplies it natively, else to fp32."""
    import torch

    if name == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else device.type == "cpu" and cpu_multiplies_bf16()
        )
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def make_deterministic(device: torch.device) -> None:
    """Choose algorithms that give the same bits each time, where a GPU has both kinds."""
    import torch

    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX-BF16 instructions."""
    import torch

    flags = torch.backends.cpu.get_cpu_capability()
    return "AMX" in flags or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, instead of handing it back at once.

    glibc maps each large buffer anew, so every operation of a network on the CPU first waits for
    the kernel to clear its output. With memory that is used again a training step gets a third
    shorter, prediction a fifth; the process stays as large as it ever was. It cannot be undone.
    Returns whether it was done: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # From <malloc.h>: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD. Nothing is mapped apart, nothing is
    # trimmed, and the heap grows by a quarter of a gigabyte at a time.
    settings = ((-4, 0), (-1, 2**31 - 1), (-2, 2**28))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
