"""The command line: modules by what a user wants to do; each command calls one pipeline page.

Heavy imports happen inside the commands, so that ``atypia --help`` answers at once.
"""

from atypia.cli import applying, cohorts, judging, models, training
from atypia.cli.app import app, main

__all__ = ["app", "main"]

_IN_ORDER_OF_HELP = (
    cohorts.prepare,
    cohorts.merge,
    cohorts.download,
    training.train,
    training.distill,
    training.tune,
    training.mil,
    judging.evaluate,
    judging.report,
    judging.compare,
    judging.audit,
    applying.predict,
    applying.explain,
    applying.slide,
    applying.slides,
    applying.biomarker,
    models.adapt,
    models.export,
    models.serve,
    applying.challenge,
    models.demo,
    models.doctor,
)
for _command in _IN_ORDER_OF_HELP:
    app.command()(_command)
