"""Names of cases that are the same in every public cohort they are part of.

One case is in many cohorts: MIDOG 2021 is the source of a half of AMi-Br, and is part of MIDOG++,
of the MIDOG 2025 training sets and of AtNorM-MD. Their authors number the cases alike.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MIDOG: Final = "MIDOG"
_MIDOG = re.compile(r"MIDOG(?:20)?(\d\d)?(?:\+\+|pp)?[ _-]+0*(\d{1,3})(?!\d)", re.IGNORECASE)
_TUPAC = re.compile(r"TUPAC(?:20)?(?:16)?[ _-]+0*(\d{1,3})(?!\d)(?:_stitched\d*)?", re.IGNORECASE)
_TCGA = re.compile(r"TCGA[-_.]([A-Z0-9]{2})[-_.]([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
_HASH: Final = "sha256:"
_SHARED_WITH_2022: Final = 150
"""The training cases of MIDOG 2022 are numbered as in the other sets up to here only."""


def midog_patient(file_name: str) -> str | None:
    """Patient id of an image ``NNN.tiff`` of the MIDOG sets; None where it is not named so."""
    stem = PurePosixPath(file_name.replace("\\", "/")).name.partition(".")[0]
    return f"{MIDOG}_{int(stem):03d}" if re.fullmatch(r"\d{1,3}", stem) else None


def tcga_patient(text: str) -> str | None:
    """Patient in a TCGA barcode, wherever it stands in a text; None where there is none."""
    found = _TCGA.search(text)
    return f"TCGA-{found[1]}-{found[2]}".upper() if found else None


def public_case(patient_id: str) -> str | None:
    """Name that a case has in every public cohort; None for a patient id of any other kind.

    ``MIDOG21_002``, ``MIDOG_002`` and ``MIDOG++_2`` are ``MIDOG 2``; ``TUPAC16_01`` is ``TUPAC 1``;
    a TCGA barcode is its first three parts. A name is its own name.
    """
    if (tcga := tcga_patient(patient_id)) is not None:
        return tcga
    if found := _MIDOG.fullmatch(patient_id):
        own = found[1] == "22" and int(found[2]) > _SHARED_WITH_2022
        return f"MIDOG22 {int(found[2])}" if own else f"MIDOG {int(found[2])}"
    if found := _TUPAC.fullmatch(patient_id):
        return f"TUPAC {int(found[1])}"
    return None


def case_of(patient_id: str) -> str:
    """Name of a public case (:func:`public_case`); any other patient id stays as it is."""
    return public_case(patient_id) or patient_id


def veiled(patient_id: str) -> str:
    """Name under which a model may tell of a patient: a public case's, or a hash of the id.

    A model that is given away must not carry the ids of a hospital. Who has an id can still ask
    whether it is among them; an id of few digits can be found by trying all of them.
    """
    public = public_case(patient_id)
    if public is not None or patient_id.startswith(_HASH):
        return public or patient_id
    return _HASH + hashlib.sha256(patient_id.encode()).hexdigest()[:32]


def veiled_cases(patients: Iterable[str]) -> list[str]:
    """Sorted names of some patients, each once, by :func:`veiled`."""
    return sorted({veiled(patient) for patient in patients})
