"""Ten thousand damaged headers and weights each: an error for people, or the same answers.

``pytest -m slow tests/inference/test_fuzz_models.py --hypothesis-show-statistics`` prints how many
were refused.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from untrained import untrained_ensemble

from atypia.biomarker import model_errors
from atypia.classifiers.bundle import read_any_header, read_card
from atypia.classifiers.installation import examine_model
from atypia.classifiers.loading import load_ensemble
from atypia.classifiers.onnx_classifier import OnnxEnsemble
from atypia.core.errors import AtypiaError, InputError

if TYPE_CHECKING:
    from .conftest import Export

pytestmark = pytest.mark.slow

EXAMPLES = 10_000
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=20_000,  # ms: none hangs
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
PATCHES = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)

numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**18, 10**40]),
    st.floats(allow_nan=True, allow_infinity=True),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all entries."""
    entries = {}
    if isinstance(tree, dict | list):
        entries = tree if isinstance(tree, dict) else dict(enumerate(tree))
    found = []
    for key, value in entries.items():
        found += [(*path, key), *places(value, (*path, key))]
    return found


def other_trees(tree: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Text of the tree with some entries replaced, removed, renamed or repeated."""
    where = places(tree)

    @st.composite
    def edited(draw: st.DrawFn) -> bytes:
        made = copy.deepcopy(tree)
        for _ in range(draw(st.integers(1, 3))):
            *parents, last = draw(st.sampled_from(where))
            node = made
            try:
                for key in parents:
                    node = node[key]
                what = draw(st.sampled_from(["replace", "replace", "remove", "rename", "repeat"]))
                if what == "replace":
                    node[last] = draw(values)
                elif what == "remove":
                    del node[last]
                elif what == "rename":
                    node[draw(st.text(max_size=5))] = node.pop(last)
                else:
                    node[last] = [node[last]] * draw(st.sampled_from([2, 9, 60]))
            except (AttributeError, KeyError, IndexError, TypeError):
                continue  # an earlier edit took it away
        text = json.dumps(made).encode()
        if draw(st.integers(0, 19)) == 0:  # levels without end, digits without end
            deep = draw(st.sampled_from([b"[" * 5000, b"[" * 300 + b"]" * 300, b"9" * 5000]))
            text = text.replace(b"true", deep, 1)
        return text

    return edited()


def other_bytes(whole: bytes, first: int | None = None) -> st.SearchStrategy[bytes]:
    """The bytes with flipped bits, a part cut out, put in, or repeated; mostly the `first` ones."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        data = bytearray(whole)
        for _ in range(draw(st.integers(1, 3))):
            near = draw(st.booleans()) and first is not None
            at = draw(st.integers(0, max(0, (first if near and first else len(data)) - 1)))
            what = draw(st.sampled_from(["flip", "flip", "cut", "put", "end", "repeat"]))
            if what == "flip" and at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            elif what == "cut":
                del data[at : at + draw(st.integers(1, 40))]
            elif what == "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            elif what == "repeat":
                data[at:at] = data[at : at + 30]
            elif what == "end":
                del data[at:]
        return bytes(data)

    return damaged()


class Saved(NamedTuple):
    """A small model on disk, and its answers."""

    folder: Path
    header: dict[str, Any]
    answers: np.ndarray
    model: Any
    spec: Any


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("model")
    ensemble = untrained_ensemble()
    ensemble.save(folder)
    header = json.loads((folder / "model.json").read_text("utf-8"))
    answers = ensemble.predict_proba(PATCHES, 0.25)
    return Saved(folder, header, answers, ensemble.model, ensemble.spec)


def sane(answers: np.ndarray) -> bool:
    """Whether these are probabilities, as each model that loads must give them."""
    return bool((answers >= 0).all() and np.allclose(answers.sum(axis=1), 1, atol=1e-3))


def tried(*doors: Callable[[], object]) -> list[object]:
    """Try each door; what it gives, or nothing where it refuses for a reason that it prints."""
    given, messages = [], []
    for door in doors:
        try:
            given.append(door())
        except AtypiaError as error:
            messages.append(str(error))
    assert all(message.encode() for message in messages)  # can be printed
    event("opened" if given else "refused")
    return given


def check_header(saved: Saved, text: bytes, *, stamped: bool) -> None:
    (saved.folder / "model.json").write_bytes(text)
    folder = saved.folder
    tried(
        lambda: read_any_header(folder),
        lambda: read_card(folder),
        lambda: examine_model(folder),
        lambda: model_errors(folder),
    )
    for model in tried(lambda: load_ensemble(folder, device="cpu")):
        for answers in tried(lambda m=model: m.predict_proba(PATCHES, 0.25)):
            assert sane(answers)
            if stamped:
                np.testing.assert_allclose(answers, saved.answers, atol=1e-5)


@fuzzed
@given(data=st.data())
def test_model_json_with_other_entries(saved: Saved, data: st.DataObject) -> None:
    """Half of them stamped: those give the same answers or none."""
    stamped = data.draw(st.booleans())
    tree = {k: v for k, v in saved.header.items() if stamped or k != "content_sha256"}
    text = data.draw(other_trees(tree))
    kept = b'"content_sha256"' in text
    check_header(saved, text, stamped=kept)


@fuzzed
@given(data=st.data())
def test_model_json_with_other_bytes(saved: Saved, data: st.DataObject) -> None:
    text = data.draw(other_bytes(json.dumps(saved.header, indent=2).encode()))
    check_header(saved, text, stamped=b'"content_sha256"' in text)


@fuzzed
@given(data=st.data())
def test_onnx_json(exported: Export, tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-export"
    if not folder.exists():
        shutil.copytree(exported.folder, folder)
    header = json.loads((exported.folder / "onnx.json").read_text("utf-8"))
    stamped = data.draw(st.booleans())
    if not stamped:
        del header["content_sha256"]
    whole = json.dumps(header).encode()
    text = data.draw(st.one_of(other_trees(header), other_bytes(whole)))
    (folder / "onnx.json").write_bytes(text)
    for model in tried(lambda: OnnxEnsemble.load(folder, device="cpu", threads=1)):
        for answers in tried(lambda m=model: m.predict_proba(PATCHES, 0.25)):
            assert sane(answers)
            if b'"content_sha256"' in text:
                expected = exported.ensemble.predict_proba(PATCHES, 0.25)
                np.testing.assert_allclose(answers, expected, atol=1e-4)


@fuzzed
@given(data=st.data())
def test_safetensors(saved: Saved, data: st.DataObject) -> None:
    """Damaged after the digest was taken: refused. Made so, with a digest: refused, or numbers."""
    from atypia.classifiers.ensemble import Ensemble, load_network

    file, header = saved.folder / "member-0.safetensors", saved.folder / "model.json"
    whole = file.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    other = data.draw(other_bytes(whole, head))
    header.write_text(json.dumps(saved.header))
    try:
        file.write_bytes(other)
        if other != whole:
            with pytest.raises(InputError):
                Ensemble.load(saved.folder)
        for network in tried(lambda: load_network(saved.model, saved.spec, file)):
            assert all(p.isfinite().all() for p in network.parameters())
    finally:
        file.write_bytes(whole)
