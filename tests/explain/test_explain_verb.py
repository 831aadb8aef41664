"""``atypia explain``: pictures, numbers, the check, and bad input."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spots import MPP, TARGET, ensemble_of, red_network, spotted
from typer.testing import CliRunner

from atypia import pipeline
from atypia.cli import app
from atypia.core.errors import InputError
from atypia.core.labels import SUBTYPES
from atypia.data.images import write_png
from atypia.explain.explained_patches import _file_stem
from atypia.explain.picture import figure_png

# The package's name for it is the function.
module = importlib.import_module("atypia.pipeline.explain")
HOSTILE = "<script>$\\alpha$\u202e'\"& " + 80 * "x"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb's model is one whose evidence is known."""
    ensemble = ensemble_of([red_network()])
    monkeypatch.setattr(module, "load_ensemble", lambda *_, **__: ensemble)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    patches, _ = spotted(9)
    (tmp_path / "in" / "a").mkdir(parents=True, exist_ok=True)
    for i, patch in enumerate(patches):
        write_png(tmp_path / "in" / "a" / f"{i}.png", patch)
    return tmp_path / "in"


def explained(out: Path) -> dict:
    return json.loads((out / "explanations.json").read_text("utf-8"))


@pytest.mark.usefixtures("model")
def test_each_figure_has_a_picture_and_its_numbers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    n, sanity, skipped = pipeline.explain([folder], out, mpp=MPP, checked=8)
    assert (n, skipped) == (9, [])
    told = explained(out)
    assert told["method"] == "gradcam"
    assert told["field_of_view_um"] == 16
    assert [f["patch_id"] for f in told["figures"]] == [f"a/{i}" for i in range(9)]
    _, corners = spotted(9)
    for figure, corner in zip(told["figures"], corners, strict=True):
        assert figure["explained"] == figure["predicted_subtype"] == SUBTYPES[TARGET]
        assert figure["probability"] == figure["probabilities"][SUBTYPES[TARGET]] > 0.4
        assert np.shape(figure["cells"]) == (16, 16)
        # From the centre of the patch to that of the square, in µm, right and down.
        expected = ((corner + 2.5) - 15.5)[::-1] * MPP
        np.testing.assert_allclose(figure["strongest_um"], expected, atol=2)
        with Image.open(out / figure["file"]) as png:
            assert png.format == "PNG"
            assert png.width > 2 * png.height
    assert sanity is not None
    assert sanity.n == 5  # every second of nine
    checked = json.loads((out / "sanity.json").read_text("utf-8"))
    assert checked["figures"] == [f"a/{i}" for i in range(0, 9, 2)]
    assert checked["judged"] is False
    assert (out / "sanity.png").is_file()


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [("atypical", "atypical"), ("NMF ring shape", "nmf_ring"), ("nmf_metaphase", "nmf_metaphase")],
)
def test_what_is_explained_can_be_chosen(
    folder: Path, tmp_path: Path, asked: str, expected: str
) -> None:
    pipeline.explain([folder / "a" / "0.png"], tmp_path, mpp=MPP, subtype=asked, checked=0)
    (figure,) = explained(tmp_path)["figures"]
    assert figure["explained"] == expected
    probabilities = figure["probabilities"]
    if asked == "atypical":
        total = sum(probabilities[s] for s in SUBTYPES[:4])
        assert figure["probability"] == pytest.approx(total, abs=1e-5)
    else:
        assert figure["probability"] == probabilities[expected]
    assert not (tmp_path / "sanity.json").exists()


@pytest.mark.usefixtures("model")
def test_stacks_and_patches_of_other_sizes_keep_their_order(tmp_path: Path) -> None:
    patches, _ = spotted(3)
    pages = [Image.fromarray(patch) for patch in patches]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "b.tif", save_all=True, append_images=pages[1:])
    wide = np.pad(patches[0], ((8, 8), (8, 8), (0, 0)), mode="reflect")
    write_png(tmp_path / "in" / "a.png", wide)
    write_png(tmp_path / "in" / "c.png", wide)
    n, sanity, _ = pipeline.explain([tmp_path / "in"], tmp_path / "out", mpp=MPP, checked=9)
    assert n == 5
    figures = explained(tmp_path / "out")["figures"]
    assert [f["patch_id"] for f in figures] == ["a", "b/0", "b/1", "b/2", "c"]
    assert [f["file"][:5] for f in figures] == [f"000{i}-" for i in range(1, 6)]
    assert sanity is not None
    assert sanity.n == 2  # those of the first one's size


@pytest.mark.usefixtures("model")
def test_bad_files_are_all_told_or_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "a" / "broken.png").write_bytes(b"no image")
    write_png(folder / "a" / "tiny.png", np.zeros((16, 16, 3), np.uint8))
    out = tmp_path / "out"
    with pytest.raises(InputError) as caught:
        pipeline.explain([folder], out, mpp=MPP, checked=0)
    assert len(caught.value.problems) == 2
    assert not out.exists()
    n, _, skipped = pipeline.explain([folder], out, mpp=MPP, checked=0, skip_bad=True)
    assert n == 9
    assert {Path(p.file or "").name for p in skipped} == {"broken.png", "tiny.png"}


def test_all_problems_of_the_options_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        pipeline.explain(
            [tmp_path / "nothing"], tmp_path / "out", tmp_path / "model", method="x", subtype="y"
        )
    told = " ".join(map(str, caught.value.problems))
    for word in ("--method", "--subtype", "nothing", "model"):
        assert word in told
    assert len(caught.value.problems) == 4


def test_rules_have_no_gradients(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["explain", str(folder), "--mpp", "0.5", "--out", str(tmp_path), "--model", "rules"]
    )
    assert isinstance(result.exception, InputError)
    assert "atypia predict" in str(result.exception)


@pytest.mark.usefixtures("model")
def test_the_command_tells_what_the_check_found(folder: Path, tmp_path: Path) -> None:
    call = ["explain", str(folder), "--mpp", "0.5", "--out", str(tmp_path / "o"), "--check", "9"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "9 figures" in result.output
    assert "deletion (low is good)" in result.output
    assert "Check on 9 figures" in result.output


def test_hostile_names_are_safe_in_files_and_pictures() -> None:
    assert _file_stem(HOSTILE).isascii()
    assert len(_file_stem(HOSTILE)) <= 80
    assert _file_stem("../../etc") == "etc"
    assert _file_stem("…") == "figure"
    png = figure_png(
        np.zeros((20, 30, 3), np.uint8),
        np.zeros((20, 30)),
        0.5,
        field_um=30,
        title=HOSTILE,
        subtitle="x",
        probabilities=np.full(8, 0.125),
    )
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
