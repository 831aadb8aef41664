"""Pixels of figures, from a cohort or a slide; and what is made of them once and kept."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import atomic_write
from atypia.data.images import read_patch
from atypia.server.refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from atypia.data.cohort import Cohort
    from atypia.evaluation.metrics import FloatArray
    from atypia.slides.slide_pool import SlidePool

FIELD_UM: Final = 32.0
"""Side of a figure's picture on a slide, as wide as AMi-Br's patches."""
SLIDE_MPP: Final = 0.25
"""µm per pixel of it: a coarser scan is enlarged, as it is for the model."""
_SAMPLES: Final = 64
_SAMPLE: Final = 1 << 15
"""Bytes of a sample; two slides that are alike in 2 MB of theirs are one."""

log = logging.getLogger("atypia")


class GoneError(AtypiaError):
    """No picture can be read at the moment; nothing is to be concluded of any of them."""


def no_picture() -> RefusalError:
    """Make the refusal of a picture that does not exist."""
    return RefusalError(404, "There is no such picture.")


def as_jpeg(image: Image.Image) -> bytes:
    """Encode an image as tiles and thumbnails are sent."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


class Pictures(Protocol):
    """Pixels of N figures."""

    @property
    def key(self) -> str:
        """Hash of what is shown: equal keys, equal pixels."""

    @property
    def subject(self) -> str:
        """Of what a review's labels are: the patches, or the slide, without their labels."""

    @property
    def names(self) -> Sequence[str]:
        """N names under which labels are kept: equal names, the same figure of the subject."""

    def __len__(self) -> int: ...

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of a figure, which is in its middle.

        Raises:
            InputError: The picture cannot be read.
            GoneError: None can, at the moment.
        """

    def mpp(self, number: int) -> float:
        """µm per pixel of :meth:`patch`."""


class CohortPictures:
    """The patches of a cohort."""

    def __init__(self, cohort: Cohort) -> None:
        self.key = cohort.sha256
        self.subject = cohort.patches_sha256
        self.names: Sequence[str] = cohort.manifest["patch_id"].tolist()
        self._paths = cohort.image_paths()
        self._mpps: Sequence[float] = cohort.manifest["mpp"].tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of a patch."""
        return read_patch(self._paths[number])

    def mpp(self, number: int) -> float:
        """µm per pixel of a patch."""
        return float(self._mpps[number])


class SlidePictures:
    """Squares of :data:`FIELD_UM` around places (N, 2), px of level 0, on an open slide."""

    def __init__(self, pool: SlidePool, centres_px: FloatArray) -> None:
        self._pool = pool
        self._centres = np.asarray(centres_px, dtype=np.float64)
        state = pool.info.path.stat()  # without reading all of the file
        key = f"{pool.info.path.resolve()} {state.st_size} {state.st_mtime_ns}"
        self.key = hashlib.sha256(key.encode() + self._centres.tobytes()).hexdigest()
        self.subject = slide_content(pool.info.path)
        # Not the ids: a detector that runs again gives the same ones to other figures.
        self.names = _distinct([f"{x:.1f}, {y:.1f} px" for x, y in self._centres])

    def __len__(self) -> int:
        return len(self._centres)

    def patch(self, number: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of the square around a place."""
        (answer,) = self._pool.read(self._centres[number : number + 1], FIELD_UM, SLIDE_MPP)
        if isinstance(answer, np.ndarray):
            return answer
        if self._pool.lost is not None:
            raise GoneError(str(answer))
        raise InputError(answer)

    def mpp(self, number: int) -> float:  # noqa: ARG002
        """µm per pixel of a square."""
        return SLIDE_MPP


def slide_content(path: Path) -> str:
    """Hash of a slide's size and of samples all over its bytes: the same wherever it lies.

    Of a DICOM slide its largest file, which has level 0; of a MIRAX slide the largest file of the
    folder beside it.
    """
    folder = path.with_suffix("") if path.suffix.lower() == ".mrxs" else path
    parts = [part for part in folder.glob("*") if part.is_file()] if folder.is_dir() else []
    file = max(parts, key=lambda part: part.stat().st_size, default=path)
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        for place in np.linspace(0, max(size - _SAMPLE, 0), _SAMPLES).astype(np.int64).tolist():
            stream.seek(place)
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def _distinct(names: list[str]) -> list[str]:
    """Add a number to equal names."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


class Cache:
    """Bytes by name in one folder, kept on this machine between two starts.

    The folder is made with the first entry; one that cannot be written to is a cache of nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writable = True

    def get(self, name: str) -> bytes | None:
        """Give the bytes; None where there are none."""
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Give the bytes; where there are none, make and keep them."""
        content = self.get(name)
        if content is None:
            content = make()
            self.put(name, content)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keep bytes, whole or not at all."""
        if not self._writable:
            return
        try:
            with atomic_write(self._folder / name, "wb") as stream:
                stream.write(content)
        except AtypiaError as error:
            self._writable = False
            log.warning("pictures are made anew at each start: %s", error)


def cache_of(pictures: Pictures) -> Cache:
    """Name the cache of these pictures among this user's, by the XDG base directory standard."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "atypia"
    return Cache(folder / hashlib.sha256(pictures.key.encode()).hexdigest()[:32])
