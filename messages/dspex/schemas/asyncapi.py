"""The AsyncAPI 3.0.0 document: the messages that workers receive and send, with exchanges and routing keys.

https://www.asyncapi.com/docs/reference/specification/v3.0.0 and, for AMQP, the bindings 0.3.0. Extensions hold what
these cannot express: the queue behind a routing key (`x-queue`), the alternate exchange (`x-alternate-exchange`), and
the error codes (`x-error-codes`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from dspex import errors
from dspex.amqp.topology import BINDINGS, COMMANDS_EXCHANGE, EVENTS_EXCHANGE, EXCHANGES, QUEUES, event_key, queue_of
from dspex.contract.envelope import CONTENT_TYPE
from dspex.contract.events import EVENTS, Reply
from dspex.contract.requests import REQUESTS
from dspex.contract.status import ErrorCode
from dspex.schemas.json_schema import MESSAGES, answer_name, description
from dspex.signatures.types import DIALECT

VERSION = "1.0.0"
"""The version of the messages, whose types all end in `.v1`."""
SCHEMA_FORMAT = "application/schema+json;version=2020-12"

Document = dict[str, Any]

_BINDING = {"bindingVersion": "0.3.0"}
_ABOUT = """\
DSPex runs LM programs as jobs. This document describes the side of its workers: they receive commands and queries,
and send events and replies.

A message is a CloudEvent 1.0 in structured JSON; commands and queries may be in binary mode, too (headers `ce-...`).
Publish them with confirms, persistent and mandatory, with the type as the routing key. The routing key of an event is
its tenant and its type; a system without tenants uses `default`. Commands are closed: a worker refuses fields that it
does not know. Events are open: ignore fields that you do not know. v1 only gains optional fields, and workers know a
field before a producer may send it."""


def asyncapi() -> Document:
    """Generate the document. It refers to the schemas in files beside it (`schemas/`)."""
    events = {type_: event for type_, event in EVENTS.items() if event is not Reply}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "DSPex", "version": VERSION, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "broker": {
                "host": "{host}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ",
                "variables": {"host": {"default": "localhost:5672"}},
            }
        },
        "channels": {
            **{type_: _channel(type_, COMMANDS_EXCHANGE) for type_ in REQUESTS},
            **{type_: _channel(type_, EVENTS_EXCHANGE) for type_ in events},
            **{queue: _queue(queue, types) for queue, types in QUEUES.items()},
            "replies": {
                "address": None,
                "description": "The queue that `reply_to` names; answers are matched by `correlation_id`.",
                "messages": {name: _reference("messages", name) for name in _replies()},
            },
        },
        "operations": {
            **{f"receive {type_}": _receive(type_) for type_ in REQUESTS},
            **{f"send {type_}": _send(type_) for type_ in events},
        },
        "components": {"messages": _messages()},
        "x-exchanges": [exchange._asdict() | {"durable": True} for exchange in EXCHANGES],
        "x-bindings": [binding._asdict() for binding in BINDINGS],
        "x-error-codes": {"failures": [code.value for code in ErrorCode], "refusals": dict(_refusals())},
    }


def _channel(type_: str, exchange: str) -> Document:
    """The channel that messages of a type are published to."""
    kinds = {exchange.name: exchange for exchange in EXCHANGES}
    binding: Document = {
        "is": "routingKey",
        "exchange": {"name": exchange, "type": kinds[exchange].kind, "durable": True, "autoDelete": False},
        **_BINDING,
    }
    if exchange == COMMANDS_EXCHANGE:
        binding |= {"x-alternate-exchange": kinds[exchange].alternate, "x-queue": queue_of(type_)}
        return {"address": type_} | _content(type_, binding)
    address = {"address": event_key("{tenant}", type_), "parameters": {"tenant": {"default": "default"}}}
    return address | _content(type_, binding)


def _content(type_: str, binding: Document) -> Document:
    return {"messages": {type_: _reference("messages", type_)}, "bindings": {"amqp": binding}}


def _queue(queue: str, types: tuple[str, ...]) -> Document:
    binding = {
        "is": "queue",
        "queue": {"name": queue, "durable": True, "exclusive": False, "autoDelete": False},
        **_BINDING,
    }
    return {
        "address": queue,
        "description": "A queue of the workers, who declare it. Publish to the exchange, not here.",
        "messages": {type_: _reference("messages", type_) for type_ in types},
        "bindings": {"amqp": binding},
    }


def _receive(type_: str) -> Document:
    reply = _reply_name(type_)
    return {
        "action": "receive",
        "channel": _reference("channels", type_, of="#"),
        "summary": _summary(type_),
        "messages": [_reference(f"channels/{type_}/messages", type_, of="#")],
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property `reply_to`, with `correlation_id`. Without it nothing is answered.",
            },
            "channel": _reference("channels", "replies", of="#"),
            "messages": [_reference("channels/replies/messages", reply, of="#")],
        },
    }


def _send(type_: str) -> Document:
    return {
        "action": "send",
        "channel": _reference("channels", type_, of="#"),
        "summary": _summary(type_),
        "messages": [_reference(f"channels/{type_}/messages", type_, of="#")],
        "bindings": {"amqp": {"deliveryMode": 2, **_BINDING}},
    }


def _messages() -> Document:
    messages = {
        type_: _message(type_, description(model), {"$ref": f"schemas/{type_}.json"})
        for type_, model in MESSAGES.items()
        if model is not Reply
    }
    for name, answer in _replies().items():
        answered = {"anyOf": [{"$ref": f"schemas/answers/{answer}.json"}, {"type": "null"}]}
        data = {"properties": {"data": {"properties": {"answer": answered}}}}
        payload = {"$schema": DIALECT, "allOf": [{"$ref": f"schemas/{Reply.type}.json"}, data]}
        messages[name] = _message(name, f"`answer` is {answer}, or there is an `error`.", payload)
    return messages


def _message(name: str, text: str, schema: Document) -> Document:
    return {
        "name": name,
        "description": text,
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "description": "Properties of AMQP.",
            "properties": {
                "message_id": {"type": "string", "description": "the `id` of the CloudEvent"},
                "correlation_id": {"type": "string"},
                "reply_to": {"type": "string"},
                "user_id": {"type": "string", "description": "the login, where workers serve tenants"},
            },
        },
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": schema},
    }


def _replies() -> dict[str, str]:
    """The names of answers, by the names of the replies that contain them."""
    return {_reply_name(type_): answer_name(type_) for type_ in REQUESTS}


def _reply_name(type_: str) -> str:
    return f"{Reply.type}.{answer_name(type_)}"


def _summary(type_: str) -> str:
    return _first_line(MESSAGES[type_])


def _first_line(documented: type) -> str:
    return inspect.cleandoc(documented.__doc__ or "").split("\n", maxsplit=1)[0]


def _reference(kind: str, name: str, *, of: str = "#/components") -> Document:
    return {"$ref": f"{of}/{kind}/{name}"}


_CLIENTS = (errors.InvalidWebhook, errors.NoAnswer, errors.PublishError, errors.RequestFailed, errors.SettingsError)


def _refusals(base: type[errors.DspexError] = errors.DspexError) -> Iterator[tuple[str, str]]:
    """The codes with which a worker refuses or answers a message. The others are errors of a client or its settings."""
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__ and not issubclass(error, _CLIENTS):
            if not error.__name__.startswith("_") and error.code != base.code:
                yield error.code, _first_line(error)
            yield from _refusals(error)
