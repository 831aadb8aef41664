"""Classifiers made of others: a network with the rules (hybrid), or several of any kind (stack).

Stacking fits a second model to the predictions of the first ones for patients that they have not
learned from (Wolpert, Neural Networks 5, 1992). Here it is multinomial logistic regression, as
plain arrays; a stack may also have an :class:`~atypia.classifiers.aggregation.Aggregation`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from scipy.special import softmax

from atypia._version import __version__
from atypia.classifiers.aggregation import Aggregation
from atypia.classifiers.answers import Answers, Explanation
from atypia.classifiers.bundle import (
    HEADER,
    HYBRID_NETWORK,
    HybridHeader,
    StackedModel,
    StackHeader,
    find_bundle,
    write_header,
)
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.classifiers.rules.rules_classifier import RulesClassifier
from atypia.classifiers.rules.shape_features import SPEC, measure_patches
from atypia.classifiers.rules.shape_measures import NAMES
from atypia.core.errors import InputError
from atypia.core.files import read_as, sha256_file
from atypia.core.labels import DISPLAY_NAMES, N_SUBTYPES, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.classifiers.rules.shape_features import ShapeFeatures
    from atypia.core.config import InputSpec

    Array = npt.NDArray[np.float64]
    Groups = Mapping[str, tuple[str, ...]]

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "network": tuple(f"log_p_{subtype}" for subtype in SUBTYPES),
    "truths": tuple(f"log_truth_{subtype}" for subtype in SUBTYPES),
    "measures": NAMES,
}
"""Features by what they come from: the network's probabilities, the rules' truths, the measures."""
FEATURES: Final = tuple(name for names in GROUPS.values() for name in names)
"""Of a hybrid; a stack has others: :func:`groups_of`."""

_LEAST: Final = 1e-6
"""Of a probability before its logarithm is taken."""
_FARTHEST: Final = 4.0
"""Standard deviations beyond which a feature counts as if it were there: an odd segmentation must
not decide alone."""


def feature_table(
    probabilities: npt.NDArray[np.floating[Any]], features: Sequence[ShapeFeatures]
) -> Array:
    """Features (N, F), in the order of :data:`FEATURES`; NaN where no shape was found."""
    table = np.full((len(features), len(FEATURES)), np.nan)
    table[:, :N_SUBTYPES] = log_p(probabilities)
    for row, shape in zip(table, features, strict=True):
        if shape.found:
            row[N_SUBTYPES : 2 * N_SUBTYPES] = np.log(shape.truths)
            row[2 * N_SUBTYPES :] = [shape.measures[name] for name in NAMES]
    return table


def log_p(probabilities: npt.NDArray[np.floating[Any]]) -> Array:
    """Logarithms of probabilities, of which none is taken for 0."""
    return np.asarray(np.log(np.maximum(probabilities, _LEAST)), dtype=np.float64)


@dataclass(frozen=True)
class Combiner:
    """Logistic regression on standardised features."""

    features: tuple[str, ...]
    """(F) names of columns."""
    mean: Array
    """(F,)."""
    scale: Array
    """(F,) standard deviations."""
    coefficients: Array
    """(8, F)."""
    intercept: Array
    """(8,)."""

    def predict_proba(self, table: Array, columns: Sequence[str] = FEATURES) -> Array:
        """Probabilities (N, 8) from features (N, len(columns)); NaN counts as the mean."""
        own = [columns.index(name) for name in self.features]
        x = standardised(table[:, own], self.mean, self.scale)
        return np.asarray(softmax(x @ self.coefficients.T + self.intercept, axis=1))

    def to_json(self) -> dict[str, Any]:
        """Make the entry ``combiner`` of a bundle."""
        return {
            "kind": "logistic",
            "features": list(self.features),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept.tolist(),
        }

    @classmethod
    def from_json(
        cls, entry: Mapping[str, Any], file: str, known: Sequence[str] = FEATURES
    ) -> Combiner:
        """Read the entry ``combiner`` of a bundle named `file`, whose columns are `known`.

        Raises:
            InputError: Another kind, unknown features, or arrays of other shapes.
        """
        names = entry.get("features")
        problem = None
        if entry.get("kind") != "logistic":
            problem = f"expected the kind 'logistic' but got {entry.get('kind')!r}."
        elif not isinstance(names, list) or not names or not set(names) <= set(known):
            problem = f"expected features out of {list(known)} but got {names!r}."
        if problem is None:
            n = len(names or ())
            shapes = {
                "mean": (n,),
                "scale": (n,),
                "coefficients": (N_SUBTYPES, n),
                "intercept": (N_SUBTYPES,),
            }
            try:
                arrays = {k: np.array(entry.get(k), dtype=np.float64) for k in shapes}
            except (TypeError, ValueError):
                problem = f"expected numbers in {list(shapes)}."
            else:
                got = {k: a.shape for k, a in arrays.items()}
                sound = all(np.isfinite(a).all() for a in arrays.values())
                if got == shapes and sound and (arrays["scale"] > 0).all():
                    return cls(tuple(names or ()), **arrays)
                problem = f"expected finite arrays of shapes {shapes} but got {got}."
        raise InputError(f"{file}: combiner: {problem}")


def standardised(x: Array, mean: Array, scale: Array) -> Array:
    """Standardise features (N, F); NaN becomes the mean, and none lies too far from it."""
    return np.clip(np.nan_to_num((x - mean) / scale), -_FARTHEST, _FARTHEST)


Meta: TypeAlias = Aggregation | Combiner
"""What makes one prediction of those of several models."""


def columns_of(groups: Groups) -> tuple[str, ...]:
    """Columns of all groups of features, one group after the other."""
    return tuple(name for names in groups.values() for name in names)


def groups_of(n_models: int) -> dict[str, tuple[str, ...]]:
    """Features of a meta-learner, by model: ``0.log_p_amf_bipolar`` and so on."""
    return {str(i): tuple(f"{i}.log_p_{subtype}" for subtype in SUBTYPES) for i in range(n_models)}


def meta_features(base: Array) -> Array:
    """Features (N, K * 8) of a meta-learner, from predictions (K, N, 8) of K models."""
    return log_p(np.concatenate(list(base), axis=1))


def aggregate(meta: Meta, base: Array) -> Array:
    """One prediction (N, 8) of those of K models (K, N, 8)."""
    if isinstance(meta, Aggregation):
        return meta(base)
    return meta.predict_proba(meta_features(base), columns_of(groups_of(len(base))))


class HybridClassifier(Postprocessed):
    """A network and the rules; the combiner was fitted on that network's out-of-fold probabilities.

    Raises:
        MissingExtraError: The extra ``rules`` is not installed.
    """

    def __init__(
        self,
        network: SubtypeModel,
        combiner: Combiner,
        postprocessing: Postprocessing,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        RulesClassifier()  # a missing package is reported now
        self.network, self.combiner, self.postprocessing = network, combiner, postprocessing
        self.provenance = dict(provenance or {})
        self.specs: Sequence[InputSpec] = [*network.specs, SPEC]

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.answer`, with reasons."""
        seen = self.network.answer(patches, mpp, batch_size)
        network = seen.probabilities
        features = measure_patches(patches, mpp, batch_size)
        combined = self.combiner.predict_proba(feature_table(network, features))
        probabilities = self.postprocessing.calibration.apply(combined)
        subtypes = [SUBTYPES[i] for i in self.postprocessing.subtypes(probabilities)]
        return replace(
            seen, probabilities=probabilities, reasons=explain(network, features, subtypes)
        )

    @classmethod
    def load(cls, model: Path | str, network: SubtypeModel) -> HybridClassifier:
        """Read a bundle; `network` is in the folder that :func:`.bundle.parts_of` gives.

        Raises:
            InputError: Not a bundle of a hybrid.
            MissingExtraError: The extra ``rules`` is not installed.
        """
        file = find_bundle(model) / HEADER
        header = read_as(HybridHeader, file)
        combiner = Combiner.from_json(header.combiner, str(file))
        postprocessing = Postprocessing.from_header(header, str(file))
        return cls(network, combiner, postprocessing, header.provenance)


