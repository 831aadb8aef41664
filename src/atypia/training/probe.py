"""The linear probe: a classification layer on the features of a backbone that stays as it is.

The layer is fitted in one step, by L-BFGS over all training figures in all their views, with the
loss of the training and a penalty on its weights. How strong a penalty is chosen by patient-level
cross-validation among the member's own training patients; its validation patients are not asked.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

from atypia.classifiers.ensemble import save_network
from atypia.core.errors import InputError, TrainingError
from atypia.core.files import sha256_file, write_json
from atypia.core.labels import N_SUBTYPES
from atypia.core.progress import OnStep, silent
from atypia.models.hierarchical import StagedHead
from atypia.models.network import FlatHead, make_network
from atypia.training.features import cohort_features
from atypia.training.losses import SubtypeLoss
from atypia.training.patch_store import IN_MEMORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.core.config import TrainConfig
    from atypia.data.cohort import Cohort
    from atypia.models.network import Network
    from atypia.training.distributed import ComputePlace
    from atypia.training.features import Features
    from atypia.training.member_tasks import MemberTask
    from atypia.training.patch_store import PatchStore
    from atypia.training.targets import Targets

    Rows = npt.NDArray[np.int64]
    Block = tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]

log = logging.getLogger("atypia")

PENALTIES: Final = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Half of the factor on the squared weights of standardised features, strongest first."""
_FOLDS: Final = 3
"""Of the cross-validation that chooses among them."""
_STEPS: Final = {"choose": 60, "fit": 300}
"""Of L-BFGS at most; each penalty starts from the layer of the one before."""
_RISES: Final = 2
"""How many weaker penalties in a row may be worse before the rest is not tried."""
_CHUNK: Final = 8192
"""Rows in memory at once."""


