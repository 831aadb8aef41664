"""``atypia download``: fetch a public release, check it, unpack it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atypia.core.files import building_folder, sha256_file
from atypia.core.progress import silent
from atypia.data.archives import (
    ArchiveLimits,
    Release,
    check_hash,
    check_url,
    content_digest,
    fetch,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def download(
    release: Release,
    out: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] = silent,
    limits: ArchiveLimits | None = None,
) -> Path:
    """Fetch, check and unpack a release; `out` holds exactly the files that ``keep`` names.

    A transfer that breaks off leaves ``<out>.part``; the same call goes on from there. Any other
    failure leaves nothing.

    Args:
        release: What to fetch.
        out: Folder to make; it must not exist yet, or be empty.
        url: A mirror to use instead of ``release.url``. The content is checked all the same.
        sha256: Of the archive, checked before it is unpacked.
        progress: Called with (bytes so far, bytes in all, or None where the server gives no size).
        limits: What the archive may cost.

    Raises:
        InputError: `out` exists, or the address is neither HTTPS nor on this machine.
        AtypiaError: The transfer failed, a hash differs, or the archive is unsafe to unpack.
    """
    url, limits = url or release.url, limits or ArchiveLimits()
    check_url(url)
    part = out.with_name(f"{out.name}.part")
    with building_folder(out) as folder:
        fetch(url, part, progress, limits)
        try:
            if sha256 is not None:
                check_hash(f"the archive from {url}", sha256.lower(), sha256_file(part))
            unpack(part, folder, release.keep, limits)
            digest = content_digest(folder)
            check_hash(f"the content of {release.name}", release.content_sha256, digest)
        finally:
            part.unlink()
    return out
