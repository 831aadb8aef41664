"""A server whose model needs no torch, answers by the mean colour, and holds on when told to.

python fake_server.py [NAME=VALUE ...]
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from atypia.classifiers.answers import Answers
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.core.config import InputSpec
from atypia.data.field_of_view import check_patches
from atypia.server.guard import ServerLimits
from atypia.server.listener import answer, bound, choose_access
from atypia.server.schemas import About
from atypia.server.service import Service


class FakeModel(Postprocessed):
    """Answers that depend on the patch alone; while the file `hold` is there, it waits."""

    specs = (InputSpec(field_of_view_um=18, size_px=64, mean=(0, 0, 0), std=(1, 1, 1)),)
    postprocessing = Postprocessing()

    def __init__(self, hold: Path | None = None) -> None:
        self.hold = hold
        self.batches: list[int] = []

    def answer(self, patches: Any, mpp: float, _batch_size: int = 64) -> Answers:
        check_patches(patches, mpp, self.specs)
        self.batches.append(len(patches))
        logging.info("batch of %d", len(patches))
        while self.hold is not None and self.hold.exists():
            time.sleep(0.005)
        if (patches == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("thirteen")
        means = patches.mean(axis=(1, 2)) / 40  # (N, 3)
        scores = np.concatenate([means, means[:, ::-1], means[:, :2] / 2], axis=1)
        weights = np.exp(scores)
        return Answers((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


ABOUT = About(
    atypia="0",
    model="fake",
    quality="best",
    backend="none",
    created_with="a test",
    files={},
    classes=[],
    thresholds={"atypical": 0.5},
    conformal=None,
    field_of_view_um=18,
    intended_use="tests",
)


def main(*arguments: str) -> None:
    logging.basicConfig(level=logging.INFO)
    slides: dict[str, Path] = {}
    limits: dict[str, Any] = {}
    token = hold = None
    for key, _, value in (argument.partition("=") for argument in arguments):
        if key.startswith("slide:"):
            slides[key.removeprefix("slide:")] = Path(value)
        elif key == "token":
            token = value
        elif key == "hold":
            hold = Path(value)
        elif key == "largest_file":  # as if the disk were full
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        else:
            limits[key] = float(value) if key == "seconds" else int(value)
    with (
        bound("127.0.0.1", 0) as listener,
        Service(FakeModel(hold), ABOUT, slides, ServerLimits(**limits)) as service,
    ):
        answer(service, listener, choose_access(listener, "127.0.0.1", token=token))


if __name__ == "__main__":
    main(*sys.argv[1:])
