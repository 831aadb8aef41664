"""How good a member is on its validation patients, after an epoch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from atypia.classifiers.calibration import calibrated_log_loss
from atypia.classifiers.ensemble import decide, p_atypical, predict_network
from atypia.evaluation.metrics import (
    balanced_accuracy,
    confusion_matrix,
    log_loss,
    one_vs_rest_auc,
    roc_auc,
)
from atypia.training.targets import atypical_calls

if TYPE_CHECKING:
    from atypia.core.config import InputSpec
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.losses import SubtypeLoss
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore


def validate(
    network: Network,
    loss_of: SubtypeLoss,
    task: MemberTask,
    store: PatchStore,
    spec: InputSpec,
    place: ComputePlace,
    prior_power: float,
) -> dict[str, float]:
    """Loss and measures on the validation patients, without augmentation.

    ``valid_loss`` is what the training minimises, whatever that is; ``valid_log_loss`` can be
    compared between trainings with different losses, and ``valid_calibrated_log_loss``, after a
    temperature fitted on the same figures, between those that are differently sure of themselves
    as well. ``valid_binary_auc`` is by :func:`atypia.training.targets.atypical_calls`.
    """
    world = place.world
    mine = task.valid_rows[world.rank :: world.size]
    parts = world.gather(
        predict_network(
            network,
            store.pixels,
            store.mpp,
            spec,
            device=place.device,
            rows=mine,
        )
    )
    probabilities = np.empty((len(task.valid_rows), parts[0].shape[1]), np.float32)
    for rank, part in enumerate(parts):
        probabilities[rank :: world.size] = part
    loss_on_cpu = copy.deepcopy(loss_of).cpu()  # alike in all processes, to the last bit
    subtypes = torch.from_numpy(task.targets.subtypes[task.valid_rows, :1])
    atypical = torch.from_numpy(task.targets.atypical[task.valid_rows])
    log_p = torch.from_numpy(probabilities).clamp_min(1e-12).log()
    labels = task.labels[task.valid_rows]
    of = "sides" if loss_of.on_sides else "subtypes"
    calls = atypical_calls(labels, task.targets.atypical[task.valid_rows], of)
    known = ~np.isnan(calls)
    answers = decide(probabilities, loss_on_cpu.prior.numpy(), prior_power)
    return {
        "valid_loss": float(loss_on_cpu(log_p, subtypes, atypical)),
        "valid_log_loss": float(log_loss(labels, probabilities)[0]),
        "valid_calibrated_log_loss": calibrated_log_loss(probabilities, labels),
        "valid_mean_auc": float(np.nanmean(one_vs_rest_auc(labels, probabilities))),
        "valid_balanced_accuracy": float(balanced_accuracy(confusion_matrix(labels, answers))[0]),
        "valid_binary_auc": float(
            roc_auc(calls[known] == 1, p_atypical(probabilities[known]).astype(np.float64))[0]
        ),
    }
