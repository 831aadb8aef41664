"""Export a model to ONNX, and check the export before anyone uses it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from atypia.classifiers.bundle import HEADER as BUNDLE_HEADER
from atypia.classifiers.bundle import find_bundle, read_header
from atypia.classifiers.onnx_files import HEADER, GraphFile, QualityExport, open_export
from atypia.classifiers.onnx_int8 import quantise
from atypia.core.choices import BEST
from atypia.core.errors import InputError
from atypia.core.files import sha256_file, stamped, write_json
from atypia.core.progress import silent
from atypia.inference.onnx_checks import (
    calibration_batches,
    check_graph,
    measure_int8,
    split_patches,
    synthetic_patches,
)
from atypia.inference.patch_predictions import find_items

if TYPE_CHECKING:
    from collections.abc import Callable


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
        quality: One that the model has.
        int8: Also write the graph in 8-bit integers, and measure what that costs.
        cohort: Patches for the check; with `int8` needed, for the ranges of activations and for
            the measurement: on patients other than those who gave the ranges.
        label: What accuracy is measured against: a rater, or ``agreed``.
        seed: Of the choice of patches.
        on_stage: Called with the name of each step that takes long.

    Raises:
        InputError: Options, model or cohort do not fit; or `out` holds another model.
        MissingExtraError: The extra ``onnx`` is not installed.
        AtypiaError: The graph's probabilities differ from torch's. Nothing is written then.
    """
    folder = find_bundle(model)
    if int8 and cohort is None:
        raise InputError(
            "--int8: expected --calibration-images COHORT: 8-bit integers need real patches for "
            "their ranges, and a measurement of what they cost."
        )
    source = {"sha256": sha256_file(folder / BUNDLE_HEADER), "quality": quality}
    header = open_export(out, source["sha256"])
    if cohort is not None:
        rows = find_items([cohort], mpp=None)

    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.onnx_export import graph_header, write_graph

    if read_header(folder).mitosis_sha256 is not None:
        raise InputError(
            f"{folder}: expected a model without networks of a guard (atypia train --preset "
            "mitosis), which no export holds. Export the model that they were trained before."
        )
    on_stage("loading the model")
    ensemble = Ensemble.load(folder, quality)
    about = graph_header(ensemble, source)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as scratch:
        on_stage("writing the graph")
        file = Path(scratch) / f"{quality}.onnx"
        digest = write_graph(ensemble, file, about.model_dump_json(exclude_none=True))
        on_stage("checking the graph against torch")
        if cohort is None:
            rows = synthetic_patches(Path(scratch) / "cohort", ensemble.field_of_view_um)
        kept, rest = split_patches(rows, about, seed)
        check = check_graph(ensemble, about, file, kept, synthetic=cohort is None)
        written = QualityExport(
            **dict(about), fp32=GraphFile(file=file.name, sha256=digest), check=check
        )
        if int8:
            on_stage("quantising")
            small = Path(scratch) / f"{quality}-int8.onnx"
            digest = quantise(file, small, calibration_batches(kept, about))
            on_stage("measuring what 8-bit integers cost")
            cost = measure_int8(about, file, small, rest, label)
            written.int8 = GraphFile(file=small.name, sha256=digest)
            written.int8_check = cost
        for name in (written.fp32, written.int8):
            if name is not None:
                (Path(scratch) / name.file).replace(out / name.file)
    header = header.model_copy(update={quality: written})
    write_json(out / HEADER, stamped(header.model_dump(mode="json", exclude_none=True)))
    return written
