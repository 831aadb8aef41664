"""Train one member: one loop, readable from top to bottom.

An epoch is the unit of everything that must survive: its samples, its augmentation and its
dropout follow from (seed, epoch), and the checkpoint is written when it ends. A run that is
killed repeats the epoch it was in, with the same numbers.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import update_bn

from atypia.classifiers.calibration import calibrated_log_loss
from atypia.classifiers.decision import decide, p_atypical
from atypia.classifiers.ensemble import predict_network, save_network
from atypia.core.errors import InputError, TrainingError
from atypia.core.files import damaged, sha256_file, write_json
from atypia.core.progress import OnEpoch, OnStep, silent
from atypia.evaluation.metrics import (
    balanced_accuracy,
    confusion_matrix,
    log_loss,
    one_vs_rest_auc,
    roc_auc,
)
from atypia.models.cpu_speed import write_out_attention
from atypia.models.network import make_network
from atypia.models.transforms import Augmenter, colour_styles
from atypia.training.checkpoint import (
    Progress,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
    write_history,
)
from atypia.training.epoch_batches import Views, mixed, row_weights, seed_of
from atypia.training.epoch_batches import plan as plan_of
from atypia.training.losses import SubtypeLoss
from atypia.training.optimisation import answering, is_averaged, make_average, make_optimizer
from atypia.training.self_supervised import warm_up
from atypia.training.targets import atypical_calls
from atypia.training.unlabelled import Unlabelled

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from atypia.core.config import InputSpec, OptimConfig, TrainConfig
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace, World
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore

log = logging.getLogger("atypia")


def fit(
    task: MemberTask,
    config: TrainConfig,
    store: PatchStore,
    place: ComputePlace,
    folder: Path,
    on_step: OnStep = silent,
    on_epoch: OnEpoch = silent,
) -> None:
    """Train one member; leaves ``member.safetensors`` and, last, ``done.json`` in `folder`.

    Goes on from ``folder/checkpoint.pt`` where there is one. `store` has the decoded patches of the
    whole cohort; `on_step` is called after each batch, `on_epoch` after each epoch.

    Raises:
        InputError: Sizes that do not fit each other.
        TrainingError: The loss is not finite. The last checkpoint is good.
    """
    optim, device, world = config.optim, place.device, place.world
    if optim.batch_size % world.size:
        raise InputError(
            f"optim.batch_size: expected a multiple of the {world.size} processes but got "
            f"{optim.batch_size}."
        )
    torch.manual_seed(task.seed)
    network, spec, origin = make_network(config.model, config.input, n_raters=task.targets.n_raters)
    if optim.progressive and any(hasattr(m, "set_input_size") for m in network.backbone.modules()):
        raise InputError(
            f"optim.progressive: {config.model.backbone} is made for one size of image; leave it "
            "out."
        )
    masses = task.targets.masses(task.train_rows, row_weights(task, optim))
    loss_of = SubtypeLoss(config.loss, *map(torch.from_numpy, masses))
    network.start_from(loss_of.prior)
    loss_of.to(device)
    network.to(device, memory_format=place.layout)  # type: ignore[call-overload]
    if device.type == "cpu":
        write_out_attention(network)
    warmed = {}
    if optim.self_supervised_epochs:
        origin += f", then {optim.self_supervised_epochs} epochs without labels (VICReg)"
        warmed = warm_up(network, task, config, spec, store, place, folder, on_step)
    average = make_average(network, optim)
    seen = task.seen_rows if config.unlabelled.weight else task.train_rows
    styles = colour_styles(store.pixels[seen]) if config.augment.style else None
    augmenter = Augmenter(config.augment, spec, task.seed, styles)
    others = Unlabelled(task, config, store, augmenter, place) if config.unlabelled.weight else None
    batches = len(plan_of(task, optim, 0, world).samples)
    n_epochs = optim.head_epochs + optim.epochs

    progress = Progress()
    checkpoint = folder / "checkpoint.pt"
    saved: dict[str, Any] = {}
    if (kept_before := load_checkpoint(checkpoint)) is not None:
        progress, saved = kept_before
        network.load_state_dict(saved["network"])
        if average is not None:
            average.load_state_dict(saved["average"])
        log.info("%s: goes on after epoch %d", task.name, progress.epoch)

    phase = ""
    while progress.epoch < n_epochs and not _stopped(progress, optim):
        epoch = progress.epoch
        head_only = epoch < optim.head_epochs
        if phase != ("head" if head_only else "all"):
            phase = "head" if head_only else "all"
            if progress.phase != phase:  # Keras, too, forgets the best loss when a fit begins anew
                progress.phase, progress.phase_best_loss = phase, math.inf
            network.freeze_backbone(head_only)
            learner = _across_processes(network, world, device)
            optimizer, schedule = make_optimizer(network, optim, head_only, batches)
            if saved and saved["phase"] == phase:
                optimizer.load_state_dict(saved["optimizer"])
                schedule.load_state_dict(saved["schedule"])
            saved = {}

        # Dropout and stochastic depth draw from torch's own generator.
        torch.manual_seed(seed_of(task.seed, epoch, world.rank))
        network.train()
        started, losses = time.perf_counter(), 0.0
        averages = is_averaged(epoch, optim)
        size_px = _size_px(optim, epoch - optim.head_epochs, spec.size_px)
        plan = plan_of(task, optim, epoch, world)
        views = Views(store, task.train_rows, plan, augmenter.at_size(size_px), place)
        second = others.epoch(epoch, batches, size_px) if others is not None else iter(())
        for step, images in enumerate(views):
            rows = task.train_rows[plan.samples[step]]
            subtypes = torch.from_numpy(task.targets.subtypes[rows]).to(device)
            atypical = torch.from_numpy(task.targets.atypical[rows]).to(device)
            random = np.random.default_rng([task.seed, epoch, step, world.rank])
            images, subtypes, atypical = mixed(config.augment, random, images, subtypes, atypical)

            optimizer.zero_grad(set_to_none=True)
            if others is not None:
                done = (epoch + step / batches) / n_epochs
                others.learn(learner, answering(network, average), next(second), done)
            size = optim.micro_batch or len(images)
            for start in range(0, len(images), size):
                share = slice(start, start + size)
                part = images[share]
                last = start + size >= len(images)
                with (
                    nullcontext() if last or world.size == 1 else learner.no_sync(),  # type: ignore[operator]
                    place.autocast(),
                ):
                    loss = loss_of(learner(part), subtypes[share], atypical[share])
                    (loss * (len(part) / len(images))).backward()
                losses += loss.item() * len(part) / len(images)
            if not world.all_true(math.isfinite(losses)):
                raise TrainingError(
                    _not_finite(task.name, f"in epoch {epoch + 1}, batch {step + 1}")
                )
            if optim.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), optim.gradient_clip)
            optimizer.step()
            if isinstance(schedule, OneCycleLR) and not averages:
                schedule.step()
            if average is not None and optim.ema:
                average.update_parameters(network)
            on_step(task.name, epoch * batches + step + 1, n_epochs * batches)
        if average is not None and averages:
            average.update_parameters(network)
            if epoch + 1 == n_epochs:  # running means belong to the weights that gave them
                update_bn(views, average.module)
        seconds = time.perf_counter() - started

        world.synchronise_buffers(network, average)
        kept = answering(network, average)
        scores = _validate(kept, loss_of, task, store, spec, place, config.ensemble.prior_power)
        if not (math.isfinite(scores["valid_loss"]) and _is_finite(network)):
            raise TrainingError(_not_finite(task.name, f"at the end of epoch {epoch + 1}"))
        rate = float(optimizer.param_groups[0]["lr"])
        if isinstance(schedule, ReduceLROnPlateau) and not averages:
            schedule.step(scores["valid_loss"])
        progress.epoch += 1
        progress.history.append(
            {
                "epoch": progress.epoch,
                "phase": phase,
                "learning_rate": rate,
                "train_loss": float(np.mean(world.gather(losses))) / batches,
                **scores,
                **(others.record() if others is not None else {}),
                "seconds": round(seconds, 2),
                "wait_fraction": round(views.waited / seconds, 5),
                "augment_fraction": round(views.augmented / seconds, 5),
            }
        )
        if scores["valid_loss"] < progress.phase_best_loss:
            progress.phase_best_loss = scores["valid_loss"]
            progress.phase_best_epoch = progress.epoch
        better = scores["valid_loss"] < progress.best_loss
        if better:
            progress.best_loss = scores["valid_loss"]
        if world.is_main:
            # The best weights first: if the run dies in between, the epoch is repeated and
            # writes the same file again.
            if better and optim.select == "best":
                save_network(kept, folder / "best.safetensors")
                progress.best_sha256 = sha256_file(folder / "best.safetensors")
            states = {
                "phase": phase,
                "network": network.state_dict(),
                "average": average.state_dict() if average is not None else {},
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            save_checkpoint(checkpoint, progress, states)
            write_history(folder / "history.csv", progress)
        _log_epoch(task.name, progress, n_epochs)
        on_epoch(task.name, progress.history)

    if world.is_main:
        # In this order, so that a kill in between leaves either a checkpoint or the record.
        write_history(folder / "history.csv", progress)
        weights, best = folder / "member.safetensors", folder / "best.safetensors"
        if optim.select == "last":
            save_network(answering(network, average), weights)
        elif best.is_file():  # else it has been renamed before a kill
            best.replace(weights)
        again = f"Remove {folder} to train the member again."
        if optim.select == "best" and (
            problems := damaged(weights, progress.best_sha256, checkpoint, again)
        ):
            raise TrainingError(str(problems[0]))
        record = {"initial_weights": origin, **warmed, "sha256": sha256_file(weights)}
        write_json(folder / "done.json", record)
        remove_checkpoint(checkpoint)
    world.barrier()


def measures(
    probabilities: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    calls: npt.NDArray[np.float64],
    prior: npt.NDArray[np.floating[Any]],
    prior_power: float,
) -> dict[str, float]:
    """Compute every :data:`atypia.training.search_space.Measure` of N patches.

    ``log_loss`` can be compared between trainings with different losses, and
    ``calibrated_log_loss``, after a temperature fitted on the same patches, between those of
    different confidence as well.

    Args:
        probabilities: (N, 8) float32.
        labels: (N,) subtype indices; rows of -1 count for ``binary_auc`` alone.
        calls: (N,) from :func:`atypia.training.targets.atypical_calls`, for ``binary_auc``.
        prior: (8,) class distribution, for the decisions that ``balanced_accuracy`` is of.
        prior_power: See :func:`atypia.classifiers.decision.decide`.
    """
    known = ~np.isnan(calls)
    p_of_known = p_atypical(probabilities[known]).astype(np.float64)
    labelled = labels >= 0
    calls, labels, probabilities = calls[known], labels[labelled], probabilities[labelled]
    binary_auc = float(roc_auc(calls == 1, p_of_known)[0])
    if not labelled.any():  # votes alone
        names = ("log_loss", "calibrated_log_loss", "mean_auc", "balanced_accuracy")
        return dict.fromkeys(names, math.nan) | {"binary_auc": binary_auc}
    decisions = decide(probabilities, prior, prior_power)
    return {
        "log_loss": float(log_loss(labels, probabilities)[0]),
        "calibrated_log_loss": calibrated_log_loss(probabilities, labels),
        "mean_auc": float(np.nanmean(one_vs_rest_auc(labels, probabilities))),
        "balanced_accuracy": float(balanced_accuracy(confusion_matrix(labels, decisions))[0]),
        "binary_auc": binary_auc,
    }


def _validate(
    network: Network,
    loss_of: SubtypeLoss,
    task: MemberTask,
    store: PatchStore,
    spec: InputSpec,
    place: ComputePlace,
    prior_power: float,
) -> dict[str, float]:
    """Loss and measures on the validation patients, without augmentation."""
    world = place.world
    mine = task.valid_rows[world.rank :: world.size]
    parts = world.gather(
        predict_network(network, store.pixels, store.mpp, spec, device=place.device, rows=mine)
    )
    probabilities = np.empty((len(task.valid_rows), parts[0].shape[1]), np.float32)
    for rank, part in enumerate(parts):
        probabilities[rank :: world.size] = part
    loss_on_cpu = copy.deepcopy(loss_of).cpu()  # alike in all processes, to the last bit
    subtypes = torch.from_numpy(task.targets.subtypes[task.valid_rows, :1])
    share = task.targets.atypical[task.valid_rows]
    log_p = torch.from_numpy(probabilities).clamp_min(1e-12).log()
    labels = task.labels[task.valid_rows]
    calls = atypical_calls(labels, share, "sides" if loss_of.on_sides else "subtypes")
    scores = measures(probabilities, labels, calls, loss_on_cpu.prior.numpy(), prior_power)
    return {
        "valid_loss": float(loss_on_cpu(log_p, subtypes, torch.from_numpy(share))),
        **{f"valid_{name}": value for name, value in scores.items()},
    }


def _size_px(optim: OptimConfig, epoch: int, final: int) -> int:
    """Side of the input in this epoch of the whole network's training."""
    # A step within an epoch is made at its start, so that the last epoch has the final size.
    reached = [size for start, size in optim.progressive if epoch + 1 > start * optim.epochs]
    return reached[-1] if reached else final


