"""Warm-up without labels: the backbone learns that two views show the same cell.

The method is VICReg (Bardes, Ponce and LeCun, ICLR 2022). Of its kind it suits small networks and
small batches on a CPU best: it needs no second network and no negatives, hence no large batch.

An epoch is one pass over the crops, and what survives a kill, as in :mod:`atypia.training.fit`.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from torch import nn
from torch.nn import functional

from atypia.core.errors import TrainingError
from atypia.core.files import atomic_write, damaged, read_json, sha256_file, write_json
from atypia.models.transforms import Augmenter, colour_styles
from atypia.models.weight_files import read_tensors
from atypia.training.checkpoint import (
    Progress,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
    write_history,
)
from atypia.training.epoch_batches import Epoch, Views, plan_epoch, seed_of
from atypia.training.optimisation import one_cycle

if TYPE_CHECKING:
    from pathlib import Path

    from atypia.core.config import InputSpec, TrainConfig
    from atypia.core.progress import OnStep
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore

log = logging.getLogger("atypia")

NAME = "self-supervised"
BATCH_SIZE = 64
"""Crops per step, two views of each. The terms of the loss are taken over a batch, so it is larger
than that of the training; more views at once would need too much memory."""
WIDTH = 1024
"""Of the projector's layers."""
TERMS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
"""The terms of the loss and their weights, the authors'."""
_STREAM = 1  # of random numbers, beside those of the training


def vicreg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the weighted terms of VICReg, (3,) as in :data:`TERMS`; the loss is their sum.

    Invariance draws the descriptions of two views of a crop, (B, D) float32 each, together;
    variance keeps the standard deviation of each dimension over the crops from falling below 1;
    covariance decorrelates the dimensions. The authors' code halves the variance, their paper does
    not; this is the code. B and D are at least 2.
    """
    invariance = functional.mse_loss(first, second)
    variance, covariance = torch.zeros_like(invariance), torch.zeros_like(invariance)
    for view in (first, second):
        deviation = (view.var(dim=0) + 1e-4).sqrt()
        variance = variance + functional.relu(1 - deviation).mean() / 2
        matrix = view.T.cov()  # (D, D)
        off_diagonal = matrix.square().sum() - matrix.diagonal().square().sum()
        covariance = covariance + off_diagonal / len(matrix)
    weights = torch.tensor(list(TERMS.values()), device=first.device)
    return weights * torch.stack([invariance, variance, covariance])


def make_projector(n_features: int) -> nn.Sequential:
    """Three layers between the features and what VICReg compares; thrown away afterwards."""
    return nn.Sequential(
        nn.Linear(n_features, WIDTH, bias=False),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH, bias=False),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH, bias=False),
    )


def warm_up(
    network: Network,
    task: MemberTask,
    config: TrainConfig,
    spec: InputSpec,
    store: PatchStore,
    place: ComputePlace,
    folder: Path,
    on_step: OnStep,
) -> dict[str, Any]:
    """Train the backbone without labels; leaves ``self-supervised.safetensors`` in `folder`.

    Only crops of the member's training patients are seen, those without a label among them. Where
    the file is there already it is taken; a warm-up that was stopped goes on after its last epoch.
    Of several processes the first one works and the others wait for the file. Learning rate and its
    rise, weight decay and augmentation are those of the training. Gives its entry of the member's
    record.

    Raises:
        TrainingError: The loss is not finite.
        InputError: The file in `folder` is damaged.
    """
    weights, checkpoint = folder / f"{NAME}.safetensors", folder / f"{NAME}.pt"
    record = folder / f"{NAME}.json"
    if place.world.is_main:
        if not record.is_file() or damaged(weights, read_json(record)["sha256"], record, ""):
            if record.is_file():
                log.warning("%s is damaged; the warm-up is done again", weights)
                record.unlink()
            _learn(network, task, config, spec, store, place, folder, on_step)
            tensors = {k: v.cpu().contiguous() for k, v in network.backbone.state_dict().items()}
            with atomic_write(weights, "wb") as stream:
                stream.write(save(tensors))
            write_json(record, {"sha256": sha256_file(weights)})
        remove_checkpoint(checkpoint)
    place.world.barrier()
    network.backbone.load_state_dict(read_tensors(weights))
    return {
        "self_supervised": {
            "epochs": config.optim.self_supervised_epochs,
            "figures": len(task.seen_rows),
            "sha256": sha256_file(weights),
        }
    }


def _learn(
    network: Network,
    task: MemberTask,
    config: TrainConfig,
    spec: InputSpec,
    store: PatchStore,
    place: ComputePlace,
    folder: Path,
    on_step: OnStep,
) -> None:
    rows, name = task.seen_rows, f"{task.name}, without labels"
    optim, seed = config.optim, seed_of(task.seed, _STREAM)
    torch.manual_seed(seed)
    model = nn.Sequential(network.backbone, make_projector(network.head.in_features))
    model.to(place.device)
    styles = colour_styles(store.pixels[rows]) if config.augment.style else None
    augmenter = Augmenter(config.augment, spec, seed, styles)
    n_epochs = optim.self_supervised_epochs
    batches = len(plan_epoch(len(rows), BATCH_SIZE, None, seed, 0).samples)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, optim.weight_decay), lr=optim.learning_rate, fused=True
    )
    schedule = one_cycle(optimizer, optim.learning_rate, n_epochs * batches, optim.warmup)
    progress, checkpoint = Progress(), folder / f"{NAME}.pt"
    if (last := load_checkpoint(checkpoint)) is not None:
        progress, saved = last
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        log.info("%s: goes on after epoch %d", name, progress.epoch)

    while progress.epoch < n_epochs:
        torch.manual_seed(seed_of(seed, progress.epoch))
        model.train()
        started, total = time.perf_counter(), np.zeros(len(TERMS))
        plan = plan_epoch(len(rows), BATCH_SIZE, None, seed, progress.epoch)
        # A pass names one draw of the augmentation: each pass over the crops is two of them.
        pair = (Epoch(plan.samples, 2 * plan.passes + i) for i in range(2))
        views = (Views(store, rows, each, augmenter, place) for each in pair)
        for step, (first, second) in enumerate(zip(*views, strict=True)):
            with place.autocast():
                described = model(torch.cat([first, second])).float()  # (2 B, WIDTH)
            terms = vicreg(*described.chunk(2))
            loss = terms.sum()
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"{name}: the loss is not finite in epoch {progress.epoch + 1}, batch "
                    f"{step + 1}. Try a smaller optim.learning_rate or runtime.precision=fp32."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if optim.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), optim.gradient_clip)
            optimizer.step()
            schedule.step()
            total += terms.detach().cpu().numpy()
            on_step(name, progress.epoch * batches + step + 1, n_epochs * batches)
        progress.epoch += 1
        seconds = round(time.perf_counter() - started, 2)
        mean = dict(zip(TERMS, (total / batches).tolist(), strict=True))
        row = {"epoch": progress.epoch, "loss": sum(mean.values()), **mean, "seconds": seconds}
        progress.history.append(row)
        states = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
        save_checkpoint(checkpoint, progress, states)
        write_history(folder / f"{NAME}.csv", progress)
        terms_text = "  ".join(f"{term} {value:.3f}" for term, value in mean.items())
        log.info("%s  epoch %d/%d  %s  %.0f s", name, progress.epoch, n_epochs, terms_text, seconds)
    # A kill after the last checkpoint left it short.
    write_history(folder / f"{NAME}.csv", progress)
