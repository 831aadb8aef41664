"""Torch against ONNX Runtime, in fp32 and in 8-bit integers: speed and answers.

    atypia export --model RUN --out EXPORT --int8 --calibration-images COHORT
    python benchmarks/backends.py --model RUN --export EXPORT --cohort COHORT

Decoded patches to probabilities, as `predict_proba` does it: sampling of the field of view
included, decoding of files not. Backends take turns, so that other work on the machine meets all of
them; patches per second and, as that work takes its share, per second of CPU time. Prints JSON,
with the goals: ONNX at least 1.3 times as fast as torch, both in fp32; int8 faster still, and less
than 0.005 of mean AUC lost. With ``--accuracy N``, int8 is compared with ONNX in fp32 on so many
figures besides: the difference of mean AUC on a few hundred has more noise than that.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from atypia.classifiers.ensemble import Ensemble
from atypia.classifiers.onnx_classifier import OnnxEnsemble
from atypia.core.files import describe_machine
from atypia.core.labels import subtype_index
from atypia.data.cohort import Cohort
from atypia.data.images import read_patch
from atypia.evaluation.metrics import one_vs_rest_auc

INT8 = ("onnx", "onnx-int8")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="released", help="'released', a bundle or a run")
    parser.add_argument("--export", type=Path, required=True, help="of that model, with --int8")
    parser.add_argument("--cohort", type=Path, required=True, help="labelled by expert 1")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accuracy", type=int, default=0, metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    cohort = Cohort.open(options.cohort)
    labels = cohort.manifest["label_expert1"]
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(labels != ""))
    more = shuffled[: options.accuracy]
    rows = shuffled[: options.patches]
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
    auc = {name: mean_auc(truth, p) for name, p in answers.items()}
    figures: dict[str, object] = {
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
    loss = auc["onnx"] - auc["onnx-int8"]
    if len(more):
        truth = np.array([subtype_index(labels[row]) for row in more])
        patches = np.stack([read_patch(paths[row]) for row in more])
        both = {name: mean_auc(truth, models[name].predict_proba(patches, mpp)) for name in INT8}
        loss = both["onnx"] - both["onnx-int8"]
        figures["accuracy"] = {"figures": len(more), "mean_auc": both}
    total, used = ({n: float(s[:, k].sum()) for n, s in seconds.items()} for k in (0, 1))
    times = {
        "onnx against torch": round(total["torch"] / total["onnx"], 2),
        "onnx-int8 against onnx": round(total["onnx"] / total["onnx-int8"], 2),
        "onnx against torch, CPU time": round(used["torch"] / used["onnx"], 2),
        "onnx-int8 against onnx, CPU time": round(used["onnx"] / used["onnx-int8"], 2),
    }
    figures["times as fast"] = times
    figures["mean AUC lost by int8"] = round(loss, 5)
    figures["goals"] = {
        "onnx at least 1.3 times as fast as torch": times["onnx against torch"] >= 1.3,
        "int8 faster still": times["onnx-int8 against onnx"] > 1,
        "less than 0.005 of mean AUC lost": loss < 0.005,
    }
    about = {"patches": len(rows), "threads": options.threads, "quality": options.quality}
    print(json.dumps({**describe_machine(), **about, **figures}, indent=2))


def mean_auc(truth: npt.NDArray[np.int64], p: npt.NDArray[np.float32]) -> float:
    """Mean one-vs-rest AUC over the subtypes that occur."""
    return float(np.nanmean(one_vs_rest_auc(truth, p.astype(np.float64))))


if __name__ == "__main__":
    main()
