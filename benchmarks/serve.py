"""``atypia serve`` under many clients at once, some of whose requests are bad.

    python benchmarks/serve.py --cohort COHORT [--quality fast] [--clients 200] [--requests 50]

Starts the server in a process of its own. Every client sends one request after the other, a patch
each; one in ten is bad: truncated, no image, a decompression bomb, broken JSON, of another content
type, too large, or about a slide that is not there. Clients told 503 come again when Retry-After
says. An answer is lost if a connection breaks, if a request gets no status or one that it should
not get, or if its probabilities are not those that the patch got when it was asked about alone.
Without ``--cohort`` patches are noise. Prints JSON; ends with 1 if an answer is lost or the server
failed (5xx but for 503).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atypia.core.files import describe_machine
from atypia.data.cohort import Cohort

Request = tuple[str, str, bytes, set[int]]
"""Path, content type, body, statuses that it should get."""

PREDICT = "/v1/predict"
FORM = "multipart/form-data; boundary=boundary"
MOST_RETRIES = 1000
WARM_UP = 2
"""Requests of each client before anything is measured."""


@dataclass
class Tally:
    """What the clients have seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each exchange that ended with an answer."""
    seconds_in_all: list[float] = field(default_factory=list)
    """From the first try to the answer."""
    done: int = 0


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, help="patches to send")
    parser.add_argument("--model", default="released")
    parser.add_argument("--quality", default="best")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=50, help="of each client")
    parser.add_argument("--bad", type=float, default=0.1)
    parser.add_argument("--max-requests", type=int, default=256)
    options = parser.parse_args()

    images = _patches(options.cohort)
    command = [sys.executable, "-m", "atypia", "serve", "--port=0"]
    command += [f"--{k}={getattr(options, k)}" for k in ("model", "quality", "backend")]
    command += [f"--max-requests={options.max_requests}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = _port(process)
        alone = [_probabilities(_ask(port, _good(image))[1]) for image in images]
        for client in (warm_up := _clients(port, images, alone, options, WARM_UP, Tally())):
            client.start()
        for client in warm_up:
            client.join()
        memory = {"start": _resident_mb(process.pid)}
        tally = Tally()
        total = options.clients * options.requests
        clients = _clients(port, images, alone, options, options.requests, tally)
        cpu_seconds = _cpu_seconds(process.pid)
        start = time.perf_counter()
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(0.1)
            for share in (25, 50, 75):
                if tally.done >= total * share / 100:
                    memory.setdefault(f"after {share} %", _resident_mb(process.pid))
        seconds = time.perf_counter() - start
        memory["end"] = _resident_mb(process.pid)
        cpu_seconds = _cpu_seconds(process.pid) - cpu_seconds
        memory["peak"] = _resident_mb(process.pid, "VmHWM")
        process.terminate()
        code = process.wait(60)
    finally:
        process.kill()
    failed = sum(n for status, n in tally.statuses.items() if status >= 500 and status != 503)
    about = {k: getattr(options, k) for k in ("model", "quality", "clients", "requests", "bad")}
    figures = {
        **describe_machine(),
        **about,
        "seconds": round(seconds, 1),
        "answers_per_second": round(tally.done / seconds, 1),
        "answers_per_cpu_second_of_the_server": round(tally.done / cpu_seconds, 1),
        "statuses": {str(k): v for k, v in sorted(tally.statuses.items())},
        "lost": len(tally.lost),
        "lost_how": sorted(set(tally.lost))[:10],
        "5xx_but_503": failed,
        "exchange_seconds": _percentiles(tally.seconds),
        "first_try_to_answer_seconds": _percentiles(tally.seconds_in_all),
        "server_memory_mb": memory,
        "exit_code": code,
        "goals": {
            "no 5xx but 503": not failed,
            "no answer lost": not tally.lost,
            # From the first quarter on: what is set up once is there by then.
            "memory flat, within 5 %": memory["end"] <= 1.05 * memory.get("after 25 %", 0),
        },
    }
    print(json.dumps(figures, indent=2))
    sys.exit(bool(tally.lost or failed or code))


def _patches(folder: Path | None) -> list[bytes]:
    if folder is not None:
        paths = Cohort.open(folder).image_paths()
        chosen = np.random.default_rng(0).permutation(len(paths))[:100]
        return [paths[i].read_bytes() for i in chosen]
    images = np.random.default_rng(0).integers(0, 255, (100, 128, 128, 3), dtype=np.uint8)
    return [_encoded(image) for image in images]


def _encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _port(process: subprocess.Popen[str]) -> int:
    """Wait until the server listens; its log is read to the end, lest the pipe fill up."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return int(found[1])
    sys.exit("the server did not start")


