"""Measure AUCMEDI's ConvNeXt-Tiny on the CPU: a full fine-tuning step, inference, peak memory.

The outside half of the comparison with Atypia. It runs in a virtual environment of its own, because
AUCMEDI 0.11 needs TensorFlow and older versions of the libraries Atypia uses:

    python3 -m venv aucmedi-venv
    aucmedi-venv/bin/pip install "aucmedi==0.11" "numpy<2.4" "pandas<3" "matplotlib<3.9" \
        "albumentations<1.4" "setuptools<81"
    aucmedi-venv/bin/python benchmarks/aucmedi_convnext.py --patches FOLDER --out aucmedi.json

AUCMEDI is used as its documentation says (https://frankkramer-lab.github.io/aucmedi/): a
`NeuralNetwork` with architecture "2D.ConvNeXtTiny" and the class-weighted categorical focal loss,
fed by `DataGenerator`s. The weights are random and the labels are made up: neither changes the
speed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from aucmedi import DataGenerator, ImageAugmentation, NeuralNetwork
from aucmedi.neural_network.loss_functions import categorical_focal_loss
from aucmedi.utils.class_weights import compute_class_weights

N_CLASSES = 8
PACKAGES = ("aucmedi", "tensorflow", "keras", "numpy", "albumentations", "opencv-python")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patches", type=Path, required=True, help="folder of PNG patches")
    parser.add_argument("--steps", type=int, default=6, help="batches to measure, after a warm-up")
    parser.add_argument("--batch", type=int, default=42, help="patches per batch")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input in px")
    parser.add_argument(
        "--threads", type=int, default=2, help="threads to compute and to load with"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.batch, arguments.threads) < 1:
        parser.error("--steps, --batch and --threads must be at least 1")
    if arguments.batch * arguments.steps < N_CLASSES:
        parser.error(
            f"--batch times --steps must be at least {N_CLASSES}: each class needs a patch"
        )
    if not any(arguments.patches.glob("*.png")):
        parser.error(f"--patches: no PNG file in {arguments.patches}")
    return arguments


def choose_samples(folder: Path, count: int) -> list[str]:
    """Name `count` patches of a folder, in order and from the start again if it has fewer."""
    names = sorted(path.stem for path in folder.glob("*.png"))
    return list(islice(cycle(names), count))


def make_labels(count: int) -> np.ndarray:
    """Make one-hot labels, shape (count, N_CLASSES), in which every class occurs."""
    return np.eye(N_CLASSES, dtype=np.float32)[np.arange(count) % N_CLASSES]


def peak_memory_gb() -> float:
    """Return the highest resident memory of this process so far, in GB (10⁹ bytes)."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure_loading(generator: DataGenerator, steps: int) -> list[float]:
    """Return the seconds to load, resize and augment each batch, with no network running."""
    seconds = []
    for index in range(steps):
        start = time.perf_counter()
        generator[index]
        seconds.append(time.perf_counter() - start)
    return seconds


def measure_inference(model: NeuralNetwork, generator: DataGenerator) -> float:
    """Return the patches per second of `predict` over a generator, after a warm-up batch."""
    generator.set_length(1)
    model.predict(generator)
    generator.reset_length()
    start = time.perf_counter()
    predictions = model.predict(generator)
    return len(predictions) / (time.perf_counter() - start)


def measure_training(model: NeuralNetwork, generator: DataGenerator, steps: int) -> list[float]:
    """Return the seconds of each fine-tuning step: loading, forward, backward and update.

    A step lasts from the end of one batch to the end of the next, so it includes any wait for
    data. The first, in which TensorFlow also builds its graph, is the warm-up and left out.
    """
    ends: list[float] = []
    clock = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_batch, **_logs: ends.append(time.perf_counter())
    )
    model.train(generator, epochs=1, iterations=steps + 1, callbacks=[clock])
    return np.diff(ends).tolist()


def main() -> None:
    arguments = parse_arguments()
    # Says afterwards whether the machine was quiet; our own load must not count.
    load_before = os.getloadavg()[0]
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    tf.keras.utils.set_random_seed(0)

    samples = choose_samples(arguments.patches, arguments.batch * arguments.steps)
    labels = make_labels(len(samples))
    loss_weights, _ = compute_class_weights(labels)
    model = NeuralNetwork(
        n_labels=N_CLASSES,
        channels=3,
        architecture="2D.ConvNeXtTiny",
        input_shape=(arguments.size, arguments.size),
        pretrained_weights=False,
        loss=categorical_focal_loss(alpha=loss_weights),
    )
    reading = {
        "samples": samples,
        "path_imagedir": str(arguments.patches),
        "image_format": "png",
        "batch_size": arguments.batch,
        "resize": model.meta_input,
        "standardize_mode": model.meta_standardize,
        "workers": arguments.threads,
    }
    augmentation = ImageAugmentation(
        flip=True,
        rotate=True,
        gaussian_noise=True,
        brightness=False,
        contrast=False,
        saturation=False,
        hue=False,
        scale=False,
    )
    training = DataGenerator(labels=labels, data_aug=augmentation, shuffle=True, **reading)
    prediction = DataGenerator(labels=None, **reading)

    # The system only keeps the highest memory so far: inference, which needs less, comes first.
    patches_per_second = measure_inference(model, prediction)
    inference_memory = peak_memory_gb()
    loading_seconds = measure_loading(training, arguments.steps)
    step_seconds = measure_training(model, training, arguments.steps)

    result = {
        "system": "AUCMEDI",
        "architecture": "2D.ConvNeXtTiny",
        "parameters": model.model.count_params(),
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.model.trainable_weights),
        "batch": arguments.batch,
        "size_px": arguments.size,
        "threads": arguments.threads,
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "steps": arguments.steps,
        "train_step_seconds": statistics.median(step_seconds),
        "train_step_seconds_each": step_seconds,
        "loading_seconds_per_batch": statistics.median(loading_seconds),
        "inference_patches_per_second": patches_per_second,
        "peak_memory_gb": peak_memory_gb(),
        "peak_memory_inference_gb": inference_memory,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    text = json.dumps(result, indent=2)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
