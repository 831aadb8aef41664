"""The Python API: a model that is loaded once and asked often, and a training in one call.

>>> import atypia
>>> model = atypia.load_model("released", quality="fast")
>>> model.predict("cell.png", mpp=0.25)[["predicted_subtype", "p_atypical"]]
>>> model.explain("cell.png", mpp=0.25, target="atypical").maps

>>> cohort = atypia.Cohort.open("cohorts/ami-br")
>>> run = atypia.train(cohort, "runs/mine", preset="quick", split="table1")
>>> run.metrics["overall"]["mean_auc"]
>>> run.model().predict("cell.png", mpp=0.25)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import IOBase
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from atypia.classifiers.bundle import HEADER, read_card
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.core.choices import BALANCED, BEST, RELEASED, Backend, Quality
from atypia.core.errors import InputError, Problem
from atypia.core.labels import SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.data.images import read_patch
from atypia.evaluation.predictions import read_cells
from atypia.inference.patch_predictions import find_items, predict_arrays, predict_items
from atypia.slides.reader import mpp_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import torch

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.data.cohort import Cohort
    from atypia.explain import Evidence

Pixels: TypeAlias = npt.NDArray[np.uint8]
PathLike: TypeAlias = str | Path
Patch: TypeAlias = "Pixels | Image.Image | torch.Tensor"
Inputs: TypeAlias = "PathLike | Patch | Iterable[PathLike] | Iterable[Patch]"
Method: TypeAlias = Literal["gradcam", "occlusion", "integrated"]

_ATYPICAL = "atypical"


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
        inputs: Inputs,
        mpp: float | None = None,
        *,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Classify patches, each centred on one mitotic figure.

        Args:
            inputs: Paths of images, multi-page stacks, folders or cohorts; or RGB uint8 arrays or
                tensors: one of shape (H, W, 3), one of shape (N, H, W, 3); or RGB images of Pillow.
                One of them, or any iterable of one kind.
            mpp: µm per pixel. Needed for arrays, and for files that are neither in a cohort nor
                carry it.
            batch_size: Patches per step; the answers do not depend on it.

        Returns:
            One row per patch: ``patch_id`` (of an array its position), what a cohort records of it,
            ``p_<subtype>`` (calibrated, summing to 1), ``p_atypical``, ``predicted_subtype``,
            ``predicted_atypical``, if the model has prediction sets ``conformal_set`` (subtypes
            joined by ``|``), ``p_mitosis`` and ``status``. What has another status than
            ``answered`` has no subtype, no call (NA) and no set.

        Raises:
            InputError: Lists everything that is wrong with the inputs.
        """
        listed = _as_sequence(inputs)
        problems = mpp_problems(mpp, "mpp")
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            what = f"batch_size: expected a whole number from 1 on but got {batch_size!r}."
            problems.append(Problem(what))
        if problems:
            raise InputError(problems)
        if _are_arrays(listed):
            if mpp is None:
                raise InputError("mpp: expected µm per pixel of the arrays but got none.")
            arrays = cast("Sequence[Pixels]", listed)
            return predict_arrays(self.ensemble, arrays, mpp, batch_size=batch_size)
        items = find_items(cast("list[Path]", listed), mpp)
        return predict_items(self.ensemble, items, batch_size=batch_size)[0]

    def explain(
        self,
        inputs: Inputs,
        mpp: float,
        *,
        target: str | None = None,
        method: Method = "gradcam",
    ) -> Evidence:
        """Map where in patches the networks found what speaks for an answer, and against it.

        Args:
            inputs: Images of one patch each, or arrays as in :meth:`predict`; all of one size.
            mpp: µm per pixel.
            target: What to explain: a subtype, ``atypical``, or None for the predicted subtype of
                each patch, which is the one that it would have if it were answered.
            method: ``gradcam``, ``occlusion`` or ``integrated`` (gradients).

        Returns:
            ``maps`` (N, H, W) float32, above 0 where a place speaks for the target; and more, see
            :class:`atypia.explain.Evidence`. Whether such a map can be believed is what
            :func:`atypia.explain.check` measures.

        Raises:
            InputError: A model without torch networks, patches of several sizes, no such target.
            MissingExtraError: The method needs captum.
        """
        from atypia.classifiers.ensemble import Ensemble
        from atypia.explain import ANY_ATYPICAL, explain

        if not isinstance(self.ensemble, Ensemble):
            raise InputError(
                "expected a model of networks in torch (backend='torch') but got "
                f"{type(self.ensemble).__name__}, which has no maps."
            )
        if target not in {None, _ATYPICAL, *SUBTYPES}:
            raise InputError(
                f"target: expected one of {[*SUBTYPES, _ATYPICAL]} or None but got {target!r}."
            )
        if problems := mpp_problems(mpp, "mpp"):
            raise InputError(problems)
        patches = _stacked(_as_sequence(inputs))
        if target is None:
            probabilities = self.ensemble.predict_proba(patches, mpp)
            targets = self.ensemble.postprocessing.subtypes(probabilities)
        else:
            index = ANY_ATYPICAL if target == _ATYPICAL else SUBTYPES.index(target)
            targets = np.full(len(patches), index)
        return explain(self.ensemble, patches, mpp, targets, method)


