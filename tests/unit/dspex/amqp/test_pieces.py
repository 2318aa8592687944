"""What a publisher's connection hands to the socket: each message whole, and many as one piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from socket import socketpair
from typing import Any
from unittest.mock import Mock

import pytest
from pika import SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from dspex.amqp.connection import PIECE, PublishingConnection


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    pieces: list[bytes] = []

    def output(_: SelectConnection, frames: Sequence[bytes]) -> None:
        pieces.extend(frames)

    monkeypatch.setattr(SelectConnection, "_output_marshaled_frames", output)
    return pieces


def _connection() -> PublishingConnection:
    connection: Any = object.__new__(PublishingConnection)  # one that connects to nothing
    connection._transport, connection.bytes_sent, connection.frames_sent = None, 0, 0
    made: PublishingConnection = connection
    return made


def test_the_frames_of_one_message_are_one_piece(sent: list[bytes]) -> None:
    _connection()._output_marshaled_frames([b"publish", b"header", b"body"])
    assert sent == [b"publishheaderbody"]


def test_many_messages_are_one_piece(sent: list[bytes]) -> None:
    connection = _connection()
    with connection.gathered():
        connection._output_marshaled_frames([b"a", b"b"])
        connection._output_marshaled_frames([b"c"])
        assert sent == []
    assert sent == [b"abc"]
    connection._output_marshaled_frames([b"d"])
    assert sent == [b"abc", b"d"]


def test_a_piece_has_a_bound_and_its_order(sent: list[bytes]) -> None:
    connection = _connection()
    messages = [bytes([number]) * (PIECE // 4) for number in range(10)]
    with connection.gathered():
        for message in messages:
            connection._output_marshaled_frames([message])
    assert [len(piece) for piece in sent] == [PIECE, PIECE, PIECE // 2]
    assert b"".join(sent) == b"".join(messages)


def test_what_was_written_goes_out_where_the_next_cannot_be(sent: list[bytes]) -> None:
    connection = _connection()
    with suppress(ValueError), connection.gathered():
        connection._output_marshaled_frames([b"a"])
        raise ValueError("too long")
    assert sent == [b"a"]


def test_nothing_is_no_piece(sent: list[bytes]) -> None:
    with _connection().gathered():
        pass
    assert sent == []


@pytest.mark.parametrize("size", [5, 4_000_000])
def test_what_is_gathered_is_on_the_socket_at_once_as_far_as_it_takes_it(size: int) -> None:
    ours, theirs = socketpair()
    connection: Any = _connection()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        connection._transport = _AsyncPlaintextTransport(ours, Mock(), Mock())
        with connection.gathered():
            connection._output_marshaled_frames([b"x" * size])
        left = connection._transport.get_write_buffer_size()
        assert theirs.recv(5) == b"x" * 5
        assert (left > 0) == (size > 5)


def test_over_tls_pika_writes() -> None:
    connection: Any = _connection()
    connection._transport = transport = Mock()
    with connection.gathered():
        connection._output_marshaled_frames([b"abc"])
    transport.write.assert_called_once_with(b"abc")
    transport._on_socket_writable.assert_not_called()
