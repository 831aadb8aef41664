"""A model for patients: a projection of the figures' features, and a pooling that was fitted.

Attention is that of Ilse, Tomczak and Welling (ICML 2018), gated: a small network gives each figure
a weight, the weights of a patient sum to 1, and the patient is the weighted mean of the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from atypia.core.errors import InputError
from atypia.core.files import atomic_write, damaged, read_stamped, sha256_file, stamped, write_json
from atypia.models.weight_files import read_weights
from atypia.training.optimisation import one_cycle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

    from atypia.core.config import MilConfig, PoolingKind

    Bag = npt.NDArray[np.float32]
    """(T, V, F): features of the figures of a patient in V views."""


_FORMAT = 1


class BagClassifier(nn.Module):
    """Maps bags of figures (B, T, D), some of them shorter than T, to scores (B, C).

    `width` is that of the attention's hidden layer; dropout is on the features of the figures.
    """

    def __init__(
        self, n_features: int, n_classes: int, pooling: PoolingKind, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attends = pooling == "attention"
        if self.attends:
            self.content = nn.Linear(n_features, width)
            self.gate = nn.Linear(n_features, width)
            self.weight = nn.Linear(width, 1)
        self.classifier = nn.Linear(n_features, n_classes)

    def forward(
        self, figures: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score bags: (B, C), and the weights (B, T) of the figures, which sum to 1.

        Only figures that are `present` (B, T) count: at least one in each bag.
        """
        x = self.dropout(figures)
        if self.attends:
            hidden = torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x))
            raw = self.weight(hidden).squeeze(2)
        else:
            raw = torch.zeros_like(figures[..., 0])
        weights = raw.masked_fill(~present, -torch.inf).softmax(dim=1)
        return self.classifier((weights[..., None] * x).sum(dim=1)), weights


@dataclass(frozen=True)
class Projection:
    """Principal components of the training figures, which the labels have no part in."""

    mean: npt.NDArray[np.float32]
    """(F,)."""
    matrix: npt.NDArray[np.float32]
    """(F, D), scaled so that the components have a variance of 1 on average."""

    @classmethod
    def of(cls, bags: Sequence[Bag], components: int) -> Projection:
        """Fit it on the figures of bags; D is smaller where there are fewer figures or features."""
        x = np.concatenate([bag.mean(axis=1) for bag in bags]).astype(np.float64)
        mean = x.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(x - mean, rowvar=False).reshape(x.shape[1], -1))
        rank = min(components, x.shape[1], max(len(x) - 1, 1))
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        # The sign of an eigenvector is that of the library; its largest entry is positive here.
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(rank)])
        scale = np.sqrt(max(float(values.mean()), 1e-12))
        return cls(mean.astype(np.float32), (vectors / scale).astype(np.float32))

    def __call__(self, bag: Bag) -> torch.Tensor:
        """Project a bag: (T, V, F) to (T, V, D)."""
        return torch.from_numpy((bag - self.mean) @ self.matrix)


@dataclass(frozen=True)
class PatientModel:
    """Predicts for a patient from the features of all of their figures."""

    projection: Projection
    network: BagClassifier

    @torch.inference_mode()
    def __call__(self, bag: Bag) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give probabilities (C,) and weights (T,) of the figures, means over the views."""
        views = self.projection(bag).transpose(0, 1)  # (V, T, D)
        present = torch.ones(views.shape[:2], dtype=torch.bool)
        scores, weights = self.network.eval()(views, present)
        return scores.softmax(1).mean(0).double().numpy(), weights.mean(0).double().numpy()

    def save(self, folder: Path, header: Mapping[str, Any]) -> None:
        """Write ``mil.safetensors`` and, last, ``mil.json``: its hash and `header`."""
        tensors = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors["projection.mean"] = torch.from_numpy(self.projection.mean)
        tensors["projection.matrix"] = torch.from_numpy(self.projection.matrix).contiguous()
        file = folder / "mil.safetensors"
        with atomic_write(file, "wb") as stream:
            stream.write(save(tensors))
        record = {**header, "format": _FORMAT, "sha256": sha256_file(file)}
        write_json(folder / "mil.json", stamped(record))

    @classmethod
    def load(cls, folder: Path) -> tuple[PatientModel, dict[str, Any]]:
        """Read a saved model and its header.

        Raises:
            InputError: There is none, or it is damaged.
        """
        header, file = read_stamped(folder / "mil.json"), folder / "mil.safetensors"
        if header.get("format") != _FORMAT:
            raise InputError(
                f"{folder}: expected format {_FORMAT} but got {header.get('format')!r}."
            )
        record = folder / "mil.json"
        if problems := damaged(file, header["sha256"], record, "Copy the folder again."):
            raise InputError(problems)
        tensors = read_weights(file)
        projection = Projection(
            tensors.pop("projection.mean").numpy(), tensors.pop("projection.matrix").numpy()
        )
        network = BagClassifier(
            projection.matrix.shape[1],
            len(header["classes"]),
            header["pooling"],
            header["attention_width"],
            0.0,
        )
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items()})
        return cls(projection, network.eval()), header


def fit_patients(
    bags: Sequence[Bag],
    values: npt.NDArray[np.int64],
    n_classes: int,
    pooling: PoolingKind,
    config: MilConfig,
    seed: int,
) -> PatientModel:
    """Fit a pooling and a classifier of P bags, of classes `values` (P,).

    Each step shows each figure in one of its views.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    projection = Projection.of(bags, config.components)
    projected = [projection(bag) for bag in bags]
    network = BagClassifier(
        projected[0].shape[2], n_classes, pooling, config.attention_width, config.dropout
    )
    counts = np.bincount(values, minlength=n_classes)
    with torch.no_grad():  # the steps are few: none of them for what can be counted
        network.classifier.bias.copy_(torch.from_numpy(np.log(np.maximum(counts, 0.5) / len(bags))))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    size = min(config.batch_size, len(bags))
    batches = len(bags) // size
    schedule = one_cycle(optimizer, config.learning_rate, config.epochs * batches, 0.2)
    truth = torch.from_numpy(values)
    network.train()
    for _ in range(config.epochs):
        order = rng.permutation(len(bags))
        for step in range(batches):
            chosen = order[step * size : (step + 1) * size]
            parts = [projected[i] for i in chosen]
            drawn = [rng.integers(part.shape[1], size=len(part)) for part in parts]
            views = [
                part[np.arange(len(part)), view] for part, view in zip(parts, drawn, strict=True)
            ]
            figures = pad_sequence(views, batch_first=True)
            lengths = torch.tensor([len(view) for view in views])
            present = torch.arange(figures.shape[1]) < lengths[:, None]
            scores, _ = network(figures, present)
            loss = functional.cross_entropy(scores, truth[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return PatientModel(projection, network.eval())
