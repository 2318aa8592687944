"""Connections of pika that no message can end. Everything of pika's insides that we lean on is here.

pika 1.4 decodes all properties of each message, every header of it, and raises over what it cannot have: a time in the
year 57881, tables nested 1,000 deep. That ends the connection; the broker delivers the same message first on the next.
Here content headers are read by `dspex.amqp.properties`, which does not raise. And pika keeps a body whole, whatever
its size; here it is cut as its pieces come.

Read in pika 1.4.4: `Connection._on_data_available` takes what came, keeps in `_frame_buffer` what is no whole frame
yet, and hands each frame to `_process_frame`; a channel's `_content_assembler.process` makes a message of method,
header and body frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
from pika import SelectConnection, URLParameters, frame, spec
from pika.channel import Channel
from pika.exceptions import (
    ChannelWrongStateError,
    ConnectionWrongStateError,
    InvalidFrameError,
    UnexpectedFrameError,
)

from dspex.amqp.frames import frames_of
from dspex.amqp.properties import Properties
from dspex.amqp.publication import Publication

PIECE = 32 * 1024
"""Bytes that go to the socket at once."""

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQ")
_KINDS = (spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY)
_OF_CONTENT = (frame.Header, frame.Body)


class TolerantConnection(SelectConnection):  # type: ignore[misc]
    """Reads messages tolerantly: their properties are `Properties`, and a body has at most `max_body` bytes."""

    max_body: int | None = None
    _frame_buffer: bytes

    def _on_data_available(self, data_in: bytes) -> None:
        """Take the frames that are whole, by where they begin: pika copies all that follows each of them."""
        buffer = self._frame_buffer + data_in
        self._frame_buffer, at = buffer, 0
        try:
            while self._frame_buffer is buffer:  # else a frame was the end of the connection
                end, value = _frame(buffer, at)
                if value is None:
                    break
                self.bytes_received += end - at
                at = end
                self._process_frame(value)
        finally:
            if self._frame_buffer is buffer:
                self._frame_buffer = buffer[at:]

    def _process_frame(self, frame_value: Any) -> None:
        """Take content straight to its channel: pika asks its callbacks first, where nobody waits for content."""
        channel = None
        if type(frame_value) in _OF_CONTENT or type(getattr(frame_value, "method", None)) is spec.Basic.Deliver:
            channel = self._channels.get(frame_value.channel_number)  # pyright: ignore[reportAttributeAccessIssue]
        if channel is None:
            super()._process_frame(frame_value)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self.frames_received += 1
            channel._handle_content_frame(frame_value)  # noqa: SLF001

    def _create_channel(self, channel_number: int, on_open_callback: Any) -> Any:
        create: Any = super()._create_channel  # pyright: ignore[reportAttributeAccessIssue]
        channel = create(channel_number, on_open_callback)
        channel._content_assembler = _Assembler(self)  # noqa: SLF001
        return channel


def _frame(buffer: bytes, at: int) -> tuple[int, Any]:
    """Where the frame ends that begins there, and what it is; None where it is not whole.

    Raises:
        InvalidFrameError: it is none.
    """
    start = at + _FRAME.size
    if len(buffer) < start:
        return at, None
    kind, channel, size = _FRAME.unpack_from(buffer, at)
    if kind not in _KINDS:
        consumed, found = frame.decode_frame(buffer[at:])
        return at + consumed, found
    end = start + size
    if len(buffer) <= end:
        return at, None
    if buffer[end] != spec.FRAME_END:
        raise InvalidFrameError("a frame has no end")
    payload = buffer[start:end]
    if kind == spec.FRAME_METHOD:
        method = spec.methods[int.from_bytes(payload[:4], "big")]()
        return end + 1, frame.Method(channel, method.decode(payload, 4))
    if kind == spec.FRAME_BODY:
        return end + 1, frame.Body(channel, payload)
    if size < _CONTENT.size:
        raise InvalidFrameError("a content header that is none")
    _, _, body_size = _CONTENT.unpack_from(payload)
    properties: Any = Properties(payload[_CONTENT.size :], body_size)
    return end + 1, frame.Header(channel, body_size, properties)


class _Assembler:
    """Makes messages of the frames of one channel, in place of pika's."""

    def __init__(self, connection: TolerantConnection) -> None:
        self._connection = connection
        self._method: Any = None
        self._header: Any = None
        self._pieces: list[bytes] = []
        self._missing = self._room = 0

    def process(self, value: Any) -> tuple[Any, Any, bytes] | None:
        """Take a frame. Returns the message that is whole with it, as method, header and body."""
        if isinstance(value, frame.Method) and spec.has_content(value.method.INDEX):
            self._method, self._header = value, None
            return None
        if isinstance(value, frame.Header) and self._method is not None:
            self._header, self._missing, self._pieces = value, value.body_size, []
            most = self._connection.max_body
            self._room = value.body_size if most is None else most
        elif isinstance(value, frame.Body) and self._header is not None:
            self._missing -= len(value.fragment)
            if self._room > 0:
                self._pieces.append(value.fragment[: self._room])
                self._room -= len(value.fragment)
        else:
            raise UnexpectedFrameError(value)
        if self._missing > 0:
            return None
        content = self._method, self._header, b"".join(self._pieces)
        self._method = self._header = None
        self._pieces = []
        return content


