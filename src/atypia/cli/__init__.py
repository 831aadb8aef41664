"""The command line: one module per verb, each of which calls one pipeline function.

Heavy imports happen inside the verbs, so that ``atypia --help`` answers at once.
"""

# In the order in which ``atypia --help`` lists the verbs.
from atypia.cli import (
    audit,
    biomarker,
    challenge,
    demo,
    distill,
    doctor,
    download,
    evaluate,
    explain,
    export,
    merge,
    mil,
    predict,
    prepare,
    serve,
    slide,
    slides,
    train,
    tune,
)
from atypia.cli.app import app, main

__all__ = [
    "app",
    "audit",
    "biomarker",
    "challenge",
    "demo",
    "distill",
    "doctor",
    "download",
    "evaluate",
    "explain",
    "export",
    "main",
    "merge",
    "mil",
    "predict",
    "prepare",
    "serve",
    "slide",
    "slides",
    "train",
    "tune",
]
