"""Labels that reviewers give in the browser, saved before they are answered; and their exports.

One SQLite file for all reviewers. Every key press is a row that is only ever added to; an undo
marks the last row as taken back. The file is in write-ahead mode and synced at each commit, so
that what was answered as saved survives a crash of the process and of the machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import threading
import uuid
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from atypia.core.errors import AtypiaError, InputError, Problem
from atypia.core.files import building_folder, write_text
from atypia.core.labels import SUBTYPES
from atypia.data.cohort import PLACE_COLUMNS, Cohort
from atypia.evaluation import metrics
from atypia.evaluation.predictions import UNKNOWN
from atypia.slides.geojson_writer import COLOURS, class_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from atypia.biomarker import SlideFigures
    from atypia.evaluation.metrics import FloatArray, IntArray
    from atypia.slides import SlideInfo

_APPLICATION: Final = 0x41545950  # "ATYP" in the file's header: no other program's database
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reviewer (
    cohort TEXT NOT NULL,
    name TEXT NOT NULL,
    blind INTEGER NOT NULL,
    PRIMARY KEY (cohort, name)
);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cohort TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    patch_id TEXT NOT NULL,
    subtype TEXT,
    at TEXT NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS event_of ON event (cohort, reviewer, undone, patch_id);
"""


class ReviewStore:
    """The labels of all reviewers on one set of figures. Safe to use from several threads.

    :meth:`give` and :meth:`undo` raise an InputError for a reviewer who never began; all raise an
    AtypiaError where the file cannot be used.

    The file is made when the first reviewer comes; it may hold several sets, by their `key`: see
    ``subject`` of :class:`atypia.web.pictures.Pictures`, and ``names`` there.
    """

    def __init__(self, file: Path, key: str, names: Sequence[str]) -> None:
        self._file = file
        self._key = key
        self._ids = list(names)
        self._place = {name: i for i, name in enumerate(self._ids)}
        self._lock = threading.Lock()

    def join(self, name: str, *, blind: bool) -> None:
        """Let a reviewer begin, or come back; `blind` is kept as it was at first.

        Raises:
            InputError: Not a name; or the reviewer began otherwise.
        """
        if not _NAME.fullmatch(name):
            raise InputError(
                Problem(
                    "expected a name of 1 to 40 letters (a to z), digits, _ or -, as it names a "
                    f"column of the cohort, but got {name[:60]!r}."
                )
            )
        with self._lock, self._writing() as base:
            base.execute(
                "INSERT OR IGNORE INTO reviewer VALUES (?, ?, ?)", (self._key, name, int(blind))
            )
            began_blind = self._blind(base, name)
        if began_blind and not blind:
            what = "began blind, and what has been seen cannot be unseen. Go on blind, or take"
            raise InputError(Problem(f"{name} {what} another name."))
        if blind and not began_blind:
            what = "began with the answers in view. Take another name to be blind."
            raise InputError(Problem(f"{name} {what}"))

    def is_blind(self, name: str) -> bool:
        """Whether others' labels are hidden from a reviewer; one who never came counts as blind."""
        if not self._file.exists():
            return True
        with closing(self._reading()) as base:
            blind = self._blind(base, name)
        return True if blind is None else blind

    def give(self, name: str, number: int, subtype: int | None) -> None:
        """Save a label, which is then on the disk; None takes the label away."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = None if subtype is None else SUBTYPES[subtype]
        with self._lock, self._writing() as base:
            self._check(base, name)
            base.execute(
                "INSERT INTO event (cohort, reviewer, patch_id, subtype, at) "
                "VALUES (?, ?, ?, ?, ?)",
                (self._key, name, self._ids[number], text, now),
            )

    def undo(self, name: str) -> int | None:
        """Take back the last label; returns the number of its figure, None if none is left."""
        with self._lock, self._writing() as base:
            self._check(base, name)
            rows = base.execute(
                "SELECT id, patch_id FROM event WHERE cohort = ? AND reviewer = ? AND NOT undone "
                "ORDER BY id DESC",
                (self._key, name),
            )
            # Labels of figures that are not shown now stay as they are.
            row = next((row for row in rows if row[1] in self._place), None)
            if row is None:
                return None
            base.execute("UPDATE event SET undone = 1 WHERE id = ?", (row[0],))
        return self._place[row[1]]

    def labels(self) -> dict[str, IntArray]:
        """Every reviewer's labels: (N,) subtype indices, :data:`UNKNOWN` where none is given."""
        if not self._file.exists():
            return {}
        with closing(self._reading()) as base:
            names = base.execute(
                "SELECT name FROM reviewer WHERE cohort = ? ORDER BY name", (self._key,)
            ).fetchall()
            rows = base.execute(
                "SELECT reviewer, patch_id, subtype FROM event WHERE cohort = ? AND NOT undone "
                "ORDER BY id",
                (self._key,),
            ).fetchall()
        labels = {name: np.full(len(self._ids), UNKNOWN) for (name,) in names}
        for name, patch_id, subtype in rows:  # later ones win
            if patch_id in self._place:
                code = UNKNOWN if subtype is None else SUBTYPES.index(subtype)
                labels[name][self._place[patch_id]] = code
        return labels

    def _check(self, base: sqlite3.Connection, name: str) -> None:
        if self._blind(base, name) is None:
            raise InputError(Problem(f"There is no reviewer {name[:60]!r}. Begin first."))

    def _blind(self, base: sqlite3.Connection, name: str) -> bool | None:
        row = base.execute(
            "SELECT blind FROM reviewer WHERE cohort = ? AND name = ?", (self._key, name)
        ).fetchone()
        return None if row is None else bool(row[0])

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._open()) as base, base:
                yield base
        except sqlite3.Error as error:  # such as a full disk
            what = f"{self._file}: nothing was saved ({error}). All that was saved before is there."
            raise AtypiaError(what) from error

    def _reading(self) -> sqlite3.Connection:
        try:
            return self._open()
        except AtypiaError:
            # On a full disk the file that several processes share cannot be made; one needs none.
            base = sqlite3.connect(self._file, timeout=10)
            base.execute("PRAGMA locking_mode = EXCLUSIVE")
            return base

    def _open(self) -> sqlite3.Connection:
        with ExitStack() as on_failure:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                base = on_failure.enter_context(closing(sqlite3.connect(self._file, timeout=10)))
                mark = base.execute("PRAGMA application_id").fetchone()[0]
                tables = base.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
                if tables and mark != _APPLICATION:
                    raise AtypiaError(f"{self._file} is a database of another program.")
                base.execute("PRAGMA journal_mode = WAL")
                base.execute("PRAGMA synchronous = FULL")
                if not tables:
                    base.execute(f"PRAGMA application_id = {_APPLICATION}")
                    base.executescript(_SCHEMA)
            except (OSError, sqlite3.Error) as error:
                what = f"{self._file}: labels cannot be saved there ({error})."
                raise AtypiaError(what) from error
            on_failure.pop_all()
        return base


