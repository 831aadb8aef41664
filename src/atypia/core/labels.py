"""The eight subtypes of a mitotic figure, their order, and the tree above them.

Four subtypes are atypical mitotic figures (AMF), four are normal ones (NMF). The order below is
the order of every probability vector, confusion matrix and table in Atypia.

Definitions follow Donovan et al., "Mitotic figures: normal, atypical, and mimics", Veterinary
Pathology 58(2), 2021, and the AMi-Br data set (Bertram et al., BVM 2025).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SUBTYPES: Final = (
    "amf_bipolar",
    "amf_multipolar",
    "amf_segregation",
    "amf_other",
    "nmf_anaphase_telophase",
    "nmf_metaphase",
    "nmf_prometaphase",
    "nmf_ring",
)
ATYPICAL: Final = SUBTYPES[:4]
NORMAL: Final = SUBTYPES[4:]
N_SUBTYPES: Final = len(SUBTYPES)
N_ATYPICAL: Final = len(ATYPICAL)

PROBABILITY_COLUMNS: Final = tuple(f"p_{subtype}" for subtype in SUBTYPES)
ORIGIN_COLUMNS: Final = ("origin_x_px", "origin_y_px")
"""Where the scanned part of a slide begins, px on level 0."""

DISPLAY_NAMES: Final = {
    "amf_bipolar": "Bipolar asymmetric",
    "amf_multipolar": "Multipolar",
    "amf_segregation": "Segregation abnormality",
    "amf_other": "Other atypical",
    "nmf_anaphase_telophase": "Ana-/telophase",
    "nmf_metaphase": "Metaphase",
    "nmf_prometaphase": "Prometaphase",
    "nmf_ring": "Ring shape",
}

ANSWERED: Final = "answered"
STATUSES: Final = (ANSWERED, "no_tissue", "poor_image", "not_a_mitosis", "unlike_training")
"""What can be made of a candidate. All but the first have probabilities, but no call: there is
no tissue; the image is out of focus, folded, saturated or not H&E; it is something else than a
mitotic figure; or it is unlike all that the model was trained on."""
STATUS_NAMES: Final = {status: status.replace("_", " ") for status in STATUSES}

_INDEX: Final = {subtype: i for i, subtype in enumerate(SUBTYPES)}

# What people write in label columns, reduced to lower-case words. The misspelling is AMi-Br's own.
_SYNONYMS: Final = {
    "amf bipolar assymetric": "amf_bipolar",
    "amf bipolar asymmetric": "amf_bipolar",
    "amf asymmetric": "amf_bipolar",
    "amf segregation abnormality": "amf_segregation",
    "amf other atypical": "amf_other",
    "nmf anaphase": "nmf_anaphase_telophase",
    "nmf telophase": "nmf_anaphase_telophase",
    "nmf ana telophase": "nmf_anaphase_telophase",
    "nmf ring shape": "nmf_ring",
} | {subtype.replace("_", " "): subtype for subtype in SUBTYPES}


def left_out(status: Iterable[str]) -> dict[str, int]:
    """Count the statuses of candidates that are not answered."""
    counts = Counter(status)
    return {name: counts[name] for name in STATUSES[1:] if counts[name]}


def in_words(counts: Mapping[str, int]) -> str:
    """Write how many candidates have which status: ``"20 no tissue, 2 not a mitosis"``."""
    return ", ".join(f"{counts[s]:,} {STATUS_NAMES[s]}" for s in STATUSES if counts.get(s))


def subtype_index(subtype: str) -> int:
    """Position of a canonical subtype name in :data:`SUBTYPES`; ``KeyError`` if it is not one."""
    return _INDEX[subtype]


def is_atypical(subtype: str) -> bool:
    """Whether a canonical subtype name is one of the four atypical ones."""
    return _INDEX[subtype] < N_ATYPICAL


def parse_subtype(text: str) -> str | None:
    """Canonical name for a label as people write it, or None where it names no subtype.

    Case, and the choice of space, underscore, hyphen or slash between words, do not matter:
    ``"AMF bipolar assymetric"``, ``"NMF anaphase-telophase"`` and ``"nmf_ring"`` are all read.
    """
    return _SYNONYMS.get(" ".join(re.split(r"[\s_/-]+", text.strip().lower())))


_TRUE: Final = {"1", "1.0", "true", "yes", "atypical", "amf"}
_FALSE: Final = {"0", "0.0", "false", "no", "normal", "nmf"}


def parse_atypical(text: str) -> bool | None:
    """Read an atypical/normal vote as people write it; None where it is neither."""
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None
