"""What the trials of a search are measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from atypia.core.config import TrainConfig

Measure: TypeAlias = Literal[
    "log_loss", "calibrated_log_loss", "mean_auc", "balanced_accuracy", "binary_auc"
]
MINIMISED: Final = ("log_loss", "calibrated_log_loss")
"""Measures of which small values are good."""


def default_measure(config: TrainConfig) -> Measure:
    """Log-loss, of answers as the configuration leaves them: calibrated where it calibrates."""
    return "calibrated_log_loss" if config.ensemble.calibration == "temperature" else "log_loss"
