"""What a publisher's connection hands to the socket: each message whole, and many as one piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from pika import SelectConnection

from dspex.amqp.connection import PIECE, PublishingConnection


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    pieces: list[bytes] = []

    def output(_: SelectConnection, frames: Sequence[bytes]) -> None:
        pieces.extend(frames)

    monkeypatch.setattr(SelectConnection, "_output_marshaled_frames", output)
    return pieces


def _connection() -> PublishingConnection:
    return object.__new__(PublishingConnection)  # one that connects to nothing


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
