"""Candidates: where on a slide mitotic figures have been found, by people or by a detector."""

from atypia.inference.candidates.candidate import Candidate, Found, Region
from atypia.inference.candidates.read import read_candidates

__all__ = ["Candidate", "Found", "Region", "read_candidates"]
