"""What a child holds back of its results, and for how long."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pixloom_executor.children import connection as module
from pixloom_executor.children.connection import ChildConnection
from pixloom_executor.children.frames import LENGTH, ResultFrame

if TYPE_CHECKING:
    from collections.abc import Iterator


class Peer:
    """The supervisor's end."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(LENGTH.pack(len(frame)) + frame for frame in frames))

    def received(self) -> list[int]:
        """Return the numbers of the batches whose results are here."""
        data = b""
        try:
            while part := self.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                data += part
        except BlockingIOError:
            pass
        numbers = []
        while data:
            (size,) = LENGTH.unpack_from(data)
            numbers.append(ResultFrame.decode(data[LENGTH.size : LENGTH.size + size]).number)
            data = data[LENGTH.size + size :]
        return numbers


@pytest.fixture
def pair() -> Iterator[tuple[ChildConnection, Peer]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ChildConnection(ours), Peer(theirs)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be sent because of the time that has passed: the machine may be slow."""
    monkeypatch.setattr(module, "_HOLD_NS", 10**12)


def frame(number: int) -> ResultFrame:
    return ResultFrame(number, [b"result"], done=True)


def test_a_frame_is_sent_at_once_behind_those_that_were_held(pair: tuple[ChildConnection, Peer]) -> None:
    child, peer = pair
    child.hold(frame(1))
    child.hold(frame(2))
    assert peer.received() == []
    child.send(frame(3))
    assert peer.received() == [1, 2, 3]
    child.flush()
    assert peer.received() == []


@pytest.mark.usefixtures("patient")
def test_held_frames_wait_while_batches_are_there_and_go_when_there_are_none(
    pair: tuple[ChildConnection, Peer],
) -> None:
    child, peer = pair
    peer.send(b"one", b"two", b"three")
    for number, expected in enumerate((b"one", b"two", b"three")):
        assert child.receive() == expected
        assert peer.received() == []
        child.hold(frame(number))
    peer.socket.shutdown(socket.SHUT_WR)
    assert child.receive() is None
    assert peer.received() == [0, 1, 2]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("split", [1, LENGTH.size, LENGTH.size + 2])
def test_nothing_is_held_while_the_rest_of_a_batch_is_to_come(pair: tuple[ChildConnection, Peer], split: int) -> None:
    child, peer = pair
    peer.send(b"one")
    assert child.receive() == b"one"
    child.hold(frame(1))
    whole = LENGTH.pack(5) + b"later"
    peer.socket.sendall(whole[:split])
    with ThreadPoolExecutor(1) as threads:
        receiving = threads.submit(child.receive)
        # Nobody sends the rest before the results are here.
        peer.socket.settimeout(60)
        try:
            (size,) = LENGTH.unpack(peer.socket.recv(LENGTH.size, socket.MSG_WAITALL))
            assert ResultFrame.decode(peer.socket.recv(size, socket.MSG_WAITALL)).number == 1
        finally:
            peer.socket.sendall(whole[split:])
        assert receiving.result(60) == b"later"


def test_frames_are_sent_when_they_have_been_held_for_long(
    pair: tuple[ChildConnection, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, peer = pair
    now = [time.monotonic_ns()]
    monkeypatch.setattr("pixloom_executor.children.connection.time.monotonic_ns", lambda: now[0])
    peer.send(b"one", b"two", b"three")
    child.receive()
    child.hold(frame(1))
    now[0] += 1_500_000
    child.hold(frame(2))
    child.flush_if_due()
    assert child.receive() == b"two"
    assert peer.received() == []
    # The oldest counts.
    now[0] += 600_000
    child.flush_if_due()
    assert peer.received() == [1, 2]
    child.hold(frame(3))
    now[0] += 2_100_000
    assert child.receive() == b"three"
    assert peer.received() == [3]


def test_a_large_batch_comes_in_several_pieces(pair: tuple[ChildConnection, Peer]) -> None:
    child, peer = pair
    large = bytes(range(256)) * 400
    data = LENGTH.pack(len(large)) + large + LENGTH.pack(3) + b"end"
    for start in range(0, len(data), 40_000):
        peer.socket.sendall(data[start : start + 40_000])
    assert child.receive() == large
    assert child.receive() == b"end"


@pytest.mark.parametrize("data", [b"", b"\3", LENGTH.pack(9) + b"half"])
def test_a_socket_that_closes_ends_it_also_within_a_batch(pair: tuple[ChildConnection, Peer], data: bytes) -> None:
    child, peer = pair
    peer.socket.sendall(data)
    peer.socket.shutdown(socket.SHUT_WR)
    assert child.receive() is None


def test_results_for_nobody_are_told_as_a_broken_connection(pair: tuple[ChildConnection, Peer]) -> None:
    child, peer = pair
    child.hold(frame(1))
    peer.socket.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        child.receive()
