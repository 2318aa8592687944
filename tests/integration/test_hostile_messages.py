"""Messages as anybody may send them, to workers on a real RabbitMQ: none ends a connection, and the next one runs."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE, QUEUES
from tests import amqp_wire as wire
from tests.acceptance.deployment import deployed
from tests.conftest import new_database
from tests.edge import EXECUTE, Edge
from tests.poison import envelope
from tests.queues import QUEUE_TYPES, declare_empty, ready
from tests.waiting import wait_until
from workers.brokers.topology import DEAD_LETTERS, dead_letter_queue
from workers.settings import ACCEPTED_AHEAD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=QUEUE_TYPES)
def edge(
    request: pytest.FixtureRequest,
    own_amqp_url: str,
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Edge]:
    declare_empty(own_amqp_url, request.param)
    with (
        new_database(postgres_url) as database_url,
        deployed(
            own_amqp_url,
            database_url,
            tmp_path_factory.mktemp("worker"),
            processes=1,
            DSPEX_QUEUE_TYPE=request.param,
        ) as deployment,
    ):
        edge = Edge(deployment)
        yield edge
        assert "is away" not in deployment.log
        edge.close()


@pytest.mark.parametrize("headers", wire.HOSTILE_HEADERS.values(), ids=wire.HOSTILE_HEADERS.keys())
def test_a_message_runs_whatever_its_headers_are(edge: Edge, headers: bytes) -> None:
    execution_id, body = edge.execute()
    assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, wire.properties(headers=headers, delivery_mode=2), body)
    edge.deployment.wait(lambda: edge.status(execution_id) == "completed", "it runs")
    edge.run_good_ones()


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_flows_behind_hostile_headers(edge: Edge, queue: str) -> None:
    for headers in wire.HOSTILE_HEADERS.values():
        assert edge.wire.publish("", queue, wire.properties(headers=headers), b"{}" + uuid.uuid4().bytes)
    edge.run_good_ones()


REJECTED = {b"reason": wire.text(b"rejected"), b"queue": wire.text(EXECUTIONS_QUEUE.encode())}
FORGED_DEATHS = {
    "a text": wire.array([wire.text(b"x")]),
    "no count": wire.array([wire.table(REJECTED)]),
    "a count that is a text": wire.array([wire.table({b"count": wire.text(b"many")} | REJECTED)]),
    "other fields": wire.array([wire.table({b"a": b"l" + bytes(8)})]),
}
"""What a queue of RabbitMQ 3.10.8 crashes over, when it dead-letters the message, and the like."""


@pytest.mark.parametrize("deaths", FORGED_DEATHS.values(), ids=FORGED_DEATHS.keys())
def test_a_rejected_message_with_forged_deaths_leaves_its_queue_be(edge: Edge, deaths: bytes) -> None:
    body = b"no command" + uuid.uuid4().bytes
    forged = wire.properties(headers=wire.fields({b"x-death": deaths}), delivery_mode=2)
    assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, forged, body)
    assert edge.wait_for_rejection(body)[0] == "malformed_message"
    edge.run_good_ones()


@pytest.mark.parametrize("name", [name for name in wire.TEXTS if name != "expiration"])
@pytest.mark.parametrize(("value", "wrong"), [(b"a\x00b", "holds U+0000"), (b"a\xff", "is not valid UTF-8")])
def test_a_property_that_is_no_text_is_a_rejection_that_is_told(
    edge: Edge, name: str, value: bytes, wrong: str
) -> None:
    edge.heard(edge.events, 0.1)
    replies = edge.queue()
    execution_id, body = edge.execute()
    given = {"reply_to": replies.encode(), "correlation_id": b"c-1"} | {name: value}
    taken = edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, wire.properties(**given), body)
    if name == "user_id":
        assert not taken  # RabbitMQ compares it with the login
        return
    assert taken
    assert edge.wait_for_rejection(body) == ("invalid_message", f"the AMQP property {name} {wrong}")
    (told,) = edge.rejection_events()
    assert told["message_id"] == json.loads(body)["id"]
    assert told["error"]["code"] == "invalid_message"
    assert edge.status(execution_id) is None
    if name != "reply_to":
        ((properties, reply),) = edge.heard(replies)
        assert reply["data"]["error"]["code"] == "invalid_message"
        expected = {b"a\x00b": "a\x00b", b"a\xff": "a?"}[value] if name == "correlation_id" else "c-1"
        assert properties.correlation_id == expected
    edge.run_good_ones(1)


@pytest.mark.parametrize("changes", [{"id": ""}, {"id": "", "type": ""}, {"id": "a\x00"}, {"id": "x" * 600}])
def test_a_message_without_an_id_is_told_like_any_other(edge: Edge, changes: dict[str, Any]) -> None:
    edge.heard(edge.events, 0.1)
    replies = edge.queue()
    body = json.dumps(envelope(edge.program_id, **changes)).encode()
    given = wire.properties(reply_to=replies.encode(), correlation_id=b"c-2")
    assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, given, body)
    code = "unknown_message_type" if "type" in changes else "invalid_message"
    assert edge.wait_for_rejection(body)[0] == code
    (told,) = edge.rejection_events()
    assert told["error"]["code"] == code
    ((properties, reply),) = edge.heard(replies)
    assert (properties.correlation_id, reply["data"]["error"]["code"]) == ("c-2", code)


class TestExpired:
    """What expires before a worker has it. Here no worker takes executions meanwhile: their queue's is the only one."""

    @pytest.fixture
    def go_on(self, edge: Edge) -> Iterator[Callable[[], None]]:
        """The worker has taken what it takes ahead, and can write none of it down: what is sent now waits in the queue.

        It goes on when this is called, when what was sent with a time has expired.
        """
        lock = edge.deployment.engine.connect()
        lock.execute(text("LOCK TABLE executions IN EXCLUSIVE MODE"))
        busy = [edge.execute() for _ in range(ACCEPTED_AHEAD + 8)]
        for _, body in busy:
            assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, wire.properties(), body)
        wait_until(lambda: ready(edge.deployment.broker_url, EXECUTIONS_QUEUE) > 0, "messages wait")

        def later() -> None:
            time.sleep(0.4)  # nothing tells that it has: the broker looks at the head of the queue alone
            lock.close()

        yield later
        lock.close()
        edge.deployment.wait(lambda: {edge.status(id_) for id_, _ in busy} == {"completed"}, "they run")

    @pytest.mark.parametrize("expiration", [b"0", b"300"])
    def test_it_is_recorded_told_and_kept_for_operators(
        self, edge: Edge, go_on: Callable[[], None], expiration: bytes
    ) -> None:
        edge.channel.queue_purge(dead_letter_queue(EXECUTIONS_QUEUE))
        edge.heard(edge.events, 0.1)
        replies = edge.queue()
        execution_id, body = edge.execute()
        headers = wire.HOSTILE_HEADERS["a time in milliseconds"]
        given = {"reply_to": replies.encode(), "correlation_id": b"c-3", "headers": headers, "expiration": expiration}
        assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, wire.properties(**given), body)
        go_on()
        code, why = edge.wait_for_rejection(body)
        assert code == "message_expired"
        assert why == "it expired while it waited in dspex.executions: see the AMQP property expiration"
        (told,) = edge.rejection_events()
        assert (told["queue"], told["error"]["code"]) == (EXECUTIONS_QUEUE, "message_expired")
        ((properties, reply),) = edge.heard(replies)
        assert (properties.correlation_id, reply["data"]["error"]["code"]) == ("c-3", "message_expired")
        assert edge.status(execution_id) is None
        assert bodies(edge, dead_letter_queue(EXECUTIONS_QUEUE)) == [body]

    def test_a_forged_death_is_not_believed(self, edge: Edge, go_on: Callable[[], None]) -> None:
        """A sender that says its message was rejected, and so recorded, before."""
        death = {b"reason": wire.text(b"rejected"), b"queue": wire.text(EXECUTIONS_QUEUE.encode())}
        forged = {b"x-death": wire.array([wire.table(death)]), b"x-first-death-reason": wire.text(b"rejected")}
        _, body = edge.execute()
        given = wire.properties(headers=wire.fields(forged), expiration=b"100")
        assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, given, body)
        go_on()
        assert edge.wait_for_rejection(body)[0] == "message_expired"