@dataclass(frozen=True)
class Probe:
    """A backbone, and its features of every patch of a cohort."""

    network: Network
    """Its head is that of no member."""
    origin: str
    """Of the weights."""
    features: Features
    patients: npt.NDArray[np.str_]
    """(N,)."""

    def answers(self, head: nn.Module, rows: Rows, *, tta: bool) -> npt.NDArray[np.float32]:
        """Give a head's subtype probabilities (M, 8); with `tta` the mean over the views."""
        n_views = self.features.n_views if tta else 1
        out = [np.empty((0, N_SUBTYPES), np.float32)]
        step = max(1, _CHUNK // n_views)
        with torch.inference_mode():
            for start in range(0, len(rows), step):
                chunk = rows[start : start + step]
                values = torch.from_numpy(self.features.values[chunk, :n_views])
                scores = head(values.flatten(0, 1))[:, :N_SUBTYPES]
                out.append(scores.softmax(1).view(len(values), n_views, -1).mean(1).numpy())
        return np.concatenate(out)


def open_probe(
    cohort: Cohort,
    config: TrainConfig,
    store: PatchStore,
    place: ComputePlace,
    folder: Path,
    on_step: OnStep = silent,
) -> Probe:
    """Load the backbone of ``config.model`` and find or compute its features.

    With ``augment.flip`` and ``augment.rotate`` a patch is looked at in its eight views. Arguments
    as for :func:`atypia.training.features.cohort_features`.
    """
    torch.manual_seed(config.seed)  # all members have one backbone, also without weights
    network, spec, origin = make_network(config.model, config.input)
    features = cohort_features(
        cohort,
        store,
        network,
        spec,
        place,
        folder,
        all_views=config.augment.flip and config.augment.rotate,
        on_step=on_step,
    )
    network.cpu()
    return Probe(network, origin, features, cohort.manifest["patient_id"].to_numpy(dtype=str))


def fit_probe(
    task: MemberTask, config: TrainConfig, probe: Probe, place: ComputePlace, folder: Path
) -> None:
    """Fit one member's layer; leaves what :func:`atypia.training.fit.fit` leaves, but a history.

    Of several processes the first one fits.

    Raises:
        InputError: Too few patients to choose a penalty on.
        TrainingError: The loss is not finite.
    """
    if place.world.is_main:
        network, record = _fitted(task, config, probe)
        weights = folder / "member.safetensors"
        save_network(network, weights)
        record = {"initial_weights": probe.origin, "probe": record, "sha256": sha256_file(weights)}
        write_json(folder / "done.json", record)
    place.world.barrier()


def fit_layer(
    config: TrainConfig, features: Features, targets: Targets, rows: Rows, penalty: float
) -> FlatHead | StagedHead:
    """Fit a layer, which takes features as they are, on some rows with a given penalty."""
    fitter = _Fitter(config, features, targets, rows)
    head = fitter.new_head()
    fitter.fit(head, rows, penalty, _STEPS["fit"])
    return fitter.in_units_of_features(head)


def _fitted(task: MemberTask, config: TrainConfig, probe: Probe) -> tuple[Network, dict[str, Any]]:
    """Fit the layer; gives the network with it, and the fit's entry of the record."""
    fitter = _Fitter(config, probe.features, task.targets, task.train_rows)
    parts = _patient_folds(probe.patients[task.train_rows], task.labels[task.train_rows], task.seed)
    losses = _losses(fitter, task.train_rows, parts)
    best = int(np.argmin(losses))
    head = fitter.new_head()
    for penalty in PENALTIES[:best]:
        fitter.fit(head, task.train_rows, penalty, _STEPS["choose"])
    fitter.fit(head, task.train_rows, PENALTIES[best], _STEPS["fit"])
    log.info("%s: penalty %g, loss %.4f across folds", task.name, PENALTIES[best], losses[best])
    network = probe.network.on(probe.network.backbone)  # a head of its own
    network.head = fitter.in_units_of_features(head)
    record = {
        "penalty": PENALTIES[best],
        "losses": {f"{p:g}": loss for p, loss in zip(PENALTIES, losses, strict=False)},
        "features_sha256": probe.features.sha256,
    }
    return network, record


def _losses(fitter: _Fitter, rows: Rows, parts: Sequence[npt.NDArray[np.bool_]]) -> list[float]:
    """Mean loss of each penalty on held-out patients, up to where it has risen twice."""
    heads = [fitter.new_head() for _ in parts]
    losses: list[float] = []
    for penalty in PENALTIES:
        total = 0.0
        for head, held_out in zip(heads, parts, strict=True):
            fitter.fit(head, rows[~held_out], penalty, _STEPS["choose"])
            total += fitter.loss(head, rows[held_out]) * float(held_out.mean())
        losses.append(total)
        if len(losses) - int(np.argmin(losses)) > _RISES:
            break
    return losses


def _patient_folds(
    patients: npt.NDArray[np.str_], labels: Rows, seed: int
) -> list[npt.NDArray[np.bool_]]:
    """Which of n rows each fold holds out; a patient is in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_patients = len(np.unique(patients))
    if n_patients < 2:
        raise InputError(
            f"model.frozen: expected at least two training patients but got {n_patients}: how "
            "strong the penalty is to be is chosen on patients that were not learned from."
        )
    folds = StratifiedGroupKFold(min(_FOLDS, n_patients), shuffle=True, random_state=seed)
    held_out = []
    for _, mine in folds.split(patients, labels, patients):
        part = np.zeros(len(patients), bool)
        part[mine] = True
        if part.any() and not part.all():
            held_out.append(part)
    return held_out


class _Fitter:
    """Fits heads on features that were standardised by the training rows of the member."""

    def __init__(
        self, config: TrainConfig, features: Features, targets: Targets, rows: Rows
    ) -> None:
        self._config, self._values = config, features.values
        self._subtypes = torch.from_numpy(targets.subtypes)
        self._atypical = torch.from_numpy(targets.atypical)
        self._n_raters = targets.n_raters
        self._loss = SubtypeLoss(config.loss, *map(torch.from_numpy, targets.masses(rows)))
        total, squares = np.zeros(self._values.shape[2]), np.zeros(self._values.shape[2])
        for part in _chunks(rows, features.n_views):
            flat = self._values[part].reshape(-1, len(total)).astype(np.float64)
            total += flat.sum(axis=0)
            squares += (flat**2).sum(axis=0)
        n = len(rows) * features.n_views
        mean = total / n
        scale = np.sqrt(np.maximum(squares / n - mean**2, 0))
        scale[scale < 1e-6 * max(1.0, float(scale.max()))] = np.inf  # a constant
        self._mean = torch.from_numpy(mean).float()
        self._scale = torch.from_numpy(scale).float()

    def new_head(self) -> FlatHead | StagedHead:
        """Make a layer that answers with the class distribution."""
        kind = FlatHead if self._config.model.stages == "one" else StagedHead
        head = kind(len(self._mean), self._n_raters)
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        head.start_from(self._loss.prior)
        return head

    def fit(self, head: nn.Module, rows: Rows, penalty: float, steps: int) -> None:
        """Minimise the mean loss over rows and views plus the penalty, from where `head` is."""
        matrices = [p for p in head.parameters() if p.ndim > 1]
        optimizer = torch.optim.LBFGS(
            list(head.parameters()),
            max_iter=steps,
            tolerance_grad=1e-5,
            tolerance_change=0,  # in fp32 the loss stands still before the layer does
            line_search_fn="strong_wolfe",
        )
        blocks_of = self._blocks(rows)

        def closure() -> float:
            optimizer.zero_grad()
            total = 0.0
            for share, *block in blocks_of():
                loss = self._loss(head(block[0]), *block[1:]) * share
                loss.backward()
                total += float(loss.detach())
            term = penalty * torch.stack([m.square().sum() for m in matrices]).sum() / 2
            term.backward()  # type: ignore[no-untyped-call]
            return total + float(term.detach())

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        if not all(bool(p.isfinite().all()) for p in head.parameters()):
            raise TrainingError(
                "model.frozen: the linear probe has come to weights that are not finite. The "
                "backbone's weights, and with them its features, may be damaged."
            )

    def loss(self, head: nn.Module, rows: Rows) -> float:
        """Mean loss over rows and views."""
        with torch.inference_mode():
            return sum(
                float(self._loss(head(x), subtypes, atypical)) * share
                for share, x, subtypes, atypical in self._blocks(rows)()
            )

    def _blocks(self, rows: Rows) -> Callable[[], Iterable[Block]]:
        """Make what yields (share of all rows, features, subtypes, atypical), each time anew."""
        parts = _chunks(rows, self._values.shape[1])
        if len(rows) * self._values[0].nbytes > IN_MEMORY_BYTES:
            return lambda: (self._block(part, len(rows)) for part in parts)
        kept = [self._block(part, len(rows)) for part in parts]
        return lambda: kept

    def _block(self, part: Rows, n: int) -> Block:
        n_views = self._values.shape[1]
        x = (torch.from_numpy(self._values[part]).flatten(0, 1) - self._mean) / self._scale
        subtypes = self._subtypes[part].repeat_interleave(n_views, 0)
        atypical = self._atypical[part].repeat_interleave(n_views, 0)
        return len(part) / n, x, subtypes, atypical

    def in_units_of_features(self, head: FlatHead | StagedHead) -> FlatHead | StagedHead:
        """Make the layer that gives of features what `head` gives of standardised ones."""
        head = copy.deepcopy(head)
        for layer in head.modules():
            if isinstance(layer, nn.Linear):
                with torch.no_grad():
                    layer.weight.div_(self._scale)
                    layer.bias.sub_(layer.weight @ self._mean)
        return head


def _chunks(rows: Rows, n_views: int) -> Sequence[Rows]:
    """Divide rows so that a part of them fits in memory with all its views."""
    step = max(1, _CHUNK // n_views)
    return [rows[start : start + step] for start in range(0, len(rows), step)]
