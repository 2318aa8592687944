"""The table of names on the broker is complete and consistent."""

import pytest

from dspex.amqp.topology import (
    BINDINGS,
    COMMANDS_EXCHANGE,
    EXCHANGES,
    EXECUTIONS_QUEUE,
    PROGRAMS_QUEUE,
    QUEUES,
    REQUESTS_QUEUE,
    UNROUTED_EXCHANGE,
    event_key,
    queue_of,
)
from dspex.contract.requests import REQUESTS
from dspex.errors import UnknownMessageType


@pytest.mark.parametrize(
    ("command_type", "queue"),
    [
        ("dspex.signature.create.v1", "dspex.programs"),
        ("dspex.program.create.v1", "dspex.programs"),
        ("dspex.program.initialize.v1", "dspex.programs"),
        ("dspex.program.execute.v1", "dspex.executions"),
        ("dspex.execution.get.v1", "dspex.requests"),
    ],
)
def test_where_commands_go(command_type: str, queue: str) -> None:
    assert queue_of(command_type) == queue


@pytest.mark.parametrize(
    ("tenant", "key"),
    [("acme", "acme.dspex.program.ready.v1"), ("acme.eu", "acme%2Eeu.dspex.program.ready.v1")],
)
def test_the_first_word_of_an_events_key_is_its_tenant(tenant: str, key: str) -> None:
    assert event_key(tenant, "dspex.program.ready.v1") == key


def test_every_command_goes_to_one_queue() -> None:
    bound = [type_ for types in QUEUES.values() for type_ in types]
    assert sorted(bound) == sorted(REQUESTS)


def test_an_unknown_type_has_no_queue() -> None:
    with pytest.raises(UnknownMessageType, match=r"'dspex\.nothing\.v1'"):
        queue_of("dspex.nothing.v1")


def test_what_no_queue_is_bound_for_reaches_a_worker() -> None:
    alternates = {exchange.name: exchange.alternate for exchange in EXCHANGES}
    assert alternates == {COMMANDS_EXCHANGE: UNROUTED_EXCHANGE, UNROUTED_EXCHANGE: None, "dspex.events": None}
    assert (UNROUTED_EXCHANGE, PROGRAMS_QUEUE, "") in BINDINGS
    names = [exchange.name for exchange in EXCHANGES]
    assert names.index(UNROUTED_EXCHANGE) < names.index(COMMANDS_EXCHANGE)


def test_bindings_join_what_is_there() -> None:
    assert {binding.exchange for binding in BINDINGS} <= {exchange.name for exchange in EXCHANGES}
    assert {binding.queue for binding in BINDINGS} == {PROGRAMS_QUEUE, EXECUTIONS_QUEUE, REQUESTS_QUEUE} == set(QUEUES)
