"""What a split by figures is worth, beside one by patients: the same model, the same share tested.

Monte-Carlo cross-validation, binary, against the majority of the votes, as in the AMi-Br baseline.
The model is a linear probe on the ImageNet features of EfficientNet-Lite0, which fits in a second,
so that the test parts can be many; the penalty is the same for both splits. A figure's answer is
the mean over the repeats in which it was tested; the difference is taken on figures that both
splits have tested, with an interval from resampling patients.

    python benchmarks/leak.py cohorts/ami-br --out benchmarks/leak.json --repeats 20

For a network that is trained to its last layer the package has the same two kinds of split:
``atypia train ... --split monte_carlo`` and ``--split leak_by_figure``.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atypia.core.config import LEAK, AugmentConfig, load_config
from atypia.core.files import write_json
from atypia.core.labels import N_ATYPICAL
from atypia.data.cohort import Cohort
from atypia.data.splits import leaking, make_splits, rows, with_true_patients
from atypia.evaluation import metrics
from atypia.evaluation.intervals import difference, estimate, measure
from atypia.models.network import make_network
from atypia.training.distributed import ComputePlace, World
from atypia.training.features import Features, cohort_features
from atypia.training.patch_store import open_store
from atypia.training.probe import Probe, fit_layer
from atypia.training.run_folder import CHOSEN, with_chosen_label
from atypia.training.targets import chosen_labels, make_targets

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.evaluation.metrics import FloatArray, Measures

SETTINGS = ["loss.of=sides", "loss.class_weights=balanced", "model.stages=shared"]
SPLITS = ("monte_carlo", LEAK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--penalty", type=float, nargs="+", default=[0.3, 0.01])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("atypia").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    started = time.process_time()
    cohort = Cohort.open(options.cohort)
    probe = open_features(cohort)
    result: dict[str, Any] = {
        "cohort": cohort.name,
        "cohort_sha256": cohort.sha256,
        "features": probe.origin,
        "repeats": options.repeats,
        "test_fraction": 0.2,
        "seed": options.seed,
    }
    for penalty in options.penalty:
        result[f"penalty {penalty:g}"] = experiment(
            cohort, probe, penalty, options.repeats, options.seed
        )
    result["cpu_seconds"] = round(time.process_time() - started)
    write_json(options.out, result)
    print(options.out.read_text())


def open_features(cohort: Cohort) -> Probe:
    """Features of the preset ``probe``; those that a run has left in the cohort are taken."""
    config = load_config("probe")
    network, spec, origin = make_network(config.model, config.input)
    place = ComputePlace(torch.device("cpu"), torch.float32, World())
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(cohort, spec, AugmentConfig(), Path(folder) / "pixels.npy")
        features = cohort_features(cohort, store, network, spec, place, Path(folder))
    plain = Features(features.values[:, :1], features.sha256)
    return Probe(network, origin, plain, cohort.manifest["patient_id"].to_numpy(dtype=str))


def experiment(
    cohort: Cohort, probe: Probe, penalty: float, repeats: int, seed: int
) -> dict[str, Any]:
    """Both splits with one penalty."""
    config = load_config("probe", SETTINGS)
    labels = chosen_labels(cohort.manifest, config.label)
    targets = make_targets(cohort.manifest, labels, config.target)
    known = np.isfinite(targets.atypical) & (targets.atypical != 0.5)
    truth = targets.atypical > 0.5
    answers: dict[str, FloatArray] = {}
    told: dict[str, Any] = {}
    for kind in SPLITS:
        whole = leaking(cohort) if kind == LEAK else cohort
        manifest = with_chosen_label(whole, config.label)
        splits = make_splits(
            manifest,
            cohort.sha256,
            kind=kind,
            label=CHOSEN,
            seed=seed,
            repeats=repeats,
            inner_folds=2,
        )
        total, times = np.zeros(len(cohort)), np.zeros(len(cohort))
        auc, balanced, shared = [], [], []
        for outer in splits.outer:
            tested = rows(manifest, outer.test)
            head = fit_layer(
                config, probe.features, targets, np.flatnonzero(~tested & known), penalty
            )
            asked = np.flatnonzero(tested & known)
            p = probe.answers(head, asked, tta=False)[:, :N_ATYPICAL].sum(axis=1).astype(float)
            total[asked] += p
            times[asked] += 1
            auc.append(float(metrics.roc_auc(truth[asked], p)[0]))
            called = metrics.binary_measures(truth[asked], p >= 0.5)
            balanced.append(float(called["balanced_accuracy"][0]))
            owners = with_true_patients(manifest)["patient_id"]
            shared.append(float(owners[tested].isin(set(owners[~tested])).mean()))
        answers[kind] = np.where(times > 0, total / np.maximum(times, 1), np.nan)
        told[kind] = {
            "auc": {"mean": np.mean(auc), "sd": np.std(auc, ddof=1)},
            "balanced_accuracy": {"mean": np.mean(balanced), "sd": np.std(balanced, ddof=1)},
            "figures_tested_whose_patient_was_learned_from": np.mean(shared),
        }
    both = known & np.all([np.isfinite(p) for p in answers.values()], axis=0)
    told["paired"] = paired(
        truth[both], {k: p[both] for k, p in answers.items()}, probe.patients[both], seed
    )
    return told


def paired(
    truth: npt.NDArray[np.bool_],
    answers: dict[str, FloatArray],
    patients: npt.NDArray[np.str_],
    seed: int,
) -> dict[str, Any]:
    """Measures of both splits on the same figures, and the difference, with intervals."""

    def statistic(weights: FloatArray, p: FloatArray) -> Measures:
        called = metrics.binary_measures(truth, p >= 0.5, weights)
        auc = metrics.auc_measures(truth, p, weights)
        return {**auc, **metrics.only(called, ["balanced_accuracy"])}

    estimates = {
        kind: estimate(partial(statistic, p=p), patients, seed=seed) for kind, p in answers.items()
    }
    estimates["leak"] = {
        name: difference(found, estimates["monte_carlo"][name])
        for name, found in estimates[LEAK].items()
    }
    return {
        "n": len(truth),
        **{f"{k} {name}": measure(v) for k, of in estimates.items() for name, v in of.items()},
    }


if __name__ == "__main__":
    main()
