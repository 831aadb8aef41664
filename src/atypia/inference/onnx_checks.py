"""Checks of an ONNX graph before anyone uses it: against torch, and 8-bit integers against fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.onnx_classifier import OnnxEnsemble, open_session
from atypia.classifiers.onnx_files import OUTPUT
from atypia.core.errors import AtypiaError, InputError
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.data.field_of_view import sample_field
from atypia.data.images import read_patch
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import Predictions, predictions_from_table
from atypia.inference.patch_predictions import PatchFile, find_items, predict_items

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.onnx_files import GraphHeader

    Fields = dict[str, npt.NDArray[np.float32]]

BATCHES: Final = (1, 2, 7, 64)
"""Batch sizes at which a graph is compared with torch."""
TOLERANCE: Final = 1e-4
"""Largest difference of a probability from torch's."""
CALIBRATION_VIEWS: Final = 256
"""Fields, turned ones included, behind the ranges of activations."""
MEASURED: Final = 400
"""Figures on which the loss of accuracy is measured, at most."""


def synthetic_patches(folder: Path, field_um: float) -> list[PatchFile]:
    """Draw patches for a check without a cohort; `field_um` is the side of the field of view."""
    from atypia.data.synthetic import make_synthetic_cohort  # slow to import

    side = int(np.ceil(field_um / 0.25)) + 8
    make_synthetic_cohort(folder, patients=8, patches=max(BATCHES), size_px=side)
    return find_items([folder], mpp=None)


def split_patches(
    rows: Sequence[PatchFile], about: GraphHeader, seed: int
) -> tuple[list[PatchFile], list[PatchFile]]:
    """Divide patches by patient: those to check with, and up to :data:`MEASURED` others."""
    least = max(CALIBRATION_VIEWS // (8 if about.tta else 1), *BATCHES)
    rng = np.random.default_rng(seed)
    of_patient: dict[str, list[PatchFile]] = {}
    for item in rows:
        of_patient.setdefault(str(item.about.get("patient_id", "")), []).append(item)
    kept: list[PatchFile] = []
    rest: list[PatchFile] = []
    for patient in rng.permutation(sorted(of_patient)):
        (kept if len(kept) < least else rest).extend(of_patient[patient])
    chosen = sorted(rng.permutation(len(rest))[:MEASURED])
    return [kept[i] for i in rng.permutation(len(kept))], [rest[i] for i in chosen]


def _fields(items: Sequence[PatchFile], about: GraphHeader) -> Fields:
    """Read patches and sample the inputs of the graph."""
    patches = [(read_patch(item.path)[None], item.mpp) for item in items]
    return {
        entry.name: np.concatenate([sample_field(p, mpp, entry.spec) for p, mpp in patches])
        for entry in about.inputs
    }


def calibration_batches(items: Sequence[PatchFile], about: GraphHeader) -> Iterator[Fields]:
    """Yield inputs of the graph, for the ranges of activations."""
    step = 4 if about.tta else 32
    items = items[: CALIBRATION_VIEWS // (8 if about.tta else 1)]
    for start in range(0, len(items), step):
        yield _fields(items[start : start + step], about)


def check_graph(
    ensemble: Ensemble,
    about: GraphHeader,
    file: Path,
    items: Sequence[PatchFile],
    *,
    synthetic: bool,
) -> dict[str, Any]:
    """Compare the graph, fed by NumPy, with torch from file to probability.

    Raises:
        AtypiaError: They differ.
    """
    items = items[: max(BATCHES)]
    table, _ = predict_items(ensemble, items)
    expected = table[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    fields = _fields(items, about)
    session = open_session(file, "cpu")
    largest = {}
    for n in BATCHES:
        if n <= len(items):
            (answer,) = session.run([OUTPUT], {name: f[:n] for name, f in fields.items()})
            largest[n] = float(np.abs(answer - expected[:n]).max())
    worst = max(largest.values())
    if not worst <= TOLERANCE:
        raise AtypiaError(
            f"the ONNX graph's probabilities differ from torch's by {worst:.2g} on patches "
            f"(expected at most {TOLERANCE:g}); nothing was written. Please report it, with the "
            "model's model.json."
        )
    return {
        "patches": "synthetic" if synthetic else "cohort",
        "tolerance": TOLERANCE,
        "largest_difference_by_batch": largest,
    }


def measure_int8(
    about: GraphHeader, file: Path, small: Path, items: Sequence[PatchFile], label: str
) -> dict[str, Any]:
    """Compare 8-bit integers with fp32 on labelled figures; differences with intervals."""
    if not items:
        raise InputError(
            "--int8: expected a cohort with more patients: those whose patches give the ranges "
            "cannot also measure the loss of accuracy."
        )
    tables: dict[str, Predictions] = {}
    for name, graph in (("fp32", file), ("int8", small)):
        model = OnnxEnsemble.of_graph(open_session(graph, "cpu"), about, str(graph))
        table, _ = predict_items(model, items)
        tables[name] = predictions_from_table(table)
    fp32, eight = tables["fp32"], tables["int8"]
    compared = compare(tables, label, resamples=500)
    shown = ("mean_auc", "balanced_accuracy", "binary.auc")
    (difference,) = compared["differences"]
    return {
        "label": label,
        "n": compared["n"],
        "n_patients": compared["n_patients"],
        "same_subtype": float((fp32.predicted == eight.predicted).mean()),
        "same_atypical": float((fp32.predicted_atypical == eight.predicted_atypical).mean()),
        "mean_difference": float(np.abs(fp32.probabilities - eight.probabilities).mean()),
        "fp32": {name: compared["measures"]["fp32"].get(name) for name in shown},
        "int8_minus_fp32": {name: difference["measures"].get(name) for name in shown},
    }