def explain(
    network: npt.NDArray[np.floating[Any]],
    features: Sequence[ShapeFeatures],
    subtypes: Sequence[str],
) -> list[Explanation]:
    """Explain the predicted subtypes by the network's probabilities (N, 8) and the shapes."""
    explanations = []
    for p, shape, subtype in zip(network, features, subtypes, strict=True):
        most = int(p.argmax())
        reason = f"Network: {DISPLAY_NAMES[SUBTYPES[most]]} ({p[most]:.2f})"
        if SUBTYPES[most] != subtype:
            reason += f", {DISPLAY_NAMES[subtype]} ({p[SUBTYPES.index(subtype)]:.2f})"
        reason += f". Shape: {shape.reason(subtype)}"
        explanations.append(Explanation(reason, shape.measures))
    return explanations


def save_hybrid(
    folder: Path,
    network: Path,
    combiner: Combiner,
    postprocessing: Postprocessing,
    provenance: Mapping[str, Any],
) -> None:
    """Write a bundle with a copy of its network's; a folder with ``model.json`` is complete."""
    inner = folder / HYBRID_NETWORK
    shutil.copytree(network, inner, dirs_exist_ok=True)
    header = HybridHeader(
        created_with=f"atypia {__version__}",
        provenance=dict(provenance),
        combiner=combiner.to_json(),
        network_sha256=sha256_file(inner / HEADER),
        **postprocessing.to_header(),
    )
    write_header(folder, header)


