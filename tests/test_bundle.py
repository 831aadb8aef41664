"""Where bundles are found, their cards, and what is found of damage."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atypia.biomarker import model_errors
from atypia.classifiers import bundle
from atypia.classifiers.decision import Decision
from atypia.classifiers.installation import examine_model
from atypia.core.config import InputSpec, ModelConfig
from atypia.core.errors import InputError
from atypia.core.files import read_json, sha256_file, stamped, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose weights nobody will load."""
    members = []
    for i in range(2):
        file = tmp_path / f"member-{i}.safetensors"
        file.write_bytes(bytes([i]) * 10)
        members.append(bundle.MemberFile(file=file.name, sha256=sha256_file(file)))
    header = bundle.BundleHeader(
        created_with="atypia",
        input=InputSpec(field_of_view_um=18, size_px=96, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        network=ModelConfig(backbone="tf_efficientnet_lite0"),
        members=members,
        tta=True,
        calibration={"kind": "temperature", "temperature": 1.25},
        conformal={"kind": "lac", "alpha": 0.1},
        decision=Decision(prior=[1 / 8] * 8, power=0),
        thresholds=bundle.Thresholds(atypical=0.3),
        provenance={"cohort": "ami-br", "free": [{"anything": None}]},
    )
    bundle.write_header(tmp_path, header)
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    header = bundle.read_header(folder)
    assert header.provenance == {"cohort": "ami-br", "free": [{"anything": None}]}
    assert header.members[0].input is None
    assert bundle.read_card(folder) is None
    bundle.write_card(folder, "# Card\n\nµm")
    assert bundle.read_card(folder) == "# Card\n\nµm"
    assert bundle.read_header(folder) == header.model_copy(update={"card": "model-card.md"})
    (folder / "model-card.md").unlink()
    with pytest.raises(InputError, match="card"):
        bundle.read_card(folder)


def test_a_path_out_of_the_bundle_is_refused(folder: Path) -> None:
    tree = read_json(folder / "model.json")
    tree["members"][1]["file"] = "../member-1.safetensors"
    write_json(folder / "model.json", stamped(tree))
    with pytest.raises(InputError, match=r"members\.1\.file"):
        bundle.read_header(folder)


def test_a_header_that_was_changed_is_refused(folder: Path) -> None:
    file = folder / "model.json"
    tree = read_json(file)
    write_json(file, tree, compact=True)  # only the layout
    assert bundle.read_header(folder).thresholds.atypical == 0.3
    other = {**tree, "thresholds": {"atypical": 0.4}}
    write_json(file, other)
    for read in (bundle.read_header, bundle.read_any_header, bundle.read_card, model_errors):
        with pytest.raises(InputError, match=r"model\.json.*changed or damaged.*content_sha256"):
            read(folder)
    del other["content_sha256"]  # on purpose, or written before there were stamps
    write_json(file, other)
    assert bundle.read_header(folder).thresholds.atypical == 0.4
    bundle.write_card(folder, "# Card")
    assert read_json(file)["content_sha256"] not in ("", tree["content_sha256"])


def test_no_flipped_bit_of_a_header_changes_it(folder: Path) -> None:
    file = folder / "model.json"
    whole, expected = file.read_bytes(), bundle.read_header(folder)
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(whole), 200, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(data)
        with suppress(InputError):
            assert bundle.read_header(folder) == expected


def test_a_header_without_end_is_refused_unread(folder: Path) -> None:
    with (folder / "model.json").open("ab") as stream:
        stream.write(b" " * (32 << 20))
    with pytest.raises(InputError, match=r"model\.json: expected at most 32 MB but got 32 MB"):
        bundle.read_header(folder)


@pytest.mark.parametrize(
    ("entry", "value", "what"),
    [
        ("thresholds", {"atypical": float("nan")}, "NaN is no finite number"),
        ("thresholds", {"atypical": float("-inf")}, "-Infinity is no finite number"),
        ("members", 5000, "at most 200 items"),
        ("members", 2, "each file once"),
        ("input", {"size_px": 10**9}, r"input\.size_px"),
        ("provenance", 10**30, "too many digits"),
    ],
)
def test_a_header_of_no_model_is_refused(folder: Path, entry: str, value: Any, what: str) -> None:
    tree = read_json(folder / "model.json")
    del tree["content_sha256"]
    if entry == "members":
        value = [tree["members"][0]] * value
    (folder / "model.json").write_text(json.dumps(tree | {entry: value}))
    with pytest.raises(InputError, match=what):
        bundle.read_header(folder)


def test_a_bundle_or_a_run_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("run")
    (run / "model").symlink_to(folder)
    assert bundle.find_bundle(folder) == folder
    assert bundle.find_bundle(str(run)) == run / "model"
    with pytest.raises(InputError, match="released"):
        bundle.find_bundle(folder / "nothing")


def test_the_model_in_the_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    package = tmp_path_factory.mktemp("atypia")
    monkeypatch.setattr("atypia.classifiers.bundle.resources.files", lambda _: package)
    with pytest.raises(InputError, match="no model in it"):
        bundle.find_bundle()
    (package / "released").symlink_to(folder)
    assert bundle.find_bundle() == package / "released"
    assert bundle.find_bundle("released") == package / "released"


def test_the_shipped_model_is_sound() -> None:
    try:
        folder = bundle.find_bundle()
    except InputError:
        pytest.skip("this checkout has no model in it")
    header = bundle.read_header(folder)
    files = [file for quality in header.qualities.values() for file in quality.files]
    assert bundle.damaged_files(folder, files) == []
    assert bundle.read_card(folder)


def test_doctor_tells_what_a_model_is(folder: Path) -> None:
    found = dict(examine_model(folder).findings)
    assert found["cohort"] == "ami-br"
    assert found["quality best"] == (
        "2 x tf_efficientnet_lite0 on 18 µm (96 px), mean over 8 views, temperature 1.25, "
        "atypical from 0.3 on, sets made to miss 10%"
    )


def test_doctor_lists_every_damaged_file(folder: Path) -> None:
    (folder / "member-0.safetensors").write_bytes(b"other")
    (folder / "member-1.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        examine_model(folder)
    assert [("differs" in p.what, "missing" in p.what) for p in caught.value.problems] == [
        (True, False),
        (False, True),
    ]


def test_a_header_needs_no_torch() -> None:
    code = (
        "import sys, atypia.classifiers.bundle\nassert not {'torch', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
