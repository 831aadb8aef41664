"""Learning from figures without a subtype: predictions that ignore stain, focus and noise.

Each step shows a second batch, of figures without a subtype, twice. A teacher answers a plain view,
turned and flipped at most; the network learns this answer on a view changed as in all of training.
The teacher is the moving average of the network's weights (Tarvainen and Valpola, NeurIPS 2017), or
the network itself where there is none (Sohn et al., NeurIPS 2020).

Where experts voted whether a figure is atypical, the votes decide how the mass is shared between
the two sides, and the teacher only within each.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

from atypia.core.config import AugmentConfig
from atypia.core.labels import N_ATYPICAL, N_SUBTYPES
from atypia.models.transforms import Augmenter
from atypia.training.epoch_batches import Views, domain_weights, plan_epoch, seed_of, share_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atypia.core.config import TrainConfig, UnlabelledConfig
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore

_STREAM = 2  # of random numbers, beside those of the training and of the warm-up


class Unlabelled:
    """The second batch of every step; `changed` makes the views that the network learns from."""

    def __init__(
        self,
        task: MemberTask,
        config: TrainConfig,
        store: PatchStore,
        changed: Augmenter,
        place: ComputePlace,
    ) -> None:
        self.rows, self.config, self.store, self.place = task.unlabelled_rows, config, store, place
        self.seed = seed_of(task.seed, _STREAM)
        balance = config.optim.domain_balance
        self.often = domain_weights(task.domains[self.rows], balance) if balance else None
        self.atypical = torch.from_numpy(task.targets.atypical)
        plain = AugmentConfig(flip=config.augment.flip, rotate=config.augment.rotate)
        self.plain = Augmenter(plain, changed.spec, seed_of(self.seed, 0))
        self.changed = changed.with_seed(seed_of(self.seed, 1))
        self.total = 0.0
        """Of the term, over the steps of the epoch so far."""
        self.confident = 0.0
        """Share of figures with a confident pseudo-label, likewise."""
        self.steps = 0

    def epoch(
        self, epoch: int, batches: int, size_px: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield plain and changed views (B, 3, S, S) and shares of atypical votes (B,)."""
        self.total, self.confident, self.steps = 0.0, 0.0, 0
        size = self.config.optim.batch_size
        whole = plan_epoch(len(self.rows), size, batches, self.seed, epoch, self.often)
        plan = share_of(whole, self.place.world)
        views = (
            Views(self.store, self.rows, plan, augment.at_size(size_px), self.place)
            for augment in (self.plain, self.changed)
        )
        for samples, plain, changed in zip(plan.samples, *views, strict=True):
            votes = self.atypical[self.rows[samples]].to(self.place.device)
            yield plain, changed, votes

    def weight(self, progress: float) -> float:
        """Weight of the term when this share of the training is done."""
        settings = self.config.unlabelled
        if progress >= settings.ramp:
            return settings.weight
        return settings.weight * math.exp(-5 * (1 - progress / settings.ramp) ** 2)

    def learn(
        self,
        learner: Network | DistributedDataParallel,
        teacher: Network,
        batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        progress: float,
    ) -> None:
        """Add the gradients of the term on one batch of :meth:`epoch` to those that are there.

        The teacher, which predicts the plain views, may be the network; `progress` is the share of
        the training that is done.
        """
        size = self.config.optim.micro_batch or len(batch[0])
        for start in range(0, len(batch[0]), size):
            plain, changed, votes = (tensor[start : start + size] for tensor in batch)
            with (
                # Gradients are exchanged once a step, with those of the figures that have labels.
                learner.no_sync()
                if isinstance(learner, DistributedDataParallel)
                else nullcontext(),
                self.place.autocast(),
            ):
                targets = pseudo_labels(answers_of(teacher, plain), votes, self.config.unlabelled)
                learner.train()
                loss = consistency(learner(changed), targets)
                share = len(plain) / len(batch[0])
                (self.weight(progress) * share * loss).backward()  # type: ignore[no-untyped-call]
            self.total += share * loss.item()
            self.confident += targets.any(dim=1).sum().item() / len(batch[0])
        self.steps += 1

    def record(self) -> dict[str, float]:
        """Entries of the epoch for the history."""
        return {
            "unlabelled_loss": self.total / self.steps,
            "unlabelled_confident": round(self.confident / self.steps, 5),
        }


@torch.no_grad()
def answers_of(teacher: Network, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (B, 8) of images (B, 3, S, S) in evaluation mode, in which it stays."""
    teacher.eval()
    logits: torch.Tensor = teacher(images)
    return logits.float().softmax(dim=1)


def consistency(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits (B, R * 8) against targets (B, 8); rows of zeros count as 0.

    The first rater's scores learn, for they are those that answer.
    """
    log_p = logits[:, :N_SUBTYPES].float().log_softmax(dim=1)
    return -(targets * log_p).sum(dim=1).mean()


def pseudo_labels(
    probabilities: torch.Tensor, votes: torch.Tensor, config: UnlabelledConfig
) -> torch.Tensor:
    """Make targets (B, 8), rows summing to 1, or to 0 where the teacher is not sure enough.

    `probabilities` (B, 8) are the teacher's; `votes` (B,) the share of experts who call the figure
    atypical, NaN where none voted.
    """
    parts = probabilities[:, :N_ATYPICAL], probabilities[:, N_ATYPICAL:]
    within = torch.cat([p / p.sum(dim=1, keepdim=True).clamp_min(1e-12) for p in parts], dim=1)
    known = torch.cat(
        [votes[:, None].expand_as(parts[0]), 1 - votes[:, None].expand_as(parts[1])], 1
    )
    targets = torch.where(votes.isnan()[:, None], probabilities, within * known)
    if not config.threshold:
        return targets
    best, subtype = targets.max(dim=1)
    hard = torch.nn.functional.one_hot(subtype, N_SUBTYPES).to(targets.dtype)
    return hard * (best >= config.threshold)[:, None]
