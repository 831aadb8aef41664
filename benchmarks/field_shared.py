"""The inputs of a folder of faults, with the right values of its READMEs."""
# ruff: noqa: E501

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pandas as pd
from field_bench import FAST, FOLDERS, Bench, Fault, case, equal, refused, run

# folder | slide (empty: small_HE.svs) | candidates | options | right: centres, p: and probabilities,
# "n:" and a number of figures; "-" for a refusal, "?" where one will do | area in mm²
PLACES: Final = """
01-qupath02-ids | | found.geojson | | 400,500 600,500 800,500 1000,500 |
02-qupath03-object_type | | found.geojson | | 500,500 |
03-self-crossing | | one.geojson | | 1020,1020 |
03-self-crossing | | found.geojson | | 300,300 1020,1020 520,520 |
04-multipolygon-per-class | | found-and-points.geojson | | n:8 |
04-multipolygon-per-class | | found.geojson | | n:5 |
06-classes | | found.geojson | | 400,800 500,800 |
06-classes | | found.geojson | --all-classes | n:5 |
07-ignore-region | | found.geojson | | n:3 | 0.249
08-rings | | found.geojson | --skip-bad | n:7-8 |
10-coco-string-image_id | | found.json | | 500,500 900,700 ? |
12-coco-plural-category | | found.json | | 500,500 900,700 |
12-coco-plural-category | | mitosis.json | | 500,500 900,700 |
13-coco-windows-path | | found.json | | 500,500 900,700 |
14-coco-size | | null.json | | 500,500 900,700 |
14-coco-size | | text.json | | 500,500 900,700 |
14-coco-size | | zero.json | | 500,500 900,700 |
16-coco-ids-repeat | | found.json | | 500,500 900,700 |
18-csv-Image-column | | found.csv | | 500,500 900,700 |
18-csv-Image-column | | image_id.csv | | 500,500 |
18-csv-Image-column | | file_name.csv | | 500,500 |
18-csv-Image-column | | filename.csv | | 500,500 |
18-csv-Image-column | | slide_id.csv | | 500,500 |
19-qupath-table | | measurements.tsv | | 500,500 |
19-qupath-table | | measurements.txt | | 500,500 |
19-qupath-table | | px.csv | | 500,500 |
20-csv-decimal-comma | | found.csv | | 500.5,500.5 |
20-csv-decimal-comma | | sep.csv | | 500,500 |
20-csv-decimal-comma | | trailing.csv | | 500,500 |
20-csv-decimal-comma | | blank-rows.csv | | 500,500 |
20-csv-decimal-comma | | thousands.csv | | - |
21-csv-tcga-names | TCGA-XX-0001-01Z-00-DX1.AAAA-BBBB.svs | found.csv | | n:1 |
21-csv-tcga-names | TCGA-XX-0001-01Z-00-DX1.AAAA-BBBB.svs | short.csv | | 500,500 ? |
22-other-formats | | imagescope.xml | | - |
22-other-formats | | asap.xml | | - |
22-other-formats | | hovernet.json | | - |
22-other-formats | | found.zip | | 500,500 ? |
22-other-formats | | found.geojson.gz | | n:1-9 |
22-other-formats | | cp1252.geojson | | 500,500 ? |
22-other-formats | | nan.geojson | | 500,500 ? |
22-other-formats | | tma.geojson | | 500,500 |
22-other-formats | | type-alias.geojson | | 500,500 |
22-other-formats | | children.geojson | | n:1-9 ? |
22-other-formats | | childObjects.geojson | | n:1-9 ? |
22-other-formats | | geometries.geojson | | n:1-4 ? |
22-other-formats | | planes.geojson | | n:1-3 ? |
23-tiled-16bit | tile_deflate.tif | found.csv | | p:0.109,0.586 |
23-tiled-16bit | tile16_12.tif | found.csv | | p:0.109,0.586 ? |
24-tiled-gray-mask | tile_mask.tif | found.csv | | - |
24-tiled-gray-mask | tile_gray.tif | found.csv | | - |
25-lab-ycbcr | strip_ycc.tif | found.csv | | p:0.109,0.586 ? |
25-lab-ycbcr | strip_none.tif | found.csv | | p:0.109,0.586 |
27-codecs | tile_jp2k.tif | found.csv | | p:0.109,0.586 |
27-codecs | tile_webp.tif | found.csv | | p:0.109,0.586 |
27-codecs | tile_jxl.tif | found.csv | | p:0.109,0.586 |
28-anisotropic | aniso_t.tif | found.csv | --mpp 0.25 | p:0.109,0.586 |
29-first-page-small | macro.ome.tif | found.csv | --mpp 0.25 | p:0.109,0.586 ? |
32-dicom | aniso/a.dcm | found.csv | --mpp 0.25 | p:0.109,0.586 |
38-csv-boxes | | found.csv | --units px | 500,500 900,700 ? |
42-copied-in-qupath | | found.geojson | | 500,500 900,700 800,500 |
44-region-unclosed | | found.geojson | | 500,500 | 0.249
44-region-unclosed | | table.csv | | n:1-9 ? |
44-region-unclosed | | hole.geojson | | 500,500 | 0.247
44-region-unclosed | | triangle.geojson | | 500,500 | 0.1245
44-region-unclosed | | z.geojson | | 500,500 | 0.249
44-region-unclosed | | bare.geojson | --skip-bad | n:1-2 |
44-region-unclosed | | um.geojson | --units um | 501,501 | 0.25
45-region-odd | | znull.geojson | | 500,500 | 0.249
45-region-odd | | fig-znull.geojson | | n:1 |
45-region-odd | | hole.geojson | | 500,500 | 0.239
45-region-odd | | ellipse.geojson | | 500,500 | 0.0937
45-region-odd | | strings.geojson | --skip-bad | 500,500 |
45-region-odd | | line-region.geojson | --skip-bad | 500,500 |
46-grand-challenge-points | | mitotic-figures.json | | 500,500 |
"""


