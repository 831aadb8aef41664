"""Atypia: subtype mitotic figures in H&E histology.

:func:`load_model` gives a model that classifies patches, :class:`Cohort` labelled figures with
their patients, :func:`train` a model of one's own. The commands are in
:mod:`atypia.pipeline`; the eight subtypes and their order are in :mod:`atypia.core.labels`.
Importing this package loads neither torch nor pandas.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from atypia._version import __version__

if TYPE_CHECKING:
    from atypia.api import load_model, train
    from atypia.data.cohort import Cohort

# Nothing leaves the machine. ONNX Runtime 1.29 and newer reads this once, when it is imported; else
# it keeps a file in the home folder and looks up a host. Processes started from here inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = ["Cohort", "__version__", "load_model", "train"]


def __getattr__(name: str) -> object:
    """Import what needs pandas when it is asked for."""
    if name == "Cohort":
        from atypia.data.cohort import Cohort

        return Cohort
    if name in __all__:
        from atypia import api

        return getattr(api, name)
    raise AttributeError(f"module 'atypia' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what is imported when it is asked for, too."""
    return sorted({*globals(), *__all__})
