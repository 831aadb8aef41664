"""Whatever else is asked, a label is saved: heat maps, half-open connections, slow bodies."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from atypia.server.connections import bounded_protocol

JSON = {"Content-Type": "application/json"}
HEAT = "/web/figures/0/heat/gradcam/1.png"


def give(server, number):
    body = json.dumps({"number": number, "subtype": 3}).encode()
    return server.ask("POST", "/web/reviews/ann/labels", body, JSON)


def join(server):
    body = json.dumps({"name": "ann", "blind": False}).encode()
    assert server.ask("POST", "/web/reviews", body, JSON).status == 200


def half_open(server, sent):
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(sent)
    return connection


def test_labels_are_saved_while_sixty_heat_maps_wait(shown, start, tmp_path):
    hold = tmp_path / "hold"
    hold.touch()
    with start(shown / "run", f"hold={hold}") as server, ThreadPoolExecutor(60) as pool:
        join(server)
        maps = [pool.submit(server.ask, "GET", HEAT) for _ in range(60)]
        # Images of a page that is closed again: nobody waits for these.
        left = [half_open(server, f"GET {HEAT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())]
        for connection in left:
            connection.close()
        assert [give(server, i).status for i in range(10)] == [200] * 10
        assert not any(answer.done() for answer in maps)
        hold.unlink()
        assert {answer.result().status for answer in maps} == {200}


def test_half_open_connections_lock_nobody_out_and_are_not_logged(shown, start):
    with start(shown / "run", "files=128") as server, ExitStack() as stack:
        join(server)
        for _ in range(200):
            stack.enter_context(half_open(server, b"GET / HTTP/1.1\r\nHost: local"))
        assert [give(server, i).status for i in range(5)] == [200] * 5
        assert not any("Traceback" in line or "Too many" in line for line in server.log)
        assert len(server.log) < 60


def test_slow_bodies_of_the_api_keep_no_label_waiting(shown, start):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    with start(shown / "run") as server, ExitStack() as stack:
        join(server)
        for _ in range(260):
            body = head + b"Content-Type: application/json\r\n\r\n{"
            stack.enter_context(half_open(server, body))
        assert give(server, 1).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_get_no_picture_but_may_link_here(shown, start, site):
    with start(shown / "run") as server:
        sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert server.ask("GET", HEAT, headers=sent).status == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert server.ask("GET", "/", headers=link).status == 200
        assert server.ask("GET", HEAT, headers={"Sec-Fetch-Site": "same-origin"}).status == 200
        assert server.ask("GET", HEAT).status == 200


def test_headers_that_do_not_arrive_end_the_connection():
    import uvicorn

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    http = bounded_protocol(5, headers_s=0.2)
    config = uvicorn.Config(
        app, http=http, loop="asyncio", ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        run = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
        run.start()
        address = listener.getsockname()
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"):
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(sent)
                received = b""
                try:
                    while chunk := connection.recv(1000):
                        received += chunk
                except ConnectionResetError:
                    pass
                assert received.startswith(b"HTTP/1.1 204") == (b"\r\n\r\n" in sent)
        server.should_exit = True
        run.join(30)
