"""Reads the properties of an AMQP message that anybody may have sent: never raises, bounded, and lazy.

A broker passes properties on as they came. A reader that raises loses its connection, and gets the same message first
on the next one. So a property that cannot be read is noted as a `flaw`, and the consumer rejects the message. The table
of headers is skipped by its length, and read only when a header is asked for.

The layout is that of the AMQP 0-9-1 specification, 4.2.5 and 4.2.6.1; the types of fields are those of RabbitMQ:
https://www.rabbitmq.com/amqp-0-9-1-errata#section_3.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

_UNKNOWN = 0b11
"""Flags without a property; the last bit says that more flags follow."""
_HEADERS = "headers"
_PROPERTIES = (
    ("content_type", 0),
    ("content_encoding", 0),
    (_HEADERS, 0),
    ("delivery_mode", 1),
    ("priority", 1),
    ("correlation_id", 0),
    ("reply_to", 0),
    ("expiration", 0),
    ("message_id", 0),
    ("timestamp", 8),
    ("type", 0),
    ("user_id", 0),
    ("app_id", 0),
    ("cluster_id", 0),
)
"""In the order of the encoding, from the highest flag down; with the size in bytes, if it is fixed."""

_SIZES = {
    bytes([kind]): size
    for size, kinds in ((0, b"V"), (1, b"tbB"), (2, b"sUu"), (4, b"Iif"), (5, b"D"), (8, b"lLdT"))
    for kind in kinds
}
"""The size of a field's value in bytes, by its type."""
_SIZED = frozenset((b"S", b"x", b"F", b"A"))
"""Types of fields whose value begins with its size."""
_SIGNED = {bytes([kind]): kind in b"bsUIlL" for kind in b"bBsUuIilL"}
"""Whether an integer may be negative, by its type."""

_DEATH = frozenset({(b"count", b"l"), (b"reason", b"S"), (b"queue", b"S")})
"""The fields that RabbitMQ reads of each item of `x-death`, with their types."""


class Death(NamedTuple):
    """From which queue a message was dead-lettered, and why (`expired`, `rejected`, ...)."""

    queue: str
    reason: str


