"""How close the atypical fraction of a patient comes to the experts', and what its intervals hold.

Everything is of out-of-fold predictions, and nested: a model's errors are fitted on other patients
than those that are estimated. A site is those patients, as they are or made anew:

- `thinned`: figures of the commoner side are left out at random until the site has the prevalence;
- `resampled`: each patient's share is drawn around the prevalence (beta, intra-patient correlation
  of 0.2), and figures from all of the site: patients differ by frequency alone;
- `patients`: whole patients are drawn, those with many atypical figures more or less often;
- `shifted`: the log-odds of normal figures are raised until 20 % more of them are called atypical.

    python benchmarks/biomarker.py [PREDICTIONS.csv] [--label expert1] [--out FILE.md]

With `--other` also what the package makes of AtNorM-MD: a table of ``atypia predict``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from atypia.biomarker import ErrorModel, model_errors
from atypia.biomarker.biomarker_intervals import binomial_interval
from atypia.biomarker.correction import Correction
from atypia.biomarker.label_errors import SIDE
from atypia.core.files import write_text
from atypia.evaluation.predictions import MAJORITY, UNKNOWN, Predictions, read_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atypia.biomarker.biomarker_intervals import Measure

PREDICTIONS = "docs/results/released-all"
DOMAINS = "docs/results/flat-domains/predictions-test.csv.bz2"
MIN_FIGURES = 8
REPEATS = 20
SEED = 0


class Tally:
    """Estimates beside the truth, and whether the intervals hold it."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, float]] = []

    def add(self, measure: Measure, truth: float) -> None:
        """Note an estimate with its interval, and the truth."""
        assert measure.value is not None
        assert measure.low is not None
        assert measure.high is not None
        self.rows.append((measure.value, truth, measure.low, measure.high))

    def measures(self) -> dict[str, float]:
        """Bias, errors and coverage."""
        value, truth, low, high = np.array(self.rows).T
        error = value - truth
        return {
            "n": len(value),
            "bias": error.mean(),
            "rmse": np.sqrt(np.square(error).mean()),
            "r": np.corrcoef(value, truth)[0, 1],
            "slope": np.polyfit(value, truth, 1)[0],
            "coverage": ((low <= truth) & (truth <= high)).mean(),
            "width": (high - low).mean(),
        }