def add_cases(root: Path) -> None:
    """Register the cases of the folder, read where it lies or, for what writes there, in a copy."""
    for line in PLACES.strip().splitlines():
        _place_case(root, *(part.strip() for part in line.split("|")))
    cohorts = root / "cohorts"
    for name, regions, area in (("tumor", "tumor.geojson", 0.249), ("ignore", "ignore.geojson", 0.249), ("tiles", "object_type.geojson", 0.249), ("core", "children_tma.geojson", None), ("collection", "gc.geojson", 0.249)):  # fmt: skip
        _biomarker_case(root / "slides" / "33-biomarker", name, regions, area)
    for name, action in COHORTS.items():
        _cohort_case(cohorts, name, action)


def _place_case(
    root: Path, folder: str, slide: str, found: str, options: str, right: str, area: str = ""
) -> None:
    @case(f"shared: {folder}/{found} {slide} {options}".strip(), "shared slides")
    def _(b: Bench) -> str:
        here = root / "slides" / folder
        image = here / slide if slide else root.parent / "slides" / "small_HE.svs"
        if slide and image.stat().st_size < 1000:  # a link that was copied as its text
            image = b.folder / slide
            image.symlink_to(root.parent / "slides" / "small_HE.svs")
        ran, table = b.answers(image, here / found, *options.split())
        wanted = right.split()
        if table is None:
            if "?" not in wanted and wanted != ["-"]:
                raise Fault("WRONG", f"refused: {ran.last}")
            return "refused"
        if wanted == ["-"]:
            raise Fault("SILENT", f"answered {len(table)}: {ran.last}")
        wanted = [w for w in wanted if w != "?"]
        if wanted[0].startswith("n:"):
            least, _, most = wanted[0][2:].partition("-")
            if not int(least) <= len(table) <= int(most or least):
                equal(len(table), wanted[0][2:], ran)
        elif wanted[0].startswith("p:"):
            got = [float(p) for p in table["p_atypical"]]
            near = [abs(g - float(w)) for g, w in zip(got, wanted[0][2:].split(","), strict=True)]
            if max(near) > 0.06:
                equal(got, wanted[0], ran)
        else:
            got_places = sorted(zip(table["x_px"], table["y_px"], strict=True))
            places = sorted(tuple(map(float, w.split(","))) for w in wanted)
            spread = 20 if folder.startswith("03") else 1
            if len(places) != len(got_places) or any(abs(g[i] - w[i]) > spread for g, w in zip(got_places, places, strict=True) for i in (0, 1)):  # fmt: skip
                equal(got_places, places, ran)
        if area:
            b.check_area(ran, float(area))
        b.check_outlines()
        return "right"


