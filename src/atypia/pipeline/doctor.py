"""Show what this installation has, or what a model is and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.classifiers.installation import (
    Examination,
    examine_installation,
    examine_model,
    examine_weights,
)

if TYPE_CHECKING:
    from pathlib import Path


def doctor(model: Path | str | None = None) -> Examination:
    """Examine the installation; or a model's files; or an encoder or backbone of timm by name.

    Raises:
        InputError: Not a model; or lists every file of it that is damaged or missing.
    """
    if model is None:
        return examine_installation()
    return examine_weights(str(model)) or examine_model(model)
