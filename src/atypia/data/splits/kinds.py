"""What kinds of split there are."""

from __future__ import annotations

from typing import Final

from atypia.core.config import LEAK

PUBLISHED: Final = ("table1", "benchmark")
"""Splits of AMi-Br whose test patients are shipped with the package."""
SEEDED: Final = ("holdout", "cv", "monte_carlo", LEAK)
WHOLE: Final = ("all", "domains")
"""Splits by what the cohort is: no test part at all, or each domain as one."""
KINDS: Final = (*PUBLISHED, *SEEDED, *WHOLE)
