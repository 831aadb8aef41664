"""How the binary threshold travels to patients of a domain that no network has learned from.

Every way below fixes a threshold on the out-of-fold answers of the training domain; two of them
also look at the answers to the other domain, but at none of its labels. What each is worth there is
told for the whole domain and for each of its scanners or laboratories, beside the threshold that
would have been best: the loss is what a threshold in the wrong place costs.

    atypia train cohorts/ami-br --out runs/domains --preset released --split domains
    python benchmarks/thresholds.py runs/domains --out docs/results/thresholds.md

``shift`` takes the answers to the other domain for a mixture of the training domain's atypical and
normal answers (densities of the logit), both moved by one number, in unknown shares; the number and
the share of most likelihood are found on a grid, with a normal prior of 0.5 on the number. It is
label shift (Saerens et al., Neural Computation 14, 2002) with a move of the scores beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import expit, logit

from atypia.core.files import write_json, write_text
from atypia.data.patient_names import case_of
from atypia.evaluation import metrics
from atypia.evaluation.intervals import estimate, measure, patient_weights
from atypia.evaluation.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

TRUTHS: Final = ("expert1", "majority_atypical")
WAYS: Final = {
    "label": "best by expert 1 in the training domain",
    "label_and_majority": "best by expert 1 and the majority alike (the recipe)",
    "share": "the share of atypical figures in the training domain",
    "half": "0.5",
    "matched": "as many called atypical as in the training domain",
    "shift": "the recipe's, moved with the answers",
}
LABORATORIES: Final = ((23, "TUPAC16, laboratory 1"), (48, "TUPAC16, laboratory 2"))
"""Last case of each; the rest is of the third (Veta et al., Medical Image Analysis 54, 2019)."""
_BANDWIDTH: Final = 0.4
_SPREAD: Final = 0.5
_GRID: Final = np.arange(-2, 2.01, 0.1)
_SHARES: Final = np.arange(0.02, 0.7, 0.02)
RESAMPLES: Final = 1000


def main() -> None:
    """Write the page, and its figures as JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="of the split domains")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    told: list[dict[str, Any]] = []
    for outer in sorted(options.run.glob("outer-*")):
        source = read_predictions(outer / "predictions-oof.csv")
        target = read_predictions(outer / "predictions-test.csv")
        for name, rows in groups(target).items():
            told.append({"tested": name, **travel(source, target.take(rows))})
    write_json(options.out.with_suffix(".json"), told, compact=True)
    write_text(options.out, page(told))
    print(page(told))


def groups(table: Predictions) -> dict[str, Bools]:
    """Name the whole table, then its scanners or laboratories."""
    domain = str(table.domains[0])
    found = {f"{domain}, all": np.ones(len(table), bool)}
    if domain == "TUPAC16":
        case = np.array([int(case_of(patient).split()[1]) for patient in table.patients])
        first, second = (case <= last for last, _ in LABORATORIES)
        parts = (first, second & ~first, ~second)
        names = (*(name for _, name in LABORATORIES), "TUPAC16, laboratory 3")
        return found | dict(zip(names, parts, strict=True))
    for scanner in np.unique(table.scanners):
        found[f"{domain}, {scanner or 'scanner not given'}"] = table.scanners == scanner
    return found


def travel(source: Predictions, target: Predictions) -> dict[str, Any]:
    """Fix thresholds on one table and judge them on the other."""
    thresholds = fix(source, target.p_atypical)
    judged = {}
    for truth in TRUTHS:
        atypical, known = truth_of(target, truth)
        p, patients = target.p_atypical[known], target.patients[known]
        by = {way: interval(p >= t, atypical, patients) for way, t in thresholds.items()}
        best = max(balanced(p >= t, atypical) for t in np.unique(p))
        judged[truth] = {"ways": by, "best": best, "n_atypical": int(atypical.sum())}
    return {
        "n": len(target),
        "n_patients": len(np.unique(target.patients)),
        "thresholds": thresholds,
        "judged": judged,
    }


