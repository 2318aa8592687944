"""AmqpBroker on a real RabbitMQ: what happens to jobs whose connection, or whose broker, goes away under them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pika
import pika.exceptions
import pytest

from deploy.local_servers import RabbitMQServer
from deploy.processes import free_port, wait_until
from dspex import InitializeProgram, uuid7, wrap
from dspex.amqp.connection import connect
from dspex.amqp.errors import CONNECTION_ERRORS
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE, QUEUES
from dspex.contract.commands import Command
from dspex.contract.envelope import MAX_MESSAGE_BYTES, Envelope
from dspex.errors import BrokerUnavailable
from tests import queues
from tests.conftest import private
from tests.queues import QUEUE_TYPES, declare_empty
from tests.tcp_proxy import TcpProxy
from tests.virtual_hosts import RabbitMQWithHosts
from workers.brokers import amqp, subscription
from workers.brokers.amqp import AmqpBroker
from workers.brokers.encoding import CloudEventEncoder, Origin
from workers.brokers.settlement import ack_early
from workers.brokers.topology import QueueType, _warn, dead_letter_queue

pytestmark = pytest.mark.integration

PATIENCE = 60.0


@pytest.fixture(scope="module")
def impatient(servers_directory: Path) -> Iterator[RabbitMQServer]:
    """A RabbitMQ with a consumer_timeout of a second, which it looks at twice a second."""
    for make in private(ImpatientServer, servers_directory):
        yield make()


class ImpatientServer(RabbitMQServer):
    def prepare(self) -> None:
        super().prepare()
        self._write("advanced.config", "[{rabbit, [{consumer_timeout, 1000}, {channel_tick_interval, 500}]}].\n")


@pytest.fixture(scope="module", params=QUEUE_TYPES)
def queue_type(request: pytest.FixtureRequest) -> QueueType:
    kind: QueueType = request.param
    return kind


@pytest.fixture
def url(own_rabbitmq: RabbitMQWithHosts, queue_type: QueueType) -> str:
    """The URL of the broker, with the topology declared and nothing in it."""
    declare_empty(own_rabbitmq.url, queue_type)
    return own_rabbitmq.url


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    encoder = dramatiq.get_encoder()
    dramatiq.set_encoder(CloudEventEncoder())
    yield
    dramatiq.set_encoder(encoder)


class Jobs:
    """A worker over RabbitMQ whose every job enters, waits until the test lets it end, and ends, or fails.

    With `early`, a job acks its message as it enters.
    """

    def __init__(self, url: str, queue_type: QueueType, *, threads: int, prefetch: int | None, early: bool) -> None:
        self.entered: list[str] = []
        self.ended: list[str] = []
        self.failing: set[int] = set()
        self._gates: list[threading.Event] = []
        self._lock = threading.Lock()
        self._publisher = AmqpPublisher(url)
        self.broker = AmqpBroker(url, self._publisher, max_bytes=MAX_MESSAGE_BYTES, queue_type=queue_type)

        def handle(envelope: Envelope[Command], body: bytes, origin: Origin) -> None:
            gate = threading.Event()
            with self._lock:
                number = len(self.entered)
                self.entered.append(envelope.id)
                self._gates.append(gate)
            if early:
                ack_early()
            assert gate.wait(PATIENCE)
            self.ended.append(envelope.id)
            if number in self.failing:
                raise RuntimeError("told to fail")

        dramatiq.actor(actor_name=InitializeProgram.type, queue_name=PROGRAMS_QUEUE, broker=self.broker)(handle)
        self.worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=50)
        self.worker.queue_prefetch = prefetch or threads
        self.worker.start()

    def wait_for(self, entered: int) -> None:
        assert wait_until(lambda: len(self.entered) >= entered, PATIENCE), self.entered

    def let_end(self, *numbers: int) -> None:
        """Let these jobs end, in the order in which they entered; returns when they have ended."""
        before = len(self.ended)
        for number in numbers:
            self._gates[number].set()
        assert wait_until(lambda: len(self.ended) == before + len(numbers), PATIENCE)

    def let_all_end(self, until: Callable[[], bool]) -> None:
        """Let whatever enters end at once, until a condition holds."""

        def open_all() -> bool:
            with self._lock:
                for gate in self._gates:
                    gate.set()
            return until()

        assert wait_until(open_all, PATIENCE)

    def stop(self) -> None:
        with self._lock:
            for gate in self._gates:
                gate.set()
        self.worker.stop(10_000)
        self._publisher.close(timeout=1)


@pytest.fixture
def run(queue_type: QueueType) -> Iterator[Callable[..., Jobs]]:
    started: list[Jobs] = []

    def run(url: str, *, threads: int = 8, prefetch: int | None = None, early: bool = False) -> Jobs:
        started.append(Jobs(url, queue_type, threads=threads, prefetch=prefetch, early=early))
        return started[-1]

    yield run
    for jobs in started:
        jobs.stop()


def send(url: str, number: int) -> list[str]:
    envelopes = [wrap(InitializeProgram(program_id=uuid7()), source="/tests") for _ in range(number)]
    publisher = AmqpPublisher(url)
    for envelope in envelopes:
        publisher.publish(Publication(envelope.encode(), exchange=COMMANDS_EXCHANGE, routing_key=envelope.type))
    publisher.close()
    return [envelope.id for envelope in envelopes]


def ready(url: str, queue: str = PROGRAMS_QUEUE) -> int:
    return queues.ready(url, queue)


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """The lines of the log that have this text."""
    return [line for line in caplog.messages if text in line]


class TestAConnectionIsCut:
    def test_jobs_of_the_old_connection_settle_nothing_of_the_new_one(self, url: str, run: Callable[..., Jobs]) -> None:
        """The tags of the old channel are numbers of other messages on the new one, which still run."""
        with TcpProxy(url) as proxy:
            jobs = run(proxy.url, threads=8)
            ids = send(url, 4)
            jobs.wait_for(entered=4)
            proxy.cut()
            jobs.wait_for(entered=8)  # the broker has delivered the same four again, as 1 to 4 of the new channel
            assert Counter(jobs.entered) == dict.fromkeys(ids, 2)
            jobs.let_end(0, 1, 2, 3)
            ids += send(url, 1)
            jobs.wait_for(entered=9)  # whatever was sent before has arrived
            proxy.hold()
            proxy.cut()  # the second four and the fifth are not settled: a crash now
            assert wait_until(lambda: ready(url) == 5, PATIENCE), "a message that still ran was acked"
            proxy.release()
            jobs.let_all_end(lambda: ready(url) == 0 and len(jobs.ended) >= 14)
            jobs.stop()
            assert ready(url) == 0
            assert ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0
            assert set(jobs.ended) == set(ids)

    def test_failures_of_the_old_connection_dead_letter_nothing_of_the_new_one(
        self, url: str, run: Callable[..., Jobs]
    ) -> None:
        with TcpProxy(url) as proxy:
            jobs = run(proxy.url, threads=4)
            jobs.failing = {0}
            send(url, 1)
            jobs.wait_for(entered=1)
            proxy.cut()
            jobs.wait_for(entered=2)
            jobs.let_end(0)
            send(url, 1)
            jobs.wait_for(entered=3)
            assert ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0
            jobs.let_end(1, 2)
            jobs.stop()
            assert ready(url) == ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0

    def test_many_cuts_lose_nothing(self, url: str, run: Callable[..., Jobs]) -> None:
        with TcpProxy(url) as proxy:
            jobs = run(proxy.url, threads=4)
            ids = send(url, 200)
            for part in range(1, 5):
                jobs.let_all_end(lambda part=part: len(jobs.ended) >= 40 * part)  # type: ignore[misc]
                proxy.cut()
            jobs.let_all_end(lambda: set(jobs.ended) == set(ids))
            jobs.let_all_end(lambda: ready(url) == 0)
            assert proxy.accepted > 4
            assert all(thread.is_alive() for thread in (*jobs.worker.workers, *jobs.worker.consumers.values()))
            jobs.stop()
            assert ready(url) == 0

    def test_stop_over_a_connection_that_is_gone(self, url: str, run: Callable[..., Jobs]) -> None:
        with TcpProxy(url) as proxy:
            jobs = run(proxy.url, threads=2)
            send(url, 5)
            jobs.wait_for(entered=2)
            proxy.hold()
            proxy.cut()
            jobs.stop()
            assert wait_until(lambda: ready(url) == 5, PATIENCE)


def test_a_loss_that_an_ack_has_met_is_a_loss_to_whoever_waits(own_rabbitmq: RabbitMQWithHosts) -> None:
    with TcpProxy(own_rabbitmq.url) as proxy:
        connection = connect(amqp.connection_parameters(proxy.url), MAX_MESSAGE_BYTES)
        channel = connection.channel()
        deliveries = channel.consume(channel.queue_declare("", exclusive=True).method.queue, inactivity_timeout=0.05)
        assert next(deliveries) == (None, None, None)
        proxy.cut()
        with pytest.raises(CONNECTION_ERRORS):
            connection.process_data_events(time_limit=PATIENCE)
        with pytest.raises(CONNECTION_ERRORS, match="the connection is closed"):
            next(deliveries)


def test_a_job_that_is_longer_than_the_heartbeat_keeps_its_connection(url: str, run: Callable[..., Jobs]) -> None:
    with TcpProxy(url) as proxy:
        jobs = run(f"{proxy.url}?heartbeat=1", threads=1)
        send(url, 1)
        jobs.wait_for(entered=1)
        accepted = proxy.accepted
        consumer: Any = jobs.worker.consumers[PROGRAMS_QUEUE].consumer
        heart = consumer._subscription._connection._impl._heartbeat_checker
        # The broker sends two in a heartbeat's time, and gives up a connection that is silent for two.
        assert wait_until(lambda: heart._heartbeat_frames_received >= 8, PATIENCE)
        jobs.let_end(0)
        jobs.stop()
        assert proxy.accepted == accepted
        assert len(jobs.entered) == 1
        assert ready(url) == 0


def test_a_broker_that_is_killed_and_comes_back(
    own_rabbitmq: RabbitMQWithHosts, url: str, run: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workers")
    jobs = run(url, threads=8)
    ids = send(url, 4)
    jobs.wait_for(entered=4)
    own_rabbitmq.kill()
    own_rabbitmq.start()
    jobs.wait_for(entered=5)
    assert told(caplog, "is back after")
    away = told(caplog, "is away")
    assert 1 <= len(away) == len(set(away)) < 5  # each reason once, whatever the number of tries
    assert all("DSPEX_BROKER_URL: RabbitMQ at 127.0.0.1" in line for line in away)
    assert told(caplog, "Consumer encountered") == []
    later = send(url, 6)
    jobs.let_all_end(lambda: set(jobs.ended) == {*ids, *later} and ready(url) == 0)
    assert all(thread.is_alive() for thread in (*jobs.worker.workers, *jobs.worker.consumers.values()))
    jobs.stop()
    assert ready(url) == 0


def test_a_consumer_that_is_refused_leaves_no_connection(url: str, run: Callable[..., Jobs]) -> None:
    """Where the topology cannot be declared, every attempt closes what it has opened."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_delete(COMMANDS_EXCHANGE)
        channel.exchange_declare(COMMANDS_EXCHANGE, "fanout")
    try:
        with TcpProxy(url) as proxy:
            jobs = run(proxy.url, threads=1)
            assert wait_until(lambda: proxy.accepted >= 5, PATIENCE)
            jobs.stop()
            assert wait_until(lambda: proxy.open == 0, PATIENCE)
    finally:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().exchange_delete(COMMANDS_EXCHANGE)


