"""CloudEvents in binary mode: the attributes are headers of the message, and its body is the data.

It is translated into the same event in structured JSON, so that the rest of the code knows one form only.

The binding for RabbitMQ gives attributes the prefix `ce-`; the binding for AMQP 1.0 gives them `cloudEvents:` or
`cloudEvents_`, and RabbitMQ converts those to headers:
https://github.com/knative-extensions/eventing-rabbitmq/blob/main/cloudevents-protocol-spec/spec.md
https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/amqp-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from pydantic_core import from_json, to_json

from dspex.amqp.properties import Properties, scalar
from dspex.contract.envelope import MAX_EXTENSIONS, Envelope
from dspex.errors import InvalidMessage, MalformedMessage

_MEDIA_TYPE = "application/cloudevents"
"""The content type of every structured form begins with this."""
_JSON = "application/json"
_PREFIXES = (b"ce-", b"cloudevents:", b"cloudevents_")
_NAME = re.compile(rb"[a-z0-9]{1,20}")
_MOST = len(Envelope.model_fields) - 1 + MAX_EXTENSIONS
"""The most attributes that an envelope can have. Headers beyond these are not read."""


class _Attribute(NamedTuple):
    """An attribute as it came: its name, the whole header name, and the AMQP type and encoding of its value."""

    name: bytes
    header: bytes
    kind: bytes
    value: bytes


def is_binary(properties: Properties) -> bool:
    """Whether a message is a CloudEvent in binary mode: no structured content type, and a header `specversion`."""
    content_type = properties.content_type
    if content_type is not None and content_type[: len(_MEDIA_TYPE)].lower() == _MEDIA_TYPE:
        return False
    return properties.may_have(b"specversion") and any(found.name == b"specversion" for found in _found(properties))


def structured(properties: Properties, body: bytes) -> bytes:
    """The same message in structured JSON.

    Raises:
        InvalidMessage: an attribute cannot be read or is given twice, or there are too many.
        MalformedMessage: the body is not JSON.
    """
    attributes = _attributes(properties)
    try:
        if body:
            from_json(body, allow_inf_nan=False)  # exactly one JSON value: the body cannot break out of the envelope
    except ValueError as error:
        raise MalformedMessage(f"the body is not JSON, which is the data in binary mode: {error}") from None
    members = [to_json(attributes)[1:-1]] if attributes else []
    if body:
        members.append(b'"data":' + body)
    return b"{%b}" % b",".join(members)


def identity(properties: Properties) -> tuple[str | None, str | None]:
    """The `id` and `type` of a message that may be invalid; None for one that is missing or is not text."""
    found = {attribute.name: attribute for attribute in _found(properties)}
    texts = (_text(found.get(name)) for name in (b"id", b"type"))
    return next(texts), next(texts)


def _found(properties: Properties) -> Iterator[_Attribute]:
    for header, kind, value in properties.fields():
        name = header.lower()  # bridges from HTTP, where header names ignore case, write Ce-Id
        if name.startswith(_PREFIXES):  # a cheap test first: a frame may hold 60,000 other headers
            prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
            yield _Attribute(name[len(prefix) :], header, kind, value)


def _attributes(properties: Properties) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {}
    headers: dict[str, str] = {}
    if properties.content_type:
        attributes["datacontenttype"] = properties.content_type
        headers["datacontenttype"] = "the property content-type"
    for number, (encoded, key, kind, value) in enumerate(_found(properties)):
        header = f"the header {key[:100].decode(errors='replace')}"
        if number >= _MOST:
            raise InvalidMessage(f"there are too many attributes: at most {MAX_EXTENSIONS} are allowed as extensions")
        if not _NAME.fullmatch(encoded) or encoded == b"data":
            raise InvalidMessage(f"{header} names no attribute: use 1 to 20 of a-z and 0-9, and not 'data'")
        name = encoded.decode()
        if name in headers:
            raise InvalidMessage(f"{name}: is given twice, by {headers[name]} and {header}")
        headers[name] = header
        try:
            read = scalar(kind, value)
        except ValueError as error:
            raise InvalidMessage(f"{name}: {header} {error}") from None
        if read is not None:
            attributes[name] = read.isoformat() if isinstance(read, datetime) else read
    given = attributes.get("datacontenttype")
    if isinstance(given, str) and given.partition(";")[0].strip().lower() == _JSON:
        attributes["datacontenttype"] = _JSON  # parameters such as charset are dropped: JSON is UTF-8
    return attributes


def _text(attribute: _Attribute | None) -> str | None:
    if attribute is None:
        return None
    try:
        read = scalar(attribute.kind, attribute.value)
    except ValueError:
        return None
    return read if isinstance(read, str) and read else None
