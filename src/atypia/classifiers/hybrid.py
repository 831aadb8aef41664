"""A hybrid as a model: the network's and the rules' opinions to one answer, with its reason."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from atypia._version import __version__
from atypia.classifiers.bundle import (
    HEADER,
    HYBRID_NETWORK,
    HybridHeader,
    find_bundle,
    write_header,
)
from atypia.classifiers.combiner import Combiner, feature_table
from atypia.classifiers.postprocessing import Explanation, Postprocessed, Postprocessing
from atypia.classifiers.rules.rules_classifier import SPEC, RulesClassifier, read_patches
from atypia.core.files import read_as, sha256_file
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from atypia.classifiers.protocol import SubtypeModel
    from atypia.classifiers.rules.shape_reading import ShapeFeatures
    from atypia.core.config import InputSpec


class HybridClassifier(Postprocessed):
    """A network and the rules, used like :class:`atypia.classifiers.ensemble.Ensemble`.

    Args:
        network: Gives the probabilities that the combiner was fitted on.
        combiner: Joins them with what the rules found.
        answers: What becomes of the joint probabilities.
        provenance: Where all this comes from.

    Raises:
        MissingExtraError: The extra ``rules`` is not installed.
    """

    def __init__(
        self,
        network: SubtypeModel,
        combiner: Combiner,
        answers: Postprocessing,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._rules = RulesClassifier()
        self.network, self.combiner, self.postprocessing = network, combiner, answers
        self.provenance = dict(provenance or {})
        self.specs: Sequence[InputSpec] = [*network.specs, SPEC]

    def predict_proba(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Calibrated subtype probabilities, as :class:`SubtypeModel` gives them.

        Raises:
            InputError: Patches of another type, or much smaller than the field of view.
        """
        return self.answer(patches, mpp, batch_size)[0]

    def answer(
        self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64
    ) -> tuple[npt.NDArray[np.float32], list[Explanation]]:
        """As :meth:`predict_proba`, with the reason of each answer."""
        opinion = self.network.predict_proba(patches, mpp, batch_size)
        readings = read_patches(patches, mpp, batch_size)
        joint = self.combiner.predict_proba(feature_table(opinion, readings))
        return postprocessed(self.postprocessing, joint, opinion, readings)

    @classmethod
    def load(cls, model: Path | str, network: SubtypeModel) -> HybridClassifier:
        """Read a bundle.

        Args:
            model: A bundle or a run folder.
            network: Loaded from the folder that :func:`atypia.classifiers.bundle.parts_of` gives.

        Raises:
            InputError: Not a bundle of a hybrid.
            MissingExtraError: The extra ``rules`` is not installed.
        """
        file = find_bundle(model) / HEADER
        header = read_as(HybridHeader, file)
        combiner = Combiner.from_json(header.combiner, str(file))
        return cls(
            network, combiner, Postprocessing.from_header(header, str(file)), header.provenance
        )


def save_hybrid(
    folder: Path,
    network: Path,
    combiner: Combiner,
    answers: Postprocessing,
    provenance: Mapping[str, Any],
) -> None:
    """Write a bundle; ``model.json`` comes last, so a folder with it is complete.

    Args:
        folder: Made if need be.
        network: Bundle of the network, which is copied.
        combiner: Fitted on that network's out-of-fold probabilities.
        answers: What becomes of the joint probabilities.
        provenance: Where all this comes from.

    Raises:
        AtypiaError: The folder cannot be written.
    """
    inner = folder / HYBRID_NETWORK
    shutil.copytree(network, inner, dirs_exist_ok=True)
    header = HybridHeader(
        created_with=f"atypia {__version__}",
        provenance=dict(provenance),
        combiner=combiner.to_json(),
        network_sha256=sha256_file(inner / HEADER),
        **answers.to_header(),
    )
    write_header(folder, header)


def postprocessed(
    answers: Postprocessing,
    joint: npt.NDArray[np.floating[Any]],
    opinion: npt.NDArray[np.floating[Any]],
    readings: Sequence[ShapeFeatures],
) -> tuple[npt.NDArray[np.float32], list[Explanation]]:
    """Answers (N, 8) of joint probabilities, each with the network's and the rules' reason.

    Args:
        answers: What becomes of the joint probabilities.
        joint: (N, 8) of the combiner.
        opinion: (N, 8) of the network.
        readings: (N) of the rules.
    """
    probabilities = answers.calibration.apply(joint)
    decided = answers.decision.subtypes(probabilities)
    explanations = []
    for p, reading, subtype in zip(opinion, readings, decided, strict=True):
        most = int(p.argmax())
        seen = f"Network: {DISPLAY_NAMES[SUBTYPES[most]]} ({p[most]:.2f})"
        if most != subtype:
            seen += f", {DISPLAY_NAMES[SUBTYPES[subtype]]} ({p[subtype]:.2f})"
        told = f"{seen}. Shape: {reading.reason(SUBTYPES[subtype])}"
        explanations.append(Explanation(told, reading.measures))
    return probabilities, explanations