def test_a_queue_that_is_deleted_is_declared_again(
    url: str, run: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workers")
    jobs = run(url, threads=1)
    ids = send(url, 1)
    jobs.let_all_end(lambda: jobs.ended == ids)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(PROGRAMS_QUEUE)
    assert wait_until(lambda: bool(told(caplog, "was the queue deleted?")), PATIENCE)
    assert wait_until(lambda: bool(told(caplog, "is back")), PATIENCE)
    ids = send(url, 1)
    jobs.let_all_end(lambda: set(ids) <= set(jobs.ended))


class TestConsumerTimeout:
    @pytest.fixture
    def url(self, impatient: RabbitMQServer, queue_type: QueueType) -> str:
        declare_empty(impatient.url, queue_type)
        return impatient.url

    def test_what_waited_behind_a_long_job_runs_once(
        self, url: str, run: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "workers")
        jobs = run(url, threads=1, prefetch=4, early=True)
        ids = send(url, 5)
        jobs.wait_for(entered=1)
        # The four others wait with the worker: the channel is closed over them, again and again.
        assert wait_until(lambda: len(told(caplog, "is back")) >= 2, PATIENCE)
        assert wait_until(lambda: jobs.worker.work_queue.qsize() == 4, PATIENCE), "they are there more than once"
        away = told(caplog, "is away")
        assert all("consumer_timeout" in line and "(1000 ms)" in line for line in away), away
        assert told(caplog, "Consumer encountered") == []
        jobs.let_all_end(lambda: len(jobs.ended) >= 5 and ready(url) == 0)
        jobs.stop()
        assert Counter(jobs.entered) == dict.fromkeys(ids, 1)
        assert ready(url) == ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0


class TestQueueType:
    def test_the_other_type_is_told_and_waited_for(
        self, url: str, queue_type: QueueType, run: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
    ) -> None:
        (other,) = set(QUEUE_TYPES) - {queue_type}
        declare_empty(url, other)
        jobs = run(url, threads=1)
        assert wait_until(lambda: bool(told(caplog, "is away")), PATIENCE)
        (line,) = told(caplog, "is away")
        assert f"'{dead_letter_queue(PROGRAMS_QUEUE)}' is of type {other}, not {queue_type}" in line
        assert f"set DSPEX_QUEUE_TYPE={other}, or replace" in line
        declare_empty(url, queue_type)
        ids = send(url, 1)
        jobs.let_all_end(lambda: jobs.ended == ids)

    def test_check_tells_the_same(self, url: str, queue_type: QueueType) -> None:
        (other,) = set(QUEUE_TYPES) - {queue_type}
        with pytest.raises(BrokerUnavailable, match=f"^DSPEX_QUEUE_TYPE: .*set DSPEX_QUEUE_TYPE={queue_type}, or"):
            amqp.check(url, other)
        amqp.check(url, queue_type)

    def test_what_never_started_is_not_dead_lettered(self, url: str, run: Callable[..., Jobs]) -> None:
        """However often it was delivered: a quorum queue counts, RabbitMQ 4 up to 20 by default."""
        send(url, 4)
        for _ in range(25):
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=4)
                assert next(channel.consume(PROGRAMS_QUEUE, inactivity_timeout=PATIENCE))[0] is not None
            assert wait_until(lambda: ready(url) == 4, PATIENCE)
        assert ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0


