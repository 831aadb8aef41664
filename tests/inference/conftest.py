"""A model and its ONNX export, made once."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

if TYPE_CHECKING:
    from atypia.classifiers.ensemble import Ensemble


class Export(NamedTuple):
    """A torch ensemble, its bundle, and the folder it was exported to."""

    ensemble: Ensemble
    bundle: Path
    folder: Path


def small_ensemble(seed: int = 0) -> Ensemble:
    """Two members that see different fields, with all that an ensemble may do; answers differ."""
    import torch
    from torch import nn

    from atypia.classifiers.calibration import Calibration
    from atypia.classifiers.conformal import ConformalSets
    from atypia.classifiers.decision import Decision
    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.core.config import InputSpec, ModelConfig
    from atypia.models.network import Network

    torch.manual_seed(seed)

    def member() -> Network:
        backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, 2, 1, groups=16),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        network = Network(backbone, 16, dropout=0.5)
        nn.init.normal_(network.head.weight, std=3.0)
        network.train()
        network(torch.randn(8, 3, 32, 32))  # statistics of the normalisation
        return network.eval()

    specs = [
        InputSpec(field_of_view_um=18, size_px=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.3)),
        InputSpec(field_of_view_um=12, size_px=40, mean=(0.4, 0.3, 0.2), std=(0.3, 0.3, 0.3)),
    ]
    return Ensemble(
        members=[member(), member()],
        spec=specs[0],
        model=ModelConfig(backbone="made by hand"),
        tta=True,
        postprocessing=Postprocessing(
            decision=Decision(prior=[0.05, 0.05, 0.1, 0.1, 0.1, 0.2, 0.3, 0.1], power=0.5),
            threshold=0.37,
            calibration=Calibration(1.7),
            conformal=ConformalSets(0.1, tuple(np.linspace(0.7, 0.95, 8)), (30,) * 8),
        ),
        provenance={"seed": seed},
        specs=specs,
    )


def export_quickly(export: Any, *args: Any, **options: Any) -> SimpleNamespace:
    """Use torch's older exporter: the one in use, in a slow test, is slow to import."""
    import onnx
    import torch

    names = {name: {0: "batch"} for name in options["input_names"] + options["output_names"]}
    written = io.BytesIO()
    with torch.no_grad():
        export(
            *args,
            written,
            input_names=options["input_names"],
            output_names=options["output_names"],
            opset_version=options["opset_version"],
            dynamic_axes=names,
            dynamo=False,
        )
    return SimpleNamespace(model_proto=onnx.load_from_string(written.getvalue()))


@pytest.fixture(scope="session")
def exported(cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """An export with both number formats, checked on the synthetic cohort."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    import torch

    from atypia import pipeline
    from atypia.classifiers.ensemble import Ensemble

    ensemble = small_ensemble()
    folder = tmp_path_factory.mktemp("exports")
    ensemble.save(folder / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        # No name of a network would build these members again.
        patch.setattr(Ensemble, "load", lambda *_: ensemble)
        export = torch.onnx.export
        patch.setattr(torch.onnx, "export", lambda *a, **k: export_quickly(export, *a, **k))
        pipeline.export(folder / "bundle", folder / "onnx", int8=True, cohort=cohort_folder)
    return Export(ensemble, folder / "bundle", folder / "onnx")
