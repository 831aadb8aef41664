"""A checkpoint that is damaged is named, and the one before it taken; a process that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atypia import pipeline
from atypia.core.config import load_config
from atypia.core.errors import InputError, TrainingError
from atypia.core.files import read_json
from atypia.training.checkpoint import (
    Progress,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)

if TYPE_CHECKING:
    from pathlib import Path


def flip(file: Path, place: float, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    file.write_bytes(data)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_no_single_flipped_bit_is_taken_for_a_checkpoint(
    tmp_path: Path, place: float, bit: int
) -> None:
    file = tmp_path / "checkpoint.pt"
    remove_checkpoint(file)
    for epoch in (1, 2):
        save_checkpoint(file, Progress(epoch=epoch), {"network": {"w": torch.full((9,), 1.0)}})
    flip(file, place, bit)
    loaded = load_checkpoint(file)
    assert loaded is not None
    assert loaded[0].epoch == 1
    flip(file.with_name("checkpoint-before.pt"), place, bit)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: .* damaged .*checkpoint-before\.pt"):
        load_checkpoint(file)
    remove_checkpoint(file)
    assert load_checkpoint(file) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_training_ends_with_its_code_and_meanwhile_no_other_gets_in(
    cohort_folder: Path, tmp_path: Path, tiny: tuple[str, ...], sent: signal.Signals, code: int
) -> None:
    if signal.getsignal(sent) is signal.SIG_IGN:
        pytest.skip("what a shell starts in the background ignores Ctrl-C")
    out = tmp_path / "run"
    settings = [*tiny, "optim.epochs=2000"]
    command = ["train", str(cohort_folder), "--out", str(out), "--preset", "quick", *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "atypia", *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not list(out.glob("fold-*/checkpoint.pt")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(InputError, match=f"working on this run.*process {process.pid} on"):
            pipeline.train(cohort_folder, out, load_config("quick", settings), resume=True)
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Stopped. A training goes on with --resume." in said
    assert "Traceback" not in said
    assert read_json(out / "run.json")["status"] == "stopped"
