"""Which patches an epoch of training shows, and how they look: sampled, augmented, mixed."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atypia.core.labels import N_ATYPICAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from atypia.core.config import AugmentConfig, OptimConfig
    from atypia.models.transforms import Augmenter
    from atypia.training.distributed import ComputePlace, World
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore


@dataclass(frozen=True)
class Epoch:
    """Which samples an epoch shows, batch by batch."""

    samples: npt.NDArray[np.int64]
    """(batches, batch_size), each in 0..n-1."""
    passes: npt.NDArray[np.int64]
    """(batches, batch_size): in which pass over the training set each sample is shown. A sample
    and its pass name one draw of the augmentation."""


def plan_epoch(
    n: int,
    batch_size: int,
    batches: int | None,
    seed: int,
    epoch: int,
    weights: npt.NDArray[np.float64] | None = None,
) -> Epoch:
    """Choose the samples of one epoch.

    Samples come in random permutations of the whole training set, one after the other without
    regard to where an epoch ends, so each is seen equally often whatever `batches` is. With
    `batches` None an epoch is one permutation, less a last part that fills no batch.

    With `weights`, (n,), samples are drawn with replacement in proportion to them instead.
    """
    batch_size = min(batch_size, n)
    if batches is None:
        batches = n // batch_size
        start = epoch * n
    else:
        start = epoch * batches * batch_size
    position = start + np.arange(batches * batch_size)
    if weights is not None:
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        drawn = random.choice(n, size=(batches, batch_size), p=weights / weights.sum())
        # A sample that comes twice is changed in two ways: each place is a pass of its own.
        return Epoch(drawn, position.reshape(batches, batch_size))
    passes = position // n
    order = {
        i: np.random.Generator(np.random.Philox(key=[seed, i])).permutation(n)
        for i in np.unique(passes)
    }
    samples = np.array([order[i][p % n] for i, p in zip(passes, position, strict=True)])
    return Epoch(samples.reshape(batches, batch_size), passes.reshape(batches, batch_size))


def prefetch(
    load: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]],
    batches: npt.NDArray[np.int64],
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield ``load(batch)`` for each batch while the next one is fetched in the background."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[npt.NDArray[np.uint8]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(load, batch))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def plan(task: MemberTask, optim: OptimConfig, epoch: int, world: World) -> Epoch:
    """Choose what this process shows of an epoch."""
    n, weights = len(task.train_rows), row_weights(task, optim)
    whole = plan_epoch(n, optim.batch_size, optim.batches_per_epoch, task.seed, epoch, weights)
    return share_of(whole, world)


def share_of(whole: Epoch, world: World) -> Epoch:
    """Divide every batch among the processes."""
    mine = slice(world.rank, None, world.size)
    return Epoch(whole.samples[:, mine], whole.passes[:, mine])


def row_weights(task: MemberTask, optim: OptimConfig) -> npt.NDArray[np.float64] | None:
    """How often each row of the training part is drawn, (n,), 1 on average; None: all alike.

    With both kinds of balance, the subtypes, or sides, are balanced within each domain, whose own
    share stays what ``domain_balance`` gives it.
    """
    if not optim.sampling and not optim.domain_balance:
        return None
    rows = task.train_rows
    domains = task.domains[rows] if optim.domain_balance else np.zeros(len(rows), np.int64)
    weights = domain_weights(domains, optim.domain_balance)
    if optim.sampling:
        groups = _sides(task) if optim.sampling_of == "side" else task.labels[rows] + 1
        for domain in np.unique(domains):
            mine = domains == domain
            inside = _share_of_own(groups[mine]) ** -optim.sampling
            weights[mine] *= inside / inside.mean()
    return np.asarray(weights / weights.mean())


def domain_weights(domains: npt.NDArray[np.int64], power: float) -> npt.NDArray[np.float64]:
    """How often each of n rows is drawn for the sake of its domain, (n,)."""
    return np.asarray(_share_of_own(domains) ** -power)


def _sides(task: MemberTask) -> npt.NDArray[np.int64]:
    """(n,) 1 atypical or 2 normal, by most votes; by the label in a tie; 0 where none is."""
    sides, labels = task.targets.sides[task.train_rows], task.labels[task.train_rows]
    by_label = np.where(labels < 0, 0, np.where(labels < N_ATYPICAL, 1, 2))
    decided = sides[:, 0] != sides[:, 1]
    return np.where(decided, np.where(sides[:, 0] > sides[:, 1], 1, 2), by_label)


def _share_of_own(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n,) relative size of the group that each of (n,) belongs to."""
    return np.asarray(np.bincount(groups)[groups] / len(groups))