def _biomarker_case(here: Path, name: str, regions: str, area: float | None) -> None:
    @case(f"shared: 33-biomarker {name}", "shared slides")
    def _(b: Bench) -> str:
        ran = run(
            "biomarker",
            here / "small_HE.csv",
            "--regions",
            here / regions,
            "--out",
            b.folder / "bio",
        )
        if ran.code:
            return refused(ran)
        got = pd.read_csv(b.folder / "bio" / "slides.csv")["region_area_mm2"][0]
        equal(None if area is None else round(float(got), 3), area, ran)
        return "right"


def _cohort_case(root: Path, name: str, action: Any) -> None:
    @case(f"shared: {name}", "shared cohorts")
    def _(b: Bench) -> str:
        folder = name.split()[0]
        here = b.folder / "shared" / "faults" / "cohorts" / folder
        shutil.copytree(root / folder, here, symlinks=True)
        for path in (here, *here.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)
        (b.folder / "shared" / "ami-br").symlink_to((root.parents[1] / "ami-br").resolve())
        before = Path.cwd()
        os.chdir(here)
        try:
            return str(action(b, here))
        finally:
            os.chdir(before)


def _linked(b: Bench, here: Path) -> str:
    if not (here / "sl" / "amf_other").is_dir():  # a link that was copied as its text
        (here / "sl" / "amf_other").unlink()
        (here / "sl" / "amf_other").symlink_to(here / "real" / "amf_other")
    return str(_both("sl", 6)(b, here))


def _both(source: str, right: int | str) -> Any:
    def action(b: Bench, here: Path) -> str:
        b.predict(here / source, right)
        return b.prepare(here / source, right, *FOLDERS)

    return action


def _scores(table: str, right: int | str, *arguments: str) -> Any:
    return lambda b, here: b.evaluate((here / table).read_bytes(), right, *arguments, auc=False)


def _listed(table: str, right: int | str, *arguments: object) -> Any:
    return lambda b, here: b.prepare(here / table, right, *arguments)


def _midog(change: Any, right: int | str) -> Any:
    def action(b: Bench, here: Path) -> str:
        table = here / "m25" / "MIDOG25_Atypical_Classification_Train_Set.csv"
        table.write_text(change(table.read_text()))
        return b.prepare(here / "m25", right)

    return action


def _phone(b: Bench, here: Path) -> str:
    b.predict(here / "mpo_phone.jpg", "1?")
    b.predict(here / "anim.png", "1?")
    return b.predict(here / "pyramid.tif", "1?")


def _blanks(b: Bench, here: Path) -> str:
    for table in ("pat_blank.csv", "pat_case.csv"):
        b.evaluate((here / table).read_bytes(), "12?", auc=False)
    text = (here / "known.csv").read_text().replace("MIDOG21_002", "MIDOG21_002.tiff")
    return b.evaluate(text, "-", "--trained-on", "released")


