"""Explains in one line why RabbitMQ cannot be used, or not safely. No text contains the URL's password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pika import URLParameters, exceptions

from dspex.amqp.errors import Permissions, address, cause, permission, refusal
from workers.brokers.topology import QueueType

WORKER_PERMISSIONS = Permissions(r"^dspex\.", r"^(dspex\.|amq\.default$)", r"^dspex\.")
"""For workers, which declare the topology, and answer through the default exchange."""

SAFE_MAJOR = 4
"""From this version on, RabbitMQ does not trust x-death headers that clients set."""

PRECONDITION_FAILED = 406
_INEQUIVALENT = re.compile(r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)'")
_CURRENT_TYPE = re.compile(r"current is (?:the value )?'(\w+)'")


def explain(error: BaseException, parameters: URLParameters, queue_type: QueueType) -> str:
    """Explain an error of pika."""
    said = _precondition(error)
    if "delivery acknowledgement" in said:
        return (
            f"RabbitMQ's consumer_timeout closed the channel: messages waited too long behind running jobs, and are "
            f"delivered again ({_timeout(said)}); raise it there, or lower DSPEX_PREFETCH"
        )
    conflict = _INEQUIVALENT.search(said)
    if conflict and conflict["argument"] == "x-queue-type":
        current = _CURRENT_TYPE.search(said)
        return _other_type(conflict["name"], current[1] if current else "classic", queue_type)
    if conflict:
        return (
            f"DSPEX_BROKER_URL: {conflict['kind']} '{conflict['name']}' exists with another {conflict['argument']}: "
            "delete it once nothing is in it, or use a virtual host of DSPex's own"
        )
    missing = permission(error, parameters, WORKER_PERMISSIONS)
    if missing:
        return f"DSPEX_BROKER_URL: {address(parameters)}: {missing}"
    return f"DSPEX_BROKER_URL: {refusal(error, parameters, WORKER_PERMISSIONS) or _unreachable(error, parameters)}"


def weakness(server: Mapping[str, Any]) -> str | None:
    """A known weakness of this version of the broker that producers can exploit; None if there is none.

    Args:
        server: the server properties that the broker sent when connecting.
    """
    product, version = (_text(server.get(name)) for name in ("product", "version"))
    major = re.match(r"(\d{1,4})\.", version)
    if product != "RabbitMQ" or major is None or int(major[1]) >= SAFE_MAJOR:
        return None
    return (
        f"The broker is RabbitMQ {version[:20]}: before {SAFE_MAJOR}, every producer can crash a queue by a message "
        "that expires and has a forged header x-death. Workers cannot prevent it: use RabbitMQ 4, or make sure that "
        "all producers can be trusted. See docs/security.md"
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _precondition(error: BaseException) -> str:
    closed = isinstance(error, exceptions.ChannelClosedByBroker) and error.reply_code == PRECONDITION_FAILED
    return str(getattr(error, "reply_text", "")) if closed else ""


def _timeout(said: str) -> str:
    found = re.search(r"\d+ ms", said)
    return found[0] if found else "see its log"


def _other_type(queue: str, current: str, wanted: QueueType) -> str:
    return (
        f"DSPEX_QUEUE_TYPE: queue '{queue}' is of type {current}, not {wanted}: set DSPEX_QUEUE_TYPE={current}, or "
        f"replace DSPex's queues: let workers with {current} empty them, stop all, and delete each with "
        f"`rabbitmqctl delete_queue {queue}`"
    )


def _unreachable(error: Any, parameters: URLParameters) -> str:
    if isinstance(error, StopIteration):
        return f"{address(parameters)} cancelled the consumer; was the queue deleted?"
    return f"{address(parameters)}: {cause(error, parameters)}"
