"""A graph in 8-bit integers: static quantisation by ONNX Runtime (QDQ, weights per channel).

Convolutions, matrix products and what stands between them are quantised; colour scaling, softmax,
mean and temperature stay in fp32. Weights get 7 of their 8 bits: processors without VNNI
instructions would overflow on 8 and answer wrongly. The ranges of activations are the smallest and
largest values on real fields of view. (Jacob et al., CVPR 2018; onnxruntime.ai, Quantize ONNX
models.)
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from atypia.classifiers.onnx_files import EXTRA
from atypia.core.errors import MissingExtraError
from atypia.core.files import sha256_file, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    Fields = dict[str, npt.NDArray[np.float32]]

# Measured on EfficientNet-Lite0: with convolutions alone probabilities change 2.5 times as much; so
# they do with dynamic quantisation, which is slower than fp32 besides. Other ranges of activations
# (percentile, entropy) gain nothing.
_OPERATORS: Final = ["Conv", "Gemm", "MatMul", "Add", "Clip"]


@contextmanager
def errors_only(logger: logging.Logger) -> Iterator[None]:
    """Hold a logger at errors."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quantise(graph: Path, file: Path, batches: Iterable[Fields]) -> str:
    """Write the graph `graph` in 8-bit integers, atomically; SHA-256 of the new file.

    `batches` are inputs of the graph, for the ranges of activations: some hundred fields of view.

    Raises:
        MissingExtraError: The extra ``onnx`` is not installed.
        AtypiaError: The file cannot be written.
    """
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", EXTRA, "Quantising an ONNX graph") from None

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> Any:
            return next(self._batches, None)

    with (
        errors_only(logging.getLogger()),  # it advises steps that are done here
        tempfile.TemporaryDirectory() as folder,
    ):
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        # Dimensions are inferred well enough without sympy.
        quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        content = quantised.read_bytes()
    write_bytes(file, content)
    return sha256_file(file)
