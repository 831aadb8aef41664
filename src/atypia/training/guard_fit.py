"""Fit the guard of an ensemble: heads that separate figures from what lies around them.

Examples come from the patches of the training (:mod:`atypia.data.look_alikes`), half of them
restained, sharpened or blurred: what a guard rejects must not be another laboratory. Limits are
fixed by cross-validation over patients, so that no domain loses many of its figures. A tumour or a
species that no head was trained on may: heads of breast cancer alone rejected a fifth of the
figures of other tumours at a limit that rejected one in a hundred of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.nn import functional

from atypia.classifiers.model_guard import ModelGuard
from atypia.data.look_alikes import FIGURE, GuardExamples, guard_examples, restained
from atypia.models.guard_head import GuardHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble

    Array = npt.NDArray[np.floating[Any]]
    Pixels = npt.NDArray[np.uint8]
    Mask = npt.NDArray[np.bool_]

FALSE_REJECTIONS: Final = (0.007, 0.003)
"""Of figures of patients that no head was trained on: by the score, by the distance."""
DOMAIN_FALSE_REJECTIONS: Final = (0.02, 0.007)
"""Likewise, within each domain: the limit that rejects less holds."""
RESTAINED: Final = 0.6
"""Share of the examples."""
_FOLDS: Final = 4
_HIDDEN: Final = 32
_EPOCHS: Final = 12
_BATCH: Final = 256
_LEARNING_RATE: Final = 0.009
_DROPPED: Final = 0.2
_SHRINKAGE: Final = 0.3
"""Of the covariance of the distance towards a multiple of the identity."""


def fit_guard(
    ensemble: Ensemble,
    patches: Pixels,
    mpp: float,
    patients: npt.NDArray[np.str_],
    domains: npt.NDArray[np.str_],
    *,
    seed: int = 0,
    others: Sequence[npt.NDArray[np.int64]] | None = None,
    seen: str = "",
) -> Ensemble:
    """Give an ensemble a guard, fitted on the patches of its training; the networks stay.

    Args:
        ensemble: Whose members were trained on these or on other patches.
        patches: (N, H, W, 3) RGB, each centred on one mitotic figure.
        mpp: µm per pixel.
        patients: (N,) whose each is.
        domains: (N,) where each is from.
        seed: The same gives the same guard, up to rounding.
        others: As for :func:`atypia.data.look_alikes.guard_examples`.
        seen: What the examples are, in words, for the bundle.
    """
    examples, features, other_laboratory = guard_features(ensemble, patches, mpp, seed, others)
    heads, guard = fit_heads(
        features,
        examples.is_figure,
        (examples.kinds == FIGURE) & ~other_laboratory,
        patients[examples.rows],
        domains[examples.rows],
        seed,
    )
    guard = guard.model_copy(update={"seen": seen})
    postprocessing = replace(ensemble.postprocessing, guard=guard)
    return replace(ensemble, heads=heads, postprocessing=postprocessing)


def guard_features(
    ensemble: Ensemble,
    patches: Pixels,
    mpp: float,
    seed: int,
    others: Sequence[npt.NDArray[np.int64]] | None = None,
) -> tuple[GuardExamples, list[npt.NDArray[np.float32]], Mask]:
    """Cut M examples, turn them at random, and see them through each backbone, (M, G) each.

    The mask (M,) is of those that are restained; other arguments as of :func:`fit_guard`.
    """
    examples = guard_examples(patches, mpp, ensemble.field_of_view_um, seed, others)
    rng = np.random.default_rng([seed, len(patches)])
    other_laboratory = rng.random(len(examples.kinds)) < RESTAINED
    turns = rng.integers(0, 4, len(other_laboratory))
    crops = [
        np.rot90((restained(crop, rng) if other else crop)[:, :: rng.choice((1, -1))], turn)
        for crop, other, turn in zip(examples.crops, other_laboratory, turns, strict=True)
    ]
    return examples, ensemble.seen(np.stack(crops), mpp), other_laboratory


def fit_heads(
    features: Sequence[Array],
    is_figure: Mask,
    judged: Mask,
    patients: npt.NDArray[np.str_],
    domains: npt.NDArray[np.str_],
    seed: int,
) -> tuple[list[GuardHead], ModelGuard]:
    """Fit a head on the features (M, G) of each backbone, and the limits of their mean scores.

    The other arguments are (M,): which examples are figures, which figures the limits are fixed on,
    and whose and where from each is.
    """

    def scores(trained: Mask, wanted: Mask) -> Array:
        heads = [
            _fit_head(x[trained], is_figure[trained], seed + i) for i, x in enumerate(features)
        ]
        return mean_scores(heads, [x[wanted] for x in features])

    names, numbers = np.unique(patients, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[numbers] % _FOLDS
    by_patient = np.empty((len(fold), 2))
    for k in range(_FOLDS):
        by_patient[fold == k] = scores(fold != k, fold == k)
    slope, intercept = _platt(by_patient[:, 0], is_figure)
    guard = ModelGuard(slope=slope, intercept=intercept, least_p_mitosis=0, farthest=0)
    limits = [guard.with_limits(by_patient[judged], FALSE_REJECTIONS)]
    for name in np.unique(domains):
        own = by_patient[judged & (domains == name)]
        limits.append(guard.with_limits(own, DOMAIN_FALSE_REJECTIONS))
    guard = guard.model_copy(
        update={
            "least_p_mitosis": min(limit.least_p_mitosis for limit in limits),
            "farthest": max(limit.farthest for limit in limits),
        }
    )
    return [_fit_head(x, is_figure, seed + i) for i, x in enumerate(features)], guard


@torch.inference_mode()
def mean_scores(heads: Sequence[GuardHead], features: Sequence[Array]) -> Array:
    """Score and distance (N, 2), the mean over heads."""
    given = [head(torch.from_numpy(x)) for head, x in zip(heads, features, strict=True)]
    return np.asarray(torch.stack(given).mean(dim=0), dtype=np.float64)


def _fit_head(features: Array, is_figure: Mask, seed: int) -> GuardHead:
    """Train a head on features (M, G) of examples."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = GuardHead(features.shape[1], _HIDDEN)
        head.mean.copy_(torch.from_numpy(features.mean(axis=0)))
        head.scale.copy_(torch.from_numpy(features.std(axis=0) + 1e-3))
        x = (torch.from_numpy(features) - head.mean) / head.scale
        y = torch.from_numpy(is_figure).float()
        batches = max(1, len(x) // _BATCH)
        optimiser = torch.optim.AdamW(head.score.parameters(), weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, _LEARNING_RATE, total_steps=_EPOCHS * batches
        )
        for _ in range(_EPOCHS):
            for rows in torch.randperm(len(x)).tensor_split(batches):
                logits = head.score(functional.dropout(x[rows], _DROPPED))[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, y[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    figures = x[y == 1].double()
    covariance = figures.T.cov()
    spherical = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * spherical
    # (x - centre) whitening has the length of Mahalanobis's distance.
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    head.whitening.copy_(whitening)
    head.centre.copy_(figures.mean(dim=0) @ whitening)
    return head.eval()


def _platt(scores: Array, is_figure: Mask) -> tuple[float, float]:
    """Slope and intercept of the logistic of figures on scores (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    weight = np.where(is_figure, 0.5 / is_figure.mean(), 0.5 / (1 - is_figure.mean()))
    fitted = LogisticRegression().fit(scores[:, None], is_figure, sample_weight=weight)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
