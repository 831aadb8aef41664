"""An exported model answers like the model it comes from, or is not written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atypia import pipeline
from atypia.classifiers.bundle import find_bundle, write_header
from atypia.classifiers.bundle import read_header as read_bundle
from atypia.classifiers.decision import p_atypical
from atypia.classifiers.loading import find_model, load_ensemble
from atypia.classifiers.onnx_classifier import OnnxEnsemble, open_session
from atypia.classifiers.onnx_files import METADATA, read_export
from atypia.core.errors import AtypiaError, InputError, MissingExtraError
from atypia.core.files import sha256_file, stamped
from atypia.core.labels import PROBABILITY_COLUMNS, SUBTYPES
from atypia.inference.patch_predictions import find_items, predict_items

if TYPE_CHECKING:
    from .conftest import Export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def model(exported: Export) -> OnnxEnsemble:
    return OnnxEnsemble.load(exported.folder, device="cpu", threads=1)


@pytest.fixture
def copy(exported: Export, tmp_path: Path) -> Path:
    """A copy of the export that may be damaged."""
    return Path(shutil.copytree(exported.folder, tmp_path / "export"))


def noise(n: int, side: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_the_answers_are_those_of_torch(
    exported: Export, model: OnnxEnsemble, batch_size: int
) -> None:
    patches = noise(15)
    expected = exported.ensemble.predict_proba(patches, 0.25)
    answers = model.predict_proba(patches, 0.25, batch_size)
    assert expected.std() > 0.05
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected, atol=1e-4)


def test_a_model_survives_pickling_and_copying(model: OnnxEnsemble) -> None:
    patches = noise(2)
    expected = model.predict_proba(patches, 0.25)
    for again in (pickle.loads(pickle.dumps(model)), deepcopy(model)):
        assert again.session is not model.session
        np.testing.assert_array_equal(again.predict_proba(patches, 0.25), expected)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_graph_takes_any_number_of_fields(model: OnnxEnsemble, batch: int) -> None:
    """The graph itself; `predict_proba` hands it parts of a batch."""
    sizes = {entry.name: entry.spec.size_px for entry in model.inputs}
    rng = np.random.default_rng(1)
    fields = {n: rng.random((batch, 3, s, s), np.float32) for n, s in sizes.items()}
    (answers,) = model.session.run(None, fields)
    assert answers.shape == (batch, 8)
    last = {n: f[-1:] for n, f in fields.items()}
    np.testing.assert_allclose(model.session.run(None, last)[0], answers[-1:], atol=1e-5)


@pytest.mark.parametrize(("side", "mpp"), [(80, 0.25), (60, 0.25), (40, 0.5), (300, 0.1)])
def test_the_answers_are_those_of_torch_at_every_resolution(
    exported: Export, model: OnnxEnsemble, side: int, mpp: float
) -> None:
    """Magnified, mirrored beyond the edge, smoothed before a coarser sampling."""
    patches = noise(3, side)
    np.testing.assert_allclose(
        model.predict_proba(patches, mpp), exported.ensemble.predict_proba(patches, mpp), atol=1e-4
    )


def test_tables_of_predictions_are_the_same(
    exported: Export, model: OnnxEnsemble, cohort_folder: Path
) -> None:
    items = find_items([cohort_folder], None)[:40]
    expected, _ = predict_items(exported.ensemble, items)
    table, _ = predict_items(model, items)
    columns = [*PROBABILITY_COLUMNS, "p_atypical"]
    np.testing.assert_allclose(
        table[columns].to_numpy(float), expected[columns].to_numpy(float), atol=1e-4
    )
    assert table.drop(columns=columns).equals(expected.drop(columns=columns))
    assert table["conformal_set"].nunique() > 1


def test_patches_that_torch_refuses_are_refused(exported: Export, model: OnnxEnsemble) -> None:
    assert model.field_of_view_um == exported.ensemble.field_of_view_um == 18
    assert model.size_problem(40, 0.25) == exported.ensemble.size_problem(40, 0.25) is not None
    with pytest.raises(InputError, match="field of view"):
        model.predict_proba(noise(1, 40), 0.25)
    with pytest.raises(InputError, match="uint8"):
        model.predict_proba(noise(1).astype(np.float32), 0.25)


def test_an_export_says_nothing_of_the_machine_that_made_it(exported: Export) -> None:
    graphs = list(exported.folder.glob("*.onnx"))
    assert graphs
    assert not any(b"onnx_graph.py" in graph.read_bytes() for graph in graphs)


def test_an_export_says_what_it_is(exported: Export) -> None:
    export = read_export(exported.folder).qualities["best"]
    assert export.source["sha256"] == sha256_file(exported.bundle / "model.json")
    assert export.source["provenance"] == {"seed": 0}
    assert [entry.spec for entry in export.inputs] == list(exported.ensemble.specs or ())
    assert export.check["patches"] == "cohort"
    assert set(export.check["largest_difference_by_batch"]) == {"1", "2", "7", "64"}
    for graph in (export.fp32, export.int8):
        assert graph is not None
        assert graph.sha256 == sha256_file(exported.folder / graph.file)
        own = {p.key: p.value for p in onnx.load(exported.folder / graph.file).metadata_props}
        told = json.loads(own[METADATA])
        assert told == export.model_dump(mode="json", include=set(told), exclude_none=True)
        assert {"inputs", "classes", "thresholds", "decision", "source"} <= set(told)


GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "onnx.md"


@pytest.mark.parametrize("mpp", [0.125, 0.25, 0.5])
@pytest.mark.parametrize("which", ["released", "made"])
def test_the_guide_suffices_for_onnxruntime_alone(
    which: str, mpp: float, exported: Export, tmp_path: Path
) -> None:
    """The example as it stands, in a process of its own that cannot import anything of ours."""
    folder = find_bundle() / "onnx" if which == "released" else exported.folder
    quality = "fast" if which == "released" else "best"
    model = OnnxEnsemble.load(folder, quality, device="cpu")
    ring = Image.open(GUIDE.parents[1] / "images" / "cells" / "ring.png").convert("RGB")
    files, expected = [], []
    # Mirrored, hardly and well beyond the edges, odd and even, not square.
    for height_um, width_um in ((14, 14), (18, 15.5), (20.5, 40), (33, 32)):
        side = (round(width_um / mpp), round(height_um / mpp))
        pixels = np.asarray(ring.resize(side, Image.Resampling.BICUBIC)).copy()
        rows = np.random.default_rng(side[0]).integers(-40, 40, (*pixels.shape[:2], 1))
        pixels = np.clip(pixels + rows, 0, 255).astype(np.uint8)
        files.append(tmp_path / f"{height_um}.png")
        Image.fromarray(pixels).save(files[-1])
        expected.append(model.predict_proba(pixels[None], mpp)[0])
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    script = tmp_path / "classify.py"
    script.write_text(
        "import sys; sys.modules['atypia'] = None  # what the test adds: no import of it\n"
        + example
    )
    command = [sys.executable, script, folder, quality, str(mpp), *files]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    table = np.array(expected)
    assert [file for file, *_ in answers] == list(map(str, files))
    np.testing.assert_allclose([row[-1] for row in answers], table, atol=1e-3)
    subtypes = [SUBTYPES[i] for i in model.postprocessing.subtypes(table)]
    p = p_atypical(table)
    assert [row[1:3] for row in answers] == [
        [s, bool(a)] for s, a in zip(subtypes, p >= model.threshold, strict=True)
    ]
    np.testing.assert_allclose([row[3] for row in answers], p, atol=1e-3)
    assert table.std(axis=0).max() > 0.01  # other patches, other answers


def test_eight_bits_are_eight_bits_and_their_cost_is_measured(
    exported: Export, model: OnnxEnsemble, cohort_folder: Path
) -> None:
    small = OnnxEnsemble.load(exported.folder, int8=True, device="cpu", threads=1)
    graph = onnx.load(exported.folder / "best-int8.onnx").graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    kinds = {i.name: i.data_type for i in graph.initializer}
    weights = [kinds.get(n.input[0]) for n in graph.node if n.op_type == "DequantizeLinear"]
    assert onnx.TensorProto.INT8 in weights
    items = find_items([cohort_folder], None)[:60]
    columns = list(PROBABILITY_COLUMNS)
    expected, answers = (
        predict_items(m, items)[0][columns].to_numpy(float) for m in (model, small)
    )
    assert 0 < np.abs(answers - expected).mean() < 0.05
    cost = read_export(exported.folder).qualities["best"].int8_check
    assert cost is not None
    assert cost["n"] > 100
    assert cost["mean_difference"] < 0.05
    assert abs(cost["int8_minus_fp32"]["mean_auc"]["value"]) < 0.1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("flip a byte", "SHA-256"),
        ("remove the graph", "SHA-256"),
        ("other classes", "classes"),
        ("no header", "no ONNX export"),
        ("bad calibration", "calibration"),
    ],
)
def test_a_damaged_export_is_refused(copy: Path, fault: str, told: str) -> None:
    graph, header = copy / "best.onnx", copy / "onnx.json"
    tree = json.loads(header.read_text())
    if fault == "flip a byte":
        content = bytearray(graph.read_bytes())
        content[-1] ^= 1
        graph.write_bytes(content)
    elif fault == "remove the graph":
        graph.unlink()
    elif fault == "no header":
        header.unlink()
    else:
        if fault == "other classes":
            tree["best"]["classes"].reverse()
        else:
            tree["best"]["calibration"] = {"kind": "magic"}
        header.write_text(json.dumps(stamped(tree)))
    with pytest.raises(InputError, match=told):
        OnnxEnsemble.load(copy)


def test_weights_beside_a_graph_have_no_hash_and_are_refused(copy: Path) -> None:
    graph, header = copy / "best.onnx", copy / "onnx.json"
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="w", size_threshold=0)
    assert (copy / "w").stat().st_size > 100
    tree = json.loads(header.read_text())
    tree["best"]["fp32"]["sha256"] = sha256_file(graph)
    header.write_text(json.dumps(stamped(tree)))
    with pytest.raises(InputError, match=r"best\.onnx.*all weights inside.*no hash"):
        OnnxEnsemble.load(copy)


def test_what_an_export_does_not_offer_is_told(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--quality.*\['best'\].*'fast'"):
        OnnxEnsemble.load(copy, "fast")
    with pytest.raises(InputError, match="--device"):
        OnnxEnsemble.load(copy, device="mps")
    tree = json.loads((copy / "onnx.json").read_text())
    del tree["best"]["int8"]
    (copy / "onnx.json").write_text(json.dumps(stamped(tree)))
    with pytest.raises(InputError, match="--int8"):
        OnnxEnsemble.load(copy, int8=True)
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"no\.onnx"):
        open_session(tmp_path / "no.onnx")


def test_a_backend_is_chosen_by_what_is_there(
    exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model(exported.folder) == exported.folder
    assert find_model(exported.bundle) == exported.bundle
    assert isinstance(load_ensemble(exported.folder), OnnxEnsemble)
    beside = exported.bundle.parent  # its folder `onnx` is the export
    assert isinstance(load_ensemble(beside, backend="onnx-int8"), OnnxEnsemble)
    with pytest.raises(InputError, match="--backend"):
        load_ensemble(exported.folder, backend="tensorflow")
    with pytest.raises(InputError, match="not a model"):
        load_ensemble(exported.folder, backend="torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert isinstance(load_ensemble(beside), OnnxEnsemble)
    with pytest.raises(InputError, match=r"torch.*not installed"):
        load_ensemble(exported.bundle, backend="torch")
    with pytest.raises(InputError, match="atypia export"):
        load_ensemble(exported.bundle)


def test_the_export_of_an_earlier_model_does_not_answer_for_a_bundle(
    exported: Export, tmp_path: Path
) -> None:
    bundle = tmp_path / "model"
    shutil.copytree(exported.bundle, bundle)
    shutil.copytree(exported.folder, bundle / "onnx")
    assert isinstance(OnnxEnsemble.load(bundle), OnnxEnsemble)
    header = bundle / "model.json"
    header.write_text(header.read_text("utf-8").replace('"format": 1', '"format":  1'))
    with pytest.raises(InputError, match=r"export of another model.*atypia export --model"):
        OnnxEnsemble.load(bundle)
    assert isinstance(OnnxEnsemble.load(exported.folder), OnnxEnsemble)


class Copied:
    """Stands in for the exporter, which takes seconds: copies a graph that it wrote."""

    def __init__(self, exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
        from atypia.classifiers.ensemble import Ensemble

        def write(_: object, file: Path, __: str) -> str:
            shutil.copy(exported.folder / "best.onnx", file)
            return sha256_file(file)

        monkeypatch.setattr("atypia.classifiers.onnx_export.write_graph", write)
        monkeypatch.setattr(Ensemble, "load", lambda *_: exported.ensemble)


def test_a_graph_that_answers_otherwise_is_not_written(
    exported: Export, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Copied(exported, monkeypatch)
    other = exported.ensemble.members[0].head.bias
    kept = other.detach().clone()
    other.data[0] += 0.01
    exported.ensemble.to(exported.ensemble.device)  # forget the fused copies
    try:
        with pytest.raises(AtypiaError, match="differ from torch's"):
            pipeline.export(exported.bundle, tmp_path / "export", cohort=cohort_folder)
    finally:
        other.data.copy_(kept)
        exported.ensemble.to(exported.ensemble.device)
    assert not list((tmp_path / "export").iterdir())


def test_a_second_quality_joins_the_first(
    exported: Export, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Copied(exported, monkeypatch)
    written = pipeline.export(exported.bundle, copy, quality="fast")
    assert written.check["patches"] == "synthetic"
    assert set(read_export(copy).qualities) == {"best", "fast"}
    assert {p.name for p in copy.iterdir()} == {
        "best.onnx", "best-int8.onnx", "fast.onnx", "onnx.json"
    }  # fmt: skip
    for quality in ("best", "fast"):
        OnnxEnsemble.load(copy, quality)

    other = tmp_path / "other"
    exported.ensemble.save(other)
    header = read_bundle(other)
    write_header(other, header.model_copy(update={"created_with": "another"}))
    with pytest.raises(InputError, match="another model"):
        pipeline.export(other, copy)


@pytest.mark.slow
def test_the_exporter_itself(tmp_path: Path) -> None:
    """The real one, on the networks that Atypia ships, from the command line."""
    pytest.importorskip("onnxscript")
    import torch

    from atypia.classifiers.calibration import Calibration
    from atypia.classifiers.decision import Decision
    from atypia.classifiers.ensemble import Ensemble
    from atypia.classifiers.postprocessing import Postprocessing
    from atypia.cli import app
    from atypia.core.config import InputConfig, ModelConfig
    from atypia.models.network import make_network

    torch.manual_seed(0)
    config = ModelConfig(backbone="tf_efficientnet_lite0", pretrained=False)
    made = [make_network(config, InputConfig(field_of_view_um=f, size_px=32)) for f in (18, 24)]
    for network, _, _ in made:
        torch.nn.init.normal_(network.head.weight, std=1e3)  # features of random weights are small
    ensemble = Ensemble(
        members=[network.eval() for network, _, _ in made],
        spec=made[0][1],
        model=config,
        tta=True,
        postprocessing=Postprocessing(
            Decision(prior=[1 / 8] * 8, power=0.5), calibration=Calibration(1.3)
        ),
        specs=[spec for _, spec, _ in made],
    )
    ensemble.save(tmp_path / "bundle")
    command = [
        "export",
        "--model",
        str(tmp_path / "bundle"),
        "--out",
        str(tmp_path / "bundle/onnx"),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "2 members, within" in result.output
    exported = load_ensemble(tmp_path / "bundle", backend="onnx", device="cpu")
    patches = noise(9, 100)
    expected = ensemble.predict_proba(patches, 0.25)
    assert expected.std() > 0.01
    np.testing.assert_allclose(exported.predict_proba(patches, 0.25), expected, atol=1e-4)


def test_options_that_do_not_fit_are_refused_before_the_work(
    exported: Export, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--calibration-images"):
        pipeline.export(exported.bundle, tmp_path / "a", int8=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    with pytest.raises(InputError, match="something else"):
        pipeline.export(exported.bundle, tmp_path / "b")
    with pytest.raises(InputError, match="not a model"):
        pipeline.export(tmp_path / "none", tmp_path / "c")


def test_a_missing_extra_is_named(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atypia.classifiers.onnx_export import write_graph
    from atypia.classifiers.onnx_int8 import quantise

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime.quantization.shape_inference", None)
        with pytest.raises(MissingExtraError, match=r"atypia\[onnx\]"):
            quantise(exported.folder / "best.onnx", tmp_path / "x.onnx", [])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match="onnxscript"):
        write_graph(exported.ensemble, tmp_path / "x.onnx", "{}")
    assert not list(tmp_path.iterdir())