class PublishingConnection(TolerantConnection):
    """Publishes many messages a second, and hears of each.

    The frames of many messages go to the socket as one piece: pika 1.4.4 makes a system call for each frame. An ack
    goes straight to who waits for it: pika looks for its callback in four dictionaries. A pika without these methods
    would send and tell as before.

    Attributes:
        on_ack: the number of the channel whose messages are confirmed, and what takes an ack; set by the publisher.
    """

    on_ack: tuple[int, Callable[[Any], None]] | None = None
    _gathering = False

    def _process_frame(self, frame_value: Any) -> None:
        if self.on_ack is not None and type(getattr(frame_value, "method", None)) is spec.Basic.Ack:
            number, take = self.on_ack
            if frame_value.channel_number == number:
                self.frames_received += 1
                take(frame_value)
                return
        super()._process_frame(frame_value)

    def publish(self, channel: Channel, message: Publication, user_id: str | None) -> None:
        """Send a message, as the channel's own `basic_publish` does.

        Raises:
            ShortStringTooLong: the exchange, the key or an id has more than 255 bytes. Nothing is sent.
            ChannelWrongStateError: the channel is not open.
        """
        if not channel.is_open:
            raise ChannelWrongStateError("the channel is not open")
        most: int = self._body_max_length  # pyright: ignore[reportAttributeAccessIssue]
        self._output_marshaled_frames(frames_of(message, channel.channel_number, user_id, most))

    @contextmanager
    def gathered(self) -> Generator[None]:
        """What is sent inside goes out in pieces of about `PIECE` bytes, the last at the end."""
        self._gathering, self._frames, self._gathered_bytes = True, list[bytes](), 0
        try:
            yield
        finally:
            self._gathering = False
            self._output_marshaled_frames(self._frames)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        if self._gathering:
            self._frames.extend(marshaled_frames)
            self._gathered_bytes += sum(map(len, marshaled_frames))
            if self._gathered_bytes < PIECE:
                return
            marshaled_frames, self._frames, self._gathered_bytes = self._frames, [], 0
        if marshaled_frames:
            super()._output_marshaled_frames([b"".join(marshaled_frames)])  # pyright: ignore[reportAttributeAccessIssue]


class LosableConnection(pika.BlockingConnection):  # type: ignore[misc]
    """Says to everybody who waits for messages that it is lost.

    pika 1.4.4 says so once, to whoever uses it then, for instance to ack; the next wait raises `ValueError`.
    """

    def process_data_events(self, time_limit: float | None = 0) -> None:
        """Wait for what comes.

        Raises:
            ConnectionWrongStateError: the connection is closed; others of `CONNECTION_ERRORS` where it is lost now.
        """
        if self.is_closed:
            raise ConnectionWrongStateError("the connection is closed")
        super().process_data_events(time_limit)  # pyright: ignore[reportArgumentType]


def connect(parameters: URLParameters, max_body: int) -> Any:
    """A blocking connection that no message ends.

    Args:
        max_body: bytes of a body that are kept; its size is `Properties.body_size`.

    Raises:
        pika.exceptions.AMQPError, AssertionError, OSError: it cannot be made.
    """
    connection: Any = LosableConnection(parameters, _impl_class=TolerantConnection)
    connection._impl.max_body = max_body  # noqa: SLF001
    return connection


def server_properties(connection: Any) -> dict[str, Any]:
    """What the broker said of itself when a blocking connection was made."""
    return dict(connection._impl.server_properties or {})  # noqa: SLF001
