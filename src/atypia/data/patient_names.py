"""Names of patients: how tables spell them, and what one case is called in every public cohort.

Cohorts of one origin name a case in ways of their own; :func:`public_case` makes one name of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from atypia.core.errors import Problem
from atypia.slides.slide_names import without_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable

_MIDOG = re.compile(r"midog(?:20)?(\d\d)?(?:\+\+|pp)?[ _./-]+0*(\d{1,3})(?!\d)")
_TUPAC = re.compile(r"tupac(?:20)?(?:16)?[ _./-]+0*(\d{1,3})(?!\d)(?:[ _-]*stitched[ _-]*\d*)?")
_TCGA = re.compile(r"TCGA[-_.]([A-Z0-9]{2})[-_.]([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
_HASH: Final = "sha256:"
_SHARED_WITH_2022: Final = 150
"""The training cases of MIDOG 2022 are numbered as in the other sets up to here only."""


def plain_name(patient_id: str) -> str:
    """Spell an id in one way: no blanks around it or at its ends, no suffix of an image, one case.

    Blanks are all that Unicode has, those without width among them; slashes lean forwards.
    """
    text = unicodedata.normalize("NFKC", patient_id).replace("\\", "/").casefold()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    # Spreadsheets and pandas make 1.0 of a number beside an empty cell.
    return re.sub(r"^(\d+)\.0$", r"\1", without_suffix(" ".join(text.split())))


def spellings(patients: Iterable[str]) -> list[list[str]]:
    """Ids that stand for one patient each, where some are spelt in two ways or more."""
    spelt: dict[str, dict[str, None]] = {}
    for patient in dict.fromkeys(patients):
        spelt.setdefault(public_case(patient) or plain_name(patient), {})[patient] = None
    return [list(ways) for ways in spelt.values() if len(ways) > 1]


def two_spellings(ways: list[str]) -> str:
    """Describe the fault of a patient who is spelt in several ways."""
    return (
        f"expected one spelling of each patient but got {' and '.join(map(repr, ways))}. Write one "
        "id for one patient, and ids that differ by more for different ones."
    )


def spelling_problems(patients: Iterable[str], file: str) -> list[Problem]:
    """One problem for each patient whom a table spells in two ways or more."""
    return [Problem(two_spellings(ways), file, column="patient_id") for ways in spellings(patients)]


def midog_patient(file_name: str) -> str | None:
    """Patient id of an image ``NNN.tiff`` of the MIDOG sets; None where it is not named so."""
    stem = PurePosixPath(file_name.replace("\\", "/")).name.partition(".")[0]
    return f"MIDOG_{int(stem):03d}" if re.fullmatch(r"\d{1,3}", stem) else None


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
    name = plain_name(patient_id)
    if not (_MIDOG.fullmatch(name) or _TUPAC.fullmatch(name)):
        name = name.rpartition("/")[2]  # of a path
    if found := _MIDOG.fullmatch(name):
        own = found[1] == "22" and int(found[2]) > _SHARED_WITH_2022
        return f"MIDOG22 {int(found[2])}" if own else f"MIDOG {int(found[2])}"
    if found := _TUPAC.fullmatch(name):
        return f"TUPAC {int(found[1])}"
    return None


def case_of(patient_id: str) -> str:
    """Name of a public case (:func:`public_case`); any other patient id stays as it is."""
    return public_case(patient_id) or patient_id


def veiled(patient_id: str) -> str:
    """Name under which a model may list a patient: a public case's, or a hash of the id.

    A model that is given away must not carry the ids of a hospital. Who has an id can still ask
    whether it is among them; an id of few digits can be found by trying all of them.
    """
    public = public_case(patient_id)
    if public is not None or patient_id.startswith(_HASH):
        return public or patient_id
    return _hash(plain_name(patient_id))


def veils(patient_id: str) -> list[str]:
    """Names under which models list a patient; earlier versions hashed the id as it is spelt."""
    name = veiled(patient_id)
    return list(dict.fromkeys([name, _hash(patient_id)])) if name.startswith(_HASH) else [name]


def _hash(name: str) -> str:
    if name.startswith(_HASH):
        return name
    return _HASH + hashlib.sha256(name.encode()).hexdigest()[:32]


def veiled_cases(patients: Iterable[str]) -> list[str]:
    """Sorted names of some patients, each once, by :func:`veiled`."""
    return sorted({veiled(patient) for patient in patients})