def _as_sequence(inputs: Any) -> Pixels | list[Path] | list[Pixels]:
    """Make a list of paths or of pixels, or one array (N, H, W, 3), of what people have.

    Raises:
        InputError: It is neither, or both.
    """
    inputs = _pixels_of(inputs)
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    if isinstance(inputs, np.ndarray) and inputs.ndim == 3:
        return inputs[None]
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        return inputs
    if isinstance(inputs, np.ndarray) and inputs.ndim != 1:
        raise InputError(
            f"expected patches of shape (H, W, 3) or (N, H, W, 3) but got {inputs.shape}."
        )
    if not isinstance(inputs, Iterable) or isinstance(inputs, bytes | Mapping | IOBase):
        raise InputError(f"expected paths, arrays or images but got {type(inputs).__name__}.")
    listed = [_pixels_of(each) for each in inputs]
    paths = [Path(each) for each in listed if isinstance(each, str | os.PathLike)]
    arrays = [each for each in listed if isinstance(each, np.ndarray)]
    if len(listed) not in (len(paths), len(arrays)):
        kinds = sorted({type(each).__name__ for each in listed})
        raise InputError(f"expected paths alone, or arrays or images alone, but got {kinds}.")
    return paths or arrays


def _pixels_of(value: Any) -> Any:
    """Pixels of an image of Pillow or a tensor of torch; anything else as it is."""
    if isinstance(value, Image.Image):
        if value.mode != "RGB":
            raise InputError(f"expected an image of mode RGB but got {value.mode}. Convert it.")
        return np.asarray(value)
    return value.detach().cpu().numpy() if hasattr(value, "cpu") else value


def _are_arrays(inputs: Pixels | list[Path] | list[Pixels]) -> bool:
    return isinstance(inputs, np.ndarray) or any(isinstance(i, np.ndarray) for i in inputs)


def _stacked(inputs: Pixels | list[Path] | list[Pixels]) -> Pixels:
    """Read patches and lay them into one array (N, H, W, 3)."""
    if _are_arrays(inputs):
        patches = [np.asarray(patch) for patch in inputs]
    else:
        patches = [read_patch(cast("Path", path)) for path in inputs]
    sizes = sorted({patch.shape for patch in patches})
    if len(sizes) != 1:
        raise InputError(f"expected patches of one size but got {sizes or 'none'}.")
    return np.stack(patches)


def load_model(
    name_or_path: PathLike = RELEASED,
    quality: Quality = BEST,
    *,
    backend: Backend = "auto",
    device: str = "auto",
    operating_point: str = BALANCED,
) -> Classifier:
    """Load a model for :meth:`Classifier.predict`.

    Arguments as for :func:`atypia.classifiers.loading.load_ensemble`, but for the rules: networks
    alone have a `quality` and a `backend`.

    Raises:
        InputError: No such model, quality, backend, device or operating point, or damaged files.
    """
    folder = find_model(name_or_path)
    ensemble = load_ensemble(
        folder, quality, backend=backend, device=device, operating_point=operating_point
    )
    return Classifier(ensemble, read_card(folder) if (folder / HEADER).is_file() else None)


@dataclass(frozen=True)
class TrainedRun:
    """What a training left in its folder. Made by :func:`train`."""

    folder: Path
    metrics: Mapping[str, Any]
    """The content of ``metrics.json``."""

    @property
    def report(self) -> Path:
        """The page with all measures and plots."""
        return self.folder / "report.html"

    def predictions(self, part: Literal["test", "oof"] = "test") -> pd.DataFrame:
        """Read the predictions of the part ``test``, or ``oof``: out of fold, of the training part.

        Raises:
            InputError: The run has no such part.
        """
        import pandas as pd

        path = self.folder / f"predictions-{part}.csv"
        try:
            table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        except FileNotFoundError:
            there = [p.stem.removeprefix("predictions-") for p in self.folder.glob("predictions-*")]
            raise InputError(
                f"part: expected {' or '.join(sorted(there)) or 'a finished run'} but got {part!r}."
            ) from None
        # Ids such as 007 and NA are text, whatever they look like.
        cells, _ = read_cells(path, ())
        names = [c for c in ("patch_id", "patient_id", "domain", "scanner") if c in cells]
        return table.assign(**{name: cells[name].to_numpy() for name in names})

    def model(self, quality: Quality = BEST) -> Classifier:
        """Load the ensemble."""
        return load_model(self.folder, quality)


def train(
    cohort: Cohort | PathLike,
    out: PathLike,
    preset: PathLike = "quick",
    *,
    split: PathLike | None = None,
    label: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    on_step: OnStep = silent,
    **settings: object,
) -> TrainedRun:
    """Split by patient, train the members, evaluate the ensemble, write the report.

    The same as ``atypia train COHORT --out OUT --preset PRESET KEY=VALUE...``.

    Args:
        cohort: A cohort or its folder.
        out: The run's folder.
        preset: A preset of the package, or a YAML file.
        split: ``table1``, ``benchmark``, ``holdout``, ``cv``, ``all``, ``domains``, or a file.
        label: The rater whose labels are learned and scored against, or ``agreed``.
        seed: Of everything random.
        resume: Go on with a run that was stopped, with the configuration that it has; finished
            members are not trained again.
        on_step: Called with the member's name, batches done and batches in all.
        settings: Any other field of :class:`atypia.core.config.TrainConfig`, by its path with two
            underscores for the dot: ``optim__epochs=30``.

    Raises:
        InputError: Options, cohort, splits or run folder do not fit each other; all at once.
        TrainingError: The training cannot go on.
    """
    import json

    from atypia.core.config import load_any_config
    from atypia.pipeline.train import train as run_training

    named = {"split__kind": split, "label": label, "seed": seed}
    settings |= {key: value for key, value in named.items() if value is not None}
    overrides = [
        f"{key.replace('__', '.')}={json.dumps(value, default=str)}"
        for key, value in settings.items()
    ]
    config = None if resume and not overrides else load_any_config(str(preset), overrides)
    folder = Path(cohort) if isinstance(cohort, str | Path) else cohort.path
    metrics = run_training(folder, Path(out), config, resume=resume, on_step=on_step)
    return TrainedRun(Path(out), metrics or {})