class StackClassifier(Postprocessed):
    """Several models, and what makes one prediction of theirs."""

    def __init__(
        self,
        models: Sequence[SubtypeModel],
        meta: Meta,
        postprocessing: Postprocessing,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.models, self.meta, self.postprocessing = list(models), meta, postprocessing
        self.provenance = dict(provenance or {})
        self.specs: Sequence[InputSpec] = [s for model in models for s in model.specs]

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`atypia.classifiers.protocol.SubtypeModel.answer`."""
        seen = [model.answer(patches, mpp, batch_size) for model in self.models]
        base = np.stack([answers.probabilities for answers in seen]).astype(float)
        probabilities = self.postprocessing.calibration.apply(aggregate(self.meta, base))
        guard = next((a for a in seen if a.has_head), seen[0])
        return replace(guard, probabilities=probabilities, reasons=())

    @classmethod
    def load(cls, model: Path | str, models: Sequence[SubtypeModel]) -> StackClassifier:
        """Read a bundle; `models` are in the folders that :func:`.bundle.parts_of` gives.

        Raises:
            InputError: Not a bundle of a stack, or of other models.
        """
        file = find_bundle(model) / HEADER
        header = read_as(StackHeader, file)
        meta: Meta = header.join
        if header.combiner is not None:
            columns = columns_of(groups_of(len(header.models)))
            meta = Combiner.from_json(header.combiner, str(file), columns)
        return cls(models, meta, Postprocessing.from_header(header, str(file)), header.provenance)


def save_stack(
    folder: Path,
    models: Sequence[Path],
    meta: Meta,
    postprocessing: Postprocessing,
    provenance: Mapping[str, Any],
) -> None:
    """Write a bundle as :func:`save_hybrid`; the bundles of all `models` are copied."""
    stacked = []
    for i, model in enumerate(models):
        inner = folder / f"model-{i}"
        shutil.copytree(model, inner, dirs_exist_ok=True)
        stacked.append(StackedModel(folder=inner.name, sha256=sha256_file(inner / HEADER)))
    header = StackHeader(
        created_with=f"atypia {__version__}",
        provenance=dict(provenance),
        models=stacked,
        join=meta if isinstance(meta, Aggregation) else Aggregation(),
        combiner=meta.to_json() if isinstance(meta, Combiner) else None,
        **postprocessing.to_header(),
    )
    write_header(folder, header)
