"""The rules as a model: patches to probabilities, with a reason for each.

Nothing in it is learned; what a run fits out of fold is the postprocessing of the probabilities.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from atypia._version import __version__
from atypia.classifiers.answers import Explanation
from atypia.classifiers.bundle import HEADER, RULES, RulesHeader, find_bundle, write_header
from atypia.classifiers.decision import Decision
from atypia.classifiers.postprocessing import Postprocessed, Postprocessing
from atypia.classifiers.rules.criteria import prior
from atypia.classifiers.rules.shape_features import SPEC, measure_patches, raw_probabilities
from atypia.core.errors import MissingExtraError
from atypia.core.files import read_as
from atypia.core.labels import SUBTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from atypia.classifiers.answers import Answers
    from atypia.classifiers.rules.shape_features import ShapeFeatures
    from atypia.core.config import InputSpec


class RulesClassifier(Postprocessed):
    """The rules; unless postprocessed, predict the most probable subtype, atypical from 0.5 on.

    Raises:
        MissingExtraError: The extra ``rules`` is not installed.
    """

    def __init__(
        self,
        postprocessing: Postprocessing | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if importlib.util.find_spec("skimage") is None:
            raise MissingExtraError("scikit-image", "rules", "Reading shapes")
        self.postprocessing = postprocessing or Postprocessing(
            Decision(prior=prior().tolist(), power=0)
        )
        self.provenance = dict(provenance or {})
        self.specs: Sequence[InputSpec] = [SPEC]

    def answer(self, patches: npt.NDArray[np.uint8], mpp: float, batch_size: int = 64) -> Answers:
        """As :meth:`.protocol.SubtypeModel.answer`, with reasons; no chromatin: the class prior."""
        features = measure_patches(patches, mpp, batch_size)
        probabilities = self.postprocessing.calibration.apply(raw_probabilities(features))
        subtypes = self.postprocessing.subtypes(probabilities)
        explanations = [
            Explanation(shape.reason(SUBTYPES[subtype]), shape.measures)
            for shape, subtype in zip(features, subtypes, strict=True)
        ]
        return self.guarded(patches, mpp, probabilities, reasons=explanations)

    def explain(self, patch: npt.NDArray[np.uint8], mpp: float) -> ShapeFeatures:
        """Measure one patch (H, W, 3); the outlines are in its pixels."""
        return measure_patches(patch[None], mpp)[0]

    def save(self, folder: Path) -> None:
        """Write the bundle: ``model.json``."""
        header = RulesHeader(
            created_with=f"atypia {__version__}",
            provenance=self.provenance,
            **self.postprocessing.to_header(),
        )
        write_header(folder, header)

    @classmethod
    def load(cls, model: Path | str = RULES) -> RulesClassifier:
        """Read a bundle; see :func:`atypia.classifiers.bundle.find_bundle`.

        Raises:
            InputError: Not a bundle of rules.
            MissingExtraError: The extra ``rules`` is not installed.
        """
        file = find_bundle(model) / HEADER
        header = read_as(RulesHeader, file)
        return cls(Postprocessing.from_header(header, str(file)), header.provenance)
