"""Fetch a pinned release over HTTPS, resume where it broke off, unpack it without surprises.

What is pinned is the *content*: one SHA-256 over the hashes of all files that are kept. The host
makes the archive on demand and does not promise its bytes (another version of its compressor is
enough to change them), while the files of a commit never change. Where an archive is known to be
stable its own hash can be given too; it is checked before anything is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import ipaddress
import re
import shutil
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from atypia._version import __version__
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import building_folder, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK: Final = 2**18
_TIMEOUT_S: Final = 60

_DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
)

_NETWORK_ERRORS: Final = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


@dataclass(frozen=True)
class Release:
    """A public data set at one fixed version."""

    name: str
    url: str
    """A .zip or .tar.gz archive; one folder around everything in it is ignored."""
    keep: str
    """Regular expression for the paths that are unpacked; nothing else is."""
    content_sha256: str
    """:func:`content_digest` of the unpacked files."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may cost. Beyond it, it is taken for a bomb."""

    archive_bytes: int = 2**30
    unpacked_bytes: int = 2**30
    entries: int = 50_000
    ratio: float = 100
    """Unpacked bytes per byte of the archive."""


AMI_BR: Final = Release(
    name="AMi-Br",
    url=(
        "https://github.com/DeepMicroscopy/AMi-Br/archive/"
        "f8a8e9cba7a37ddf9646b2ad9e6e761282114256.zip"
    ),
    keep=r"AMI-BR\.csv|patches/(normal|atypical)/[A-Za-z0-9_]+\.png",
    content_sha256="7d63cea0595793bde10b1c044741f78a8af1cee87042336e05ec3e9e33fda285",
)
RELEASES: Final = {"ami-br": AMI_BR}


def download(
    release: Release,
    out: Path,
    *,
    url: str | None = None,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    limits: ArchiveLimits | None = None,
) -> Path:
    """Fetch, check and unpack a release.

    A transfer that breaks off leaves ``<out>.part``; the same call goes on from there. Any other
    failure leaves nothing.

    Args:
        release: What to fetch.
        out: Folder to make; it must not exist yet, or be empty.
        url: A mirror to use instead of ``release.url``. The content is checked all the same.
        sha256: Of the archive, checked before it is unpacked.
        progress: Called with (bytes so far, bytes in all, or None where the server does not say).
        limits: What the archive may cost.

    Returns:
        `out`, holding exactly the files that ``release.keep`` names.

    Raises:
        InputError: `out` exists, or the address is neither HTTPS nor on this machine.
        AtypiaError: The transfer failed, a hash differs, or the archive is unsafe to unpack.
    """
    url, limits = url or release.url, limits or ArchiveLimits()
    _check_url(url)
    part = out.with_name(f"{out.name}.part")
    with building_folder(out) as folder:
        _fetch(url, part, progress, limits)
        try:
            if sha256 is not None:
                _check_hash(f"the archive from {url}", sha256.lower(), sha256_file(part))
            _unpack(part, folder, re.compile(release.keep), limits)
            digest = content_digest(folder)
            _check_hash(f"the content of {release.name}", release.content_sha256, digest)
        finally:
            part.unlink()
    return out


def content_digest(folder: Path) -> str:
    """One SHA-256 over all files below a folder, by content and relative path.

    It is what ``sha256sum FILE... | LC_ALL=C sort -k2 | sha256sum`` prints in that folder.
    """
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    listing = "".join(f"{sha256_file(files[name])}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def _check_hash(what: str, expected: str, got: str) -> None:
    if got != expected:
        raise AtypiaError(
            f"{what}: expected the SHA-256 {expected} but got {got}. The download was removed. "
            "Try again; if it happens again, the source is not what it should be."
        )


# --- Transfer -----------------------------------------------------------------------------------


def _check_url(url: str) -> None:
    """Let HTTPS pass, and plain HTTP on this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        return
    raise InputError(f"expected an https:// address but got {url!r}.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download may come from in the first place."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(
    url: str, part: Path, progress: Callable[[int, int | None], None] | None, limits: ArchiveLimits
) -> None:
    """Bring `part` to its full length, starting from what is already there."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"atypia/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_CheckedRedirects)
    try:
        request = urllib.request.Request(url, headers=headers)
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            start = have if _resumes(response, have) else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length is not None else None
            with part.open("ab" if start else "wb") as stream:
                done = _receive(response, stream, start, total, progress, limits)
        if done > limits.archive_bytes:
            part.unlink()
            raise AtypiaError(
                f"{url}: expected at most {limits.archive_bytes:,} bytes but got more."
            )
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # nothing was missing
            part.unlink()
            _fetch(url, part, progress, limits)
            return
        raise AtypiaError(f"{url}: the server answered {error.code} {error.reason}.") from None
    except _NETWORK_ERRORS as error:
        kept = f" {part} keeps what came so far: run the same command again to go on."
        raise AtypiaError(
            f"{url}: the download broke off ({error}).{kept if part.exists() else ''}"
        ) from error


