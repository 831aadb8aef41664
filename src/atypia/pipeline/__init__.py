"""The whole story: prepare, train, distill, tune, evaluate, audit, report, predict, biomarker.

Each module holds one verb of the command line. The stages do the work; these pages say in which
order, and what each leaves on disk.
"""

from atypia.pipeline.audit import audit
from atypia.pipeline.biomarker import biomarker
from atypia.pipeline.challenge import challenge
from atypia.pipeline.distill import distill
from atypia.pipeline.evaluate import compare, evaluate
from atypia.pipeline.explain import explain
from atypia.pipeline.export import export
from atypia.pipeline.mil import mil, mil_predict
from atypia.pipeline.predict import predict
from atypia.pipeline.predict_job import predict_job
from atypia.pipeline.report import write_report
from atypia.pipeline.slide import slide
from atypia.pipeline.slides import slides
from atypia.pipeline.start import start
from atypia.pipeline.train import train
from atypia.pipeline.tune import tune

__all__ = [
    "audit",
    "biomarker",
    "challenge",
    "compare",
    "distill",
    "evaluate",
    "explain",
    "export",
    "mil",
    "mil_predict",
    "predict",
    "predict_job",
    "slide",
    "slides",
    "start",
    "train",
    "tune",
    "write_report",
]
