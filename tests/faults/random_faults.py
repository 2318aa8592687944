"""Every kind of fault: of servers, workers, sessions, locks, rights and messages. Each mends what it has broken."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from signal import SIGQUIT
from typing import Final, NamedTuple

import psycopg
import redis
from psycopg import sql
from sqlalchemy import make_url

from deploy.local_servers import PostgresServer, RedisServer
from dspex.amqp.topology import EVENTS_EXCHANGE
from tests.conftest import start
from tests.faults.fleet import Deliverer, Fleet
from tests.faults.load import Load
from tests.faults.tenants import TenantsDeployment, evaluate
from tests.rabbitmqctl import rabbitmqctl
from tests.webhook_receiver import Answer

TABLES: Final = (
    "executions",
    "event_outbox",
    "program_counters",
    "programs",
    "webhook_deliveries",
    "rejected_messages",
)
RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass
class Scene:
    """What faults happen to.

    Attributes:
        lease: in seconds.
        receiver_down: set while the receiver of webhooks answers nobody.
    """

    deployment: TenantsDeployment
    postgres: PostgresServer
    cache: RedisServer
    fleet: Fleet
    deliverer: Deliverer
    load: Load
    lease: float
    receiver_down: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def administration(self) -> Generator[psycopg.Connection]:
        """A session of the superuser."""
        url = make_url(self.deployment.engine.url.set(drivername="postgresql"))
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            yield connection

    def answer(self, _request: object) -> Answer:
        """The receiver's script."""
        return Answer(503 if self.receiver_down.is_set() else 204)


def kill_worker(scene: Scene, random: Random) -> None:
    scene.fleet.kill(random)


def freeze_worker(scene: Scene, random: Random) -> None:
    scene.fleet.freeze(random, random.uniform(0.3, 2) * scene.lease)


def freeze_in_transaction(scene: Scene, random: Random) -> None:
    scene.fleet.freeze_in_transaction(random, random.uniform(0.3, 2) * scene.lease)


def deploy(scene: Scene, random: Random) -> None:
    scene.fleet.deploy(random)


def end_process(scene: Scene, random: Random) -> None:
    scene.load.end_process()


def kill_deliverer(scene: Scene, random: Random) -> None:
    scene.deliverer.kill()


def receiver_fails(scene: Scene, random: Random) -> None:
    scene.receiver_down.set()
    time.sleep(random.uniform(0.5, 3))
    scene.receiver_down.clear()


def poison(scene: Scene, random: Random) -> None:
    scene.load.poison(20)


def kill_broker(scene: Scene, random: Random) -> None:
    server = scene.deployment.rabbitmq
    server.kill()
    time.sleep(random.uniform(0, 2))
    start(server)


def close_connections(scene: Scene, random: Random) -> None:
    rabbitmqctl(scene.deployment.rabbitmq, "close_all_connections", "a fault")


def memory_alarm(scene: Scene, random: Random) -> None:
    """The broker takes nothing for a while; it mends itself, whatever becomes of us."""
    seconds = random.uniform(1, 4)
    evaluate(
        scene.deployment.rabbitmq,
        "vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1})",
        f"timer:apply_after({round(seconds * 1000)}, vm_memory_monitor, set_vm_memory_high_watermark, [0.4])",
    )
    time.sleep(seconds)


def delete_events_exchange(scene: Scene, random: Random) -> None:
    with scene.deployment.channel() as channel:
        channel.exchange_delete(EVENTS_EXCHANGE)
    time.sleep(random.uniform(0, 3))
    scene.deployment.listen()


def kill_database(scene: Scene, random: Random) -> None:
    """By `pg_ctl stop -m immediate`, or less orderly."""
    server = scene.postgres
    if random.random() < 0.5:
        server.processes[0].send(SIGQUIT)
        deadline = time.monotonic() + 5
        while server.running and time.monotonic() < deadline:
            time.sleep(0.05)
    server.kill()
    time.sleep(random.uniform(0, 2))
    start(server)


