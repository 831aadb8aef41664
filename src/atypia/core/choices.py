"""How a model is asked for: which one, in what quality, on what backend."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Quality: TypeAlias = Literal["best", "fast"]
Backend: TypeAlias = Literal["auto", "torch", "onnx", "onnx-int8"]

RELEASED: Final = "released"
"""Name of the model in the package."""
BEST: Final = "best"
FAST: Final = "fast"
BALANCED: Final = "balanced"
"""Operating point that every model has, and that is taken unless another is named."""
SENSITIVE: Final = "sensitive"
SPECIFIC: Final = "specific"
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
