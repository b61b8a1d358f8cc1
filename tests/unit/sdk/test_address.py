from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pixloom.errors import InvalidError, UnavailableError
from pixloom.sdk.address import grpc_address


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:7301", "127.0.0.1:7301"),
        ("grpc://127.0.0.1:7301", "127.0.0.1:7301"),
        ("[::1]:7301", "[::1]:7301"),
        ("unix:/run/pixloom.sock", "unix:/run/pixloom.sock"),
    ],
)
def test_addresses_are_understood(given: Any, expected: Any) -> None:
    assert grpc_address(given) == expected


@pytest.mark.parametrize("given", ["", "localhost", "ftp://x:1", "host:port", "host:70000", "host:1/path"])
def test_other_addresses_are_refused_with_the_right_form(given: Any) -> None:
    with pytest.raises(InvalidError, match="host:port"):
        grpc_address(given)


@pytest.fixture
def answering() -> Any:
    """Serve one answer for every path, which the test sets as (HTTP status, body)."""
    answers: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers[-1]
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("code", [200, 503])
def test_http_server_names_the_grpc_address(answering: tuple[str, list[tuple[int, bytes]]], code: Any) -> None:
    url, answers = answering
    answers.append((code, json.dumps({"grpc": "127.0.0.1:9"}).encode()))

    assert grpc_address(url) == "127.0.0.1:9"


@pytest.mark.parametrize("body", [b"hello", b"[]", b"{}"])
def test_http_server_of_another_kind_is_refused(answering: tuple[str, list[tuple[int, bytes]]], body: Any) -> None:
    url, answers = answering
    answers.append((200, body))

    with pytest.raises(UnavailableError, match="Is it a Pixloom gateway"):
        grpc_address(url)


def test_http_server_that_does_not_answer_is_unavailable(answering: tuple[str, list[tuple[int, bytes]]]) -> None:
    url, _ = answering
    port = url.rpartition(":")[2]

    with pytest.raises(UnavailableError, match="pixloom up"):
        grpc_address(f"http://127.0.0.1:{port}".replace("127.0.0.1", "127.0.0.77"))


@pytest.mark.parametrize("given", ["http://host:port", "http://a b:1", "http://x..y:1"])
def test_http_address_that_is_none_is_refused_with_the_right_form(given: str) -> None:
    with pytest.raises(InvalidError, match=r"Use http://host:port"):
        grpc_address(given)


def test_grpc_address_that_is_given_as_one_of_http_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_as_http2() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"\0\0\0\4\0\0\0\0\0")  # the settings frame that every gRPC server begins with

        thread = threading.Thread(target=answer_as_http2)
        thread.start()
        with pytest.raises(UnavailableError, match="grpc://host:port"):
            grpc_address(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
