"""Torch against ONNX Runtime, in fp32 and in 8-bit integers: speed and answers.

    atypia export --model RUN --out EXPORT --int8 --calibration-images COHORT
    python benchmarks/backends.py --model RUN --export EXPORT --cohort COHORT

Decoded patches to probabilities, as `predict_proba` does it: sampling of the field of view
included, decoding of files not. Backends take turns, so that other work on the machine meets all of
them; patches per second and, as that work takes its share, per second of CPU time. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.ensemble import Ensemble
from atypia.evaluation.metrics import one_vs_rest_auc
from atypia.inference.onnx import OnnxEnsemble
from atypia.labels import subtype_index
from atypia.runs import describe_machine


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="bundle or run")
    parser.add_argument("--export", type=Path, required=True, help="of that model, with --int8")
    parser.add_argument("--cohort", type=Path, required=True, help="labelled by expert 1")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    cohort = Cohort.open(options.cohort)
    labels = cohort.manifest["label_expert1"]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(labels != ""))[: options.patches]
    truth = np.array([subtype_index(labels[row]) for row in rows])
    paths = cohort.image_paths()
    patches = np.stack([read_patch(paths[row]) for row in rows])
    mpp = float(cohort.manifest["mpp"].iloc[0])

    models: dict[str, Ensemble | OnnxEnsemble] = {
        "torch": Ensemble.load(options.model, options.quality)
    }
    for name, int8 in (("onnx", False), ("onnx-int8", True)):
        models[name] = OnnxEnsemble.load(
            options.export, options.quality, int8=int8, device="cpu", threads=options.threads
        )
    for model in models.values():
        model.predict_proba(patches[:64], mpp)  # what is set up once
    part = np.array_split(np.arange(len(rows)), options.repeats)
    seconds = {name: np.zeros((options.repeats, 2)) for name in models}
    answers = {name: np.empty((len(rows), 8), np.float32) for name in models}
    for repeat, chosen in enumerate(part):
        for name, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers[name][chosen] = model.predict_proba(patches[chosen], mpp)
            seconds[name][repeat] = time.perf_counter() - wall, time.process_time() - cpu
    auc = {
        name: float(np.nanmean(one_vs_rest_auc(truth, p.astype(np.float64))))
        for name, p in answers.items()
    }
    figures = {
        name: {
            "patches_per_second": round(len(rows) / float(seconds[name][:, 0].sum()), 1),
            "patches_per_cpu_second": round(len(rows) / float(seconds[name][:, 1].sum()), 1),
            "mean_auc": round(auc[name], 5),
            "mean_auc_difference": round(auc[name] - auc["torch"], 5),
            "largest_difference": float(np.abs(answers[name] - answers["torch"]).max()),
            "same_subtype": float((answers[name].argmax(1) == answers["torch"].argmax(1)).mean()),
        }
        for name in models
    }
    about = {"patches": len(rows), "threads": options.threads, "quality": options.quality}
    print(json.dumps({**describe_machine(), **about, **figures}, indent=2))


if __name__ == "__main__":
    main()
