"""The commands: one module each, in the order in which a study uses them.

A page shows which steps a command consists of and which files it leaves; the packages below do the
work. No page imports another. Each is imported when it is first used: prediction need not wait for
what training imports.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atypia.pipeline.adapt import adapt as adapt
    from atypia.pipeline.adapt import adapt_plan as adapt_plan
    from atypia.pipeline.audit import audit as audit
    from atypia.pipeline.biomarker import biomarker as biomarker
    from atypia.pipeline.challenge import challenge as challenge
    from atypia.pipeline.compare import compare as compare
    from atypia.pipeline.demo import demo as demo
    from atypia.pipeline.distill import distill as distill
    from atypia.pipeline.doctor import doctor as doctor
    from atypia.pipeline.download import download as download
    from atypia.pipeline.evaluate import evaluate as evaluate
    from atypia.pipeline.explain import explain as explain
    from atypia.pipeline.export import export as export
    from atypia.pipeline.merge import merge as merge
    from atypia.pipeline.mil import mil as mil
    from atypia.pipeline.mil import mil_predict as mil_predict
    from atypia.pipeline.predict import predict as predict
    from atypia.pipeline.predict import predict_job as predict_job
    from atypia.pipeline.prepare import prepare as prepare
    from atypia.pipeline.report import report as report
    from atypia.pipeline.slide import slide as slide
    from atypia.pipeline.slides import slides as slides
    from atypia.pipeline.train import train as train
    from atypia.pipeline.tune import tune as tune


def __getattr__(name: str) -> object:
    """Import a command when it is first used."""
    page = f"{__name__}.{name.partition('_')[0]}"  # predict_job is on the page predict
    if find_spec(page) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(page), name)


class _CommandsNotPages(ModuleType):
    """``pipeline.train`` is the command, also after its page of the same name was imported."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, getattr(value, name, value))


sys.modules[__name__].__class__ = _CommandsNotPages
