"""Waiting by Redis: it makes waiting quick, and nothing depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import redis

from deploy.local_servers import RedisServer
from dspex import Configuration, uuid7
from dspex.client.handles import Handle
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from dspex.client.wakeups import CHANNEL, Wakeups
from store import executions
from tests.contract.interface import ready, working
from tests.waiting import wait_until
from workers.application.notifications import Notifications
from workers.application.wiring import Application, bootstrap
from workers.brokers import amqp
from workers.local import LocalClient
from workers.settings import Settings

PATIENCE = 90.0
NEVER = 3600.0
LATENCY = Configuration.model_validate(
    {"parameters": {"latency_ms": {"distribution": "uniform", "low": 200, "high": 6000}}}
)

pytestmark = pytest.mark.integration


@pytest.fixture
def server(redis_server: Callable[[], RedisServer]) -> RedisServer:
    return redis_server()


@pytest.fixture(scope="module")
def broker_url(own_amqp_url: str) -> str:
    amqp.check(own_amqp_url)
    return own_amqp_url


@pytest.fixture
def settings(broker_url: str, server: RedisServer, migrated_database_url: str) -> Settings:
    return Settings(
        database_url=migrated_database_url,
        broker_url=broker_url,
        redis_url=server.url,
        threads=64,
        lease_seconds=5,
        log_level="WARNING",
    )


@pytest.fixture
def other(settings: Settings) -> Iterator[Application]:
    """An application that runs nothing itself: another process, as far as notifications go."""
    app = bootstrap(settings)
    yield app
    app.close()


class Heard:
    """What a subscriber hears."""

    def __init__(self, url: str) -> None:
        self.ids: list[UUID] = []
        self.subscribed = 0
        self.wakeups = Wakeups(url, self.ids.append, self._subscribed)
        self.wakeups.start()
        wait_until(lambda: self.subscribed > 0, "it has subscribed")

    def _subscribed(self) -> None:
        self.subscribed += 1


def test_who_subscribed_hears_and_goes_on_after_redis_was_killed(server: RedisServer) -> None:
    heard, notifications = Heard(server.url), Notifications(server.url)
    some = [uuid7() for _ in range(2500)]
    for execution_id in some:
        notifications.ended(execution_id)
    wait_until(lambda: len(heard.ids) == len(some), "all of them are heard")
    assert heard.ids == some
    with redis.Redis.from_url(server.url) as client:
        client.publish(CHANNEL, "not an id")
    server.kill()
    notifications.ended(uuid7())  # lost
    server.start()
    wait_until(lambda: heard.subscribed == 2, "it has subscribed again")
    last = uuid7()

    def said() -> bool:
        notifications.ended(last)
        return last in heard.ids

    wait_until(said, "it hears again")
    notifications.close()
    heard.wakeups.close()


def test_it_is_heard_and_not_polled(
    server: RedisServer, settings: Settings, other: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dspex.client.remote.LONGEST_UNTOLD_SECONDS", "dspex.client.remote.FIRST_UNTOLD_SECONDS"):
        monkeypatch.setattr(name, NEVER)
    for name in ("workers.local.LONGEST_SECONDS", "workers.local.FIRST_SECONDS"):
        monkeypatch.setattr(name, NEVER)
    with (
        working(settings),
        RemoteClient(settings.broker_url, source="/tests") as producer,
        RemoteClient(settings.broker_url, source="/tests", redis_url=settings.redis_url) as remote,
        LocalClient(other) as local,
    ):
        program_id = ready(producer, configuration=Configuration(parameters={"latency_ms": 1000})).program_id
        subscribing = [client.handle(uuid7()) for client in (remote, local)]
        with redis.Redis.from_url(server.url) as client:
            wait_until(lambda: client.pubsub_numsub(CHANNEL)[0][1] == len(subscribing), "both have subscribed")
        submitted = producer.submit_program(program_id, {"question": "?"})
        waiting = [remote.handle(submitted.execution_id), local.handle(submitted.execution_id)]
        for handle in waiting:
            assert handle.result(timeout=PATIENCE) == submitted.result(timeout=PATIENCE)


def test_all_results_come_from_the_database_where_redis_is_killed_and_flushed(
    server: RedisServer, settings: Settings, other: Application
) -> None:
    with (
        working(settings) as app,
        RemoteClient(settings.broker_url, source="/tests") as producer,
        RemoteClient(settings.broker_url, source="/tests", redis_url=settings.redis_url) as remote,
        LocalClient(other) as local,
        ThreadPoolExecutor(3) as threads,
    ):
        program_id = ready(producer, configuration=LATENCY).program_id
        submitted = [producer.submit_program(program_id, {"question": f"{number}"}) for number in range(150)]
        ids = [handle.execution_id for handle in submitted]
        begun = threading.Barrier(4)

        def wait(client: Interface) -> dict[UUID, object]:
            handles: list[Handle] = [client.handle(execution_id) for execution_id in ids]
            begun.wait(PATIENCE)
            return {handle.execution_id: handle.result(timeout=PATIENCE) for handle in handles}

        waiting = [threads.submit(wait, client) for client in (producer, remote, local)]
        begun.wait(PATIENCE)
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        server.kill()
        wait_until(lambda: sum(handle.done() for handle in submitted) > 100, "most end without Redis")
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        wait_until(lambda: all(handle.done() for handle in submitted), "all end", PATIENCE)
        with app.read("default") as connection:
            rows = {row.id: row.outputs for row in executions.get(connection, ids)}
        assert len(rows) == len(ids)
        assert [future.result(PATIENCE) for future in waiting] == [rows] * 3
