"""Classes that a part of the splits has no figure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from atypia.data.splits.record import Splits


@dataclass(frozen=True)
class MissingClass:
    """A class that a part of the splits has no figure of."""

    outer: int
    part: str
    """``test``, or ``training`` or ``validation`` of a member."""
    label: str

    def __str__(self) -> str:
        """Render as ``outer split 0, validation of member 2: no figure of nmf_ring``."""
        return f"outer split {self.outer}, {self.part}: no figure of {self.label}"


def missing_classes(
    splits: Splits, manifest: pd.DataFrame, label: str, classes: Iterable[str] | None = None
) -> list[MissingClass]:
    """Classes that a test, training or validation part has no figure of.

    Args:
        splits: Of the cohort that `manifest` belongs to.
        manifest: Uses ``patient_id`` and the column `label`.
        label: Column with the class of each figure, empty where there is none.
        classes: The classes to look for; by default those that occur in the column.
    """
    labelled = manifest[manifest[label] != ""]
    wanted = sorted(set(labelled[label])) if classes is None else list(classes)
    classes_of = labelled.groupby("patient_id")[label].agg(set).to_dict()
    missing = []
    for i, outer in enumerate(splits.outer):
        parts = {"test": outer.test} if outer.test else {}
        for m in range(len(outer.inner)):
            parts[f"training of member {m}"], parts[f"validation of member {m}"] = outer.member(m)
        for part, patients in parts.items():
            found = set().union(*(classes_of.get(patient, set()) for patient in patients))
            missing += [MissingClass(i, part, name) for name in wanted if name not in found]
    return missing
