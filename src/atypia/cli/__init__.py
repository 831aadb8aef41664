"""The command line: one module per verb, each of which calls one pipeline function.

Heavy imports happen inside the verbs, so that ``atypia --help`` answers at once.
"""

# In the order in which ``atypia --help`` lists the verbs.
from atypia.cli import (  # noqa: I001
    prepare,
    download,
    train,
    evaluate,
    predict,
    demo,
    doctor,
)
from atypia.cli.app import app, main

__all__ = ["app", "demo", "doctor", "download", "evaluate", "main", "predict", "prepare", "train"]
