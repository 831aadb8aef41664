"""Candidates: where on a slide mitotic figures have been found, by people or by a detector."""

from atypia.slides.candidates.candidate import AnnotatedRegion, Candidate, CandidateList
from atypia.slides.candidates.read_candidates import read_candidates

__all__ = ["AnnotatedRegion", "Candidate", "CandidateList", "read_candidates"]
