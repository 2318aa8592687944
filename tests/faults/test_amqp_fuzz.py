"""Thousands of messages by chance, to a worker on RabbitMQ: after them every queue flows, and each has its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import pytest

from dspex.amqp.topology import QUEUES
from tests.acceptance.deployment import deployed
from tests.conftest import new_database
from tests.edge import Edge
from tests.faults.fuzzing import Fuzzed, Fuzzer
from tests.queues import QUEUE_TYPES, declare_empty, ready
from tests.sizes import sized
from workers.brokers.topology import DEAD_LETTERS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SEED = 13
MESSAGES = sized(600, 5000)
MEBIBYTES = 60
"""What a worker may have grown by, from after the first fifth of the messages to after the last."""


@pytest.fixture(scope="module", params=QUEUE_TYPES)
def edge(
    request: pytest.FixtureRequest, own_amqp_url: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    declare_empty(own_amqp_url, request.param)
    directory = tmp_path_factory.mktemp("worker")
    with (
        new_database(postgres_url) as database_url,
        deployed(own_amqp_url, database_url, directory, processes=1, DSPEX_QUEUE_TYPE=request.param) as deployment,
    ):
        edge = Edge(deployment)
        yield edge
        edge.close()


def test_each_message_has_its_end_and_nothing_else_has(edge: Edge) -> None:
    edge.run_good_ones(20)
    processes = set(edge.workers())
    ends = Ends(edge)
    fuzzer = Fuzzer(SEED, edge.program_id, ends.replies)
    began = monotonic()
    taken = send(edge, fuzzer, MESSAGES // 5)
    ends.wait_for(taken)
    before = edge.memory()
    taken += send(edge, fuzzer, MESSAGES - MESSAGES // 5)
    ends.wait_for(taken)
    after = edge.memory()

    found = Counter(ends.of(taken))
    print(f"{dict(found)} in {monotonic() - began:.0f} s; {before:.0f} MiB, then {after:.0f}")
    assert set(found) <= {"ran", "rejected", "answered"}
    assert min(found["ran"], found["rejected"]) > MESSAGES / 10
    assert len(taken) > MESSAGES * 0.8
    assert after - before < MEBIBYTES, f"{before:.0f} MiB, then {after:.0f}"

    edge.run_good_ones(20)
    assert set(edge.workers()) == processes  # one that loses a thread ends, and another takes its place
    assert "is away" not in edge.deployment.log
    assert "Traceback" not in edge.deployment.log


def send(edge: Edge, fuzzer: Fuzzer, number: int) -> list[Fuzzed]:
    """Send so many; returns those that the broker took."""
    made = (fuzzer.message() for _ in range(number))
    return [m for m in made if edge.wire.publish(m.exchange, m.routing_key, m.properties, m.body)]


class Ends:
    """What became of messages: each ran, is recorded as rejected, or was refused in an answer to whoever asked."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.replies = edge.queue()
        self._answered: set[str] = set()

    def wait_for(self, taken: list[Fuzzed]) -> None:
        """Wait until the queues are empty, and each of these has an end."""
        url, wait = self._edge.deployment.broker_url, self._edge.deployment.wait
        wait(lambda: not any(ready(url, queue) for queue in (*QUEUES, DEAD_LETTERS)), "the queues flow", 900)
        with suppress(AssertionError):
            wait(lambda: "none" not in self.of(taken), "each has its end", 60)
        without = [message for message, end in zip(taken, self.of(taken), strict=True) if end == "none"]
        assert not without, f"{len(without)} have no end, the first is {without[0]}"[:3000]

    def of(self, taken: list[Fuzzed]) -> list[str]:
        """The end of each: `ran`, `rejected`, `answered`, or what should not be, in full."""
        rows = self._edge.deployment.rows
        ran = {str(id_) for (id_,) in rows("SELECT id FROM executions")}
        rejected = defaultdict[str, list[str]](list)
        for digest, code, deliveries in rows("SELECT md5(body), error_code, deliveries FROM rejected_messages"):
            rejected[digest] += [code] * deliveries
        self._answered |= {properties.correlation_id for properties, _ in self._edge.heard(self.replies, 0)}
        return [self._end(message, message.execution_id in ran, rejected[message.digest]) for message in taken]

    def _end(self, message: Fuzzed, ran: bool, codes: list[str]) -> str:
        if ran + len(codes) > 1:
            return f"{ran=}, {codes}: {message}"[:2000]
        if ran or codes:
            return "ran" if ran else "rejected"
        return "answered" if message.correlation_id in self._answered else "none"
