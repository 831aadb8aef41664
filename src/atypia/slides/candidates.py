"""A candidate on a slide, a region that was annotated, and what a file of them holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atypia.core.errors import Problem

LARGEST_UM: Final = 200.0
"""What is longer than this, in x or y, is no figure and no box around one but a region. A mitotic
figure measures up to 30 µm; the field in which pathologists count them, 500 µm and more."""

NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One figure to classify."""

    id: str
    x: float
    """Centre, in px on level 0 of the slide."""
    y: float
    place: str = ""
    """Where in its file, such as ``feature 7``."""
    geometry: Mapping[str, Any] | None = None
    """Its own outline, a GeoJSON geometry in px from the corner that QuPath shows."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What else its file holds: classes, labels."""


@dataclass(frozen=True, slots=True)
class AnnotatedRegion:
    """An area that somebody annotated, such as the one in which figures were counted."""

    name: str
    geometry: Mapping[str, Any]
    """GeoJSON Polygon or MultiPolygon, in px on level 0."""


@dataclass
class CandidateList:
    """What a file of candidates holds."""

    candidates: list[Candidate] = field(default_factory=list)
    regions: list[AnnotatedRegion] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of entries that are sound but not asked for, by reason."""
