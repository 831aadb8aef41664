"""The Python API: a model that is loaded once and asked often.

>>> import atypia
>>> model = atypia.load_model("released", quality="fast")
>>> model.predict("cell.png", mpp=0.25)[["predicted_subtype", "p_atypical"]]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from atypia.bundle import BEST, HEADER, RELEASED, read_card
from atypia.errors import InputError
from atypia.inference.backend import find_model, load_ensemble
from atypia.inference.predict import find_items, predict_arrays, predict_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from atypia.inference.model import SubtypeModel

Pixels: TypeAlias = npt.NDArray[np.uint8]
PathLike: TypeAlias = str | Path


class Classifier:
    """A model that is ready to classify. Made by :func:`load_model`.

    Attributes:
        ensemble: The networks and how they are used.
        card: The model card (Markdown), or None.
    """

    def __init__(self, ensemble: SubtypeModel, card: str | None = None) -> None:
        self.ensemble = ensemble
        self.card = card

    def predict(
        self,
        inputs: PathLike | Pixels | Sequence[PathLike] | Sequence[Pixels],
        mpp: float | None = None,
        *,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Classify patches, each centred on one mitotic figure.

        Args:
            inputs: Images, multi-page stacks, folders or cohorts; or RGB uint8 arrays: one of
                shape (H, W, 3), one of shape (N, H, W, 3), or a sequence of (H, W, 3).
            mpp: µm per pixel. Needed for arrays, and for files that are neither in a cohort nor
                carry it.
            batch_size: Patches per step; the answers do not depend on it.

        Returns:
            One row per patch: ``patch_id`` (of an array its position), what a cohort knows of it,
            ``p_<subtype>`` (calibrated, summing to 1), ``p_atypical``, ``predicted_subtype``,
            ``predicted_atypical`` and, if the model has conformal sets, ``conformal_set``
            (subtypes joined by ``|``).

        Raises:
            InputError: Lists everything that is wrong with the inputs.
        """
        if isinstance(inputs, str | Path):
            inputs = [inputs]
        if isinstance(inputs, np.ndarray) and inputs.ndim == 3:
            inputs = inputs[None]
        if isinstance(inputs, np.ndarray) and inputs.ndim != 4:
            raise InputError(
                f"expected patches of shape (H, W, 3) or (N, H, W, 3) but got {inputs.shape}."
            )
        if isinstance(inputs, np.ndarray) or any(isinstance(i, np.ndarray) for i in inputs):
            if mpp is None:
                raise InputError("mpp: expected µm per pixel of the arrays but got none.")
            arrays = cast("Sequence[Pixels]", inputs)
            return predict_arrays(self.ensemble, arrays, mpp, batch_size=batch_size)
        items = find_items([Path(cast("PathLike", path)) for path in inputs], mpp)
        return predict_items(self.ensemble, items, batch_size=batch_size)[0]


def load_model(
    name_or_path: PathLike = RELEASED,
    quality: str = BEST,
    *,
    backend: str = "auto",
    device: str = "auto",
) -> Classifier:
    """Load a model for :meth:`Classifier.predict`.

    Args:
        name_or_path: ``released`` for the model in the package, a bundle, a run folder, or an
            export.
        quality: ``best``, or ``fast`` where the model has it.
        backend: ``auto``, ``torch``, ``onnx`` or ``onnx-int8``; see
            :func:`atypia.inference.backend.load_ensemble`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.

    Raises:
        InputError: No such model, quality, backend or device, or damaged files.
    """
    folder = find_model(name_or_path)
    ensemble = load_ensemble(folder, quality, backend=backend, device=device)
    return Classifier(ensemble, read_card(folder) if (folder / HEADER).is_file() else None)
