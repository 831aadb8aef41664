"""A client of nothing but the standard library, and a server in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    data: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self.data[:200]
        return json.loads(self.data)

    @property
    def problems(self) -> list[str]:
        problems = self.json["problems"]
        assert problems or self.status == 200
        assert not any("Traceback" in problem or "/tmp" in problem for problem in problems)
        return problems


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post_json(self, path: str, content: Any, **headers: str) -> Reply:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, {"Content-Type": "application/json", **headers})

    def post_form(self, path: str, parts: Sequence[Part], **headers: str) -> Reply:
        kind, body = form(parts)
        return self.ask("POST", path, body, {"Content-Type": kind, **headers})

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


Part = tuple[str, str | tuple[str, bytes]]
"""Name of a field, and a text or a file's name and content."""


def form(parts: Sequence[Part]) -> tuple[str, bytes]:
    """Content type and body of a form, with names quoted as browsers do it."""
    lines: list[bytes] = []
    for key, value in parts:
        lines.append(b"--boundary\r\n")
        if isinstance(value, str):
            lines.append(f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode())
        else:
            name, data = value
            for raw, quoted in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
                name = name.replace(raw, quoted)
            head = f'Content-Disposition: form-data; name="{key}"; filename="{name}"'
            lines.append(f"{head}\r\nContent-Type: image/png\r\n\r\n".encode() + data)
        lines.append(b"\r\n")
    return "multipart/form-data; boundary=boundary", b"".join([*lines, b"--boundary--\r\n"])


@contextlib.contextmanager
def running(*command: object) -> Iterator[Server]:
    """Start a server and wait until it listens; kill it at the end, if need be."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    server = Server(process, 0)
    listening = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            server.log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found and not server.port:
                server.port = int(found[1])
                listening.set()
        listening.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        listening.wait(120)
        assert server.port, "".join(server.log)
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()


def fake(*arguments: str, **settings: object) -> Any:
    """Start the server with the fake model."""
    named = [f"{key}={value}" for key, value in settings.items()]
    return running(HERE / "fake_server.py", *arguments, *named)


def image(
    colour: Sequence[int] = (200, 150, 190),
    side: int = 80,
    kind: str = "PNG",
    seed: int | None = None,
    **options: Any,
) -> bytes:
    """A file with a flat or, with a seed, a noisy image."""
    pixels = np.full((side, side, 3), colour, np.uint8)
    if seed is not None:
        pixels = np.random.default_rng(seed).integers(0, 255, pixels.shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def stack(n: int, side: int = 80, **options: Any) -> bytes:
    """A TIFF with pages of different colours."""
    pages = [Image.new("RGB", (side, side), (10 * i % 255, 100, 150)) for i in range(n)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], **options)
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
