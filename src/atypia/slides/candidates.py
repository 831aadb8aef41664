"""A candidate on a slide, a region that was annotated, and what a file of them holds."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from atypia.core.labels import SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atypia.core.errors import Problem

LARGEST_UM: Final = 200.0
"""What is longer than this, in x or y, is no figure and no box around one but a region. A mitotic
figure measures up to 30 µm; the field in which pathologists count them, 500 µm and more."""

NOT_ANSWERED: Final = "Not answered: "
"""Classes of our own answers without a call begin so."""

NOTHING: Final[Mapping[str, str]] = {}

_NO_FIGURE: Final = re.compile(
    r"(?<![a-z])(non|not|no)[\W_]*(a[\W_]*)?mito|mito[a-z]*[\W_]*(figure)?[\W_]*like"
    r"|(?<![a-z])mlf|im[po]+ster|hard[\W_]*neg|look[\W_]*a?likes?|mimic"
    r"|(?<![a-z])(negative|ignore)(?![a-z])|artefact|artifact|apopto|pyknot|necro|background"
    r"|immune|lymphocyt|interphase",
    re.IGNORECASE,
)
_FIGURE: Final = re.compile(
    r"mitos|mitot|(?<![a-z])(mf|amf|nmf)(?![a-z])|(pro|meta|ana|telo)phase|" + "|".join(SUBTYPES),
    re.IGNORECASE,
)


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

    def leave_out(self, reason: str, n: int = 1) -> None:
        """Count `n` entries that are left out for a reason."""
        self.left_out[reason] = self.left_out.get(reason, 0) + n


def is_figure(name: str) -> bool | None:
    """Whether a class or category names mitotic figures; None where its name leaves it open.

    What a model gave no call for is a candidate still.
    """
    if name.startswith(NOT_ANSWERED):
        return True
    if _NO_FIGURE.search(name):
        return False
    return True if _FIGURE.search(name) else None


def is_ignored(name: str) -> bool:
    """Whether QuPath leaves objects of this class out of every measurement: ``Ignore*``."""
    return name.strip().lower().startswith("ignore")


def wanted_classes(names: Iterable[str]) -> set[str]:
    """Those of a file's classes whose objects are figures.

    Where any of them names mitotic figures, only such do; else all that do not exclude it. What has
    no class, ``""``, is of no other one.
    """
    meant = {name: is_figure(name) for name in names if name}
    best = True if True in meant.values() else None
    return {"", *(name for name, figure in meant.items() if figure is best)}


def with_own_ids(candidates: list[Candidate], slide: str) -> list[Candidate]:
    """Give every candidate whose id an earlier one of its file has, as copies do, a new one."""
    seen = Counter[str]()
    own = []
    for number, candidate in enumerate(candidates, 1):
        seen[candidate.id] += 1
        repeated = seen[candidate.id] > 1
        own.append(replace(candidate, id=f"{slide}/{number}") if repeated else candidate)
    return own