def end_sessions(scene: Scene, random: Random) -> None:
    with scene.administration() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT %s) picked",
            (random.randint(1, 12),),
        )


def lock_table(scene: Scene, random: Random) -> None:
    table, mode = random.choice(TABLES), random.choice(["ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE"])
    with scene.administration() as connection, connection.transaction():
        connection.execute(sql.SQL(f"LOCK TABLE {table} IN {mode} MODE"))  # pyright: ignore[reportArgumentType]
        time.sleep(random.uniform(0.3, 2) * scene.lease)


def take_right(scene: Scene, random: Random) -> None:
    right, table, role = random.choice(RIGHTS), random.choice(TABLES), scene.deployment.roles.worker
    with scene.administration() as connection:
        connection.execute(sql.SQL(f"REVOKE {right} ON {table} FROM {role}"))  # pyright: ignore[reportArgumentType]
    try:
        time.sleep(random.uniform(0.3, 1.5) * scene.lease)
    finally:
        with scene.administration() as connection:
            connection.execute(sql.SQL(f"GRANT {right} ON {table} TO {role}"))  # pyright: ignore[reportArgumentType]


def kill_cache(scene: Scene, random: Random) -> None:
    scene.cache.kill()
    time.sleep(random.uniform(0, 2))
    start(scene.cache)


def flush_cache(scene: Scene, random: Random) -> None:
    with redis.Redis.from_url(scene.cache.url) as cache:
        cache.flushall()


class Kind(NamedTuple):
    """A kind of fault: `of` is what only one fault may have in its hands at a time."""

    happen: Callable[[Scene, Random], None]
    of: str
    quick: bool = True
    """Whether it takes little of the machine: what is not happens under torture alone."""


KINDS: Final = (
    Kind(kill_worker, "a worker"),
    Kind(freeze_worker, "a worker"),
    Kind(freeze_in_transaction, "a worker"),
    Kind(deploy, "a worker"),
    Kind(end_process, "a worker", quick=False),
    Kind(kill_deliverer, "the deliverer", quick=False),
    Kind(receiver_fails, "the receiver", quick=False),
    Kind(poison, "messages"),
    Kind(kill_broker, "the broker", quick=False),
    Kind(close_connections, "the broker", quick=False),
    Kind(memory_alarm, "the broker", quick=False),
    Kind(delete_events_exchange, "the broker"),
    Kind(kill_database, "the database"),
    Kind(end_sessions, "the database"),
    Kind(lock_table, "the database"),
    Kind(take_right, "the database"),
    Kind(kill_cache, "the cache", quick=False),
    Kind(flush_cache, "the cache"),
)


class Faults:
    """Happen until they are stopped, in some threads: each thread has every kind once, in any order, then again.

    Attributes:
        happened: how often, by kind.
        broken: faults that did not end as they should: a server that would not start again.
    """

    def __init__(self, scene: Scene, kinds: tuple[Kind, ...], pause: float) -> None:
        self._scene = scene
        self._kinds = kinds
        self._pause = pause
        self._hands: Mapping[str, threading.Lock] = {kind.of: threading.Lock() for kind in kinds}
        self.happened: Counter[str] = Counter()
        self.broken: list[str] = []

    def run(self, stop: threading.Event, seed: int) -> None:
        """Let faults happen, with pauses of `pause` seconds on the average, until `stop` is set."""
        random, coming = Random(seed), list[Kind]()
        while not stop.wait(random.expovariate(1 / self._pause)):
            coming = coming or random.sample(self._kinds, len(self._kinds))
            kind = coming.pop()
            name = kind.happen.__name__.replace("_", " ")
            with self._hands[kind.of]:
                try:
                    kind.happen(self._scene, random)
                    self.happened[name] += 1
                except (psycopg.OperationalError, redis.RedisError):
                    self.happened[f"{name}: in vain"] += 1  # another fault had the server
                except Exception as error:  # noqa: BLE001  the run tells of it
                    self.broken.append(f"{name}: {type(error).__name__}: {error}")
