"""The whole story: prepare, train, evaluate, report, predict.

Each module holds one verb of the command line. The stages do the work; these pages say in which
order, and what each leaves on disk.
"""

from atypia.pipeline.evaluate import compare, evaluate
from atypia.pipeline.predict import predict
from atypia.pipeline.report import write_report
from atypia.pipeline.train import train

__all__ = ["compare", "evaluate", "predict", "train", "write_report"]
