"""What ``make_results.py`` keeps of a run, read; a run folder itself is read likewise."""

from __future__ import annotations

import bz2
import json
from typing import TYPE_CHECKING, Any

from atypia.core.files import read_json

if TYPE_CHECKING:
    from pathlib import Path


def has_metrics(folder: Path, name: str = "metrics") -> bool:
    """Whether a folder has measures of this name."""
    return any((folder / f"{name}.json{suffix}").is_file() for suffix in ("", ".bz2"))


def read_metrics(folder: Path, name: str = "metrics") -> dict[str, Any]:
    """Read the measures of a run folder, or of what is kept of one."""
    plain = folder / f"{name}.json"
    if plain.is_file():
        return dict(read_json(plain))
    with bz2.open(folder / f"{name}.json.bz2", "rt", encoding="utf-8") as file:
        return dict(json.load(file))


def read_splits(folder: Path) -> dict[str, Any]:
    """Read the splits of a run, where they are referred to; empty where there are none."""
    file = folder / "splits.json"
    if not file.is_file():
        return {}
    splits: dict[str, Any] = read_json(file)
    return dict(read_json(folder / splits["file"])) if "file" in splits else splits


def path(metrics: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Find ``overall.kappa`` and the like; None where a table has no such measure."""
    node: Any = metrics
    for part in name.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def interval(measure: dict[str, Any] | None) -> str:
    """Write a measure with its interval."""
    if measure is None or measure.get("value") is None:
        return "–"
    if measure.get("low") is None:
        return f"{measure['value']:.3f}"
    return f"{measure['value']:.3f} ({measure['low']:.3f}–{measure['high']:.3f})"


def difference(measure: dict[str, Any] | None, *, bold: bool) -> str:
    """Write a difference with its interval."""
    if measure is None or measure["value"] is None or measure["low"] is None:
        return "–"
    text = f"{measure['value']:+.3f} ({measure['low']:+.3f} to {measure['high']:+.3f})"
    return f"**{text}**" if bold else text


def rounded(tree: Any, decimals: int = 7) -> Any:
    """Give measures with so many decimals, without how many resamples had none."""
    if isinstance(tree, dict):
        return {k: rounded(v, decimals) for k, v in tree.items() if k != "undefined"}
    if isinstance(tree, list):
        return [rounded(v, decimals) for v in tree]
    return round(tree, decimals) if isinstance(tree, float) else tree
