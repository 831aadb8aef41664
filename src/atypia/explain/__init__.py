"""Where in a patch the networks found what speaks for their answer, and whether to believe it.

:func:`explain` gives one map per figure, of one of three methods (:data:`METHODS`), averaged over
the members of an ensemble and over the eight rotations and flips of the field of view.
:func:`check` asks of such maps what a picture cannot show: does it vanish when the weights are
randomised, and do the places that it points at matter to the answer?
"""

from atypia.explain.evidence import METHODS, Evidence, check_method, explain, maps_by, shown
from atypia.explain.sanity import Sanity, check
from atypia.explain.target import ANY_ATYPICAL, target_name

__all__ = [
    "ANY_ATYPICAL",
    "METHODS",
    "Evidence",
    "Sanity",
    "check",
    "check_method",
    "explain",
    "maps_by",
    "shown",
    "target_name",
]
