"""The envelope: CloudEvents 1.0 in structured JSON, the form of every message that DSPex sends.

Incoming messages may also be in binary mode, see `dspex.amqp.binary_mode`.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar

import pydantic
from pydantic import ConfigDict, Field, PlainValidator, SerializeAsAny, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticSerializationError, from_json, to_json

from dspex.contract.commands import SUBJECTS, Command
from dspex.contract.events import EVENTS, Event
from dspex.contract.requests import REQUESTS
from dspex.errors import InvalidMessage, MalformedMessage, MessageTooLarge, UnknownMessageType
from dspex.ids import uuid7
from dspex.model import Sparse, problems
from dspex.scalars import Moment, whole
from dspex.signatures.signature import unstorable

CONTENT_TYPE = "application/cloudevents+json"
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 15 * 1024 * 1024
"""The largest answer, in bytes. It is larger than other messages because of pages of executions.

By default, RabbitMQ 4 closes the channel for more than 16 MiB (`max_message_size`,
https://www.rabbitmq.com/docs/limits).
"""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer that a client reads: workers with a higher cap, or of the previous version, send more."""

MAX_EXTENSIONS = 16
MAX_EXTENSION_BYTES = 4 * 1024
"""The size of all extension attributes as JSON."""


def _extension(value: object) -> object:
    value = whole(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and -(1 << 31) <= value < 1 << 31:
        return value
    raise ValueError("must be a string, a boolean, or an integer of 32 bits, as CloudEvents has them")


ExtensionName = Annotated[str, Field(pattern="^[a-z0-9]{1,20}$")]
Extension = Annotated[
    str | int | bool | None,
    PlainValidator(_extension),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "integer", "minimum": -(1 << 31), "maximum": (1 << 31) - 1},
                {"type": "boolean"},
                {"type": "null"},
            ]
        }
    ),
]

TENANT_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"

