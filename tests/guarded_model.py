"""A model with a guard of its own: what is white is no tissue, what is black is no mitosis."""

from __future__ import annotations

from typing import Any

import numpy as np

from atypia.classifiers.answers import Answers
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.core.config import InputSpec
from atypia.core.labels import ANSWERED, N_SUBTYPES


class GuardedModel(Postprocessed):
    """All of red is atypical, of blue normal; grey is neither, and called by its red."""

    specs = (InputSpec(field_of_view_um=8, size_px=32, mean=(0, 0, 0), std=(1, 1, 1)),)
    postprocessing = Postprocessing()

    def answer(self, patches: Any, *_: float) -> Answers:
        middle = patches.shape[1] // 2
        red, _, blue = patches[:, middle, middle].T.astype(np.float32) + 1
        p = np.full((len(patches), N_SUBTYPES), 0.02, np.float32)
        p[:, 1], p[:, 5] = 0.88 * red / (red + blue), 0.88 * blue / (red + blue)
        light = patches[:, middle, middle].mean(axis=1)
        status = np.full(len(patches), ANSWERED, "U16")
        status[light > 250], status[light < 5] = "no_tissue", "not_a_mitosis"
        p_mitosis = np.where(light > 250, np.nan, light / 255).astype(np.float32)
        return Answers(p, status, p_mitosis)
