"""Patches, cohorts, tables, damage and the Python interface, as they come from other people."""
# ruff: noqa: E501

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import tifffile
from field_bench import (
    FAST,
    FOLDERS,
    LISTED,
    Bench,
    Fault,
    case,
    equal,
    patch,
    png,
    predictions,
    refused,
    run,
    tiff,
)  # fmt: skip
from PIL import Image

from atypia.core.labels import SUBTYPES

# --- Folders that tools have been in: files beside six patches -> how many of them count

BESIDE: Final[dict[str, tuple[str, ...]]] = {
    "Windows": ("Thumbs.db", "desktop.ini", "~$c1.png", "$RECYCLE.BIN/c9.png"),
    "macOS": (".DS_Store", "._c1.png", "__MACOSX/._c1.png", "__MACOSX/c9.png"),
    "Synology and QNAP": (
        "@eaDir/c1.png/SYNOPHOTO_THUMB_L.png",
        "#recycle/c9.png",
        ".@__thumb/c1.png",
    ),
    "Jupyter and git": (".ipynb_checkpoints/c1-checkpoint.png", ".git/c9.png"),
    "Linux desktops": (".Trash-1000/files/c9.png", ".thumbnails/c1.png", "lost+found/c9.png"),
}


def beside_case(name: str, files: tuple[str, ...], prepared: bool) -> None:
    @case(f"folder: of {name}, {'prepare' if prepared else 'predict'}", "folders")
    def _(b: Bench) -> str:
        b.patches("p/nmf_ring")
        for i, file in enumerate(files):
            b.file(f"p/nmf_ring/{file}", png(patch(40 + i)) if file.endswith("png") else b"x")
        if prepared:
            return b.prepare(b.folder / "p", 6, *FOLDERS)
        return b.predict(b.folder / "p", 6)


for tool, names in BESIDE.items():
    beside_case(tool, names, prepared=False)
for tool in ("Windows", "Synology and QNAP"):
    beside_case(tool, BESIDE[tool], prepared=True)


@case("folder: links to files and a cycle", "folders")
def _(b: Bench) -> str:
    kept = b.patches("kept")
    inside = b.folder / "p" / "nmf_ring"
    inside.mkdir(parents=True)
    for i in range(6):
        (inside / f"c{i}.png").symlink_to(kept / f"c{i}.png")
    (inside / "again").symlink_to(b.folder / "p")
    b.predict(b.folder / "p", 6)
    return b.prepare(b.folder / "p", 6, *FOLDERS)


@case("folder: a link that leads nowhere", "folders")
def _(b: Bench) -> str:
    (b.patches() / "c9.png").symlink_to("/nowhere/c9.png")
    return b.predict(b.folder / "p", "6?", left=1)


@case("folder: names in Latin-1", "folders")
def _(b: Bench) -> str:
    os.rename(  # noqa: PTH104 (bytes)
        os.fsencode(b.patches("p/nmf_ring") / "c1.png"),
        os.fsencode(b.folder) + b"/p/nmf_ring/M\xfcller.png",
    )
    b.predict(b.folder / "p", "6?")
    return b.prepare(b.folder / "p", "6?", *FOLDERS)


@case("folder: a name that a spreadsheet would run", "spreadsheets")
def _(b: Bench) -> str:
    folder = b.patches(count=2)
    (folder / "c0.png").rename(folder / "=1+2.png")
    (folder / "c1.png").rename(folder / "@SUM(1).png")
    ran = run("predict", folder, "--mpp", 0.25, *FAST, "--out", b.folder / "p.csv")
    if ran.code:
        return refused(ran)
    cells = (b.folder / "p.csv").read_text().splitlines()[1:]
    equal([line for line in cells if line.strip('"')[0] in "=+-@"], [], ran)
    return "right"


# --- Files that are no patch, or hold more than one

PATCH = patch(3)


def stack(*pages: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for i, page in enumerate(pages):
            writer.write(page, photometric="rgb", metadata=None, **(options if i else {}))
    return stream.getvalue()


def animation(kind: str) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(patch(i)) for i in range(3)]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def hole(data: bytes, start: float, length: int = 400) -> bytes:
    at = int(len(data) * start)
    return data[:at] + bytes(min(length, len(data) - at - 64)) + data[at + length :]


def cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PATCH).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


def oriented(pixels: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return png(pixels, "JPEG", quality=97, exif=exif)


PATCHES: Final[dict[str, tuple[str, Any, int | str]]] = {
    "stack with a preview": ("x.tif", stack(PATCH, PATCH[::2, ::2], subfiletype=1), "1?"),
    "animated GIF": ("x.gif", animation("GIF"), "1?"),
    "animated WebP": ("x.webp", animation("WEBP"), "1?"),
    "animated PNG": ("x.png", animation("PNG"), "1?"),
    "icon": ("x.ico", png(PATCH, "ICO"), "-"),
    "16-bit PNG": ("x.png", png(PATCH[..., 0].astype(np.uint16) * 257), "-"),
    "grey PNG": ("x.png", png(PATCH[..., 0]), "-"),
    "transparent PNG": ("x.png", png(np.dstack([PATCH, PATCH[..., :1]])), "-"),
    "CMYK JPEG": ("x.jpg", cmyk(), "-"),
    "progressive JPEG": ("x.jpg", png(PATCH, "JPEG", progressive=True), 1),
    "turned by EXIF": ("x.jpg", oriented(PATCH), 1),
    "JPEG with a hole": ("x.jpg", hole(png(PATCH, "JPEG", quality=97), 0.5), "-"),
    "JPEG cut, end mark back": ("x.jpg", png(PATCH, "JPEG", quality=97)[:4000] + b"\xff\xd9", "-"),
    "progressive JPEG, cut": ("x.jpg", png(PATCH, "JPEG", quality=97, progressive=True)[:4000] + b"\xff\xd9", "-"),
    "PNG with a hole": ("x.png", hole(png(PATCH), 0.5), "-"),
    "PNG cut": ("x.png", png(PATCH)[:9000], "-"),
    "WebP cut": ("x.webp", png(PATCH, "WEBP", lossless=True)[:9000], "-"),
    "TIFF with a hole": ("x.tif", hole(png(PATCH, "TIFF", compression="tiff_lzw"), 0.5), "-"),
    "JPEG with a phone's trailer": ("x.jpg", png(PATCH, "JPEG", quality=97) + b"SEFH" + bytes(200), "1?"),
    "PDF named png": ("x.png", b"%PDF-1.7\n" + bytes(300), "-"),
    "no bytes": ("x.png", b"", "-"),
}  # fmt: skip


def patch_case(name: str, file: str, content: bytes, right: int | str) -> None:
    @case(f"patch: {name}", "images")
    def _(b: Bench) -> str:
        b.predict(b.file(file, content), right)
        b.file(f"c/nmf_ring/{file}", content)
        return b.prepare(b.folder / "c", right, *FOLDERS)


for one, values in PATCHES.items():
    patch_case(one, *values)


@case("patch: a whole slide given to predict", "images")
def _(b: Bench) -> str:
    ran = run("predict", b.shared.whole, "--mpp", 0.25, *FAST, "--out", b.folder / "p.csv")
    outcome = refused(ran, b.folder / "p.csv")
    if "atypia slide" not in " ".join(ran.text.split()):
        raise Fault("WRONG", f"the command that is meant is not named: {ran.last}")
    return outcome


# --- Patients, labels, votes

RING = "nmf_ring"
AMF = "amf_other"
LISTS: Final[dict[str, Any]] = {
    "blanks around": ([("P1", RING), (" P1", RING), ("P1 ", AMF), ("P2", AMF)], "4?", 2),
    "no-break blanks": (
        [("P1", RING), ("P1\u00a0", RING), ("P1\u200b", AMF), ("P2", AMF)],
        "4?",
        2,
    ),
    "two cases of a letter": ([("p1", RING), ("P1", RING), ("P2", AMF)], "3?", 2),
    "é of macOS and of others": ([("Ren\u00e9", RING), ("Rene\u0301", RING), ("P2", AMF)], "3?", 2),
    "1.0 of pandas": ([("1.0", RING), ("1", RING), ("2", AMF)], "3?", 2),
    "with and without extension": ([("007.tiff", RING), ("007", RING), ("008", AMF)], "3?", 2),
    "zeros before": ([("007", RING), ("7", RING), ("1e5", AMF), ("NA", AMF)], "4?", 4),
    "NA, None and nan": ([("NA", RING), ("None", RING), ("nan", AMF), ("null", AMF)], "4?", 4),
    "one patient is empty": ([("P1", RING), ("", RING), ("P2", AMF)], "-", None),
    "labels as people write": (
        [("P1", "NMF ring"), ("P2", "AMF Other"), ("P3", "nmf-metaphase")],
        3,
        3,
    ),
    "a label of no class": ([("P1", RING), ("P2", "apoptosis"), ("P3", AMF)], "-", None),
}


def list_case(name: str, rows: Any, right: int | str, patients: int | None) -> None:
    @case(f"list: {name}", "patients and labels")
    def _(b: Bench) -> str:
        return b.listed(rows, right, patients=patients)


for one, values in LISTS.items():
    list_case(one, *values)


def written(name: str, right: int | str, change: Any, patients: int | None = 4) -> None:
    """Add the list of four patches in another spelling of CSV."""

    @case(f"list: {name}", "tables")
    def _(b: Bench) -> str:
        b.patches(count=4)
        text = "path,case,diagnosis\n" + "".join(f"p/c{i}.png,P{i},nmf_ring\n" for i in range(4))
        return b.prepare(b.file("list.csv", change(text)), right, *LISTED, patients=patients)


written("semicolons and sep=", 4, lambda t: "sep=;\n" + t.replace(",", ";"))
written("tabs in UTF-16", "4?", lambda t: t.replace(",", "\t").encode("utf-16"))
written("a byte order mark", 4, lambda t: "\ufeff" + t)
written("Windows paths", "4?", lambda t: t.replace("p/", "p\\"))
written("empty rows and columns", 4, lambda t: t.replace("\n", ",,\n") + ",,,,\n")
written(
    "quoted semicolons",
    4,
    lambda t: t.replace("diagnosis\n", 'diagnosis,"a;b;c;d;e;f"\n').replace("ring\n", "ring,\n"),
)
written("a quote that is not closed", "-", lambda t: t.replace("p/c2", '"p/c2'), None)
written("names given twice", "-", lambda t: t.replace("path,case", "path,path,case"), None)
written("an image that is missing", "-", lambda t: t.replace("c2.png", "c77.png"), None)
written("the same row twice", "4?", lambda t: t + t.splitlines()[-1] + "\n")


@case("list: a FIFO as image", "damage")
def _(b: Bench) -> str:
    os.mkfifo(b.folder / "f.png")
    text = "path,case,diagnosis\nf.png,P1,nmf_ring\n"
    return b.prepare(b.file("list.csv", text), "-", *LISTED)


def same_picture(name: str, right: str, again: bytes, case_id: str, label: str) -> None:
    @case(f"same picture: {name}", "pictures that occur twice")
    def _(b: Bench) -> str:
        b.patches(count=3)
        b.file("p/d.tif" if again[:2] == b"II" else "p/d.png", again)
        name = "d.tif" if again[:2] == b"II" else "d.png"
        rows = f"p/c0.png,P0,nmf_ring\np/c1.png,P1,amf_other\np/{name},{case_id},{label}\n"
        return b.prepare(b.file("list.csv", "path,case,diagnosis\n" + rows), right, *LISTED)


same_picture("of two patients", "-", png(patch(0)), "P2", RING)
same_picture("with two labels", "-", png(patch(0)), "P0", AMF)
same_picture("as a TIFF", "-", png(patch(0), "TIFF"), "P2", RING)


@case("votes: words, and one that contradicts", "votes")
def _(b: Bench) -> str:
    b.patches(count=4)
    rows = [
        "p/c0.png,P0,yes,TRUE,AMF,AMF",
        "p/c1.png,P1,no,FALSE,NMF,AMF",
        "p/c2.png,P2,1,1,AMF,AMF",
    ]
    source = b.file("l.csv", "path,case,a,b,c,m\n" + "\n".join(rows) + "\n")
    votes = [w for r in "abc" for w in ("--vote-column", f"{r}={r}")]
    return b.prepare(source, "-", *LISTED[:2], *LISTED[4:], *votes, "--majority-column", "m")


@case("votes: a cohort of votes is evaluated", "votes")
def _(b: Bench) -> str:
    for i in range(12):
        b.file(f"v/{['normal', 'atypical'][i % 2]}/c{i}.png", png(patch(i)))
    b.prepare(b.folder / "v", 12, *FOLDERS)
    b.predict(b.folder / "cohort", 12)
    out = b.folder / "e"
    for label in ("expert1", "atypical_expert1"):
        ran = run(
            "evaluate", b.folder / "p.csv", "--out", out, "--label", label, "--resamples", 100
        )
        if ran.code == 0 and '"auc"' in (out / "metrics.json").read_text():
            return "right"
    raise Fault("WRONG", ran.last)


@case("merge: raters of one name", "merging")
def _(b: Bench) -> str:
    for i, name in enumerate(("one", "two")):
        for k in range(4):
            b.file(f"{name}/nmf_ring/{name}{k}.png", png(patch(10 * i + k)))
        run("prepare", b.folder / name, "--out", b.folder / f"c{i}", *FOLDERS)
    ran = run("merge", b.folder / "c0", b.folder / "c1", "--out", b.folder / "both")
    if ran.code:
        return refused(ran, b.folder / "both")
    raters = [
        c
        for c in map(str, pd.read_csv(b.folder / "both" / "manifest.csv"))
        if c.startswith("label_")
    ]
    equal(len(raters), 2, ran)
    return "right"


# --- Tables of predictions


def csv(table: pd.DataFrame, **options: Any) -> str:
    return str(table.to_csv(index=options.pop("index", False), **options))


def renamed(ids: Any) -> pd.DataFrame:
    table = predictions()
    return table.assign(patient_id=[ids(i, p) for i, p in enumerate(table["patient_id"])])


def scaled(factor: float, digits: int) -> pd.DataFrame:
    table = predictions()
    numbers = table.columns[2:10]
    return table.assign(**(table[numbers] * factor).round(digits))


def released(form: str) -> str:
    return csv(renamed(lambda _, p: form.format(int(p[1:]) + 1)))


EVALUATED: Final[dict[str, tuple[Any, ...]]] = {
    "plain": (lambda: csv(predictions()), 12),
    "semicolons": (lambda: csv(predictions(), sep=";"), 12),
    "semicolons and commas": (lambda: csv(predictions(), sep=";", decimal=","), "12?"),
    "tabs": (lambda: csv(predictions(), sep="\t"), 12),
    "sep= and semicolons": (lambda: "sep=;\n" + csv(predictions(), sep=";"), "12?"),
    "a byte order mark": (lambda: "\ufeff" + csv(predictions()), 12),
    "row names of R": (lambda: csv(predictions(), index=True), 12),
    "three decimals": (lambda: csv(scaled(1, 3)), 12),
    "per cent": (lambda: csv(scaled(100, 4)), "-"),
    "a third of the rows twice": (lambda: csv(pd.concat([predictions(), predictions()[:30]])), "-"),
    "not a number": (lambda: csv(predictions()).replace("0.0", "nan", 3), "-"),
    "blanks behind patients": (lambda: csv(renamed(lambda i, p: p + " " * (i % 2))), "12?"),
    "patients in two cases": (lambda: csv(renamed(lambda i, p: p.lower() if i % 2 else p)), "12?"),
    "patients with extension": (lambda: csv(renamed(lambda i, p: p + ".tiff" * (i % 2))), "12?"),
    "no-break blanks": (lambda: csv(renamed(lambda i, p: p + "\u00a0" * (i % 2))), "12?"),
    "patients named NA": (lambda: csv(renamed(lambda _, p: "NA" if p == "P03" else p)), 12),
    "learned: lower case": (lambda: released("midog21_{:03d}"), "-", "--trained-on", "released"),
    "learned: a path": (lambda: released("C:\\MIDOG21\\MIDOG21_{:03d}.tiff"), "-", "--trained-on", "released"),
    "learned: a hyphen": (lambda: released("MIDOG21-{:03d}"), "-", "--trained-on", "released"),
    "learned: a tab behind": (lambda: released("MIDOG21_{:03d}\t"), "-", "--trained-on", "released"),
    "learned: full-width, of an IME": (lambda: released("ＭＩＤＯＧ21_{:03d}"), "-", "--trained-on", "released"),
}  # fmt: skip


def evaluated(name: str, made: Any, right: int | str, *arguments: object) -> None:
    @case(f"evaluate: {name}", "tables of predictions")
    def _(b: Bench) -> str:
        return b.evaluate(made(), right, *arguments)


for one, values in EVALUATED.items():
    evaluated(one, *values)

# --- Outputs over inputs: command, where what it reads must be as before


def over(name: str, read: str, *arguments: str) -> None:
    @case(f"over: {name}", "outputs over inputs")
    def _(b: Bench) -> str:
        b.patches("p/nmf_ring")
        b.centres()
        tiff(b.folder / "s.tif", b.small)
        b.file("t.csv", csv(predictions()))
        kept = (b.folder / read).read_bytes()
        ran = run(*(str(b.folder / a[1:]) if a.startswith("@") else a for a in arguments))
        if not (b.folder / read).exists() or (b.folder / read).read_bytes() != kept:
            raise Fault("SILENT", f"{read} was overwritten: {ran.last}")
        return refused(ran)


over(
    "slide onto its candidates",
    "found.csv",
    "slide",
    "@s.tif",
    "--candidates",
    "@found.csv",
    *FAST,
    "--out",
    "@found.csv",
)
over(
    "slide through a link",
    "found.csv",
    "slide",
    "@s.tif",
    "--candidates",
    "@found.csv",
    *FAST,
    "--out",
    "@p/../found.csv",
)
over("evaluate into a file", "t.csv", "evaluate", "@t.csv", "--out", "@t.csv")
over(
    "prepare into its source",
    "p/nmf_ring/c1.png",
    "prepare",
    "@p",
    "--out",
    "@p",
    *map(str, FOLDERS),
)

# --- The biomarker

REGION: Final[dict[str, Any]] = {
    "type": "Polygon",
    "coordinates": [[[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]]],
}


def biomarker(
    name: str, right: float | None, regions: Any = None, change: Any = None, *arguments: str
) -> None:
    """Two figures of a slide; the area of the region in mm², None for a refusal."""

    @case(f"biomarker: {name}", "the biomarker")
    def _(b: Bench) -> str:
        b.answers(b.shared.whole, b.centres([(300, 300), (700, 500)]))
        table = b.folder / "a.csv"
        if change is not None:
            table.write_text(change(table.read_text()))
        options = [a.replace("@", f"{b.folder}/") for a in arguments]
        if regions is not None:
            options += [
                "--regions",
                str(b.file("regions.geojson", {"type": "FeatureCollection", "features": regions})),
            ]
        ran = run("biomarker", table, "--out", b.folder / "bio", *options)
        if ran.code:
            if right is not None and right > 0:
                raise Fault("WRONG", f"refused: {ran.last}")
            return refused(ran)
        if right is None:
            raise Fault("SILENT", ran.last)
        row = pd.read_csv(b.folder / "bio" / "slides.csv").iloc[0]
        got = row["region_area_mm2"] if regions is not None else row["all_area_mm2"]
        if np.isnan(right):
            equal("no region" in ran.text and bool(np.isnan(got)), True, ran)
            return "right"
        equal((round(float(got), 3), int(row["all_figures_n"])), (abs(right), 2), ran)
        return "right"


def region(name: str | None, geometry: Any = REGION, **properties: Any) -> dict[str, Any]:
    kind = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": {**kind, **properties}}


def moved(by: int) -> Any:
    return {"type": "Polygon", "coordinates": [[[x + by, y] for x, y in REGION["coordinates"][0]]]}


biomarker("a region", 0.062, [region("Tumor")])
biomarker("Ignore* beside it", 0.062, [region("Tumor"), region("Ignore*", moved(900))])
biomarker("two that overlap", 0.094, [region("Tumor"), region("Tumor", moved(500))])
biomarker(
    "an open ring",
    0.062,
    [region("Tumor", {"type": "Polygon", "coordinates": [REGION["coordinates"][0][:-1]]})],
)
biomarker(
    "a core of a TMA", -0.062, [region("Tumor"), region(None, moved(900), object_type="tma_core")]
)
biomarker("regions of another slide", float("nan"), [region("Tumor", slide="z.tif")])
biomarker("semicolons of Excel", 54.0, None, lambda t: t.replace(",", ";"), "--area-mm2", "54")
biomarker(
    "TRUE and FALSE of Excel",
    54.0,
    None,
    lambda t: t.replace("True", "TRUE").replace("False", "FALSE"),
    "--area-mm2",
    "54",
)
biomarker("a comma in the area", -54.5, None, None, "--area-mm2", "54,5")
biomarker("one table twice", None, None, None, "@a.csv")

# --- The Python interface: what predict is given -> rows, or None for an InputError


def python(name: str, rows: int | None, given: Any, **options: Any) -> None:
    @case(f"python: {name}", "the Python interface")
    def _(b: Bench) -> str:
        import atypia
        from atypia.core.errors import InputError

        b.patches(count=3)
        model = atypia.load_model("released", quality="fast")
        try:
            table = model.predict(given(b), **{"mpp": 0.25, **options})
        except InputError as error:
            if rows is None or rows < 0:
                return "refused"
            raise Fault("WRONG", f"refused: {error}") from None
        except Exception as error:
            raise Fault("TRACEBACK", f"{type(error).__name__}: {error}"[:200]) from None
        if rows is None:
            raise Fault("SILENT", f"{len(table)} rows")
        equal(len(table), abs(rows))
        return "right"


python("Path.rglob", 3, lambda b: (b.folder / "p").rglob("*.png"))
python("os.scandir", 3, lambda b: os.scandir(b.folder / "p"))
python("an empty glob", None, lambda b: (b.folder / "p").glob("*.tif"))
python("PIL images, a generator", 2, lambda _: (Image.fromarray(patch(i)) for i in range(2)))
python("a grey PIL image", None, lambda _: Image.fromarray(patch(0)).convert("L"))
python("channels first", None, lambda _: np.stack([patch(0)] * 3).transpose(0, 3, 1, 2))
python("floats", None, lambda _: patch(0) / 255)
python("infinite mpp", None, lambda _: patch(0), mpp=float("inf"))
python("negative mpp", None, lambda _: patch(0), mpp=-0.25)
python("mpp as text", -1, lambda _: patch(0), mpp="0.25")
python("half a batch", None, lambda _: patch(0), batch_size=0.5)
python("a dictionary", -1, lambda _: {"a": patch(0)})


@case("python: an ONNX model in another process", "the Python interface")
def _(_: Bench) -> str:
    import atypia

    model = atypia.load_model("released", quality="fast", backend="onnx")
    again = pickle.loads(pickle.dumps(model))
    both = [m.predict(patch(1), mpp=0.25)["p_atypical"][0] for m in (model, again)]
    equal(both[0], both[1])
    return "right"


# --- Damage


def bundle(name: str, change: Any) -> None:
    @case(f"bundle: {name}", "damage")
    def _(b: Bench) -> str:
        import atypia

        source = Path(atypia.__file__).parent / "released"
        shutil.copytree(source, b.folder / "m", ignore=shutil.ignore_patterns("onnx"))
        change(b.folder / "m")
        b.patches(count=1)
        return b.predict(b.folder / "p", "-", "--model", b.folder / "m", "--backend", "torch")


def flip(path: Path, place: float, bit: int = 2) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1 << bit
    path.write_bytes(data)


def described(folder: Path, old: str, new: str) -> None:
    file = folder / "model.json"
    text, number = re.subn(old, new, file.read_text())
    assert number, old
    file.write_text(text)


WEIGHTS: Final = "fast-0.safetensors"
bundle("one bit of the weights", lambda m: flip(m / WEIGHTS, 0.7))
bundle("weights cut", lambda m: os.truncate(m / WEIGHTS, 700_000))
bundle(
    "a header of 2^62 bytes",
    lambda m: (m / WEIGHTS).write_bytes((2**62).to_bytes(8, "little") + b"{}"),
)
bundle("a threshold that is NaN", lambda m: described(m, r'("atypical": )[\d.]+', r"\1NaN"))
bundle(
    "a threshold that is changed", lambda m: described(m, r'("atypical": )0\.\d+', r"\g<1>0.999")
)
bundle("deep JSON", lambda m: (m / "model.json").write_text("[" * 200_000))
bundle("no description", lambda m: (m / "model.json").unlink())


@case("cohort: one bit of a patch", "damage")
def _(b: Bench) -> str:
    b.patches("p/nmf_ring")
    b.prepare(b.folder / "p", 6, *FOLDERS)
    flip(sorted((b.folder / "cohort").rglob("*.png"))[2], 0.8)
    return b.predict(b.folder / "cohort", "-")


@case("job: bits of a Parquet part", "damage")
def _(b: Bench) -> str:
    tiff(b.folder / "s.tif", b.small)
    b.centres()
    jobs = b.file("jobs.csv", "slide,candidates\ns.tif,found.csv\n")
    command = ("slides", jobs, *FAST, "--out", b.folder / "job", "--csv", b.folder / "all.csv")
    equal(run(*command).code, 0)
    plain, rng = (b.folder / "all.csv").read_bytes(), np.random.default_rng(0)
    parts = sorted((b.folder / "job").rglob("*.parquet"))
    for _ in range(5):
        (b.folder / "all.csv").unlink()
        kept = [(p, p.read_bytes()) for p in parts]
        flip(parts[rng.integers(len(parts))], rng.uniform(0.05, 0.95), int(rng.integers(8)))
        ran = run(*command)
        if ran.code == 0 and (b.folder / "all.csv").read_bytes() != plain:
            raise Fault("SILENT", f"a flipped bit changed answers: {ran.last}")
        for path, data in kept:
            path.write_bytes(data)
        (b.folder / "all.csv").write_bytes(plain)
    return "right"


def device(name: str, *arguments: str) -> None:
    @case(f"device: {name}", "damage")
    def _(b: Bench) -> str:
        b.patches()
        b.centres()
        tiff(b.folder / "s.tif", b.small)
        os.mkfifo(b.folder / "fifo")
        clock = time.monotonic()
        outcome = refused(run(*(a.replace("@", f"{b.folder}/") for a in arguments), within=20))
        if time.monotonic() - clock > 5:
            raise Fault("WRONG", "refused after more than 5 s")
        return outcome


device("a FIFO as candidates", "slide", "@s.tif", "--candidates", "@fifo", "--out", "@a.csv")
device("/dev/zero as candidates", "slide", "@s.tif", "--candidates", "/dev/zero", "--out", "@a.csv")
device("a FIFO to evaluate", "evaluate", "@fifo", "--out", "@e")
device("a FIFO as slide", "slide", "@fifo", "--candidates", "@found.csv", "--out", "@a.csv")
device("a folder as slide", "slide", "@p", "--candidates", "@found.csv", "--out", "@a.csv")


def started(b: Bench, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "atypia", *map(str, arguments)]
    return subprocess.Popen(command, cwd=b.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def training(b: Bench) -> tuple[object, ...]:
    b.listed([(f"P{i // 4}", SUBTYPES[i % 8]) for i in range(160)], 160)
    small = ("optim.epochs=40", "optim.head_epochs=0", "model.pretrained=false", "input.size_px=32")
    return ("train", b.folder / "cohort", "--out", b.folder / "run", "--preset", "fast", *small)


def wait_for(path: Path, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.2)


@case("train: a second one in the same folder, then Ctrl-C", "interruption")
def _(b: Bench) -> str:
    command = training(b)
    first = started(b, *command)
    try:
        wait_for(b.folder / "run" / "splits.json")
        assert first.poll() is None, first.communicate()[0].decode()[-300:]
        outcome = refused(run(*command))
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=40)[0].decode()
        if first.returncode != 130 or "topped" not in said:
            raise Fault("SILENT", f"Ctrl-C ends with {first.returncode}: {said[-150:]}")
    finally:
        first.kill()
        first.wait()
    return outcome
