"""The runs of the approaches: where they are, what they are made of, what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kept_results import has_metrics, read_metrics, read_splits

from atypia.core.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Entry:
    """One approach on one split."""

    approach: dict[str, Any]
    folder: Path | None
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, Any] = field(default_factory=dict)
    """To the reference, against expert 1."""
    by_majority: dict[str, Any] = field(default_factory=dict)
    """The same of binary measures against the majority of the votes."""
    alike: dict[str, Any] = field(default_factory=dict)
    """Balanced accuracy with each of the powers, and its difference to the reference's."""
    parts: list[Entry] = field(default_factory=list)
    """The runs that it is made of, or was taught by."""
    problem: str = ""
    """Why it cannot be compared."""
    other_folds: bool = False
    """Whether it answers out of fold from another number of folds than its reference."""
    study: dict[str, Any] = field(default_factory=dict)
    """``tune.json`` of the search that chose its settings."""

    @property
    def name(self) -> str:
        """Of the approach."""
        return str(self.approach["name"])

    @property
    def title(self) -> str:
        """Its name, with a mark where its figures are optimistic, or of other folds."""
        marks = " †" * bool(self.metrics.get("optimistic")) + " ‡" * self.other_folds
        return self.name + marks

    @property
    def kind(self) -> str | None:
        """Kind of its split: an ensemble tested on others, or single members out of fold."""
        return self._splits.get("kind")

    @property
    def folds(self) -> int:
        """Number of inner folds."""
        return len(self._splits["outer"][0]["inner"]) if "outer" in self._splits else 0

    @property
    def _splits(self) -> dict[str, Any]:
        return {} if self.folder is None else read_splits(self.folder)

    @property
    def of_sides(self) -> bool:
        """Whether it knows nothing of subtypes."""
        return bool(self.config.get("loss", {}).get("of") == "sides")


def found(approach: dict[str, Any], split: str, folders: list[Path]) -> Entry:
    """Find the run of an approach; of several, the first name in the first folder."""
    return next(all_found(approach, split, folders), Entry(approach, None))


def all_found(approach: dict[str, Any], split: str, folders: list[Path]) -> Iterator[Entry]:
    """Find the finished runs of an approach."""
    for name in approach["runs"].get(split, []):
        for folder in folders:
            run = folder / name
            if not has_metrics(run):
                continue
            about = read_json(run / "run.json")
            if about["status"] == "finished":
                config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
                yield Entry(
                    approach,
                    run,
                    read_metrics(run),
                    about,
                    config,
                    study=study_of(approach, folders),
                )


def study_of(approach: dict[str, Any], folders: list[Path]) -> dict[str, Any]:
    """Read the record of the search that an approach begins with; empty where it has none."""
    if "study" not in approach:
        return {}
    files = [folder / approach["study"] / "tune.json" for folder in folders]
    return next((read_json(file) for file in files if file.is_file()), {})


def find_parts(entries: list[Entry], split: str) -> None:
    """Find among the entries those that another one needs."""
    named = {name: e for e in entries for name in e.approach["runs"].get(split, [])}
    for entry in entries:
        teacher = entry.config.get("target", {}).get("teacher")
        needed = [
            *entry.config.get("runs", []),
            *filter(None, [entry.config.get("network")]),
            *([] if teacher is None else [str(Path(teacher).parent)]),
        ]
        for run in needed:
            part = named.get(Path(run).name)
            if part is None or part.folder is None:
                raise SystemExit(f"{entry.folder}: expected the run {run}, which it is made of.")
            entry.parts.append(part)


def costs(entry: Entry) -> dict[str, Any]:
    """Give parameters that answer, and hours over all sessions, those of its parts with them."""
    sessions = [*entry.run["sessions"], *filter(None, [entry.study.get("session")])]
    cpu = [s.get("cpu_seconds") for s in sessions]
    members = entry.config.get("ensemble", {})
    n = members.get("trained") or members.get("members", 1)
    if entry.config.get("model", {}).get("frozen"):
        n = 1  # the members share a backbone; their layers are its ten-thousandth
    models = entry.run.get("models", [])
    own = {
        "parameters": n * models[0]["parameters"] if models else None,
        "wall_hours": sum(s["seconds"] for s in sessions) / 3600,
        "cpu_hours": None if None in cpu else sum(cpu) / 3600,
    }
    parts = [costs(part) for part in entry.parts]
    processor = entry.run["machine"]["processor"].replace("(R)", "").removesuffix(" Processor")
    # A teacher does not answer; the networks below a hybrid or a stack do.
    answering = parts if entry.config.get("kind") in ("hybrid", "stack") else []
    return {
        "parameters": total([own, *answering], "parameters"),
        "wall_hours": total([own, *parts], "wall_hours"),
        "threads": entry.run["machine"].get("threads"),
        "cpu_hours": total([own, *parts], "cpu_hours"),
        "processor": processor,
    }


def total(told: list[dict[str, Any]], name: str) -> float | None:
    """Add up; None where one of them is not known."""
    values = [one[name] for one in told]
    return None if None in values else sum(values)