@dataclass
class Views:
    """Iterates over the images of an epoch, (B, 3, S, S) float32 each; counts what they cost."""

    store: PatchStore
    rows: npt.NDArray[np.int64]
    """Rows of the store that the samples of `plan` stand for."""
    plan: Epoch
    augment: Augmenter
    place: ComputePlace
    waited: float = 0.0
    """Seconds spent waiting for pixels so far."""
    augmented: float = 0.0
    """Seconds of augmentation so far."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield one batch after the other, while the next one is read."""
        pixels_of = prefetch(lambda batch: self.store.pixels[self.rows[batch]], self.plan.samples)
        for samples, passes in zip(self.plan.samples, self.plan.passes, strict=True):
            clock = time.perf_counter()
            pixels = torch.from_numpy(next(pixels_of)).to(self.place.device, non_blocking=True)
            self.waited += time.perf_counter() - clock
            clock = time.perf_counter()
            images = self.augment(pixels, self.store.mpp, samples, passes)
            images = images.contiguous(memory_format=self.place.layout)
            self.augmented += time.perf_counter() - clock
            yield images


def seed_of(*parts: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def mixed(
    config: AugmentConfig,
    random: np.random.Generator,
    images: torch.Tensor,
    *targets: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Mix each sample of a batch with another one, by `mixup` and `cutmix` of the configuration.

    With both, a coin decides for the batch. Images (B, 3, S, S) and targets (B, ...) keep their
    shapes; what is unknown (NaN) of either sample stays unknown.
    """
    both = bool(config.mixup and config.cutmix)
    if config.cutmix and not (both and random.random() < 0.5):
        return cutmix(config.cutmix, random, images, *targets)
    if config.mixup:
        return mixup(config.mixup, random, images, *targets)
    return images, *targets


def mixup(
    alpha: float, random: np.random.Generator, images: torch.Tensor, *targets: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Lay the partner over each image, with one share for the batch (Zhang et al., ICLR 2018)."""
    share = float(random.beta(alpha, alpha))
    partner = _partners(random, images)
    return tuple(_joined(share, part, partner) for part in (images, *targets))


def cutmix(
    alpha: float, random: np.random.Generator, images: torch.Tensor, *targets: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Set a rectangle of the partner into each image (Yun et al., ICCV 2019).

    One rectangle for the batch: its area has a Beta-distributed share, its centre lies anywhere,
    and what reaches beyond the edge is cut off. Targets are mixed by the area that is left.

    A figure fills a small part of its patch, in the centre: area carries less about the label here
    than in photographs, and the targets are noisier than those of :func:`mixup`.
    """
    share = float(random.beta(alpha, alpha))
    partner = _partners(random, images)
    height, width = images.shape[-2:]
    half = np.sqrt(1 - share) / 2
    y, x = random.random(2)
    top, bottom = (round(float(np.clip(y + side, 0, 1)) * height) for side in (-half, half))
    left, right = (round(float(np.clip(x + side, 0, 1)) * width) for side in (-half, half))
    images = images.clone()
    images[..., top:bottom, left:right] = images[partner, ..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return images, *(_joined(kept, part, partner) for part in targets)


def _partners(random: np.random.Generator, images: torch.Tensor) -> torch.Tensor:
    """(B,) for each sample another one of the batch; at times itself."""
    return torch.from_numpy(random.permutation(len(images))).to(images.device)


def _joined(share: float, part: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    return share * part + (1 - share) * part[partner]