def declare_as_before(url: str, queue_type: QueueType) -> None:
    """What the version before declared: queues that dead-letter past the workers."""
    kind = {"x-queue-type": queue_type} | ({"x-delivery-limit": 2**31 - 1} if queue_type == "quorum" else {})
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            routed = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"}
            channel.queue_declare(f"{queue}.XQ", durable=True, arguments=kind | {"x-max-length-bytes": 1024**3})
            channel.queue_declare(queue, durable=True, arguments=kind | routed)


def delete_queues(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for queue in QUEUES:
            connection.channel().queue_delete(queue)


class TestQueuesOfTheVersionBefore:
    @pytest.fixture(autouse=True)
    def queues_before(self, url: str, queue_type: QueueType) -> Iterator[None]:
        delete_queues(url)
        declare_as_before(url, queue_type)
        _warn.cache_clear()
        yield
        delete_queues(url)

    def test_they_are_used_beside_workers_of_that_version(
        self, url: str, queue_type: QueueType, run: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
    ) -> None:
        jobs = run(url, threads=2)
        jobs.failing = {1}
        assert wait_until(lambda: amqp.consumers(url, PROGRAMS_QUEUE) == 1, PATIENCE)
        ids = send(url, 2)
        jobs.wait_for(entered=2)
        declare_as_before(url, queue_type)  # as a worker of that version does when it connects
        jobs.let_end(0, 1)
        assert wait_until(lambda: ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 1, PATIENCE)
        assert sorted(jobs.ended) == sorted(ids)
        run(url, threads=1).stop()
        (line,) = told(caplog, "earlier version")
        assert f"The queues {', '.join(QUEUES)} were declared" in line
        assert "rabbitmqctl delete_queue NAME" in line

    def test_once_deleted_they_are_declared_anew(self, url: str, queue_type: QueueType) -> None:
        amqp.check(url, queue_type)
        delete_queues(url)
        amqp.check(url, queue_type)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="inequivalent arg 'x-dead-letter-exchange'"):
            declare_as_before(url, queue_type)


