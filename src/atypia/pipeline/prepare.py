"""Make a cohort from a release, a folder or a table."""

from atypia.data.cohort_builder import prepare

__all__ = ["prepare"]
