"""Arguments and options that several commands have, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from typer import Argument, Option

Inputs = Annotated[list[Path], Argument(help="Images, folders, stacks or cohorts.")]
CohortFolder = Annotated[Path, Argument(help="Cohort folder, from atypia prepare.")]
Settings = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
]

Out = Annotated[Path, Option("--out", help="Where to write.", show_default=False)]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave out bad items; list them.")]
AllClasses = Annotated[
    bool, Option("--all-classes", help="Take candidates of all classes, not of mitoses alone.")
]
CountAll = Annotated[
    bool, Option("--count-all", help="Call and count candidates, too, that are not answered.")
]

Model = Annotated[
    str, Option(help="'released' (in the package), a bundle, run folder or ONNX export.")
]
TorchModel = Annotated[str, Option(help="'released' (in the package), a bundle or a run folder.")]
Quality = Annotated[str, Option(help="best or fast.")]
OperatingPoint = Annotated[
    str,
    Option(
        help="From what probability on a figure is called atypical: balanced, sensitive, specific."
    ),
]
Backend = Annotated[
    str, Option(help="torch, onnx, onnx-int8, or auto: what the model and the machine have.")
]
Device = Annotated[str, Option(help="auto, cpu, cuda, mps.")]
Mpp = Annotated[
    float | None, Option(help="µm per pixel; cohorts and some TIFF files carry their own.")
]

Engine: TypeAlias = Literal["local", "ray"]
Address = Annotated[
    str | None, Option(help="Of a Ray cluster: auto or HOST:PORT. Without it, one starts here.")
]
Workers = Annotated[
    int | None, Option(min=1, help="With --engine ray. [default: what there are cores for]")
]
Threads = Annotated[
    int | None, Option(min=1, help="Cores of each worker. [default: 1 with Ray, else all]")
]
ItemSize = Annotated[
    int, Option(min=1, help="Most candidates or images that a worker does at a time.")
]

Label = Annotated[str, Option(help="A rater, 'agreed', 'majority_atypical' or 'atypical_RATER'.")]
Resamples = Annotated[int, Option(min=100, help="Draws for intervals of the calibration error.")]
Seed = Annotated[int, Option(help="Of everything random.")]
ImagesOf = Annotated[Path | None, Option(help="Its cohort, for the images.")]

Split = Annotated[
    str | None,
    Option(help="table1, benchmark, holdout, cv, monte_carlo, all, domains, or a file."),
]
TrainingLabel = Annotated[str | None, Option(help="A rater, or agreed.")]
TrainingSeed = Annotated[int | None, Option(help="Of everything random.")]
Resume = Annotated[bool, Option("--resume", help="Go on with what was stopped.")]

AllowOverlap = Annotated[
    bool, Option("--allow-overlap", help="Accept patients who are in both (merge: once).")
]
DistinctIds = Annotated[
    bool,
    Option(
        "--distinct-ids",
        help="Equal ids are of different people, unless they name a public case.",
    ),
]
