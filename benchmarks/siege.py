"""Labels of a reviewer while everybody else besieges the server.

    python benchmarks/siege.py --cohort COHORT [--quality fast] [--clients 500] [--requests 6]

Starts ``atypia serve COHORT`` in a process of its own. 500 clients send six requests each, of which
one in five is bad (see ``serve.py``) and one in ten hangs up before its answer; 60 clients ask for
heat maps, one after the other; 1,500 connections send half a line and wait. Meanwhile a process of
its own saves a label, waits a tenth of a second, and saves the next. Then, to a server of its own,
each of four bombs: a JPEG of 4,000 scans, a body that is compressed, deep JSON, and a file of
candidates (``atypia slide``) that unpacks without end. Prints JSON: statuses, lost answers, the
label's latency, seconds and memory. Ends with 1 if an answer is lost, a bomb is not refused, or the
server failed (5xx but for 503).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import serve
from PIL import Image

from atypia.core.files import describe_machine

HALF_OPEN = b"GET /web/about HTTP/1.1\r\nHost: local"
JSON = {"Content-Type": "application/json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--quality", default="fast")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--requests", type=int, default=6)
    parser.add_argument("--bad", type=float, default=0.2)
    parser.add_argument("--hang-up", type=float, default=0.1)
    parser.add_argument("--heat-maps", type=int, default=60)
    parser.add_argument("--max-requests", type=int)
    parser.add_argument("--half-open", type=int, default=1500)
    parser.add_argument("--label", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.label is not None:
        save_labels(options.label)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        besieged = siege(Path(folder), options)
        exploded = bombs(Path(folder), options)
    print(json.dumps({**describe_machine(), "siege": besieged, "bombs": exploded}, indent=2))
    answered = [name for name, bomb in exploded.items() if not bomb["refused"]]
    sys.exit(bool(besieged["lost"] or besieged["5xx_but_503"] or answered))


def started(
    options: argparse.Namespace, folder: Path, slide: Path | None = None
) -> tuple[subprocess.Popen[str], int]:
    """Start the app as a user does, with the usual limit of open files."""
    command = [sys.executable, "-m", "atypia", "serve", str(options.cohort), "--port=0"]
    if options.max_requests:
        command += [f"--max-requests={options.max_requests}"]
    command += [f"--register=s={slide}"] if slide else []
    command += [f"--quality={options.quality}", f"--reviews={folder / 'reviews.sqlite'}"]
    usual = 1024

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, usual))

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    return process, serve._port(process)


def siege(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    process, port = started(options, folder)
    try:
        images = serve._patches(options.cohort)
        alone = [serve._probabilities(serve._ask(port, serve._good(image))[1]) for image in images]
        open_ones = [half_open(port) for _ in range(options.half_open)]
        tally = serve.Tally()
        clients = serve._clients(port, images, alone, options, options.requests, tally)
        maps: Counter[int] = Counter()
        ending = threading.Event()
        others = [
            threading.Thread(target=ask_for_maps, args=(port, i, maps, ending), daemon=True)
            for i in range(options.heat_maps)
        ]
        leaving: Counter[str] = Counter()
        others += [
            threading.Thread(
                target=leave, args=(port, images, options.requests, leaving), daemon=True
            )
            for _ in range(round(options.clients * options.hang_up))
        ]
        words = [sys.executable, __file__, "--label", str(port)]
        labeller = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        start = time.perf_counter()
        for thread in (*others, *clients):
            thread.start()
        while any(client.is_alive() for client in clients):
            time.sleep(1)
            open_ones += [half_open(port) for _ in range(20)]  # those that were ended come again
        seconds = time.perf_counter() - start
        ending.set()
        assert labeller.stdin is not None
        said, _ = labeller.communicate("end\n")
        memory = serve._resident_mb(process.pid, "VmHWM")
        for connection in open_ones:
            connection.close()
        process.terminate()
        code = process.wait(400)
    finally:
        process.kill()
    failed = sum(n for status, n in tally.statuses.items() if status >= 500 and status != 503)
    failed += sum(n for status, n in maps.items() if status >= 500 and status != 503)
    return {
        "seconds": round(seconds, 1),
        "statuses": {str(k): v for k, v in sorted(tally.statuses.items())},
        "heat_maps": {str(k): v for k, v in sorted(maps.items())},
        "hung_up": dict(leaving),
        "lost": len(tally.lost),
        "lost_how": sorted(set(tally.lost))[:10],
        "5xx_but_503": failed,
        "first_try_to_answer_seconds": serve._percentiles(tally.seconds_in_all),
        "labels": json.loads(said),
        "peak_memory_mb": memory,
        "exit_code": code,
    }


def half_open(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(HALF_OPEN)
    return connection


def ask_for_maps(port: int, number: int, seen: Counter[int], ending: threading.Event) -> None:
    """Ask as the images of a page would, each for another map."""
    for turn in range(10_000):
        if ending.is_set():
            return
        path = f"/web/figures/{(number + 60 * turn) % 100}/heat/gradcam/{number % 8}.png"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            connection.request("GET", path)
            seen[connection.getresponse().status] += 1
        except (OSError, http.client.HTTPException):
            seen[0] += 1
        finally:
            connection.close()


def leave(port: int, images: list[bytes], n: int, seen: Counter[str]) -> None:
    """Send requests, as one client more does, and hang up before each answer."""
    path, kind, body, _ = serve._good(images[0])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    for _ in range(n):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                time.sleep(0.05)
            seen["hung up"] += 1
        except OSError as error:
            seen[type(error).__name__] += 1


def save_labels(port: int) -> None:
    """Save labels until standard input says that it ends; print their latency."""
    ending = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        ending.set()

    threading.Thread(target=wait, daemon=True).start()
    post(port, "/web/reviews", {"name": "ann", "blind": False})
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    while not ending.is_set():
        label = {"number": len(seconds) % 50, "subtype": len(seconds) % 8}
        start = time.perf_counter()
        statuses[post(port, "/web/reviews/ann/labels", label)] += 1
        seconds.append(time.perf_counter() - start)
        time.sleep(0.1)
    print(json.dumps({"statuses": dict(statuses), "seconds": serve._percentiles(seconds)}))


def post(port: int, path: str, content: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", path, json.dumps(content), JSON)
        return connection.getresponse().status
    finally:
        connection.close()


def bombs(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds until each bomb is refused, with its status or exit code, and the peak memory."""
    picture = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    Image.fromarray(pixels).save(picture, "JPEG", progressive=True, quality=10)
    scan = picture.getvalue()[:-2]
    scan += b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 4000 + b"\xff\xd9"
    deep = b'{"patches": ' + b"[" * 200_000
    zeros = folder / "zeros.geojson.gz"
    subprocess.run(f"head -c 4000000000 /dev/zero | gzip -1 > {zeros}", shell=True, check=True)
    slide = folder / "slide.tif"
    Image.fromarray(pixels[:600, :600]).save(slide)
    head = b'--boundary\r\nContent-Disposition: form-data; name="'
    upload = head + b'mpp"\r\n\r\n0.25\r\n' + head + b'candidates"; filename="a.geojson.gz"\r\n\r\n'
    upload += zeros.read_bytes() + b"\r\n--boundary--\r\n"
    found: dict[str, Any] = {}
    process, port = started(options, folder, slide)
    try:
        for name, path, kind, body, more in (
            ("scan bomb", serve.PREDICT, serve.FORM, serve._form(scan), {}),
            ("deep JSON", serve.PREDICT, "application/json", deep, {}),
            (
                "gzip body",
                serve.PREDICT,
                "application/json",
                zeros.read_bytes(),
                {"Content-Encoding": "gzip"},
            ),
            ("gzip upload", "/v1/slides/s/predict", serve.FORM, upload, {}),
        ):
            start = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            try:
                connection.request("POST", path, body, {"Content-Type": kind, **more})
                status: int | str = connection.getresponse().status
            except OSError as error:  # the connection is closed before the whole body is sent
                status = type(error).__name__
            finally:
                connection.close()
            found[f"{name}, HTTP"] = {
                "refused": status if isinstance(status, str) else 400 <= status < 500 and status,
                "seconds": round(time.perf_counter() - start, 2),
                "peak memory of the server, MB": serve._resident_mb(process.pid, "VmHWM"),
            }
    finally:
        process.kill()
    (folder / "scan.jpg").write_bytes(scan)
    (folder / "deep.json").write_bytes(b'{"type": "FeatureCollection", "features": ' + b"[" * 10**6)
    os.mkfifo(folder / "pipe.csv")
    out = ["--mpp", "0.25", "--out", str(folder / "out.csv")]
    candidates = ["slide", str(slide), "--candidates"]
    for name, words in (
        ("scan bomb", ["predict", str(folder / "scan.jpg"), *out]),
        ("deep JSON", [*candidates, str(folder / "deep.json"), *out]),
        ("gzip bomb", [*candidates, str(zeros), *out]),
        ("FIFO", ["prepare", str(folder / "pipe.csv"), "--out", str(folder / "cohort")]),
    ):
        start = time.perf_counter()
        timed = ["/usr/bin/env", "python3", "-c", MEASURED, sys.executable, "-m", "atypia", *words]
        code, peak = subprocess.run(
            timed, capture_output=True, text=True, timeout=120
        ).stdout.split()
        found[name] = {
            "refused": int(code) == 2 and 2,
            "seconds": round(time.perf_counter() - start, 2),
            "peak memory, MB": round(int(peak) / 1024),
        }
    return found


MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], capture_output=True).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Prints the exit code of a command, and the most memory that it or a process of its own had."""


if __name__ == "__main__":
    main()
