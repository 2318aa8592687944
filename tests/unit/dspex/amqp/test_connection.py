"""What of pika's insides `dspex.amqp.connection` leans on: an upgrade that changes it fails here."""

from __future__ import annotations

import inspect
import struct
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.callback import CallbackManager
from pika.channel import Channel, ContentFrameAssembler
from pika.connection import Connection
from pika.exceptions import InvalidFrameError

from dspex.amqp.connection import PublishingConnection, TolerantConnection
from tests import amqp_wire as wire

Message = tuple[str, str | None, str | None, int, bytes]


class Reader(TolerantConnection):
    """Connected to nothing: it is given what came, and keeps the messages of channel 1."""

    def __init__(self, max_body: int | None = None) -> None:
        self._frame_buffer = b""
        self.bytes_received = self.frames_received = 0
        self.callbacks = CallbackManager()
        self.max_body = max_body
        self.messages: list[Message] = []
        channel = self._create_channel(1, None)
        channel._consumers["us"] = self._keep
        self._channels = {1: channel}

    def _keep(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        texts = (method.routing_key, properties.correlation_id, properties.flaw)
        self.messages.append((*texts, properties.body_size, body))


def delivery(encoded: bytes, *pieces: bytes, key: bytes = b"key") -> bytes:
    """The frames of a message, as the broker sends them."""
    method = struct.pack(">I", spec.Basic.Deliver.INDEX) + wire.short(b"us") + struct.pack(">QB", 1, 0)
    method += wire.short(b"exchange") + wire.short(key)
    header = struct.pack(">HHQ", spec.Basic.INDEX, 0, sum(map(len, pieces))) + encoded
    kinds = (spec.FRAME_METHOD, spec.FRAME_HEADER, *(spec.FRAME_BODY for _ in pieces))
    payloads = (method, header, *pieces)
    return b"".join(
        struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
        for kind, payload in zip(kinds, payloads, strict=True)
    )


GOOD = wire.properties(correlation_id=b"c")


@given(st.lists(st.integers(1, 60), min_size=1, max_size=400))
def test_messages_are_read_however_their_bytes_come(sizes: list[int]) -> None:
    reader: Any = Reader(max_body=5)
    came = (
        delivery(GOOD, b"abc")
        + delivery(wire.properties(headers=wire.fields({b"deep": wire.nested(50)})), b"abc", b"de", b"fg", b"hi")
        + delivery(b"\xff\xff")
        + delivery(GOOD, b"last", key=b"\xff")
    )
    while came:
        size = sizes.pop() if sizes else len(came)
        reader._on_data_available(came[:size])
        came = came[size:]
    early = "the AMQP properties cannot be read: there are more than AMQP 0-9-1 has"
    assert reader.messages == [
        ("key", "c", None, 3, b"abc"),
        ("key", None, None, 9, b"abcde"),
        ("key", None, early, 0, b""),
        (b"\xff", "c", None, 4, b"last"),
    ]
    assert reader._frame_buffer == b""


@pytest.mark.parametrize("headers", wire.HOSTILE_HEADERS.values(), ids=wire.HOSTILE_HEADERS.keys())
def test_no_header_ends_it(headers: bytes) -> None:
    reader: Any = Reader()
    reader._on_data_available(delivery(wire.properties(headers=headers), b"a", b"b") + delivery(GOOD, b"next"))
    assert [message[-1] for message in reader.messages] == [b"ab", b"next"]


def test_what_is_cut_is_not_held() -> None:
    reader: Any = Reader(max_body=10)
    parts = [b"x" * 1000] * 1000
    reader._on_data_available(delivery(GOOD, *parts)[:-1])
    assembler = reader._channels[1]._content_assembler
    assert sum(map(len, assembler._pieces)) == 10
    reader._on_data_available(b"\xce")
    assert reader.messages == [("key", "c", None, 1_000_000, b"x" * 10)]


@pytest.mark.parametrize("payload", [b"", b"\x00" * 11])
def test_a_header_frame_that_is_none_is_the_brokers_own_error(payload: bytes) -> None:
    encoded = struct.pack(">BHI", spec.FRAME_HEADER, 1, len(payload)) + payload + b"\xce"
    reader: Any = Reader()
    with pytest.raises(InvalidFrameError):
        reader._on_data_available(encoded)


def test_pieces_without_a_message_are_dropped() -> None:
    """As pika does; what comes after them is read."""
    reader: Any = Reader()
    lost = delivery(GOOD, b"abc")[len(delivery(GOOD)) :]
    reader._on_data_available(lost + delivery(GOOD, b"next"))
    assert [message[-1] for message in reader.messages] == [b"next"]


def test_pika_has_what_is_replaced() -> None:
    connection: Any = Connection
    channel: Any = Channel
    assert list(inspect.signature(connection._on_data_available).parameters) == ["self", "data_in"]
    assert "self._frame_buffer += data_in" in inspect.getsource(connection._on_data_available)
    assert "frame.decode_frame(self._frame_buffer)" in inspect.getsource(connection._read_frame)
    assert "_content_assembler.process(frame_value)" in inspect.getsource(channel._handle_content_frame)
    assert "_process_frame(frame_value)" in inspect.getsource(connection._on_data_available)
    assert "._handle_content_frame(value)" in inspect.getsource(connection._deliver_frame_to_channel)
    assert list(inspect.signature(ContentFrameAssembler.process).parameters) == ["self", "frame_value"]
    assert list(inspect.signature(connection._create_channel).parameters)[1:] == ["channel_number", "on_open_callback"]
    assert list(inspect.signature(frame.Header).parameters) == ["channel_number", "body_size", "props"]
    assert "_impl_class" in inspect.signature(pika.BlockingConnection).parameters
    transport: Any = _AsyncPlaintextTransport
    assert "self._produce()" in inspect.getsource(transport._on_socket_writable)


def test_what_comes_after_the_end_of_a_connection_is_not_read() -> None:
    """The next one begins with an empty buffer; what is left of this one is none of it."""

    class Ended(Reader):
        def _process_frame(self, frame_value: Any) -> None:
            super()._process_frame(frame_value)
            if self.messages:
                self._frame_buffer = b""

    reader: Any = Ended()
    reader._on_data_available(delivery(GOOD, b"first") + delivery(GOOD, b"second"))
    assert [message[-1] for message in reader.messages] == [b"first"]
    assert reader._frame_buffer == b""


@pytest.mark.parametrize("kind", [spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY])
def test_a_frame_without_its_end_is_an_error_and_those_before_it_are_read(kind: int) -> None:
    reader: Any = Reader()
    with pytest.raises(InvalidFrameError):
        reader._on_data_available(delivery(GOOD, b"good") + struct.pack(">BHI", kind, 1, 12) + b"\x00" * 13)
    assert [message[-1] for message in reader.messages] == [b"good"]


def ack(channel: int, tag: int) -> bytes:
    payload = struct.pack(">IQB", spec.Basic.Ack.INDEX, tag, 0)
    return struct.pack(">BHI", spec.FRAME_METHOD, channel, len(payload)) + payload + b"\xce"


class Publisher(PublishingConnection):
    """Connected to nothing, with channel 2."""

    def __init__(self) -> None:
        self._frame_buffer = b""
        self.bytes_received = self.frames_received = 0
        self.callbacks = CallbackManager()
        self._channels = {2: self._create_channel(2, None)}


def test_an_ack_goes_to_who_waits_for_it_and_those_of_others_to_pika() -> None:
    publisher, straight, others = Publisher(), [], []
    publisher.callbacks.add(2, spec.Basic.Ack, lambda value: others.append(value.method.delivery_tag), one_shot=False)
    publisher._on_data_available(ack(2, 1))  # pyright: ignore[reportAttributeAccessIssue]
    publisher.on_ack = 2, lambda value: straight.append(value.method.delivery_tag)
    publisher._on_data_available(ack(2, 2) + ack(2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    publisher.on_ack = 3, lambda value: straight.append(value.method.delivery_tag)
    publisher._on_data_available(ack(2, 4))  # pyright: ignore[reportAttributeAccessIssue]
    assert (straight, others, publisher.frames_received) == ([2, 3], [1, 4], 4)
