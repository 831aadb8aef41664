"""Fetch a pinned release over HTTPS, resume where it broke off, unpack it without surprises.

What is pinned is the *content*: one SHA-256 over the hashes of all files that are kept. The host
makes the archive on demand, so that its bytes vary with the version of its compressor, while the
files of a commit never change. Where an archive is known to be stable its own hash can be given
too; it is checked before anything is unpacked.
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
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from atypia._version import __version__
from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import sha256_file

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


def content_digest(folder: Path) -> str:
    """One SHA-256 over all files below a folder, by content and relative path.

    It is what ``sha256sum FILE... | LC_ALL=C sort -k2 | sha256sum`` prints in that folder.
    """
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    listing = "".join(f"{sha256_file(files[name])}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def check_hash(what: str, expected: str, got: str) -> None:
    """Raise an AtypiaError where a SHA-256 is not the expected one."""
    if got != expected:
        raise AtypiaError(
            f"{what}: expected the SHA-256 {expected} but got {got}. The download was removed. "
            "Try again; if it happens again, the source is not what it should be."
        )


def check_url(url: str) -> None:
    """Raise an InputError unless it is HTTPS, or plain HTTP on this very machine."""
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
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str, part: Path, progress: Callable[[int, int | None], None], limits: ArchiveLimits
) -> None:
    """Bring `part` to its full length, starting from what is already there.

    Raises:
        AtypiaError: The transfer failed or is too long; what came stays in `part` for a next try.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"atypia/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(_CheckedRedirects)
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            # Many servers send the whole archive again instead.
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            done = have if response.status == http.HTTPStatus.PARTIAL_CONTENT and resumes else 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length is not None else None
            with part.open("ab" if done else "wb") as stream:
                while done <= limits.archive_bytes and (chunk := response.read(_CHUNK)):
                    stream.write(chunk)
                    done += len(chunk)
                    progress(done, total)
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
            fetch(url, part, progress, limits)
            return
        raise AtypiaError(f"{url}: the server answered {error.code} {error.reason}.") from None
    except _NETWORK_ERRORS as error:
        kept = f" {part} keeps what came so far: run the same command again to go on."
        raise AtypiaError(
            f"{url}: the download broke off ({error}).{kept if part.exists() else ''}"
        ) from error


class _Entry(NamedTuple):
    """One entry of an archive, whatever its format."""

    name: str
    kind: str
    """``"file"``, ``"folder"``, or what else it is."""
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, keep: str, limits: ArchiveLimits) -> None:
    """Write the wanted files of an archive below `folder`; refuse the archive if any entry is odd.

    :func:`tarfile.data_filter` would let links inside the folder pass and make absolute paths
    relative, and there is none for ZIP files: both are refused here.

    Raises:
        AtypiaError: Path traversal, links or devices, a bomb, a file twice, or a damaged archive.
    """
    size = 0
    written: set[str] = set()
    allowed = min(limits.unpacked_bytes, int(limits.ratio * archive.stat().st_size))
    try:
        for n, entry in enumerate(_entries(archive), start=1):
            size += entry.size
            if reason := _unsafe(entry):
                raise AtypiaError(
                    f"the archive was not unpacked: its entry {entry.name!r} is unsafe, {reason}."
                )
            if n > limits.entries or size > allowed:
                raise AtypiaError(
                    f"the archive was not unpacked: expected at most {limits.entries:,} entries "
                    f"and {allowed:,} bytes, but it holds more."
                )
            # One folder around everything is ignored.
            names = (entry.name, entry.name.partition("/")[2])
            name = next((name for name in names if re.fullmatch(keep, name)), None)
            if name is None or entry.kind != "file":
                continue
            if name in written:
                raise AtypiaError(f"the archive was not unpacked: it holds {name} twice.")
            written.add(name)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = entry.open()
            assert source is not None  # as it is a regular file
            with source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
    except _DAMAGED as error:
        raise AtypiaError(f"the archive is damaged and was removed ({error}).") from error


def _unsafe(entry: _Entry) -> str | None:
    """Reason to refuse what a data set has no use for and an attacker has."""
    if entry.kind not in ("file", "folder"):
        return f"it is a {entry.kind}"
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", entry.name):
        return "it leads out of the folder"
    return None


def _entries(archive: Path) -> Iterator[_Entry]:
    """Entries one by one, so that a bomb is refused at its header and never run through."""
    if not zipfile.is_zipfile(archive):
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                kind = "link" if member.issym() or member.islnk() else "special file"
                kind = "file" if member.isfile() else "folder" if member.isdir() else kind
                yield _Entry(member.name, kind, member.size, partial(tar.extractfile, member))
        return
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
