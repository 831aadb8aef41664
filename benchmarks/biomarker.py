"""How close the corrected atypical fraction of a patient comes to the experts', patient by patient.

Every patient with enough figures is left out in turn: the model's errors are counted on the
others, and the patient's atypical fraction is estimated from the model's calls alone.

    python benchmarks/biomarker.py PREDICTIONS.csv [--label expert1] [--min-figures 8]
"""

from __future__ import annotations

import argparse

import numpy as np

from atypia.biomarker import ErrorModel
from atypia.biomarker.biomarker_intervals import binomial_interval
from atypia.biomarker.correction import Correction
from atypia.evaluation.predictions import UNKNOWN, read_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("predictions", help="run folder or table that no model has learned from")
    parser.add_argument("--label", default="expert1")
    parser.add_argument("--min-figures", type=int, default=8)
    options = parser.parse_args()
    table = read_predictions(options.predictions)
    truth = table.atypical_of(options.label)
    table, truth = table.take(truth != UNKNOWN), truth[truth != UNKNOWN]

    errors: dict[str, list[float]] = {"plain": [], "corrected": []}
    held = {"plain": 0, "corrected": 0}
    for patient in np.unique(table.patients):
        own = table.patients == patient
        figures, called = int(own.sum()), int(table.predicted_atypical[own].sum())
        if figures < options.min_figures:
            continue
        model = ErrorModel.fit(table.take(~own), options.label)
        site = Correction.at_site(model, table.probabilities, table.patients)
        fraction = float(truth[own].mean())
        known = site.shares(table.probabilities[own]).atypical()
        plain = binomial_interval(called, figures)
        for name, measure in (("plain", plain), ("corrected", known)):
            assert measure.value is not None
            assert measure.low is not None
            assert measure.high is not None
            errors[name].append(measure.value - fraction)
            held[name] += measure.low <= fraction <= measure.high

    n = len(errors["plain"])
    print(f"{n} patients of at least {options.min_figures} figures, against {options.label}\n")
    print("| estimate | bias | root mean square error | intervals that hold the truth |")
    print("|---|---:|---:|---:|")
    for name, of in errors.items():
        hits = f"{held[name]} of {n}" if name in held else "–"
        print(f"| {name} | {np.mean(of):+.3f} | {np.sqrt(np.mean(np.square(of))):.3f} | {hits} |")


if __name__ == "__main__":
    main()
