"""An exported ensemble, run by ONNX Runtime. Needs no torch; see :mod:`.onnx_export`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atypia.classifiers.model_guard import N_SCORES
from atypia.classifiers.onnx_files import (
    GUARD_OUTPUT,
    HEADER,
    OUTPUT,
    GraphHeader,
    GraphInput,
    find_bundle_of,
    find_export,
    read_export,
)
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing, check_answers
from atypia.core.choices import BEST
from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import damaged, sha256_file
from atypia.core.labels import N_SUBTYPES
from atypia.data.field_of_view import check_patches, sample_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from atypia.classifiers.answers import Answers
    from atypia.core.config import InputSpec


_EXTERNAL: Final = b"\n\x08location\x12"
"""The first entry of a tensor's ``external_data``, as protobuf writes it."""


@dataclass
class OnnxEnsemble(Postprocessed):
    """An exported ensemble; :meth:`load` opens it."""

    session: Any
    """An ``onnxruntime.InferenceSession``."""
    inputs: Sequence[GraphInput]
    tta: bool
    postprocessing: Postprocessing
    """Its calibration is already applied by the graph."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    opened: tuple[Path, str, int | None] = (Path(), "auto", None)
    """What :func:`open_session` was given."""

    def __post_init__(self) -> None:
        self.specs = [entry.spec for entry in self.inputs]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which cannot be pickled: it is opened anew from its file."""
        return {**vars(self), "session": self.opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, session=open_session(*state["opened"]))

    @property
    def spec(self) -> InputSpec:
        """What the first member sees."""
        return self.inputs[0].spec

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.answer`."""
        check_patches(patches, mpp, self.specs)
        has_guard = self.postprocessing.guard is not None
        step = max(1, batch_size // 8) if self.tta else batch_size  # the graph makes 8 of each
        answers = np.empty((len(patches), N_SUBTYPES), np.float32)
        scores = np.empty((len(patches), N_SCORES), np.float32)
        for start in range(0, len(patches), step):
            part = patches[start : start + step]
            fields = {entry.name: sample_field(part, mpp, entry.spec) for entry in self.inputs}
            given = self._run(fields)
            answers[start : start + step] = check_answers(given[0])
            if has_guard:
                scores[start : start + step] = given[1]
        return self.guarded(patches, mpp, answers, scores if has_guard else None)

    def _run(self, fields: dict[str, npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
        names = [OUTPUT, GUARD_OUTPUT][: 1 if self.postprocessing.guard is None else 2]
        try:
            return [np.asarray(output) for output in self.session.run(names, fields)]
        except Exception as error:  # its own classes, none of them documented
            why = str(error).splitlines()[0]
            raise AtypiaError(f"ONNX Runtime could not run {self.opened[0]} ({why}).") from None

    @classmethod
    def load(
        cls,
        model: Path | str,
        quality: str = BEST,
        *,
        int8: bool = False,
        device: str = "auto",
        threads: int | None = None,
    ) -> OnnxEnsemble:
        """Read an export and check the hash of its file; see :func:`.loading.load_ensemble`.

        Raises:
            InputError: No export, a quality or a device that is not there, a damaged file, or the
                export of another model than the bundle that it lies in.
        """
        folder = find_export(model)
        if folder is None:
            raise InputError(
                f"{model} is no ONNX export: expected a folder with {HEADER}. Make one where torch "
                f"is installed: atypia export --model {model} --out DIR"
            )
        offered = read_export(folder).qualities
        if quality not in offered:
            raise InputError(
                f"--quality: expected one of {list(offered)}, which {folder} offers, but got "
                f"{quality!r}. Export it as well: atypia export --quality {quality}"
            )
        export = offered[quality]
        bundle = find_bundle_of(folder)
        if bundle is not None and sha256_file(bundle) != export.source.get("sha256"):
            raise InputError(
                f"{folder} is the export of another model than {bundle.parent}. Export that again: "
                f"atypia export --model {bundle.parent} --out {folder}"
            )
        graph = export.int8 if int8 else export.fp32
        if graph is None:
            raise InputError(
                f"{folder} has no graph in 8-bit integers. Make it: atypia export --int8"
            )
        file = folder / graph.file
        if problems := damaged(file, graph.sha256, folder / HEADER, "Copy the export again."):
            raise InputError(problems)
        if _EXTERNAL in file.read_bytes():
            what = "expected a graph with all weights inside but some lie in a file beside it"
            raise InputError(Problem(f"{what}, which has no hash. Export it again.", str(file)))
        opened = file.absolute(), device, threads
        return replace(
            cls.of_graph(open_session(*opened), export, str(folder / HEADER)), opened=opened
        )

    @classmethod
    def of_graph(cls, session: Any, about: GraphHeader, file: str) -> OnnxEnsemble:
        """Make an ensemble of an open graph; `file` is the name of its header, for messages."""
        return cls(
            session=session,
            inputs=about.inputs,
            tta=about.tta,
            postprocessing=Postprocessing.from_header(about, file),
            provenance=about.source.get("provenance", {}),
        )


def open_session(file: Path, device: str = "auto", threads: int | None = None) -> Any:
    """Open a graph with ONNX Runtime.

    Raises:
        InputError: Not a sound ONNX file, or a device that ONNX Runtime does not have here.
    """
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has_cuda):
        offered = "auto, cpu or cuda" if has_cuda else "auto or cpu"
        raise InputError(
            f"--device: expected {offered}, which ONNX Runtime has here, but got {device!r}."
        )
    providers = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about its own choices
    # Threads that spin between operators burn a core each; measured, nothing is gained by it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # its own classes, none of them documented
        what = f"expected an ONNX graph but it cannot be opened ({str(error).splitlines()[0]})."
        raise InputError(Problem(what, str(file))) from None