def _not_finite(name: str, when: str) -> str:
    return (
        f"{name}: the loss or a weight is not finite {when}. The checkpoint of the epoch before is "
        "good. Try a smaller optim.learning_rate, optim.gradient_clip=1, or "
        "runtime.precision=fp32."
    )


def _is_finite(network: Network) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())


def _stopped(progress: Progress, optim: OptimConfig) -> bool:
    """Whether early stopping ended the training of the whole network."""
    if optim.early_stopping is None or progress.epoch <= optim.head_epochs:
        return False
    return progress.epoch - progress.phase_best_epoch >= optim.early_stopping


def _across_processes(
    network: Network, world: World, device: torch.device
) -> Network | DistributedDataParallel:
    if world.size == 1:
        return network
    ids = [world.local_rank] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids)


def _log_epoch(name: str, progress: Progress, n_epochs: int) -> None:
    row = progress.history[-1]
    pace = float(np.mean([float(h["seconds"]) for h in progress.history[-5:]]))
    log.info(
        "%s  epoch %d/%d  loss %.4f  valid loss %.4f  mean AUC %.3f  balanced accuracy %.3f  "
        "%.0f s  at most %.0f min left",
        name,
        progress.epoch,
        n_epochs,
        row["train_loss"],
        row["valid_loss"],
        row["valid_mean_auc"],
        row["valid_balanced_accuracy"],
        row["seconds"],
        pace * (n_epochs - progress.epoch) / 60,
    )