def agreement(labels: Mapping[str, IntArray]) -> list[dict[str, object]]:
    """Cohen's κ of every pair of raters, on the figures that both have labelled.

    Returns:
        ``{"raters": [a, b], "n", "kappa", "agree"}`` for each pair with a common figure; κ is None
        where chance alone would agree completely. ``agree`` is the share of equal labels.
    """
    pairs: list[dict[str, object]] = []
    for first, second in combinations(labels, 2):
        both = (labels[first] != UNKNOWN) & (labels[second] != UNKNOWN)
        if both.any():
            a, b = labels[first][both], labels[second][both]
            kappa = float(metrics.agreement_measures(a, b)["kappa"][0])
            pairs.append(
                {
                    "raters": [first, second],
                    "n": int(both.sum()),
                    "kappa": None if np.isnan(kappa) else round(kappa, 4),
                    "agree": round(float((a == b).mean()), 4),
                }
            )
    return pairs


def export_cohort(cohort: Cohort, rater: str, labels: IntArray, out: Path) -> Path:
    """Write a cohort with one more rater, ``label_<rater>``. The cohort itself is not touched.

    Args:
        cohort: What was reviewed.
        rater: Who labelled.
        labels: (N,) subtype indices.
        out: A folder that does not exist; patches are linked where the file system can.

    Raises:
        InputError: The rater is there already, nothing is labelled, or `out` exists.
    """
    if rater in cohort.raters:
        what = f"the cohort has a rater {rater!r} already. Review under another name."
        raise InputError(Problem(what, str(cohort.path)))
    if (labels == UNKNOWN).all():
        raise InputError(Problem(f"{rater} has not labelled a figure yet."))
    manifest = cohort.manifest.copy()
    raters = [column for column in manifest.columns if column.startswith("label_")]
    after = manifest.columns.get_loc(raters[-1] if raters else "mpp")
    assert isinstance(after, int)
    column = [SUBTYPES[code] if code != UNKNOWN else "" for code in labels]
    manifest.insert(after + 1, f"label_{rater}", column)
    with building_folder(out) as folder:
        for name in manifest["file"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(cohort.path / name, folder / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(cohort.path / name, folder / name)
        source = {**cohort.source, "reviewed": {"of": cohort.sha256, "rater": rater}}
        Cohort.write(folder, cohort.name, manifest, source)
    return out


def has_places(cohort: Cohort) -> bool:
    """Whether the cohort has the places that its patches were cut from."""
    return set(PLACE_COLUMNS[:3]) <= set(cohort.manifest.columns)


def export_places(cohort: Cohort, rater: str, labels: IntArray, out: Path) -> list[Path]:
    """Write labels of a cohort as one GeoJSON per slide that its patches were cut from.

    Patches without a label, or without a place, are left out. Arguments are those of
    :func:`export_cohort`. Returns the files, named as QuPath's image with ``.geojson`` behind.

    Raises:
        InputError: No patch with a place is labelled, or `out` exists.
    """
    if not has_places(cohort):
        what = "The cohort does not tell where its figures lie on a slide."
        raise InputError(Problem(f"{what} Review the slide: atypia serve SLIDE --results"))
    # It becomes the name of a file; two slides of one name have their folders in it.
    slides = cohort.manifest["slide"].str.replace(r"[\\/]+", "_", regex=True)
    table = cohort.manifest.assign(code=labels, slide=slides)
    table = table[(table["code"] != UNKNOWN) & (table[list(PLACE_COLUMNS[:3])] != "").all(axis=1)]
    if table.empty:
        raise InputError(Problem(f"{rater} has not labelled a figure with a place yet."))
    origins = [c for c in PLACE_COLUMNS[3:] if c in table.columns]
    names = []
    with building_folder(out) as folder:
        for slide, rows in table.groupby("slide"):
            centres = rows[["x_px", "y_px"]].to_numpy(dtype=np.float64)
            if origins:
                centres = centres - rows[origins].replace("", "0").to_numpy(dtype=np.float64)
            text = _geojson(str(slide), rows["patch_id"].tolist(), centres, rater, rows["code"])
            names.append(f"{slide}.geojson")
            write_text(folder / names[-1], text)
    return [out / name for name in names]


def export_geojson(found: SlideFigures, slide: SlideInfo, rater: str, labels: IntArray) -> str:
    """Write a reviewer's labels (N,) on a slide as GeoJSON for QuPath.

    Raises:
        InputError: Nothing is labelled.
    """
    given = np.flatnonzero(labels != UNKNOWN)
    if not len(given):
        raise InputError(Problem(f"{rater} has not labelled a figure yet."))
    ids = [str(found.figures.patch_ids[number]) for number in given]
    centres = found.centres_px[given] - np.array(slide.origin)
    return _geojson(slide.path.name, ids, centres, rater, labels[given])


def _geojson(
    slide: str, patch_ids: Sequence[str], centres: FloatArray, rater: str, codes: Iterable[int]
) -> str:
    """Points that QuPath opens as annotations; centres (N, 2) px count from QuPath's corner."""
    features = []
    for patch_id, (x, y), code in zip(patch_ids, centres, codes, strict=True):
        subtype = SUBTYPES[code]
        name = f"atypia:{rater}:{slide}:{patch_id}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                "geometry": {"type": "Point", "coordinates": [float(x), float(y)]},
                "properties": {
                    "objectType": "annotation",
                    "name": patch_id,
                    "classification": {
                        "name": class_name(subtype),
                        "color": list(COLOURS[subtype]),
                    },
                    "metadata": {"patch_id": patch_id, "subtype": subtype, "rater": rater},
                },
            }
        )
    return json.dumps(
        {"type": "FeatureCollection", "features": features}, ensure_ascii=False, allow_nan=False
    )