Text = Annotated[str, Field(min_length=1, max_length=512)]
Traceparent = Annotated[str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
Data = TypeVar("Data", bound=Command | Event)


class Context(NamedTuple):
    """The trace and the extensions of a message, which are copied to all answers and events about it."""

    traceparent: str | None = None
    extensions: Mapping[str, str | int | bool] = MappingProxyType({})


NO_CONTEXT: Final = Context()


class Envelope(Sparse, Generic[Data]):
    """A CloudEvent: who says what, when, about what; `data` is the command or the event.

    `traceparent` and `tracestate` are those of the Distributed Tracing extension (W3C Trace Context). The `tenant` of
    an event is its owner. In a command, only workers may set it freely; from anyone else it must be the tenant of the
    login. All other members of valid name and type are extension attributes: DSPex stores them without reading them,
    and copies them to answers and events about the command.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"propertyNames": {"pattern": "^[a-z0-9]{1,20}$"}})
    # Gives pydantic the types of extension attributes: https://docs.pydantic.dev/latest/concepts/models/#extra-data
    __pydantic_extra__: dict[ExtensionName, Extension]  # pyright: ignore[reportIncompatibleVariableOverride]

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Field(min_length=1, max_length=255)]  # the limit of the AMQP property message_id
    source: Text
    type: Text
    subject: Text | None = None
    time: Moment | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: Text | None = None
    traceparent: Traceparent | None = None
    tracestate: Text | None = None
    tenant: Annotated[str, Field(pattern=TENANT_PATTERN)] | None = None
    data: SerializeAsAny[Data]

    @property
    def extensions(self) -> dict[str, str | int | bool]:
        """The extension attributes that are not null."""
        found = self.__pydantic_extra__
        return {name: value for name, value in found.items() if value is not None} if found else {}

    @property
    def context(self) -> Context:
        """The part that is copied to all answers and events about this message."""
        return Context(self.traceparent, self.extensions)

    def encode(self, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
        """Encode the body of the message.

        Raises:
            MessageTooLarge: the body would be larger than `max_bytes`.
            InvalidMessage: a text is not valid Unicode.
        """
        try:
            body = self.model_dump_json().encode()
        except PydanticSerializationError:
            raise InvalidMessage("data holds characters that are not valid Unicode") from None
        check_size(len(body), max_bytes)
        return body


def wrap(
    data: Data,
    *,
    source: str,
    traceparent: str | None = None,
    tracestate: str | None = None,
    message_id: str | None = None,
    tenant: str | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Envelope[Data]:
    """Put a command or an event into an envelope of its own.

    Args:
        source: CloudEvents `source`, a URI reference such as `/orders`.
        message_id: CloudEvents `id`; a new UUIDv7 by default.
        tenant: the owner of an event.
        extensions: extension attributes, see `Envelope`.

    Raises:
        InvalidMessage: an argument is invalid, such as an empty `source`.
    """
    envelope = envelope_of(type(data))  # type: ignore[arg-type]  # to mypy, a class of a type variable has no hash
    try:
        return _bounded(
            envelope(
                **extensions or {},
                id=message_id or str(uuid7()),
                source=source,
                type=data.type,
                subject=data.subject,
                time=datetime.now(UTC),
                traceparent=traceparent,
                tracestate=tracestate,
                tenant=tenant,
                data=data,
            )
        )
    except pydantic.ValidationError as error:
        raise InvalidMessage(problems(error)) from None


Admit = Callable[[type[Command], str | None, str | None], None]
"""Raises if a command must not be read. Gets its type, the envelope's tenant, and the id of its subject."""


def decode_command(body: bytes, max_bytes: int = MAX_MESSAGE_BYTES, *, admit: Admit | None = None) -> Envelope[Command]:
    """Read a command from the body of a message.

    Args:
        admit: called before the validation of the envelope and its data, which is the expensive part.

    Raises:
        MessageTooLarge, MalformedMessage, UnknownMessageType, InvalidMessage: the message must be rejected.
    """
    return _decode(body, max_bytes, REQUESTS, "forbid", admit)


def decode_event(body: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Envelope[Event]:
    """Read an event from the body of a message. Fields of later versions are ignored.

    Raises:
        MessageTooLarge, MalformedMessage, UnknownMessageType, InvalidMessage: this version knows no such event.
    """
    return _decode(body, max_bytes, EVENTS, "ignore")


@cache
def envelope_of(data: type[Command | Event]) -> type[Envelope[Any]]:
    """The envelope model for one type of command or event. Built at first use, as most processes use few types."""
    return Envelope[data]  # type: ignore[valid-type]


def _decode(
    body: bytes,
    max_bytes: int,
    types: Mapping[str, Any],
    unknown: Literal["forbid", "ignore"],
    admit: Admit | None = None,
) -> Envelope[Any]:
    check_size(len(body), max_bytes)
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedMessage(f"the body is not JSON: {error}") from None
    if not isinstance(raw, dict) or raw.get("specversion") != "1.0":
        raise MalformedMessage(
            "not a CloudEvents 1.0 message, in structured JSON or in binary mode: 'specversion' must be \"1.0\""
        )
    name = raw.get("type")
    if not isinstance(name, str) or name not in types:
        raise UnknownMessageType(f"type: {str(name)[:100]!r} is not one of {', '.join(types)}")
    if admit is not None:
        tenant = raw.get("tenant")
        admit(types[name], tenant if isinstance(tenant, str) else None, _subject(raw.get("data")))
    # U+0000, and numbers that are read as infinity (1e999). Both are rare, so only then is every value checked.
    suspect = b"\\u0000" in body or b"Infinity" in to_json(raw, inf_nan_mode="constants")
    if suspect and (reason := unstorable(raw)):
        raise InvalidMessage(f"data {reason}")
    try:
        if unknown == "forbid":
            return _bounded(envelope_of(types[name]).model_validate_json(body))
        envelope = envelope_of(types[name]).model_validate_json(body, extra="ignore")
    except pydantic.ValidationError as error:
        raise InvalidMessage(problems(error)) from None
    # `wrap` leaves an empty dict here. Before pydantic 2.13, the two events would not be equal without it.
    object.__setattr__(envelope, "__pydantic_extra__", {})
    if len(raw) > len(envelope.model_fields_set):
        others = {name: value for name, value in raw.items() if name not in Envelope.model_fields}
        envelope = envelope.model_copy(update={name: value for name, value in others.items() if _readable(name, value)})
    return envelope


def _bounded(envelope: Envelope[Any]) -> Envelope[Any]:
    found = envelope.__pydantic_extra__
    if found and not _within_bounds(found):
        limits = f"at most {MAX_EXTENSIONS}, and {MAX_EXTENSION_BYTES} bytes of them, are allowed"
        raise InvalidMessage(f"there are too many extension attributes: {limits}")
    return envelope


def _within_bounds(extensions: Mapping[str, Any]) -> bool:
    return len(extensions) <= MAX_EXTENSIONS and len(to_json(extensions)) <= MAX_EXTENSION_BYTES


def context_of(raw: Mapping[str, Any]) -> Context:
    """The context of a message that cannot be read: its valid traceparent, and its valid extension attributes."""
    traceparent = raw.get("traceparent")
    if not (isinstance(traceparent, str) and _fits(_TRACEPARENT, traceparent)):
        traceparent = None
    extensions = dict[str, str | int | bool]()
    if len(raw) <= len(Envelope.model_fields) + MAX_EXTENSIONS:
        others = {name: value for name, value in raw.items() if name not in Envelope.model_fields}
        found = {name: value for name, value in others.items() if value is not None and _readable(name, value)}
        if _within_bounds(found) and unstorable(found) is None:
            extensions = found
    return Context(traceparent, extensions)


_READ_NAME, _READ_VALUE, _TRACEPARENT = TypeAdapter(ExtensionName), TypeAdapter(Extension), TypeAdapter(Traceparent)


def _readable(name: str, value: object) -> bool:
    """Whether a member is an extension attribute, and not a member of a later version."""
    return _fits(_READ_NAME, name) and _fits(_READ_VALUE, value)


def _fits(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _subject(data: object) -> str | None:
    if not isinstance(data, dict):
        return None
    return next((data[name][:36] for name in SUBJECTS if isinstance(data.get(name), str)), None)


def check_size(size: int, max_bytes: int) -> None:
    """Check the size of a message, in bytes.

    Raises:
        MessageTooLarge: `size` is more than `max_bytes`.
    """
    if size > max_bytes:
        raise MessageTooLarge(f"the message has {size} bytes; at most {max_bytes} are allowed")