def _few(b: Bench, here: Path) -> str:
    b.prepare(here / "eleven.csv", "186?")
    ran = run("train", b.folder / "cohort", "--out", b.folder / "run", "--preset", "fast", "optim.epochs=1",
              "optim.head_epochs=0", "model.pretrained=false", "input.size_px=32", within=300)  # fmt: skip
    if ran.code:
        return refused(ran, b.folder / "run" / "model")
    equal(
        (b.folder / "run" / "model").is_dir() or any((b.folder / "run").rglob("model.json")),
        True,
        ran,
    )
    return "right"


def _home(b: Bench, here: Path) -> str:
    home = b.folder / "home"
    home.mkdir()
    command = [sys.executable, "-m", "atypia", "predict", str(here / "cell.png"), "--mpp", "0.25"]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    subprocess.run(
        [*command, *FAST, "--backend", "onnx"], env=environment, check=True, capture_output=True
    )
    equal([p.name for p in home.rglob("*") if p.is_file()], [])
    return "right"


def _not_available(b: Bench, here: Path) -> str:
    rows = len(pd.read_csv(here / "na.csv"))
    b.prepare(here / "na.csv", rows)
    kept = pd.read_csv(b.folder / "cohort" / "manifest.csv", dtype=str, keep_default_na=False)
    equal((kept["patch_id"] == "").sum() + (kept["domain"] == "").sum(), 0)
    equal(
        (kept["domain"] == "NA").sum(),
        (pd.read_csv(here / "na.csv", keep_default_na=False)["domain"] == "NA").sum(),
    )
    return "right"


def _over(b: Bench, _: Path) -> str:
    b.patches("p/nmf_ring")
    b.prepare(b.folder / "p", 6, *FOLDERS)
    kept = (b.folder / "cohort" / "manifest.csv").read_bytes()
    ran = run("predict", b.folder / "cohort", *FAST, "--out", b.folder / "cohort" / "manifest.csv")
    equal((b.folder / "cohort" / "manifest.csv").read_bytes() == kept, True, ran)
    return refused(ran)


COHORTS: Final[dict[str, Any]] = {
    "01-ort-telemetry": _home,
    "02-train-lost-under-10-patients": _few,
    "03-symlinked-class-folder": _linked,
    "04-patient-blank-guard known": _scores("known.csv", "-", "--trained-on", "released"),
    "04-patient-blank-guard known_blank": _scores("known_blank.csv", "-", "--trained-on", "released"),
    "04-patient-blank-guard spellings": _blanks,
    "06-pages-that-are-no-figures": _phone,
    "07-votes-only-cohort majority": _scores("maj.csv", 12, "--label", "majority_atypical"),
    "09-same-picture-two-patients list": _listed("list.csv", "-"),
    "09-same-picture-two-patients twice": _listed("twice.csv", "-"),
    "10-hidden-and-system-files hd": lambda b, here: b.predict(here / "hd", 1),
    "10-hidden-and-system-files ad": lambda b, here: b.predict(here / "ad", 1),
    "11-na-ids-in-TrainedRun": _not_available,
    "12-damaged-jpeg cut_eoi": lambda b, here: b.predict(here / "jh" / "nmf_ring" / "cut_eoi.jpg", "-"),
    "12-damaged-jpeg plain": lambda b, here: b.predict(here / "jh" / "nmf_ring" / "plain.jpg", 1),
    "12-damaged-jpeg trunc": lambda b, here: b.predict(here / "trunc.jpg", "-"),
    "12-damaged-jpeg prepare": lambda b, here: b.prepare(here / "jh", "-", *FOLDERS),
    "15-tables round3": _scores("round3.csv", 12),
    "15-tables semi": _scores("semi.csv", 12),
    "16-output-over-manifest": _over,
    "17-midog25 plain": _midog(lambda t: t, 3),
    "17-midog25 dup": _midog(lambda t: t + t.splitlines()[1] + "\n", "3?"),
    "17-midog25 contra": _midog(lambda t: t.replace("NMF,AMF,NMF,NMF", "NMF,AMF,NMF,AMF"), "-"),
}  # fmt: skip