def fix(source: Predictions, answers: Floats) -> dict[str, float]:
    """Fix a threshold in every way."""
    calls = [truth_of(source, truth) for truth in TRUTHS]
    p, patients = source.p_atypical, source.patients
    by_label, known = calls[0]
    both = np.concatenate([atypical for atypical, _ in calls])
    label = best_accuracy_point(p[known], by_label, patients[known])
    alike = best_accuracy_point(
        np.concatenate([p[k] for _, k in calls]),
        both,
        np.concatenate([patients[k] for _, k in calls]),
    )
    moved = shift(logit(held(p[known])), by_label, logit(held(answers)))
    return {
        "label": label,
        "label_and_majority": alike,
        "share": float(both.mean()),
        "half": 0.5,
        "matched": float(np.quantile(answers, 1 - (p >= alike).mean())),
        "shift": float(expit(logit(alike) + moved)),
    }


def best_accuracy_point(
    p_atypical: Floats,
    is_atypical: Bools,
    patients: npt.NDArray[np.generic] | None = None,
    resamples: int = 500,
    seed: int = 0,
    *,
    domains: npt.NDArray[np.generic] | None = None,
) -> float:
    """Find the threshold of best balanced accuracy; ``p_atypical >= threshold`` is atypical.

    The maximum of the
    sample (Youden, Cancer 3, 1950) jumps with single figures; with `patients` (N,) the median of
    the maxima of resampled patients is returned, which holds up better on new data (bootstrapped
    cutpoints: Thiele and Hirschfeld, Journal of Statistical Software 98(11), 2021).

    With `domains` (N,) each domain with both kinds counts alike, so that the threshold does not
    belong to the largest one and is a better guess for the next. Where several thresholds are
    equally good, the middle of the widest such interval is taken.
    """
    if domains is not None:
        counts = _has_both(is_atypical, domains)
        p_atypical, is_atypical, domains = p_atypical[counts], is_atypical[counts], domains[counts]
        patients = None if patients is None else patients[counts]
    if patients is None:
        return _best(p_atypical, is_atypical, domains)
    best = []
    for chunk in patient_weights(patients, resamples, seed):
        for weights in chunk:
            drawn = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
            if domains is not None:
                drawn = drawn[_has_both(is_atypical[drawn], domains[drawn])]
            if len(drawn) and not _one_kind(is_atypical[drawn]) and np.ptp(p_atypical[drawn]) > 0:
                of_drawn = None if domains is None else domains[drawn]
                best.append(_best(p_atypical[drawn], is_atypical[drawn], of_drawn))
    return float(np.median(best)) if best else _best(p_atypical, is_atypical, domains)


def _one_kind(is_atypical: Bools) -> bool:
    return bool(is_atypical.all() or not is_atypical.any())


def _has_both(is_atypical: Bools, domains: npt.NDArray[np.generic]) -> Bools:
    """(N,) whether the domain of a figure has atypical and normal ones."""
    _, domain = np.unique(domains, return_inverse=True)
    both = (np.bincount(domain, is_atypical) > 0) & (np.bincount(domain, ~is_atypical) > 0)
    return np.asarray(both[domain], dtype=bool)


def _best(
    p_atypical: Floats, is_atypical: Bools, domains: npt.NDArray[np.generic] | None = None
) -> float:
    """Middle of the widest interval of thresholds with the best (mean) balanced accuracy."""
    scores, group = np.unique(p_atypical, return_inverse=True)
    names = np.zeros(len(group)) if domains is None else domains
    youden = np.zeros(len(scores) - 1)
    for name in np.unique(names):
        own = names == name
        atypical = np.bincount(group[own], is_atypical[own], len(scores))  # per score, ascending
        normal = np.bincount(group[own], ~is_atypical[own], len(scores))
        # Youden's index times (atypical x normal), a whole number, at a threshold in each gap
        # between neighbouring scores: whole numbers, so that equally good gaps compare as equal.
        missed, cleared = np.cumsum(atypical)[:-1], np.cumsum(normal)[:-1]
        index = cleared * atypical.sum() - missed * normal.sum()
        youden += index if domains is None else index / (atypical.sum() * normal.sum())
    if domains is not None:
        youden = youden.round(9)
    is_best = np.concatenate([[False], youden == youden.max(), [False]])
    first, after_last = np.flatnonzero(is_best[1:] != is_best[:-1]).reshape(-1, 2).T
    low, high = scores[first], scores[after_last]
    widest = np.argmax(high - low)
    return float((low[widest] + high[widest]) / 2)


