"""Downloads against a real HTTP server on this machine, with everything that can go wrong."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from atypia.core.errors import AtypiaError, InputError
from atypia.core.files import sha256_file
from atypia.data.archives import AMI_BR, ArchiveLimits, Release, content_digest
from atypia.pipeline import download

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILES = {
    "AMI-BR.csv": b"slide,dataset\n" * 50,
    "patches/normal/A_1.png": bytes(range(256)) * 40,
    "patches/atypical/A_2.png": b"not really a png",
}
UNWANTED = {"README.md": b"hello", "images/big.jpg": b"x" * 1000}


def digest_of(files: dict[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()


RELEASE = Release("test", "https://example.org/x.zip", AMI_BR.keep, digest_of(FILES))


def make_zip(
    files: dict[str, bytes], edit: Callable[[zipfile.ZipFile], None] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"AMi-Br-f8a8/{name}", data)
        if edit is not None:
            edit(archive)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"AMi-Br-f8a8/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra is not None:
            archive.addfile(extra)
    return buffer.getvalue()


@dataclass
class Served:
    """What the server gives, and what it was asked."""

    url: str
    body: bytes = b""
    cut_at: int | None = None
    """Close the connection after so many bytes of the answer."""
    honours_range: bool = True
    says_length: bool = True
    redirect: str | None = None
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.ranges.append(wanted)
            start = 0
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if wanted and state.honours_range:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(state.body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(state.body) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
            else:
                self.send_response(200)
            body = state.body[start:]
            if state.says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_at])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Served(f"http://127.0.0.1:{server.server_port}/release")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("says_length", [True, False])
def test_unpacks_exactly_the_wanted_files(served, tmp_path, make, says_length):
    served.body, served.says_length = make(FILES | UNWANTED), says_length
    seen = []
    out = download(
        RELEASE, tmp_path / "out", url=served.url, progress=lambda *step: seen.append(step)
    )
    assert files_below(out) == FILES
    assert seen[-1] == (len(served.body), len(served.body) if says_length else None)
    assert list(tmp_path.iterdir()) == [out]


def test_truncated_then_resumed(served, tmp_path):
    served.body, served.cut_at = make_zip(FILES), 300
    with pytest.raises(AtypiaError, match="run the same command again") as caught:
        download(RELEASE, tmp_path / "out", url=served.url)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out.part"]
    assert (tmp_path / "out.part").read_bytes() == served.body[:300]

    served.cut_at = None
    download(RELEASE, tmp_path / "out", url=served.url)
    assert served.ranges == [None, "bytes=300-"]
    assert files_below(tmp_path / "out") == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_server_without_ranges_starts_over(served, tmp_path):
    served.body, served.honours_range = make_zip(FILES), False
    (tmp_path / "out.part").write_bytes(b"something else")
    download(RELEASE, tmp_path / "out", url=served.url)
    assert files_below(tmp_path / "out") == FILES


def test_part_that_is_complete_already(served, tmp_path):
    served.body = make_zip(FILES)
    (tmp_path / "out.part").write_bytes(served.body)
    download(RELEASE, tmp_path / "out", url=served.url)
    assert files_below(tmp_path / "out") == FILES


def test_part_longer_than_the_archive_starts_over(served, tmp_path):
    served.body = make_zip(FILES)
    (tmp_path / "out.part").write_bytes(served.body + b"more")
    download(RELEASE, tmp_path / "out", url=served.url)
    assert served.ranges == [f"bytes={len(served.body) + 4}-", None]
    assert files_below(tmp_path / "out") == FILES


def test_part_of_another_archive_is_caught_and_removed(served, tmp_path):
    served.body = make_zip(FILES)
    (tmp_path / "out.part").write_bytes(b"\0" * 100)
    with pytest.raises(AtypiaError):
        download(RELEASE, tmp_path / "out", url=served.url)
    assert list(tmp_path.iterdir()) == []


def test_archive_hash(served, tmp_path):
    served.body = make_zip(FILES)
    with pytest.raises(AtypiaError, match=r"the archive .* expected the SHA-256 0000"):
        download(RELEASE, tmp_path / "out", url=served.url, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    right = hashlib.sha256(served.body).hexdigest().upper()
    download(RELEASE, tmp_path / "out", url=served.url, sha256=right)


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"AMI-BR.csv": b"changed"},
        FILES | {"patches/normal/A_3.png": b"one too many"},
        {name: data for name, data in FILES.items() if name != "AMI-BR.csv"},
    ],
)
def test_wrong_content_is_refused(served, tmp_path, files):
    served.body = make_zip(files)
    with pytest.raises(AtypiaError, match="the content of test: expected the SHA-256"):
        download(RELEASE, tmp_path / "out", url=served.url)
    assert list(tmp_path.iterdir()) == []


def _zip_entry(name: str, mode: int = 0, data: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    return lambda archive: archive.writestr(info, data)


def _tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


UNSAFE = {
    "zip traversal": make_zip(FILES, _zip_entry("AMi-Br-f8a8/../../evil.png")),
    "zip traversal into a wanted name": make_zip(FILES, _zip_entry("../patches/normal/A_9.png")),
    "zip absolute": make_zip(FILES, _zip_entry("/tmp/evil.png")),
    "zip backslash": make_zip(FILES, _zip_entry("AMi-Br-f8a8\\..\\evil.png")),
    "zip drive": make_zip(FILES, _zip_entry("C:/evil.png")),
    "zip symlink": make_zip(
        FILES, _zip_entry("t/patches/normal/A_9.png", stat.S_IFLNK | 0o777, b"/etc/passwd")
    ),
    "zip device": make_zip(FILES, _zip_entry("t/patches/normal/A_9.png", stat.S_IFCHR | 0o666)),
    "tar traversal": make_tar(FILES, _tar_info("../evil.png")),
    "tar absolute": make_tar(FILES, _tar_info("/tmp/evil.png")),
    "tar symlink": make_tar(FILES, _tar_info("t/a.png", tarfile.SYMTYPE, "/etc/passwd")),
    "tar hard link": make_tar(FILES, _tar_info("t/a.png", tarfile.LNKTYPE, "AMI-BR.csv")),
    "tar device": make_tar(FILES, _tar_info("t/a.png", tarfile.CHRTYPE)),
    "tar fifo": make_tar(FILES, _tar_info("t/a.png", tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_entries_are_refused(served, tmp_path, name):
    served.body = UNSAFE[name]
    with pytest.raises(AtypiaError, match="is unsafe, it"):
        download(RELEASE, tmp_path / "a" / "out", url=served.url)
    assert files_below(tmp_path) == {}
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "limits",
    [ArchiveLimits(ratio=20), ArchiveLimits(unpacked_bytes=1_000_000), ArchiveLimits(entries=3)],
    ids=["ratio", "size", "entries"],
)
def test_bombs_are_refused(served, tmp_path, make, limits):
    served.body = make(FILES | {"patches/normal/Z.png": b"\0" * 4_000_000})
    with pytest.raises(AtypiaError, match="it holds more"):
        download(RELEASE, tmp_path / "out", url=served.url, limits=limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("says_length", [True, False])
def test_endless_archive_is_refused(served, tmp_path, says_length):
    served.body, served.says_length = b"\0" * 1_000_000, says_length
    with pytest.raises(AtypiaError, match="at most 1,000 bytes"):
        download(
            RELEASE, tmp_path / "out", url=served.url, limits=ArchiveLimits(archive_bytes=1000)
        )
    assert list(tmp_path.iterdir()) == []


def test_same_file_twice_is_refused(served, tmp_path):
    served.body = make_zip(FILES, _zip_entry("other/AMI-BR.csv"))
    with pytest.raises(AtypiaError, match=r"holds AMI-BR\.csv twice"):
        download(RELEASE, tmp_path / "out", url=served.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6])
def test_damaged_archive_is_refused(served, tmp_path, make, place):
    body = bytearray(make(FILES))
    at = int(len(body) * place)
    body[at : at + 40] = bytes(40)
    served.body = bytes(body)
    with pytest.raises(AtypiaError) as caught:
        download(RELEASE, tmp_path / "out", url=served.url)
    assert "could not be written" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://example.org/x.zip", "file:///etc/passwd", "ftp://a/b", "https://", "x.zip"]
)
def test_only_https_or_this_machine(tmp_path, url):
    with pytest.raises(InputError, match="expected an https:// address"):
        download(RELEASE, tmp_path / "out", url=url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["http://example.org/x.zip", "file:///etc/passwd"])
def test_redirect_to_an_unsafe_address_is_refused(served, tmp_path, target):
    served.redirect = target
    with pytest.raises(AtypiaError, match=r"expected an https:// address|is not allowed"):
        download(RELEASE, tmp_path / "out", url=served.url)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched_where_the_folder_exists(served, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="already exists"):
        download(RELEASE, tmp_path / "out", url=served.url)
    assert served.ranges == []
    assert files_below(tmp_path / "out") == {"mine.txt": b"keep"}


def test_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(AtypiaError, match="broke off"):
        download(RELEASE, tmp_path / "out", url="http://127.0.0.1:9/x.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.realdata
def test_pinned_content_is_that_of_the_release(ami_br, served, tmp_path):
    names = [
        "AMI-BR.csv",
        *sorted(p.relative_to(ami_br).as_posix() for p in ami_br.glob("patches/*/*.png")),
    ]
    listing = "".join(f"{sha256_file(ami_br / name)}  {name}\n" for name in names)
    assert hashlib.sha256(listing.encode()).hexdigest() == AMI_BR.content_sha256
    # A part of it goes the whole way, and its digest shows that the rest is missing.
    few = {name: (ami_br / name).read_bytes() for name in names[:20]}
    served.body = make_zip(few)
    with pytest.raises(AtypiaError, match="the content of AMi-Br"):
        download(AMI_BR, tmp_path / "out", url=served.url)
    part = replace(AMI_BR, content_sha256=digest_of(few))
    out = download(part, tmp_path / "out", url=served.url)
    assert content_digest(out) == digest_of(few)
