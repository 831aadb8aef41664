"""An export on disk: ``onnx.json`` and the ``.onnx`` files it names.

A graph holds all that an ensemble does after fields of view have been sampled: they are its inputs,
one for each size that members see, and the probabilities its output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, field_validator

from atypia._version import __version__
from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.bundle import HEADER as BUNDLE_HEADER
from atypia.classifiers.bundle import Thresholds
from atypia.classifiers.decision import Decision  # noqa: TC001
from atypia.classifiers.model_guard import ModelGuard  # noqa: TC001
from atypia.core.choices import BEST, FAST
from atypia.core.config import InputSpec  # noqa: TC001
from atypia.core.errors import InputError
from atypia.core.files import read_as
from atypia.core.labels import SUBTYPES

EXTRA: Final = "onnx"
HEADER: Final = "onnx.json"
FORMAT_VERSION: Final = 1
OUTPUT: Final = "probabilities"
GUARD_OUTPUT: Final = "guard"
"""Where the model has a guard: score and distance, (N, 2)."""
METADATA: Final = "atypia"
"""Key of a graph's own metadata, which repeat ``onnx.json``: for a file copied alone."""


SAMPLING: Final[dict[str, Any]] = {
    "patch": "RGB, 8 bits, centred on the figure; its size is not changed before",
    "centre": "the middle of the patch is the middle of the field",
    "step_px": "field_of_view_um / mpp / size_px",
    "positions_px": "side / 2 + (i + 0.5 - size_px / 2) * step_px, for i in 0..size_px-1; "
    "pixel k has its centre at k + 0.5",
    "interpolation": "bilinear",
    "edges": "symmetric",
    "blur": {
        "kind": "gaussian",
        "above_step_px": 1.25,
        "sigma_px": "sqrt(step_px**2 - 1) / 2",
        "radius_px": "ceil(3 * sigma_px)",
        "edges": "reflect",
        "order": "before interpolation",
    },
    "scale": "divided by 255; mean and std are applied inside the graph",
    "least_patch": "shorter side * mpp >= 0.75 * field_of_view_um",
}
"""How an input is made from a patch; edges are named as in ``numpy.pad``. The guide has the code.
"""

ANSWERS: Final[dict[str, Any]] = {
    "inside_graph": ["mean and std", "tta", "members", "join", "calibration"],
    "p_atypical": "sum of the probabilities of the classes whose names begin with amf_",
    "atypical": "p_atypical >= thresholds.atypical",
    "subtype": "classes[argmax(probabilities * decision.weights / decision.prior ** "
    "decision.power)], among the amf_ classes where it is atypical, else among the others; no "
    "weights are weights of 1",
    "prediction_set": "classes[k] where score[k] >= min(1, score[subtype]), with score[k] = "
    "probabilities[k] / (1 - conformal.quantiles[k]); one quantile is that of all classes, null or "
    "1 is an infinite score",
    "p_mitosis": "1 / (1 + exp(-(guard.slope * guard[:, 0] + guard.intercept)))",
    "status": "not_a_mitosis where p_mitosis < guard.least_p_mitosis, else unlike_training where "
    "guard[:, 1] > guard.farthest, else answered; no_tissue and poor_image are found in pixels",
}
"""What is done already, and how the output becomes an answer."""


class GraphFile(BaseModel):
    """One ``.onnx`` file."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.onnx$")]
    sha256: str


class GraphInput(BaseModel):
    """One input of a graph: float32 (N, 3, S, S), RGB in 0..1, any N.

    It is the central field of view of a patch, sampled as
    :func:`atypia.data.field_of_view.sample_field` does it. Mean and standard deviation are applied
    inside the graph.
    """

    name: str
    spec: InputSpec
    layout: str = "NCHW, float32, RGB in 0..1, not yet scaled by mean and std"
    sampling: dict[str, Any] = SAMPLING


class GraphHeader(BaseModel):
    """What one quality's graph is made from; also in the graph's own metadata."""

    inputs: Annotated[list[GraphInput], Field(min_length=1)]
    output: str = "probabilities: (N, 8) float32 in the order of classes, rows sum to 1"
    classes: tuple[str, ...] = SUBTYPES
    members: int
    tta: bool
    """Averages over the eight rotations and flips, inside the graph."""
    join: Aggregation = Aggregation()
    """Of the members, inside the graph."""
    calibration: dict[str, Any]
    """Applied inside the graph."""
    conformal: dict[str, Any] | None = None
    decision: Decision
    thresholds: Thresholds
    guard: ModelGuard | None = None
    """None: the graph has no output for it."""
    answers: dict[str, Any] = ANSWERS
    source: dict[str, Any]
    """The bundle: SHA-256 of its ``model.json``, its quality and its provenance."""

    @field_validator("classes")
    @classmethod
    def _our_classes(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes != SUBTYPES:
            raise ValueError(f"expected the classes {SUBTYPES}")
        return classes


class QualityExport(GraphHeader):
    """One quality of a model, exported."""

    fp32: GraphFile
    int8: GraphFile | None = None
    check: dict[str, Any]
    """How far the graph's answers were from torch's when it was written."""
    int8_check: dict[str, Any] | None = None
    """What the smaller numbers cost, on which figures."""


class ExportHeader(BaseModel):
    """The content of ``onnx.json``."""

    format: Literal[1] = FORMAT_VERSION
    created_with: str
    best: QualityExport | None = None
    fast: QualityExport | None = None
    intended_use: str = "Research use. Not a medical device."

    @property
    def qualities(self) -> dict[str, QualityExport]:
        """What this export offers, by name."""
        offered = {BEST: self.best, FAST: self.fast}
        return {name: export for name, export in offered.items() if export is not None}


def find_export(model: Path | str) -> Path | None:
    """Find the folder with ``onnx.json``: `model` itself, or ``onnx`` below a bundle or run."""
    for folder in (Path(model), Path(model) / "onnx", Path(model) / "model" / "onnx"):
        if (folder / HEADER).is_file():
            return folder
    return None


def find_bundle_of(export: Path) -> Path | None:
    """Find the ``model.json`` of the bundle that an export lies in; None where it lies alone."""
    header = export.resolve().parent / BUNDLE_HEADER
    return header if export.name == "onnx" and header.is_file() else None


def read_export(folder: Path) -> ExportHeader:
    """Read ``onnx.json``.

    Raises:
        InputError: Lists every entry that is missing or wrong.
    """
    return read_as(ExportHeader, folder / HEADER)


def open_export(out: Path, bundle: str) -> ExportHeader:
    """Read the header of an earlier export of the bundle with this SHA-256, or begin one.

    Raises:
        InputError: `out` holds the export of another model, or something else.
    """
    if not (out / HEADER).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out} already holds something else than an export. Choose another --out."
            )
        return ExportHeader(created_with=f"atypia {__version__}")
    header = read_export(out)
    if any(e.source.get("sha256") != bundle for e in header.qualities.values()):
        raise InputError(f"{out} holds the export of another model. Choose another --out.")
    return header