def truth_of(table: Predictions, truth: str) -> tuple[Bools, Bools]:
    """Whether figures are atypical, of those that are known; and which are."""
    votes = table.atypical_of(truth)
    known = votes >= 0
    return votes[known] == 1, known


def held(p: Floats) -> Floats:
    """Keep probabilities off 0 and 1."""
    return np.clip(p, 1e-6, 1 - 1e-6)


def shift(source: Floats, atypical: Bools, target: Floats) -> float:
    """Find how far the scores of another domain have moved, with no label from there."""
    best, found = -np.inf, 0.0
    for move in _GRID:
        inside = density(source[atypical], target - move)
        outside = density(source[~atypical], target - move)
        mixed = _SHARES[:, None] * inside + (1 - _SHARES[:, None]) * outside
        likelihood = float(np.log(mixed).sum(axis=1).max()) - move**2 / (2 * _SPREAD**2)
        if likelihood > best:
            best, found = likelihood, float(move)
    return found


def density(of: Floats, at: Floats) -> Floats:
    """Gaussian kernel density, with a floor for what was never seen."""
    grid = np.linspace(-14, 14, 561)
    kernel = np.exp(-0.5 * ((grid[:, None] - of) / _BANDWIDTH) ** 2).mean(axis=1)
    heights = kernel / (_BANDWIDTH * np.sqrt(2 * np.pi)) + 1e-5
    return np.asarray(np.interp(at, grid, heights))


def balanced(called: Bools, atypical: Bools) -> float:
    """Balanced accuracy."""
    return float(metrics.binary_measures(atypical, called)["balanced_accuracy"][0])


def interval(called: Bools, atypical: Bools, patients: npt.NDArray[np.str_]) -> dict[str, Any]:
    """Balanced accuracy with its interval."""

    def statistic(weights: Floats) -> dict[str, Floats]:
        told = metrics.binary_measures(atypical, called, weights)
        return metrics.only(told, ["balanced_accuracy"])

    return measure(estimate(statistic, patients, RESAMPLES)["balanced_accuracy"])


def page(told: list[dict[str, Any]]) -> str:
    """Lay it out."""
    lines = [
        "# How the threshold travels",
        "",
        "Made by `benchmarks/thresholds.py` from a run of the split `domains`: networks, "
        "temperature and thresholds of one domain, answers to the other. Balanced accuracy of the "
        "call at each threshold (in brackets 95 % intervals over patients); *best*: "
        "at the best threshold there, which nobody knows without labels.",
    ]
    for truth in TRUTHS:
        lines += ["", f"## Against {truth}", ""]
        lines += ["| tested on | figures, patients, atypical | " + " | ".join(WAYS) + " | best |"]
        lines += ["|---" * (3 + len(WAYS)) + "|"]
        for part in told:
            by = part["judged"][truth]
            cells = [
                f"{by['ways'][way]['value']:.3f} at {part['thresholds'][way]:.3f}"
                + (f" ({by['ways'][way]['low']:.3f}–{by['ways'][way]['high']:.3f})" * whole(part))
                for way in WAYS
            ]
            about = f"{part['n']:,}, {part['n_patients']}, {by['n_atypical']}"
            lines.append(f"| {part['tested']} | {about} | {' | '.join(cells)} | {by['best']:.3f} |")
    lost = {way: mean_loss(told, way) for way in WAYS}
    lines += ["", "## What a wrong place costs", ""]
    lines += ["Mean over the scanners and laboratories, and over both truths:", ""]
    lines += ["| way | | lost against the best threshold there |", "|---|---|---|"]
    lines += [f"| {way} | {WAYS[way]} | {lost[way]:.3f} |" for way in WAYS]
    return "\n".join(lines) + "\n"


def whole(part: dict[str, Any]) -> bool:
    """Whether it is a domain, not a part of one."""
    return bool(part["tested"].endswith(", all"))


def mean_loss(told: list[dict[str, Any]], way: str) -> float:
    """Mean balanced accuracy that is lost to the place of the threshold."""
    losses = [
        by["best"] - by["ways"][way]["value"]
        for part in told
        if not whole(part)
        for by in part["judged"].values()
    ]
    return float(np.mean(losses))


if __name__ == "__main__":
    main()
