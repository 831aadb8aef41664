"""What is asked of the machine and of its C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from atypia.models import hardware

FAULTS = """
import resource, sys
import numpy as np
from atypia.models.hardware import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
for _ in range(2):
    np.ones(2**23)  # 64 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_kept_memory_is_used_again_without_page_faults() -> None:
    faults = {}
    for mode in ("hand back", "keep"):
        command = [sys.executable, "-c", FAULTS, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults["keep"] < 100
    assert faults["hand back"] > faults["keep"]


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hardware.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: object())  # no mallopt
    assert hardware.keep_freed_memory() is False
