"""Export a model to ONNX, and check the export before anyone uses it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia._version import __version__
from atypia.classifiers.bundle import HEADER as BUNDLE_HEADER
from atypia.classifiers.bundle import Thresholds, find_bundle
from atypia.classifiers.onnx_classifier import OnnxEnsemble, open_session
from atypia.classifiers.onnx_files import (
    HEADER,
    OUTPUT,
    ExportHeader,
    GraphFile,
    GraphHeader,
    QualityExport,
    read_export,
)
from atypia.core.choices import BEST
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import sha256_file, write_json
from atypia.core.labels import PROBABILITY_COLUMNS
from atypia.core.progress import silent
from atypia.data.field_of_view import sample_field
from atypia.data.images import read_patch
from atypia.data.synthetic import make_synthetic_cohort
from atypia.evaluation.comparison import compare
from atypia.evaluation.predictions import Predictions, predictions_from_table
from atypia.inference.patch_predictions import PatchFile, find_items, predict_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble

    Fields = dict[str, npt.NDArray[np.float32]]

BATCHES: Final = (1, 2, 7, 64)
"""Batch sizes at which a graph is compared with torch."""
TOLERANCE: Final = 1e-4
"""Largest difference of a probability from torch's."""
CALIBRATION_VIEWS: Final = 256
"""Fields, turned ones included, behind the ranges of activations."""
MEASURED: Final = 400
"""Figures on which the loss of accuracy is measured, at most."""


def export(
    model: Path | str,
    out: Path,
    *,
    quality: str = BEST,
    int8: bool = False,
    cohort: Path | None = None,
    label: str = "expert1",
    seed: int = 0,
    on_stage: Callable[[str], None] = silent,
) -> QualityExport:
    """Write one quality of a model as an ONNX graph with ``onnx.json``; check it against torch.

    Args:
        model: ``released``, a bundle or a run folder.
        out: Folder to write to. It may hold the other quality of the same model already.
        quality: ``best``, or ``fast`` where the model has it.
        int8: Also write the graph in 8-bit integers, and measure what that costs.
        cohort: Patches for the check; with `int8` needed, for the ranges of activations and for
            the measurement: on patients other than those who gave the ranges.
        label: What accuracy is measured against: a rater, or ``agreed``.
        seed: Of the choice of patches.
        on_stage: Called with the name of each step that takes long.

    Returns:
        What was written, with the check and the loss of accuracy.

    Raises:
        InputError: Options, model or cohort do not fit; or `out` holds another model.
        MissingExtraError: The extra ``onnx`` is not installed.
        AtypiaError: The graph does not answer like torch. Nothing is written then.
    """
    folder = find_bundle(model)
    if int8 and cohort is None:
        raise InputError(
            "--int8: expected --calibration-images COHORT: 8-bit integers need real patches for "
            "their ranges, and a measurement of what they cost."
        )
    source = {"sha256": sha256_file(folder / BUNDLE_HEADER), "quality": quality}
    header = _open_header(out, source["sha256"])
    if cohort is not None:
        rows = find_items([cohort], mpp=None)

    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.onnx_export import graph_inputs, write_graph

    on_stage("loading the model")
    ensemble = Ensemble.load(folder, quality)
    about = GraphHeader(
        inputs=graph_inputs(ensemble),
        members=len(ensemble.members),
        tta=ensemble.tta,
        join=ensemble.join,
        calibration=ensemble.postprocessing.calibration.to_json(),
        conformal=None if ensemble.conformal is None else ensemble.conformal.to_json(),
        decision=ensemble.decision,
        thresholds=Thresholds(atypical=ensemble.threshold),
        source={**source, "provenance": dict(ensemble.provenance)},
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as scratch:
        on_stage("writing the graph")
        file = Path(scratch) / f"{quality}.onnx"
        digest = write_graph(ensemble, file, about.model_dump_json(exclude_none=True))
        on_stage("checking the graph against torch")
        if cohort is None:
            rows = _synthetic_items(Path(scratch) / "cohort", ensemble.field_of_view_um)
        kept, rest = _split(rows, seed, CALIBRATION_VIEWS // (8 if ensemble.tta else 1))
        check = _check(ensemble, about, file, kept, synthetic=cohort is None)
        written = QualityExport(
            **dict(about), fp32=GraphFile(file=file.name, sha256=digest), check=check
        )
        if int8:
            from atypia.classifiers.onnx_int8 import quantise

            on_stage("quantising")
            small = Path(scratch) / f"{quality}-int8.onnx"
            digest = quantise(file, small, _batches(kept, about))
            on_stage("measuring what 8-bit integers cost")
            cost = _cost(about, file, small, rest, label)
            written.int8 = GraphFile(file=small.name, sha256=digest)
            written.int8_check = cost
        for name in (written.fp32, written.int8):
            if name is not None:
                (Path(scratch) / name.file).replace(out / name.file)
    header = header.model_copy(update={quality: written})
    write_json(out / HEADER, header.model_dump(mode="json", exclude_none=True))
    return written


def _open_header(out: Path, bundle: str) -> ExportHeader:
    """Take up the header of an earlier export of the same model, or begin one."""
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


def _synthetic_items(folder: Path, field_um: float) -> list[PatchFile]:
    side = int(np.ceil(field_um / 0.25)) + 8
    make_synthetic_cohort(folder, patients=8, patches=max(BATCHES), size_px=side)
    return find_items([folder], mpp=None)


def _split(
    rows: Sequence[PatchFile], seed: int, least: int
) -> tuple[list[PatchFile], list[PatchFile]]:
    """Patches of whole patients: `least` or more to check with, and up to MEASURED others."""
    rng = np.random.default_rng(seed)
    of_patient: dict[str, list[PatchFile]] = {}
    for item in rows:
        of_patient.setdefault(str(item.about.get("patient_id", "")), []).append(item)
    kept: list[PatchFile] = []
    rest: list[PatchFile] = []
    for patient in rng.permutation(sorted(of_patient)):
        (kept if len(kept) < max(least, max(BATCHES)) else rest).extend(of_patient[patient])
    chosen = sorted(rng.permutation(len(rest))[:MEASURED])
    return [kept[i] for i in rng.permutation(len(kept))], [rest[i] for i in chosen]


def _fields(items: Sequence[PatchFile], about: GraphHeader) -> Fields:
    """Read patches and sample the inputs of the graph."""
    patches = [(read_patch(item.path)[None], item.mpp) for item in items]
    return {
        entry.name: np.concatenate([sample_field(p, mpp, entry.spec) for p, mpp in patches])
        for entry in about.inputs
    }


def _batches(items: Sequence[PatchFile], about: GraphHeader) -> Iterator[Fields]:
    step = 4 if about.tta else 32
    items = items[: CALIBRATION_VIEWS // (8 if about.tta else 1)]
    for start in range(0, len(items), step):
        yield _fields(items[start : start + step], about)


def _check(
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


def _cost(
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
