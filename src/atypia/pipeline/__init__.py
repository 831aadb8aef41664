"""The commands: one module each, in the order in which a study uses them.

A page shows which steps a command consists of and which files it leaves; the packages below do the
work. No page imports another. Each is imported when it is first used: prediction need not wait for
what training imports.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atypia.pipeline.audit import audit
    from atypia.pipeline.biomarker import biomarker
    from atypia.pipeline.challenge import challenge
    from atypia.pipeline.compare import compare
    from atypia.pipeline.demo import demo
    from atypia.pipeline.distill import distill
    from atypia.pipeline.doctor import doctor
    from atypia.pipeline.download import download
    from atypia.pipeline.evaluate import evaluate
    from atypia.pipeline.explain import explain
    from atypia.pipeline.export import export
    from atypia.pipeline.merge import merge
    from atypia.pipeline.mil import mil, mil_predict
    from atypia.pipeline.predict import predict, predict_job
    from atypia.pipeline.prepare import prepare
    from atypia.pipeline.report import report
    from atypia.pipeline.slide import slide
    from atypia.pipeline.slides import slides
    from atypia.pipeline.train import train
    from atypia.pipeline.tune import tune

__all__ = [
    "audit",
    "biomarker",
    "challenge",
    "compare",
    "demo",
    "distill",
    "doctor",
    "download",
    "evaluate",
    "explain",
    "export",
    "merge",
    "mil",
    "mil_predict",
    "predict",
    "predict_job",
    "prepare",
    "report",
    "slide",
    "slides",
    "train",
    "tune",
]


def __getattr__(name: str) -> object:
    """Import a command when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    page = name.partition("_")[0]  # predict_job is on the page predict
    return getattr(importlib.import_module(f"{__name__}.{page}"), name)


class _CommandsNotPages(ModuleType):
    """``pipeline.train`` is the command, also after its page of the same name was imported."""

    def __setattr__(self, name: str, value: object) -> None:
        is_page = isinstance(value, ModuleType) and name in __all__
        super().__setattr__(name, getattr(value, name) if is_page else value)


sys.modules[__name__].__class__ = _CommandsNotPages
