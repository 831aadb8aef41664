"""Make the model in the package from the run that trained it.

    python docs/make_release.py runs/all --cohort cohorts/ami-br --out src/atypia/released

The weights go to 16 bits; the rest of the bundle stays as the run left it. The quality ``fast`` is
the first member alone, without averaging over views: its temperature, threshold and sets are fixed
on the patients that this member has not seen. With ``--student`` it is a distilled network instead.
The model card is written by ``make_model_card.py`` afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from atypia.bundle import QualityHeader, Thresholds, read_header, write_header
from atypia.data.cohort import Cohort
from atypia.data.loader import open_store
from atypia.data.splits import Splits, rows
from atypia.decision import p_atypical
from atypia.ensemble import Ensemble, add_quality
from atypia.evaluation.calibration import fit_calibration
from atypia.evaluation.conformal import ConformalSets
from atypia.evaluation.thresholds import operating_point
from atypia.labels import N_ATYPICAL
from atypia.training.targets import chosen_labels

ALPHA = 0.1


def main() -> None:
    """Copy the run's bundle, and give it a fast quality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="run of a fast model, from atypia distill")
    options = parser.parse_args()
    Ensemble.load(options.run).save(options.out, half=True)
    if options.student is not None:
        add_quality(options.out, Ensemble.load(options.student), half=True)
    else:
        add_first_member(options.run, options.cohort, options.out)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


def add_first_member(run: Path, cohort_folder: Path, bundle: Path) -> None:
    """Let the bundle's first member answer alone; it shares the member's file."""
    cohort = Cohort.open(cohort_folder)
    unseen = Splits.read(run / "splits.json", cohort.manifest, cohort.sha256).outer[0].inner[0]
    header = read_header(bundle)
    whole = Ensemble.load(bundle)
    alone = Ensemble(
        whole.members[:1], whole.spec, whole.model, False, whole.decision, whole.threshold
    )
    labels = chosen_labels(cohort.manifest, str(header.provenance["label"]))
    judged = np.flatnonzero(rows(cohort.manifest, unseen) & (labels >= 0))
    store = open_store(cohort, whole.spec, None, run / ".release-pixels.npy")
    raw = alone.predict_proba(store.pixels[judged], store.mpp)
    manifest = cohort.manifest.iloc[judged]
    calibration = fit_calibration(raw, labels[judged], manifest["domain"].to_numpy(dtype=str))
    answers = calibration.apply(raw)
    threshold = operating_point(
        p_atypical(answers).astype(float),
        labels[judged] < N_ATYPICAL,
        manifest["patient_id"].to_numpy(dtype=str),
    )
    sets = ConformalSets.fit(answers, labels[judged], ALPHA, class_conditional=True)
    fast = QualityHeader(
        input=header.input,
        network=header.network,
        members=header.members[:1],
        tta=False,
        calibration=calibration.to_json(),
        conformal=sets.to_json(),
        decision=header.decision,
        thresholds=Thresholds(atypical=threshold),
    )
    write_header(bundle, header.model_copy(update={"fast": fast}))


if __name__ == "__main__":
    main()
