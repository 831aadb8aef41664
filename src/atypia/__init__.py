"""Atypia: subtype mitotic figures in H&E histology.

:func:`load_model` gives a model that classifies patches, :class:`Cohort` labelled figures with
their patients, :func:`train` a model of one's own. The commands are in
:mod:`atypia.pipeline`; the eight subtypes and their order are in :mod:`atypia.core.labels`.
Importing this package loads neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.api import Classifier, TrainedRun
    from atypia.core.choices import Backend, Quality
    from atypia.core.progress import OnStep
    from atypia.data.cohort import Cohort

__all__ = ["Cohort", "__version__", "load_model", "train"]


def load_model(
    name_or_path: str | Path = "released",
    quality: Quality = "best",
    *,
    backend: Backend = "auto",
    device: str = "auto",
) -> Classifier:
    """Load a model to classify patches with; see :func:`atypia.api.load_model`."""
    from atypia.api import load_model as load

    return load(name_or_path, quality, backend=backend, device=device)


def train(
    cohort: Cohort | str | Path,
    out: str | Path,
    preset: str | Path = "quick",
    *,
    split: str | Path | None = None,
    label: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    **settings: object,
) -> TrainedRun:
    """Train and evaluate an ensemble; see :func:`atypia.api.train`."""
    from atypia.api import train as run_training
    from atypia.core.progress import silent

    return run_training(
        cohort,
        out,
        preset,
        split=split,
        label=label,
        seed=seed,
        resume=resume,
        on_step=on_step or silent,
        **settings,
    )


def __getattr__(name: str) -> object:
    """Import what needs pandas when it is asked for."""
    if name == "Cohort":
        from atypia.data.cohort import Cohort

        return Cohort
    raise AttributeError(f"module 'atypia' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what is imported when it is asked for, too."""
    return sorted({*globals(), *__all__})
