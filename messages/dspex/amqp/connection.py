"""Connections of pika that no message can end. All use of pika's internals is in this file.

pika 1.4 decodes all properties and headers of each message, and raises where it cannot, such as for a time in the year
57881 or for tables nested 1,000 deep. The exception ends the connection, and the broker delivers the same message first
on the next one. Here `dspex.amqp.properties` reads the content headers and never raises. pika also keeps a whole body
in memory, whatever its size; here a body is truncated while its frames arrive.

How pika 1.4.4 does it: `Connection._on_data_available` gets the bytes, keeps an incomplete frame in `_frame_buffer`,
and passes each complete one to `_process_frame`. A channel's `_content_assembler.process` assembles a message from its
method, header and body frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
from pika import SelectConnection, URLParameters, frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
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
"""Bytes to gather for one write to the socket."""

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQ")
_KINDS = (spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY)
_OF_CONTENT = (frame.Header, frame.Body)


class TolerantConnection(SelectConnection):  # type: ignore[misc]
    """Reads any message without raising: properties become `Properties`, and a body keeps at most `max_body` bytes."""

    max_body: int | None = None
    _frame_buffer: bytes

    def _on_data_available(self, data_in: bytes) -> None:
        """Process the complete frames by their offsets. pika copies the rest of the buffer after each frame."""
        buffer = self._frame_buffer + data_in
        self._frame_buffer, at = buffer, 0
        try:
            while self._frame_buffer is buffer:  # a frame that closes the connection replaces the buffer
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
        """Pass content straight to its channel. pika searches its callbacks first, and none is ever for content."""
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
    """Decode the frame at an offset.

    Returns:
        The offset of its end, and pika's object of it; None in place of the object while the frame is incomplete.

    Raises:
        InvalidFrameError: the bytes are not a frame.
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
        raise InvalidFrameError("a content header is too short")
    _, _, body_size = _CONTENT.unpack_from(payload)
    properties: Any = Properties(payload[_CONTENT.size :], body_size)
    return end + 1, frame.Header(channel, body_size, properties)


class _Assembler:
    """Assembles messages from the frames of one channel, in place of pika's assembler."""

    def __init__(self, connection: TolerantConnection) -> None:
        self._connection = connection
        self._method: Any = None
        self._header: Any = None
        self._pieces: list[bytes] = []
        self._missing = self._room = 0

    def process(self, value: Any) -> tuple[Any, Any, bytes] | None:
        """Take a frame. Returns the message that it completes, as method, header and body, or None."""
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
    """Publishes many messages per second, with a confirm for each.

    The frames of many messages go to the socket in one write, at once; pika 1.4.4 makes a system call for each frame,
    and asks the operating system first, which for a single message takes longer than to write it. An ack
    goes straight to `on_ack`; pika looks its callback up in four dictionaries. If a later pika lacks the methods that
    are overridden here, messages and acks go pika's own way.

    Attributes:
        on_ack: the channel number and the callback for its acks; set by the publisher.
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
        """Send a message, like the channel's own `basic_publish`.

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
        """Gather what is sent inside the block into writes of about `PIECE` bytes; the last write is at its end."""
        self._gathering, self._frames, self._gathered_bytes = True, list[bytes](), 0
        try:
            yield
        finally:
            self._gathering = False
            self._output_marshaled_frames(self._frames)
            self._write_now()

    def _write_now(self) -> None:
        """Write what pika would write when the socket is writable; what does not fit waits for that.

        Over TLS, all of it waits: a write may have to wait for a read there.
        """
        transport: Any = self._transport  # pyright: ignore[reportAttributeAccessIssue]
        plain = isinstance(transport, _AsyncPlaintextTransport)
        if plain and transport.get_write_buffer_size():
            transport._on_socket_writable()  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]

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
    """A blocking connection that reports its loss to every wait for messages.

    pika 1.4.4 reports the loss once, to the call that meets it, such as an ack; the next wait raises `ValueError`.
    """

    def process_data_events(self, time_limit: float | None = 0) -> None:
        """Wait for messages and other events.

        Raises:
            ConnectionWrongStateError: the connection is closed. Other `CONNECTION_ERRORS`: it is lost during the wait.
        """
        if self.is_closed:
            raise ConnectionWrongStateError("the connection is closed")
        super().process_data_events(time_limit)  # pyright: ignore[reportArgumentType]


def connect(parameters: URLParameters, max_body: int) -> Any:
    """Open a blocking connection that no message can end.

    Args:
        max_body: how many bytes of a body to keep; `Properties.body_size` has its full size.

    Raises:
        pika.exceptions.AMQPError, AssertionError, OSError: there is no connection.
    """
    connection: Any = LosableConnection(parameters, _impl_class=TolerantConnection)
    connection._impl.max_body = max_body  # noqa: SLF001
    return connection


def server_properties(connection: Any) -> dict[str, Any]:
    """The server properties that the broker sent when this blocking connection was opened."""
    return dict(connection._impl.server_properties or {})  # noqa: SLF001