def out_of_fold(table: Predictions, label: str, truth: NDArray[np.bool_]) -> list[str]:
    """Every fold is a site whose model's errors are fitted on the other four."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for fold in np.unique(table.folds):
        site = table.folds == fold
        model = ErrorModel.fit(table.take(~site), label)
        together = Correction.at_site(model, table.probabilities[site], table.patients[site])
        for patient in np.unique(table.patients[site]):
            own = table.patients == patient
            if own.sum() < MIN_FIGURES:
                continue
            p, fraction = table.probabilities[own], float(truth[own].mean())
            alone = Correction.at_site(model, p, table.patients[own])
            called = int(table.predicted_atypical[own].sum())
            tallies["share of the calls"].add(binomial_interval(called, len(p)), fraction)
            plain = binomial_interval(round(float((p @ SIDE).sum())), len(p))
            tallies["mean of p_atypical"].add(
                type(plain)(float((p @ SIDE).mean()), plain.low, plain.high), fraction
            )
            tallies["corrected"].add(together.shares(p).atypical(), fraction)
            tallies["corrected, each patient a site"].add(alone.shares(p).atypical(), fraction)
    lines = [
        "| estimate | bias | RMSE | r | slope of label on estimate | intervals hold it | width |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, tally in tallies.items():
        m = tally.measures()
        lines.append(
            f"| {name} | {m['bias']:+.3f} | {m['rmse']:.3f} | {m['r']:.2f} | {m['slope']:.2f} | "
            f"{100 * m['coverage']:.0f} % | {m['width']:.2f} |"
        )
    return [f"{m['n']:.0f} patients of {MIN_FIGURES} figures or more.\n", *lines]


def sites(
    kind: str,
    prevalence: float,
    patients: NDArray[np.int64],
    truth: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[list[NDArray[np.int64]], list[float]]:
    """Rows of each patient of a site, and the share that is to be estimated."""
    if kind == "thinned":
        odds = prevalence / (1 - prevalence) * (1 - truth.mean()) / truth.mean()
        kept = rng.random(len(truth)) < np.where(truth, min(1, odds), min(1, 1 / odds))
        rows = [np.flatnonzero((patients == i) & kept) for i in np.unique(patients[kept])]
        return rows, [float(truth[own].mean()) for own in rows]
    size = np.bincount(patients)
    if kind == "resampled":
        of_side = {side: np.flatnonzero(truth == side) for side in (True, False)}
        shares = rng.beta(4 * prevalence, 4 * (1 - prevalence), len(size))
        rows = []
        for n, share in zip(size, shares, strict=True):
            sides = rng.random(n) < share
            drawn = {side: rng.choice(of, n) for side, of in of_side.items()}
            rows.append(np.where(sides, drawn[True], drawn[False]))
        return rows, shares.tolist()
    fraction, enough = np.bincount(patients, truth) / size, size >= MIN_FIGURES
    low, high = -40.0, 40.0
    for _ in range(60):  # weights that bring the mean fraction of patients to the prevalence
        tilt = (low + high) / 2
        weights = np.exp(tilt * (fraction - fraction.max())) * enough
        weights /= weights.sum()
        low, high = (tilt, high) if weights @ fraction < prevalence else (low, tilt)
    drawn = rng.choice(len(size), enough.sum(), p=weights)
    return [np.flatnonzero(patients == i) for i in drawn], fraction[drawn].tolist()


def prevalences(table: Predictions, label: str, truth: NDArray[np.bool_]) -> list[str]:
    """Half of the patients give the errors, the others the site."""
    lines = [
        "| site | prevalence | mean share | bias | slope | intervals hold it | bias unshifted |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    names, patients = np.unique(table.patients, return_inverse=True)
    for kind in ("thinned", "resampled", "patients"):
        for prevalence in (0.05, 0.15, 0.3, 0.5):
            rng = np.random.default_rng(SEED)
            corrected, unshifted = Tally(), []
            for _ in range(REPEATS):
                errors = np.isin(patients, rng.permutation(len(names))[: len(names) // 2])
                model = ErrorModel.fit(table.take(errors), label)
                pool = np.flatnonzero(~errors)
                _, own = np.unique(patients[pool], return_inverse=True)
                rows, shares = sites(kind, prevalence, own, truth[pool], rng)
                p = [table.probabilities[pool[of]] for of in rows]
                whose = np.repeat(np.arange(len(p)), [*map(len, p)])
                site = Correction.at_site(model, np.concatenate(p), whose)
                for probabilities, share in zip(p, shares, strict=True):
                    if len(probabilities) >= MIN_FIGURES:
                        found = site.shares(probabilities)
                        corrected.add(found.atypical(), share)
                        scores = np.exp(site.errors.scores(probabilities))
                        plain = scores @ SIDE / scores.sum(axis=1)
                        unshifted.append(float(plain.mean()) - share)
            m, mean = corrected.measures(), np.mean([row[1] for row in corrected.rows])
            lines.append(
                f"| {kind} | {prevalence:.2f} | {mean:.2f} | "
                f"{m['bias']:+.3f} | {m['slope']:.2f} | {100 * m['coverage']:.0f} % | "
                f"{np.mean(unshifted):+.3f} |"
            )
    return lines


def local_labels(table: Predictions, label: str, truth: NDArray[np.bool_]) -> list[str]:
    """Make a site where 20 % more of the normal figures are called atypical; label some."""
    lines = [
        "| labelled figures | bias | RMSE | intervals hold the label | width |",
        "|---:|---:|---:|---:|---:|",
    ]
    names, patients = np.unique(table.patients, return_inverse=True)
    called = table.predicted_atypical
    threshold = float(table.p_atypical[called].min())
    p_atypical = np.clip(table.p_atypical, 1e-6, 1 - 1e-6)
    wanted = called[~truth].mean() + 0.2
    low, high = 0.0, 10.0
    for _ in range(50):
        shift = (low + high) / 2
        more = (expit(logit(p_atypical[~truth]) + shift) >= threshold).mean() < wanted
        low, high = (shift, high) if more else (low, shift)
    factor = np.where(truth, 1.0, np.exp(shift))[:, None]
    shifted = table.probabilities * np.where(SIDE == 1, factor, 1.0)
    shifted /= shifted.sum(axis=1, keepdims=True)
    for n in (0, 50, 100, 200):
        rng, tally = np.random.default_rng(SEED), Tally()
        for _ in range(REPEATS):
            errors = np.isin(patients, rng.permutation(len(names))[: len(names) // 2])
            model = ErrorModel.fit(table.take(errors), label)
            pool = np.flatnonzero(~errors)
            labelled = rng.choice(pool, n, replace=False)
            if n:
                local = table.take(labelled)
                vars(local)["probabilities"][:] = shifted[labelled]
                model = ErrorModel.fit(local, label, prior=model)
            rest = np.setdiff1d(pool, labelled)
            site = Correction.at_site(model, shifted[rest], patients[rest])
            for patient in np.unique(patients[rest]):
                own = rest[patients[rest] == patient]
                if len(own) >= MIN_FIGURES:
                    tally.add(site.shares(shifted[own]).atypical(), float(truth[own].mean()))
        m = tally.measures()
        lines.append(
            f"| {n} | {m['bias']:+.3f} | {m['rmse']:.3f} | {100 * m['coverage']:.0f} % | "
            f"{m['width']:.2f} |"
        )
    return lines


def hazards(table: Predictions, label: str, truth: NDArray[np.bool_]) -> list[str]:
    """Survival times with a hazard ratio of 1.5 per standard deviation of the true fraction."""
    values: dict[str, list[float]] = defaultdict(list)
    for fold in np.unique(table.folds):
        rows = table.folds == fold
        model = ErrorModel.fit(table.take(~rows), label)
        site = Correction.at_site(model, table.probabilities[rows], table.patients[rows])
        for patient in np.unique(table.patients[rows]):
            own = table.patients == patient
            if own.sum() >= MIN_FIGURES:
                values["true fraction"].append(float(truth[own].mean()))
                p = table.probabilities[own]
                values["share of the calls"].append(float(table.predicted_atypical[own].mean()))
                values["mean of p_atypical"].append(float((p @ SIDE).mean()))
                values["corrected"].append(site.shares(p).fraction)
    rng, ratios = np.random.default_rng(SEED), defaultdict(list)
    true = np.array(values["true fraction"])
    for _ in range(400):
        drawn = rng.choice(len(true), 400)
        hazard = np.exp(np.log(1.5) * (true[drawn] - true.mean()) / true.std())
        time, censored = rng.exponential(1 / hazard), rng.exponential(2.0, len(drawn))
        for name, value in values.items():
            x = np.array(value)[drawn] / true.std()  # all on the scale of the true fraction
            slope = _cox(np.minimum(time, censored), time <= censored, x)
            ratios[name].append(slope)
    lines = ["| covariate | hazard ratio | 95 % of simulations |", "|---|---:|---:|"]
    for name, slopes in ratios.items():
        low, middle, high = np.exp(np.quantile(slopes, [0.025, 0.5, 0.975]))
        lines.append(f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} |")
    return lines


def _cox(time: NDArray[np.float64], event: NDArray[np.bool_], x: NDArray[np.float64]) -> float:
    """Log hazard ratio of one covariate by Newton's method on the partial likelihood (Cox 1972)."""
    order = np.argsort(-time)
    x, event = x[order] - x.mean(), event[order]
    slope = 0.0
    for _ in range(25):
        weight = np.exp(slope * x)
        at_risk = np.cumsum(weight)
        mean = np.cumsum(weight * x) / at_risk
        variance = np.cumsum(weight * x**2) / at_risk - mean**2
        slope += float((x - mean)[event].sum() / variance[event].sum())
    return slope