def _resumes(response: Any, have: int) -> bool:
    """Whether the server goes on at byte `have`; many send the whole archive again instead."""
    content_range = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and bool(
        re.match(rf"bytes {have}-", content_range)
    )


def _receive(
    response: Any,
    stream: IO[bytes],
    done: int,
    total: int | None,
    progress: Callable[[int, int | None], None] | None,
    limits: ArchiveLimits,
) -> int:
    """Write the answer to `stream` until it ends or goes beyond the limit; returns the length."""
    while done <= limits.archive_bytes and (chunk := response.read(_CHUNK)):
        stream.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return done


# --- Archive ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One entry of an archive, whatever its format."""

    name: str
    kind: str
    """``"file"``, ``"folder"``, or what else it is."""
    size: int
    open: Callable[[], IO[bytes]]


def _unpack(archive: Path, folder: Path, keep: re.Pattern[str], limits: ArchiveLimits) -> None:
    """Write the wanted files of an archive below `folder`; refuse the archive if any entry is odd.

    Raises:
        AtypiaError: Path traversal, links or devices, a bomb, a file twice, or a damaged archive.
    """
    entries, size = 0, 0
    written: set[str] = set()
    allowed = min(limits.unpacked_bytes, int(limits.ratio * archive.stat().st_size))
    try:
        for entry in _entries(archive):
            entries, size = entries + 1, size + entry.size
            _refuse_odd(entry)
            if entries > limits.entries or size > allowed:
                raise AtypiaError(
                    f"the archive was not unpacked: expected at most {limits.entries:,} entries "
                    f"and {allowed:,} bytes, but it holds more."
                )
            name = _wanted_name(entry, keep)
            if name is not None:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if name in written:
                    raise AtypiaError(f"the archive was not unpacked: it holds {name} twice.")
                written.add(name)
                with entry.open() as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream, _CHUNK)
    except _DAMAGED as error:
        raise AtypiaError(f"the archive is damaged and was removed ({error}).") from error


def _wanted_name(entry: _Entry, keep: re.Pattern[str]) -> str | None:
    """Path below the release's folder if the entry is a file to keep."""
    inner = entry.name.partition("/")[2]
    names = (name for name in (entry.name, inner) if keep.fullmatch(name))
    return next(names, None) if entry.kind == "file" else None


def _refuse_odd(entry: _Entry) -> None:
    """Refuse what a data set has no use for and an attacker has."""
    if entry.kind not in ("file", "folder"):
        reason = f"it is a {entry.kind}"
    elif (
        PurePosixPath(entry.name).is_absolute()
        or ".." in PurePosixPath(entry.name).parts
        or re.search(r"[\\:\x00-\x1f]", entry.name)
    ):
        reason = "it leads out of the folder"
    else:
        return
    raise AtypiaError(
        f"the archive was not unpacked: its entry {entry.name!r} is unsafe, {reason}."
    )


def _entries(archive: Path) -> Iterator[_Entry]:
    if zipfile.is_zipfile(archive):
        yield from _zip_entries(archive)
    else:
        yield from _tar_entries(archive)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                kind = "folder"
            elif info.flag_bits & 1:
                kind = "encrypted file"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                kind = "link" if stat.S_ISLNK(mode) else "special file"
            else:
                kind = "file"
            # zipfile never gives out more than the size that is declared here.
            yield _Entry(info.filename, kind, info.file_size, partial(content.open, info))


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, "r:gz") as content:
        # One by one, so that a bomb is refused at its header and never run through.
        for info in content:
            if info.isfile():
                kind = "file"
            elif info.isdir():
                kind = "folder"
            else:
                kind = "link" if info.issym() or info.islnk() else "special file"

            yield _Entry(info.name, kind, info.size, partial(_open_member, content, info))


def _open_member(content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = content.extractfile(info)
    assert stream is not None  # only ever called for a regular file
    return stream
