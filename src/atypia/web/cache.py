"""What is made once and kept on this machine between two starts: thumbnails, embeddings."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from atypia.core.errors import AtypiaError
from atypia.core.files import atomic_write

log = logging.getLogger("atypia")


def cache_folder() -> Path:
    """Where caches of this user lie, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "atypia"


class Cache:
    """Bytes by name in one folder; a folder that cannot be written to is a cache of nothing.

    Args:
        folder: Made when the first entry is written.
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
