"""Make one cohort of several."""

from atypia.data.merged_cohort import merge

__all__ = ["merge"]
