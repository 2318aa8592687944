"""The names on the broker: exchanges, queues, and which command goes to which queue. Data only; workers declare it.

    dspex.commands (topic) ── create, initialize ──> dspex.programs
        │                  ── execute ─────────────> dspex.executions
        │                  ── all others ──────────> dspex.requests
        └─ alternate: dspex.unrouted (fanout) ─────> dspex.programs
    dspex.events (topic)   ── whatever listeners bind: `<tenant>.<type>`

The alternate exchange (https://www.rabbitmq.com/docs/ae) takes commands of a type without a binding. A worker gets them
and records them as rejected; without it they would vanish, or fail at the producer.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from dspex.contract.queues import EXECUTIONS_QUEUE as EXECUTIONS_QUEUE
from dspex.contract.queues import PROGRAMS_QUEUE as PROGRAMS_QUEUE
from dspex.contract.queues import REQUESTS_QUEUE as REQUESTS_QUEUE
from dspex.contract.requests import REQUESTS
from dspex.errors import UnknownMessageType

COMMANDS_EXCHANGE = "dspex.commands"
EVENTS_EXCHANGE = "dspex.events"
UNROUTED_EXCHANGE = "dspex.unrouted"


class Exchange(NamedTuple):
    """A durable exchange. Messages that it cannot route go to the exchange `alternate`, if one is named."""

    name: str
    kind: Literal["topic", "fanout"]
    alternate: str | None = None


class Binding(NamedTuple):
    """`exchange` puts messages with this routing key into `queue`. A fanout exchange ignores the key."""

    exchange: str
    queue: str
    routing_key: str


EXCHANGES = (
    Exchange(UNROUTED_EXCHANGE, "fanout"),
    Exchange(COMMANDS_EXCHANGE, "topic", alternate=UNROUTED_EXCHANGE),
    Exchange(EVENTS_EXCHANGE, "topic"),
)
"""In the order of declaration: an alternate exchange comes before the one that names it."""

QUEUES: dict[str, tuple[str, ...]] = {
    queue: tuple(type_ for type_, command in REQUESTS.items() if command.queue_name == queue)
    for queue in (PROGRAMS_QUEUE, EXECUTIONS_QUEUE, REQUESTS_QUEUE)
}
"""Each durable queue and the types of the commands it takes (see `Command.queue_name`)."""
QUEUES[REQUESTS_QUEUE] = tuple(sorted(QUEUES[REQUESTS_QUEUE]))  # in the order of the contract's document

BINDINGS = (
    *(Binding(COMMANDS_EXCHANGE, queue, type_) for queue, types in QUEUES.items() for type_ in types),
    Binding(UNROUTED_EXCHANGE, PROGRAMS_QUEUE, ""),
)


def event_key(tenant: str, event_type: str) -> str:
    """The routing key of an event: `acme.dspex.execution.completed.v1`; a system without tenants uses `default`.

    The tenant is the first word, so that the broker's topic permissions can keep tenants apart. For a binding, both
    arguments may be patterns: `event_key("acme", "#")`, `event_key("*", "dspex.execution.*.v1")`.
    """
    # Older tenants may have dots in their names. A dot would end the first word, and so name another tenant.
    return f"{tenant.replace('.', '%2E')}.{event_type}"


def queue_of(command_type: str) -> str:
    """The queue that a command of this type (`dspex.program.execute.v1`) goes to.

    Raises:
        UnknownMessageType: no command has this type.
    """
    command = REQUESTS.get(command_type)
    if command is None:
        raise UnknownMessageType(f"type: {command_type[:100]!r} is not a command")
    return command.queue_name
