"""The local servers keep their promises: they answer, keep data over a crash, and leave nothing behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text

from deploy.local_servers import (
    MAX_MESSAGE_SIZE,
    LocalServer,
    PostgresServer,
    RabbitMQServer,
    RedisServer,
    ServerError,
    ServerMissing,
    find_program,
)
from deploy.processes import Process
from dspex.contract.envelope import MAX_ANSWER_BYTES
from tests import amqp_wire
from tests.conftest import private
from tests.rabbitmqctl import rabbitmqctl
from tests.waiting import wait_until


def members(server: LocalServer) -> list[Process]:
    """Every process of the server, its workers included."""
    return [member for process in server.processes for member in process.family()]


def gone(processes: list[Process]) -> bool:
    """Whether there were processes, and none lives."""
    return bool(processes) and not any(process.alive() for process in processes)


def test_postgres_keeps_committed_rows_over_a_crash(postgres_server: Callable[[], PostgresServer]) -> None:
    server = postgres_server()
    url = server.url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
    crashed = members(server)
    server.kill()
    assert gone(crashed)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)

    server.restart()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (42,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)

    stopped = members(server)
    server.stop()
    assert gone(stopped)


@pytest.fixture
def rabbitmq(servers_directory: Path) -> Iterator[RabbitMQServer]:
    for make in private(RabbitMQServer, servers_directory):
        yield make()


@pytest.mark.integration
def test_rabbitmq_keeps_confirmed_messages_over_a_crash(rabbitmq: RabbitMQServer) -> None:
    server = rabbitmq
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True)
        channel.confirm_delivery()
        persistent = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", "kept", b"hello", persistent, mandatory=True)
    # A message is on disk when it is confirmed; its new queue up to two seconds later (the cache of Erlang's disk_log).
    rabbitmqctl(server, "eval", "ok = mnesia:sync_log().")
    crashed = members(server)
    server.kill()
    assert gone(crashed)

    server.restart()
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        _, _, body = connection.channel().basic_get("kept", auto_ack=True)
    assert body == b"hello"

    stopped = members(server)
    server.stop()
    assert gone(stopped)


def test_redis_keeps_keys_over_a_crash(redis_server: Callable[[], RedisServer]) -> None:
    server = redis_server()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "42")
    crashed = members(server)
    server.kill()
    assert gone(crashed)

    server.restart()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"42"

    stopped = members(server)
    server.stop()
    assert gone(stopped)


def test_the_shared_servers_answer(postgres_url: str, amqp_url: str, redis_url: str) -> None:
    with create_engine(postgres_url).connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as channels:
        assert channels.is_open
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_the_broker_refuses_what_is_larger_than_any_answer(amqp_url: str) -> None:
    with amqp_wire.Wire(amqp_url) as wire:
        assert wire.publish("", "nobody", amqp_wire.properties(), b"x" * MAX_ANSWER_BYTES)
        assert not wire.publish("", "nobody", amqp_wire.properties(), b"x" * (MAX_MESSAGE_SIZE + 1))


def test_a_database_url_is_an_empty_database(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE only_here (number INTEGER)"))
        assert connection.scalar(text("SELECT count(*) FROM only_here")) == 0


def test_a_server_left_behind_is_found_again_and_stopped(redis_server: Callable[[], RedisServer]) -> None:
    server = redis_server()
    again = RedisServer(server.directory).adopt()
    assert again.running
    assert again.url == server.url
    again.stop()
    wait_until(lambda: not server.running, "the process has ended for its parent too")
    assert not RedisServer(server.directory).adopt().running


def test_a_server_that_cannot_start_says_why(redis_server: Callable[[], RedisServer], servers_directory: Path) -> None:
    taken = redis_server().port
    second = RedisServer(servers_directory / "second", taken)
    with pytest.raises(ServerError, match=f"Redis: port {taken} is taken"):
        second.start()
    assert not second.running


def test_a_server_that_ends_at_once_shows_its_log(servers_directory: Path) -> None:
    class Broken(RedisServer):
        def launch(self) -> None:
            self.spawn(["sh", "-c", "echo cannot read the tea leaves; exit 1"])

    broken = Broken(servers_directory / "broken")
    with pytest.raises(ServerError, match=r"ended while it started[^|]*\| cannot read the tea leaves"):
        broken.start()


def test_a_missing_server_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerMissing, match="apt-get install redis-server"):
        find_program("no-such-redis-server", RedisServer.package)