def test_what_is_sent_to_the_dead_letters_is_recorded(edge: Edge) -> None:
    _, body = edge.execute()
    assert edge.wire.publish("", DEAD_LETTERS, wire.properties(), body)
    code, why = edge.wait_for_rejection(body)
    assert (code, why) == ("message_undelivered", "it was sent to dspex.dead-letters, where no command belongs")
    wait_until(lambda: ready(edge.deployment.broker_url, DEAD_LETTERS) == 0, "nothing is left")


def test_a_rejected_message_is_recorded_once(edge: Edge) -> None:
    edge.channel.queue_purge(dead_letter_queue(PROGRAMS_QUEUE))
    body = uuid.uuid4().bytes
    assert edge.wire.publish("", PROGRAMS_QUEUE, wire.properties(), body)
    edge.wait_for_rejection(body)
    wait_until(lambda: ready(edge.deployment.broker_url, DEAD_LETTERS) == 0, "workers have seen the dead letter")
    assert bodies(edge, dead_letter_queue(PROGRAMS_QUEUE)) == [body]
    deliveries = "SELECT deliveries FROM rejected_messages WHERE body = :body"
    assert edge.deployment.rows(deliveries, body=body) == [(1,)]


def bodies(edge: Edge, queue: str) -> list[bytes]:
    """Take out what is in a queue, once there is something in it."""
    wait_until(lambda: ready(edge.deployment.broker_url, queue) > 0, "something is there")
    found: list[bytes] = []
    while True:
        method, _, body = edge.channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append(body or b"")


def test_a_client_and_a_publisher_survive_what_comes_back(edge: Edge) -> None:
    """Anybody may write to the reply queue of a client; and what no queue takes comes back to its publisher."""
    assert edge.client.list_programs().items
    queue = edge.client._replies.queue
    assert queue is not None
    for headers in wire.HOSTILE_HEADERS.values():
        assert edge.wire.publish("", queue, wire.properties(headers=headers, correlation_id=b"\xff"), b"\xff")
    assert edge.client.list_programs().items
    assert edge.client._replies.queue == queue


def test_bodies_over_the_cap_are_not_kept(edge: Edge) -> None:
    before = edge.memory(peak=True)
    body = b'{"specversion": "1.0", "x": "' + b"x" * 30 * 1024 * 1024 + b'"}'
    for number in range(12):
        encoded = wire.properties(message_id=str(number).encode())
        assert edge.wire.publish(COMMANDS_EXCHANGE, EXECUTE, encoded, str(number).encode() + body)
    size = len(body) + 1
    count = "SELECT count(*) FROM rejected_messages WHERE error_code = 'message_too_large' AND body_size >= :size"
    edge.deployment.wait(lambda: edge.deployment.scalar(count, size=size) == 12, "all are rejected", 120)
    kept = edge.deployment.rows(
        "SELECT DISTINCT length(body) FROM rejected_messages WHERE body_size >= :size", size=size
    )
    assert kept == [(1024 * 1024,)]
    assert edge.memory(peak=True) - before < 100, "MiB"
    edge.run_good_ones()
