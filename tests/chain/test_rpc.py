"""The HTTP underneath JSON-RPC: connections that break, answers that trickle, URLs that are none."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatchain.chain.rpc import Rpc, RpcFault, quantity, unhex
from chatchain.errors import BadConfig, ChainUnreachable
from tests.chain.proxy import proxy
from tests.fixtures.chains import DevChain

ANSWER = json.dumps({"jsonrpc": "2.0", "id": 0, "result": "0x1"}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def whole(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))


def nothing(connection: socket.socket) -> None:
    """Hangs up instead of answering."""


@contextlib.contextmanager
def server(*behaviours: Callable[[socket.socket], None]) -> Iterator[str]:
    """Treats each connection in turn as told, the last way for all that follow."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for number in range(100):
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    while b"\r\n\r\n" not in (received := connection.recv(65536)) and received:
                        pass
                    behaviours[min(number, len(behaviours) - 1)](connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_connection_that_breaks_is_tried_once_more() -> None:
    """Endpoints close idle connections at any moment; that is nobody's failure."""
    with server(nothing, whole) as url:
        assert Rpc(url).call("eth_chainId") == "0x1"


def test_an_endpoint_that_always_hangs_up_is_unreachable() -> None:
    """Once more, and not for ever."""
    with server(nothing) as url, pytest.raises(ChainUnreachable, match="the connection broke off"):
        Rpc(url).call("eth_chainId")


def test_an_answer_that_ends_early_is_none() -> None:
    """A promised length that does not come."""

    def half(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + ANSWER)

    with server(half) as url, pytest.raises(ChainUnreachable):
        Rpc(url).call("eth_chainId")


def test_an_answer_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and the whole never: the deadline is for the whole."""
    monkeypatch.setattr("chatchain.chain.rpc.ANSWER_TIME", 0.3)

    def trickle(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        pause = threading.Event()
        for _ in range(100):
            connection.sendall(b" ")
            pause.wait(0.02)

    with server(trickle) as url, pytest.raises(ChainUnreachable, match="takes too long"):
        Rpc(url).call("eth_chainId")


def test_f12_a_head_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines have no end, and each byte comes in time; it is not tried twice."""
    monkeypatch.setattr("chatchain.chain.rpc.ANSWER_TIME", 0.3)
    served = []

    def trickle(connection: socket.socket) -> None:
        served.append(1)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        with contextlib.suppress(OSError):
            pause = threading.Event()
            while True:
                connection.sendall(b"x")
                pause.wait(0.02)

    with server(trickle) as url, pytest.raises(ChainUnreachable, match="takes too long"):
        Rpc(url).call("eth_chainId")
    assert len(served) == 1


def test_f12_a_node_s_own_words_are_cut(anvil: DevChain) -> None:
    """A hundred kilobytes of them are nobody's error message."""

    def scream(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any]:
        error = {"code": -32000, "message": "nonce too low " + "A" * 100_000, "data": "0x08c379a0"}
        return {"jsonrpc": "2.0", "id": response["id"], "error": error}

    with proxy(anvil.port, scream) as endpoint, pytest.raises(RpcFault) as caught:
        Rpc(endpoint.url).call("eth_chainId")
    assert "nonce too low" in caught.value.message
    assert len(caught.value.message) < 500
    assert len(caught.value.reason) < 400
    assert caught.value.data == "0x08c379a0"


def test_a_development_chain_that_is_down_is_told_how_to_start() -> None:
    """On this machine it was a development network most of the time; elsewhere that would lead astray."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host, started in (("127.0.0.1", True), ("localhost", True), ("chain.invalid", False)):
        with pytest.raises(ChainUnreachable) as away:
            Rpc(f"http://{host}:{port}").call("eth_chainId")
        assert "--rpc" in away.value.hint
        assert ("devnet.py up" in away.value.hint) is started


def test_a_compressed_bomb_is_not_unpacked() -> None:
    """We ask for no compression, and what comes compressed is refused as it stands."""
    import gzip

    bomb = gzip.compress(bytes(50_000_000))

    def explode(connection: socket.socket) -> None:
        head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        connection.sendall(head + bomb)

    with server(explode) as url, pytest.raises(ChainUnreachable, match="does not answer in JSON-RPC"):
        Rpc(url).call("eth_chainId")


@pytest.mark.parametrize(
    "status", [b"301 Moved\r\nLocation: http://127.0.0.1:9/", b"404 Not Found", b"502 Bad Gateway"]
)
def test_what_is_no_node_is_named_by_its_status(status: bytes) -> None:
    """And a redirection is not followed: the URL that was configured is the one that is trusted."""

    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nlost")

    with server(refuse) as url, pytest.raises(ChainUnreachable, match=f"HTTP status {status[:3].decode()}"):
        Rpc(url).call("eth_chainId")


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://localhost/", "http://", "http://[::1", "http://h:x/"]
)
def test_what_is_no_url_is_told_before_anything_is_asked(url: str) -> None:
    """Whatever is typed for --rpc; the text itself is not repeated, since it may hold a key."""
    with pytest.raises(BadConfig, match="cannot be read"):
        Rpc(url)


def test_an_unreachable_endpoint_is_named_by_host_and_port_only() -> None:
    """Path and user of an endpoint's URL are often its access key."""
    assert Rpc("https://me:secret@example.org/v2/secret?secret").name == "https://example.org"
    assert Rpc("http://[::1]:8545").name == "http://[::1]:8545"
    with pytest.raises(ChainUnreachable, match="its host name is unknown"):
        Rpc("http://no-such-host.invalid/secret").call("eth_chainId")
    with pytest.raises(ChainUnreachable, match="the connection is refused"):
        Rpc("http://127.0.0.1:1/secret").call("eth_chainId")


@pytest.mark.parametrize("text", ["", "0x", "12", "-0x1", "0xzz", None, 7, "0x" + "f" * 65, " 0x1"])
def test_only_numbers_are_numbers(text: object) -> None:
    """JSON-RPC quantities are hex with a prefix, and no wider than a word."""
    with pytest.raises(ChainUnreachable):
        quantity(text)


@pytest.mark.parametrize("text", ["", "12", "0xabc", "0xzz", None, 7])
def test_only_hex_is_hex(text: object) -> None:
    """An odd digit or a missing prefix is a broken endpoint."""
    with pytest.raises(ChainUnreachable):
        unhex(text)
