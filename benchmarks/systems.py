"""The systems, how to start their workers, and their configurations: the notes beside every table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

PROCESSES = 2
OWN = "own"
FLOOR = "dramatiq_floor"
HAND_WRITTEN = "dramatiq_psycopg"

Command = list[str]


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        name: the name of its module in `benchmarks.peers`.
        title: its title in tables.
        given: its configuration, for the notes of tables.
        commands: returns the commands of its worker processes, for so many concurrent jobs in each.
        concurrency: concurrent jobs in each process, unless a scenario says otherwise: the fastest number in a drain.
        queues: its queues on the broker.
        durable: whether every published job ends as a counted row, whatever process dies.
        peer: whether it is an alternative to DSPex; counts as a durable peer in the targets.
    """

    name: str
    title: str
    given: str
    commands: Callable[[int], list[Command]]
    concurrency: int
    queues: tuple[str, ...] = ()
    durable: bool = True
    peer: bool = True


def _own(concurrency: int) -> list[Command]:
    threads = ["--threads", str(concurrency)]
    return [[sys.executable, "-m", "workers.cli", "worker", "--processes", str(PROCESSES), *threads]]


def _dramatiq(name: str) -> Callable[[int], list[Command]]:
    def commands(concurrency: int) -> list[Command]:
        counts = ["--processes", str(PROCESSES), "--threads", str(concurrency)]
        return [["dramatiq", f"benchmarks.peers.{name}", *counts]]

    return commands


_QUIET = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")


def _celery_threads(concurrency: int) -> list[Command]:
    worker = ["celery", "--app", "benchmarks.peers.celery_redis:app", "worker", *_QUIET, "--pool", "threads"]
    names = [f"bench{number}@%h" for number in range(PROCESSES)]
    return [[*worker, "--concurrency", str(concurrency), "--hostname", name] for name in names]


def _celery_prefork(concurrency: int) -> list[Command]:
    worker = ["celery", "--app", "benchmarks.peers.celery_database:app", "worker", *_QUIET, "--pool", "prefork"]
    return [[*worker, "--concurrency", str(PROCESSES * concurrency)]]


def _taskiq(concurrency: int) -> list[Command]:
    bounds = ["--max-async-tasks", str(concurrency), "--max-prefetch", str(concurrency)]
    quiet = ["--log-level", "WARNING", "--no-parse"]
    return [
        ["taskiq", "worker", "benchmarks.peers.taskiq_asyncpg:broker", "--workers", str(PROCESSES), *bounds, *quiet]
    ]


def _procrastinate(concurrency: int) -> list[Command]:
    application = ["procrastinate", "--app", "benchmarks.peers.procrastinate_asyncpg.app", "--log-level", "warning"]
    return [[*application, "worker", "--concurrency", str(concurrency)]] * PROCESSES


def _pgqueuer(concurrency: int) -> list[Command]:
    bounds = [str(max(1, concurrency // 2)), str(concurrency)]
    return [[sys.executable, "-m", "benchmarks.peers.pgqueuer_asyncpg", *bounds]] * PROCESSES


_OWN_QUEUES = (
    "dspex.dead-letters",
    *(f"dspex.{name}{end}" for name in ("programs", "executions", "requests") for end in ("", ".XQ")),
)
_DRAMATIQ_QUEUES = ("bench", "bench.DQ", "bench.XQ")

SYSTEMS = {
    system.name: system
    for system in (
        System(
            OWN,
            "DSPex",
            "`dspex worker --processes 2 --threads 64`, the mock adapter, every feature on; `Producer.send_all`; "
            "answers by a reply queue",
            _own,
            64,
            _OWN_QUEUES,
            peer=False,
        ),
        System(
            FLOOR,
            "Dramatiq + Redis, no database",
            "as it comes: 8 threads, prefetch 16; the broker with `confirm_delivery`; results in Redis",
            _dramatiq(FLOOR),
            8,
            _DRAMATIQ_QUEUES,
            durable=False,
            peer=False,
        ),
        System(
            HAND_WRITTEN,
            "Dramatiq + psycopg, by hand",
            "8 threads, prefetch 16; a connection for each thread; SELECT, INSERT, and two UPDATEs in a transaction; "
            "`confirm_delivery`; where a caller waits, results in Redis",
            _dramatiq(HAND_WRITTEN),
            8,
            _DRAMATIQ_QUEUES,
            peer=False,
        ),
        System(
            "dramatiq_orm",
            "Dramatiq + ORM, version_id_col",
            "8 threads, prefetch 16; a pool of as many connections; the ORM with `version_id_col`, a stale row tried "
            "again at once; `confirm_delivery`; where a caller waits, results in Redis",
            _dramatiq("dramatiq_orm"),
            8,
            _DRAMATIQ_QUEUES,
        ),
        System(
            "celery_redis",
            "Celery, results in Redis",
            "threads, 8 a process, prefetch 64 each; `acks_late`; confirms; no gossip, mingle or heartbeat; the job in "
            "psycopg as by hand",
            _celery_threads,
            8,
            ("bench",),
        ),
        System(
            "celery_database",
            "Celery, results in PostgreSQL",
            "as with Redis, but 4 forked processes of one job at a time: only in these does the database backend keep "
            "its connections",
            _celery_prefork,
            2,
            ("bench",),
        ),
        System(
            "taskiq_asyncpg",
            "Taskiq + aio-pika",
            "16 tasks a process, prefetch 64; its quorum queue; uvloop; asyncpg with a pool; 100 publishes at a time, "
            "each confirmed; where a caller waits, results in Redis, polled every ms",
            _taskiq,
            16,
            ("bench", "taskiq.dead_letter"),
        ),
        System(
            "procrastinate_asyncpg",
            "Procrastinate",
            "16 jobs a process; the job in asyncpg with a pool; `batch_defer` of 100; the row is polled every 0.5 ms",
            _procrastinate,
            16,
        ),
        System(
            "pgqueuer_asyncpg",
            "PgQueuer",
            "batches of 32, 64 jobs a process; uvloop; the job in asyncpg with a pool; `enqueue` of 100; the row is "
            "polled every 0.5 ms",
            _pgqueuer,
            64,
        ),
    )
}