class TestCheck:
    def test_consumers_are_counted(self, url: str, run: Callable[..., Jobs]) -> None:
        assert amqp.consumers(url, PROGRAMS_QUEUE) == 0
        run(url, threads=1)
        assert wait_until(lambda: amqp.consumers(url, PROGRAMS_QUEUE) == 1, PATIENCE)
        assert amqp.consumers(url, EXECUTIONS_QUEUE) == 0

    @pytest.mark.parametrize("ask", [amqp.check, lambda url: amqp.consumers(url, PROGRAMS_QUEUE)])
    def test_nobody_listens(self, ask: Callable[[str], Any]) -> None:
        with pytest.raises(BrokerUnavailable, match=r"(?i)DSPEX_BROKER_URL: .*refused") as caught:
            ask(f"amqp://guest:sesame@127.0.0.1:{free_port()}/")
        assert "sesame" not in caught.value.message
        assert "\n" not in caught.value.message

    def test_wrong_password(self, url: str) -> None:
        with pytest.raises(BrokerUnavailable, match="check user and password") as caught:
            amqp.check(url.replace("guest:guest", "guest:sesame"))
        assert "sesame" not in caught.value.message

    def test_a_queue_with_other_arguments_is_named(self, url: str, queue_type: QueueType) -> None:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.queue_delete(EXECUTIONS_QUEUE)
            channel.queue_declare(EXECUTIONS_QUEUE, durable=True, arguments={"x-queue-type": queue_type})
        with pytest.raises(BrokerUnavailable, match=f"queue '{EXECUTIONS_QUEUE}' exists with another x-d"):
            amqp.check(url, queue_type)


class TestBytesAhead:
    def test_beyond_so_many_bytes_no_more_is_taken_and_each_is_handled(
        self,
        url: str,
        run: Callable[..., Jobs],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """RabbitMQ's own limit counts messages, whatever their size."""
        size = len(wrap(InitializeProgram(program_id=uuid7()), source="/tests").encode())
        monkeypatch.setattr(subscription, "MOST_BYTES", 5 * size)
        ids = send(url, 40)
        jobs = run(url, threads=40, prefetch=40)
        jobs.wait_for(entered=5)
        assert wait_until(lambda: ready(url) >= 30, PATIENCE), "it gave back what had come beyond"
        assert len(jobs.entered) <= 10
        jobs.let_all_end(lambda: len(jobs.ended) >= 40 and ready(url) == 0)
        jobs.stop()
        assert Counter(jobs.entered) == dict.fromkeys(ids, 1)
        assert ready(url) == ready(url, dead_letter_queue(PROGRAMS_QUEUE)) == 0