def _good(image: bytes) -> Request:
    return PREDICT, FORM, _form(image), {200}


def _form(image: bytes) -> bytes:
    head = b'--boundary\r\nContent-Disposition: form-data; name="'
    mpp = head + b'mpp"\r\n\r\n0.25\r\n'
    return mpp + head + b'images"; filename="x.png"\r\n\r\n' + image + b"\r\n--boundary--\r\n"


def _bad(image: bytes, kind: int) -> Request:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    requests: list[Request] = [
        (PREDICT, FORM, _form(image[: len(image) // 2]), {422}),
        (PREDICT, FORM, _form(b"no image at all"), {422}),
        (PREDICT, FORM, _form(bomb), {413}),
        (PREDICT, "application/json", b'{"patches": [', {422}),
        (PREDICT, "image/png", image, {415}),
        (PREDICT, FORM, bytes(33 * 2**20), {413}),
        ("/v1/slides/none/predict", "application/json", b'{"candidates": []}', {422, 404}),
    ]
    return requests[kind % len(requests)]


def _clients(
    port: int,
    images: list[bytes],
    alone: list[np.ndarray[Any, Any]],
    options: argparse.Namespace,
    requests: int,
    tally: Tally,
) -> list[threading.Thread]:
    arguments = (port, images, alone, options.bad, requests, tally, threading.Lock())
    return [
        threading.Thread(target=_client, args=(number, *arguments))
        for number in range(options.clients)
    ]


def _client(
    number: int,
    port: int,
    images: list[bytes],
    alone: list[np.ndarray[Any, Any]],
    bad: float,
    requests: int,
    tally: Tally,
    lock: threading.Lock,
) -> None:
    rng = np.random.default_rng(number)
    for turn in range(requests):
        i = int(rng.integers(len(images)))
        is_bad = rng.random() < bad
        request = _bad(images[i], number + turn) if is_bad else _good(images[i])
        start = time.perf_counter()
        for _ in range(MOST_RETRIES):
            tried = time.perf_counter()
            lost = None
            try:
                status, data, wait = _ask(port, request)
            except (OSError, http.client.HTTPException) as error:
                status, data, wait, lost = 0, b"", 0, type(error).__name__
            with lock:
                tally.statuses[status] += 1
            if status != 503:
                break
            time.sleep(wait)
        if lost is None and status not in request[3]:
            lost = f"status {status}"
        if (
            lost is None
            and status == 200
            and not np.allclose(_probabilities(data), alone[i], atol=1e-5, rtol=0)
        ):
            lost = "another answer"
        now = time.perf_counter()
        with lock:
            tally.done += 1
            if lost is not None:
                tally.lost.append(f"{lost} (bad request)" if is_bad else lost)
            elif not is_bad:
                tally.seconds.append(now - tried)
                tally.seconds_in_all.append(now - start)


def _ask(port: int, request: Request) -> tuple[int, bytes, int]:
    """Status, body and seconds to wait."""
    path, kind, body, _ = request
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("POST", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read(), int(response.headers.get("Retry-After", 0))
    finally:
        connection.close()


def _probabilities(data: bytes) -> np.ndarray[Any, Any]:
    return np.array(list(json.loads(data)["predictions"][0]["probabilities"].values()))


def _resident_mb(pid: int, what: str = "VmRSS") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+)", status)
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ranks = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(seconds, rank)), 3) for name, rank in ranks.items()}


if __name__ == "__main__":
    main()
