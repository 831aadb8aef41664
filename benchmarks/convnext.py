"""Speed and memory of a ConvNeXt on this machine: full fine-tuning step, and inference.

Runs Atypia's own training loop (decoded patches, augmentation, micro-batches, optimiser) on a
folder of PNG patches with invented labels and random weights, and prints JSON.
``aucmedi_convnext.py`` is its counterpart; run both one after the other on a quiet machine.

    python benchmarks/convnext.py --patches ami-br/patches/normal --micro-batch 7
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from atypia.classifiers.ensemble import load_network, predict_network
from atypia.core.config import load_config
from atypia.core.files import describe_machine
from atypia.data.images import read_patch
from atypia.models.hardware import choose_device, choose_precision, peak_memory_bytes
from atypia.models.network import make_network
from atypia.training.distributed import ComputePlace, World
from atypia.training.fit import fit
from atypia.training.member_tasks import MemberTask
from atypia.training.patch_store import PatchStore
from atypia.training.targets import Targets


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=Path, required=True, help="folder of PNG patches")
    parser.add_argument("--backbone", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=42)
    parser.add_argument("--micro-batch", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="measured steps, after as many more")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--contiguous", action="store_true", help="channels first in memory")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING)
    load_before = os.getloadavg()[0]
    device = choose_device("cpu")
    precision = choose_precision(options.precision, device)
    layout = torch.contiguous_format if options.contiguous else torch.channels_last
    config = load_config(
        "paper",
        [
            f"model.backbone={options.backbone}",
            "model.pretrained=false",
            f"input.size_px={options.size}",
            f"optim.batch_size={options.batch}",
            f"optim.micro_batch={options.micro_batch}",
            f"optim.batches_per_epoch={options.steps}",
            "optim.head_epochs=0",
            "optim.epochs=2",
            "optim.select=last",
            "optim.early_stopping=null",
        ],
    )
    files = sorted(options.patches.glob("*.png"))[: options.batch * 6]
    if len(files) < options.batch:
        sys.exit(f"expected at least {options.batch} PNG files in {options.patches}")
    pixels = np.stack([read_patch(file) for file in files])
    store = PatchStore(pixels, 0.25)
    labels = np.arange(len(files)) % 8
    rows = np.arange(len(files))
    one_hot = np.eye(8, dtype=np.float32)[labels]
    targets = Targets(one_hot[:, None], (labels < 4).astype(np.float32))
    task = MemberTask("benchmark", rows, rows[:8], targets, labels, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        fit(task, config, store, ComputePlace(device, precision, World(), layout), Path(folder))
        history = pd.read_csv(Path(folder) / "history.csv")
        peak = peak_memory_bytes()
        _, spec, _ = make_network(config.model, config.input, initial_weights=False)
        network = load_network(config.model, spec, Path(folder) / "member.safetensors")
    network.to(memory_format=layout)

    def infer(n: int) -> float:
        clock = time.perf_counter()
        predict_network(network, pixels[:n], 0.25, spec, device=device, batch_size=8)
        return time.perf_counter() - clock

    infer(8)
    n = min(len(pixels), options.batch * 2)
    print(
        json.dumps(
            {
                "backbone": options.backbone,
                "size_px": options.size,
                "batch": options.batch,
                "micro_batch": options.micro_batch,
                "precision": str(precision).removeprefix("torch."),
                "channels_last": not options.contiguous,
                "step_seconds": round(float(history["seconds"].iloc[-1]) / options.steps, 3),
                "wait_fraction": float(history["wait_fraction"].iloc[-1]),
                "augment_fraction": float(history["augment_fraction"].iloc[-1]),
                "inference_patches_per_second": round(n / infer(n), 1),
                "peak_memory_gb": round(peak / 1e9, 2),
                "load_average_before": round(load_before, 2),
                "threads": options.threads,
                "torch": torch.__version__,
                **describe_machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