class Properties:
    """The properties of a message.

    Attributes:
        flaw: names the first property that cannot be read, and says why; None if all can be read.
        body_size: the full size of the body in bytes; the body that is kept may be shorter.
    """

    content_type: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    """None also where it cannot be read: then no answer can be sent."""
    expiration: str | None = None
    message_id: str | None = None
    user_id: str | None = None
    flaw: str | None = None

    def __init__(self, encoded: bytes = b"\x00\x00", body_size: int = 0) -> None:
        self.body_size = body_size
        self._headers = b""
        try:
            self._read(encoded)
        except IndexError:
            self.flaw = self.flaw or "the AMQP properties cannot be read: they end before they should"
            self.reply_to = None

    def _read(self, encoded: bytes) -> None:
        flags = encoded[0] << 8 | encoded[1]
        at = 2
        texts: dict[str, str] = self.__dict__
        if flags & _UNKNOWN:
            self.flaw = "the AMQP properties cannot be read: there are more than AMQP 0-9-1 has"
            return
        for name, size in _present(flags):
            if size:
                at += size
            elif name is _HEADERS:
                start, at = at + 4, at + 4 + _long(encoded, at)
                self._headers = encoded[start:at]
            else:
                start, at = at + 1, at + 1 + encoded[at]
                value = encoded[start:at]
                try:
                    texts[name] = value.decode()
                except UnicodeDecodeError:
                    # `?` is no longer than what it replaces, so the text still fits into the property.
                    texts[name] = value.decode(errors="replace").replace("\ufffd", "?")
                    self._refuse(name, "is not valid UTF-8")
                if 0 in value:
                    self._refuse(name, "holds U+0000")
        if at > len(encoded):
            raise IndexError(at)

    def _refuse(self, name: str, why: str) -> None:
        self.flaw = self.flaw or f"the AMQP property {name} {why}"
        if name == "reply_to":
            self.reply_to = None

    def header(self, name: str) -> str | None:
        """The header with this name; None if it is missing or is not text."""
        found = self._find(name.encode())
        return None if found is None else _text(*found)

    def may_have(self, text: bytes) -> bool:
        """Whether the encoded headers contain this text, ignoring case: a cheap test before they are read."""
        return bool(self._headers) and text in self._headers.lower()

    def fields(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """The headers in order, as name, type and encoded value, up to the first that cannot be read. See `scalar`."""
        return _fields(self._headers)

    def _find(self, name: bytes) -> tuple[bytes, bytes] | None:
        """Type and encoded value of the first header of this name."""
        if name not in self._headers:  # a cheap test first: a frame may hold 60,000 other headers
            return None
        return next(((kind, value) for key, kind, value in _fields(self._headers) if key == name), None)

    @property
    def can_be_dead_lettered(self) -> bool:
        """Whether a header `x-death`, if there is one, has the form that RabbitMQ gives it.

        Any sender can set this header. Before version 4, a RabbitMQ queue reads it when it dead-letters the message,
        and crashes if the form is wrong. It crashes again after each restart, as the message is still in it (seen on
        3.10.8).
        """
        times = self._headers.count(b"x-death")
        if not times:
            return True
        kind, value = self._find(b"x-death") or (b"", b"")
        return times == 1 and kind == b"A" and all(map(_is_death, _items(value)))

    def death(self) -> Death | None:
        """How the message was last dead-lettered, by RabbitMQ's header `x-death`; None if it never was."""
        kind, value = self._find(b"x-death") or (b"", b"")
        if kind != b"A" or value[:1] != b"F":
            return None
        last = {key: _text(kind, text) for key, kind, text in _fields(value[5 : 5 + _long(value, 1)])}
        queue, reason = last.get(b"queue"), last.get(b"reason")
        return Death(queue, reason) if queue and reason else None


def scalar(kind: bytes, value: bytes) -> str | int | bool | datetime | None:
    """Decode the value of a field: a text, an integer, a boolean, a time, or None for void.

    Raises:
        ValueError: the type is another, or the value is out of its range.
    """
    if kind == b"S":
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise ValueError("is not valid UTF-8") from None
        if "\x00" in text:
            raise ValueError("holds U+0000")
        return text
    if kind == b"t":
        return value != b"\x00"
    if kind in _SIGNED:
        return int.from_bytes(value, "big", signed=_SIGNED[kind])
    if kind == b"T":
        try:
            return datetime.fromtimestamp(int.from_bytes(value, "big"), UTC)
        except (ValueError, OverflowError, OSError):
            raise ValueError("is a time out of range: times are in seconds") from None
    if kind == b"V":
        return None
    raise ValueError("must be a text, an integer, a boolean or a time")


@cache
def _present(flags: int) -> tuple[tuple[str, int], ...]:
    return tuple(entry for number, entry in enumerate(_PROPERTIES) if flags & 0x8000 >> number)


def _fields(table: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The fields of a table, as name, type and encoded value, up to the first that cannot be read. Decodes no value."""
    at = 0
    while at < len(table):
        start = at + 1
        at = start + table[at]
        name, kind = table[start:at], table[at : at + 1]
        at += 1
        if kind in _SIZED:
            size = _long(table, at)
            at += 4
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            return
        if at + size > len(table):
            return
        yield name, kind, table[at : at + size]
        at += size


def _items(array: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The items of an array of tables, as type and encoded value. After the first other item, the rest is one item."""
    at = 0
    while at < len(array):
        end = at + 5 + _long(array, at + 1)
        if array[at : at + 1] != b"F" or end > len(array):
            yield b"", array[at:]
            return
        yield b"F", array[at + 5 : end]
        at = end


def _is_death(item: tuple[bytes, bytes]) -> bool:
    kind, table = item
    fields = [(name, kind) for name, kind, _ in _fields(table)]
    size = sum(len(name) + 2 + len(value) + (4 if kind in _SIZED else 0) for name, kind, value in _fields(table))
    return kind == b"F" and size == len(table) and len(dict(fields)) == len(fields) and set(fields) >= _DEATH


def _long(encoded: bytes, at: int) -> int:
    return int.from_bytes(encoded[at : at + 4], "big")


def _text(kind: bytes, value: bytes) -> str | None:
    return value.decode(errors="replace") if kind == b"S" else None