def elsewhere(options: argparse.Namespace) -> list[str]:
    """Compare whole sites with and without the shift to their prevalence, where both are true."""
    lines = ["| site | label | atypical by it | mean of p_atypical | unshifted | corrected |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    sites = []
    domains = read_predictions(DOMAINS)
    for name in np.unique(domains.domains):
        site = domains.domains == name
        for label in ("expert1", MAJORITY):
            sites.append(
                (name, label, domains.take(site), ErrorModel.fit(domains.take(~site), label))
            )
    if options.other:
        shipped = model_errors("released").errors
        assert shipped is not None
        sites.append(("AtNorM-MD", MAJORITY, read_predictions(options.other), shipped.by(MAJORITY)))
    for name, label, table, model in sites:
        p, truth = table.probabilities, table.atypical_of(label)
        at = Correction.at_site(model, p, table.patients)
        scores = np.exp(at.errors.scores(p))
        shares = [(truth == 1).sum() / (truth != UNKNOWN).sum(), (p @ SIDE).mean()]
        shares += [(scores @ SIDE / scores.sum(axis=1)).mean(), at.mean(p) @ SIDE]
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {name} | `{label}` | {cells} |")
    return lines


def by_label(table: Predictions) -> list[str]:
    """Estimate the same figures by each label that the errors in the package are known for."""
    model = model_errors("released").errors
    assert model is not None
    site = Correction.at_site(model, table.probabilities, table.patients)
    lines = ["| label | atypical by it | of these called so | of the others called so |"]
    lines.append("|---|---:|---:|---:|")
    for name, by in {model.label: site, **site.others}.items():
        share, *called = float(by.mean(table.probabilities) @ SIDE), *by.errors.rates
        cells = " | ".join(f"{100 * part:.1f} %" for part in (share, *called))
        lines.append(f"| `{name}` | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("predictions", nargs="?", default=PREDICTIONS, help="out of fold")
    parser.add_argument("--label", default="expert1")
    parser.add_argument("--other", help="predictions of the package on AtNorM-MD")
    parser.add_argument("--out", type=Path, help="Markdown to write; else it is printed")
    options = parser.parse_args()
    table = read_predictions(options.predictions)
    known = table.atypical_of(options.label) != UNKNOWN
    table = table.take(known)
    truth = table.atypical_of(options.label) == 1
    parts = {
        "Out of fold": out_of_fold(table, options.label, truth),
        "Sites of other prevalence": prevalences(table, options.label, truth),
        "A site with 20 % more false positives": local_labels(table, options.label, truth),
        "Hazard ratio of 1.50 per standard deviation": hazards(table, options.label, truth),
        "Sites as they are": elsewhere(options),
        "By whose eyes": by_label(table),
    }
    other = " --other atnorm-md.csv" if options.other else ""
    command = f"python benchmarks/biomarker.py {options.predictions} --label {options.label}{other}"
    text = [f"# The atypical fraction of patients\n\n`{command}`, seed {SEED}, {REPEATS} repeats."]
    text += [f"\n## {title}\n\n" + "\n".join(lines) for title, lines in parts.items()]
    page = "\n".join(text) + "\n"
    if options.out:
        write_text(options.out, page)
    print(page)


if __name__ == "__main__":
    main()
