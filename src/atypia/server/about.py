"""What answers: the model's name, files and thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atypia._version import __version__
from atypia.classifiers.bundle import NETWORK, RELEASED, read_any_header, read_header, read_kind
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.classifiers.onnx_classifier import OnnxEnsemble
from atypia.classifiers.onnx_files import find_export, read_export
from atypia.core.files import sha256_file
from atypia.core.labels import SUBTYPES
from atypia.server.schemas import About

if TYPE_CHECKING:
    from atypia.classifiers.protocol import SubtypeModel


def load(model: Path | str, quality: str, backend: str, device: str) -> tuple[SubtypeModel, About]:
    """Load a model and describe it; see :func:`atypia.classifiers.loading.load_ensemble`.

    Raises:
        InputError: No such model, quality, backend or device, or damaged files.
    """
    folder = find_model(model)
    loaded = load_ensemble(folder, quality, backend=backend, device=device)
    if isinstance(loaded, OnnxEnsemble):
        export = find_export(folder)
        assert export is not None
        header = read_export(export)
        graph = header.qualities[quality]
        chosen = graph.int8 if backend == "onnx-int8" and graph.int8 else graph.fp32
        files = {chosen.file: chosen.sha256}
        made, use, conformal = header.created_with, header.intended_use, graph.conformal
        runs_on = "onnx-int8" if chosen is graph.int8 else "onnx"
    elif (kind := read_kind(folder)) != NETWORK:
        joined = read_any_header(folder)
        kept = sorted(f for f in folder.rglob("*") if f.suffix in {".json", ".safetensors"})
        files = {str(file.relative_to(folder)): sha256_file(file) for file in kept}
        made, use, conformal = joined.created_with, joined.intended_use, joined.conformal
        runs_on = kind
    else:
        bundle = read_header(folder)
        offered = bundle.qualities[quality]
        files = {member.file: member.sha256 for member in offered.members}
        made, use, conformal = bundle.created_with, bundle.intended_use, offered.conformal
        runs_on = "torch"
    return loaded, About(
        atypia=__version__,
        # Where it lies is nobody's business.
        model=RELEASED if str(model) == RELEASED else Path(model).resolve().name,
        quality=quality,
        backend=runs_on,
        created_with=made,
        files=files,
        classes=list(SUBTYPES),
        thresholds={"atypical": loaded.threshold},
        conformal=conformal,
        field_of_view_um=loaded.field_of_view_um,
        intended_use=use,
    )
