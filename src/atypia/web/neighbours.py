"""The labelled figures that a model finds most alike, by the cosine of their features.

Features are read once, in a thread that starts when somebody first asks, and kept.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from atypia.core.errors import AtypiaError
from atypia.evaluation.predictions import UNKNOWN
from atypia.web.pictures import GoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from atypia.classifiers.ensemble import Ensemble
    from atypia.evaluation.metrics import IntArray
    from atypia.web.pictures import Cache, Pictures

    Embed = Callable[[npt.NDArray[np.uint8], float], npt.NDArray[np.float32]]
    """Patches (N, H, W, 3) and their µm per pixel to features (N, D)."""

log = logging.getLogger("atypia")

MOST: Final = 12
_BATCH: Final = 16


def embedder(model: object) -> tuple[Embed, str] | None:
    """Make the function that reads features, and a hash of the weights behind it.

    The first member's backbone alone: features of different members lie in different spaces.
    None for a model that gives no features, such as an ONNX graph.
    """
    if not hasattr(model, "members"):
        return None
    import torch

    from atypia.models.transforms import normalise, sample_field

    ensemble = cast("Ensemble", model)
    network = ensemble.members[0]
    spec = (ensemble.specs or [ensemble.spec])[0]
    digest = hashlib.sha256(repr(spec).encode())
    for name, tensor in network.backbone.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())

    @torch.inference_mode()
    def embed(patches: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(np.ascontiguousarray(patches)).to(ensemble.device)
        images = normalise(sample_field(pixels, mpp, spec), spec)
        features = network.backbone(images.contiguous(memory_format=torch.channels_last))
        return np.asarray(features.float().cpu().numpy(), dtype=np.float32)

    return embed, digest.hexdigest()


class Neighbours:
    """Features of all figures, and who is near whom.

    `embed` and `key` are from :func:`embedder`; `cache` is that of these pictures alone.
    """

    def __init__(self, pictures: Pictures, embed: Embed, key: str, cache: Cache) -> None:
        self._pictures = pictures
        self._embed = embed
        self._name = f"features-{key[:32]}.npy"
        self._cache = cache
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._done = 0
        self._features: npt.NDArray[np.float32] | None = None
        self._failed: str | None = None

    def stop(self) -> None:
        """Leave what is not read yet."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def near(self, number: int, labels: IntArray) -> dict[str, Any]:
        """List the labelled figures that are most alike, the nearest first.

        Args:
            number: Of the figure; it is not its own neighbour.
            labels: (N,) only figures with one are listed.

        Returns:
            ``{"state": "ready", "neighbours": [{"number", "similarity"}]}``; while features are
            being read ``{"state": "reading", "done", "of"}``; or ``{"state": "failed", "why"}``.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="features", daemon=True)
                self._thread.start()
        if self._failed is not None:
            return {"state": "failed", "why": self._failed}
        features = self._features
        if features is None:
            return {"state": "reading", "done": self._done, "of": len(self._pictures)}
        similarity = features @ features[number]
        others = np.flatnonzero((labels != UNKNOWN) & (np.arange(len(labels)) != number))
        nearest = others[np.argsort(-similarity[others], kind="stable")[:MOST]]
        found = [{"number": int(i), "similarity": round(float(similarity[i]), 4)} for i in nearest]
        return {"state": "ready", "neighbours": found}

    def _work(self) -> None:
        try:
            features = self._kept()
            if features is None:
                features = self._read()
                if features is None:
                    return
                stream = io.BytesIO()
                np.save(stream, features)
                self._cache.put(self._name, stream.getvalue())
            self._features = features
        except Exception as error:  # the thread's; the next answer holds it
            log.exception("features of figures could not be read")
            self._failed = f"The model's features could not be read ({type(error).__name__})."

    def _kept(self) -> npt.NDArray[np.float32] | None:
        content = self._cache.get(self._name)
        if content is None:
            return None
        try:
            features: npt.NDArray[np.float32] = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError):
            return None  # damaged: read them again
        return features if len(features) == len(self._pictures) else None

    def _read(self) -> npt.NDArray[np.float32] | None:
        """Read all features, unit length; None when stopped. Unreadable pictures are zero."""
        rows: list[npt.NDArray[np.float32] | None] = [None] * len(self._pictures)
        for start in range(0, len(rows), _BATCH):
            if self._stop.is_set():
                return None
            groups: dict[tuple[tuple[int, ...], float], list[tuple[int, Any]]] = {}
            for number in range(start, min(start + _BATCH, len(rows))):
                try:
                    patch = self._pictures.patch(number)
                except GoneError:  # features without it would be kept
                    raise
                except AtypiaError:
                    continue
                kind = (patch.shape, self._pictures.mpp(number))
                groups.setdefault(kind, []).append((number, patch))
            for (_, mpp), members in groups.items():
                answers = self._embed(np.stack([patch for _, patch in members]), mpp)
                for (number, _), answer in zip(members, answers, strict=True):
                    rows[number] = answer
            self._done = min(start + _BATCH, len(rows))
        size = next((len(row) for row in rows if row is not None), 0)
        features = np.stack([np.zeros(size, np.float32) if row is None else row for row in rows])
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)
