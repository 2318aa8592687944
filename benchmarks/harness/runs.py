"""One run of one system: an empty database and broker, a producer, workers, the progress, and a check at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import psycopg

from benchmarks.harness.failures import Void
from benchmarks.harness.process_tree import Processes
from benchmarks.harness.processes import ROOT, Producer, Workers, producer, workers
from benchmarks.harness.servers import Servers
from benchmarks.harness.statistics import Progress
from benchmarks.systems import System

OBSERVE_SECONDS = 0.03
DATABASE = "bench"
CPU_OF = ("worker", "PostgreSQL", "RabbitMQ", "Redis")

COUNTED = "SELECT coalesce(sum(completed), 0)::bigint FROM program_counters"
ROWS = "SELECT count(*), count(*) FILTER (WHERE status = 'completed') FROM executions"


@dataclass(frozen=True)
class Usage:
    """The CPU seconds of each part when so many jobs were done."""

    done: int
    seconds: dict[str, float]


@dataclass
class Run:
    """A run. Attributes: `progress` is what `follow` has observed; `before` are the counts before the run."""

    system: System
    servers: Servers
    producer: Producer
    deadline: float
    environment: dict[str, str]
    directory: Path
    connection: psycopg.Connection[tuple[int, ...]]
    ending: ExitStack
    tree: Path = ROOT
    workers: Workers | None = None
    before: tuple[int, int, int] = (0, 0, 0)
    published: int = 0
    progress: list[Progress] = field(default_factory=list)

    def publish(self, jobs: int, *, hot: bool = False, size: int = 0) -> dict[str, float]:
        """Publish, and wait until all are stored."""
        self.published += jobs
        return self.producer.do("publish", jobs=jobs, hot=hot, size=size)

    def start_workers(self, concurrency: int | None = None) -> Workers:
        """Start the worker processes; they end with the run."""
        commands = self.system.commands(concurrency or self.system.concurrency)
        started = workers(commands, self.environment, self.directory / "workers.log", self.tree)
        self.workers = self.ending.enter_context(started)
        return self.workers

    def done(self) -> int:
        """How many jobs are counted, which is the last step of a job; without a database, the number of results."""
        if not self.system.durable:
            return self.servers.results()
        return self._numbers(COUNTED)[0] - self.before[2]

    def usage(self) -> Usage:
        """CPU used so far."""
        processes, done = Processes(), self.done()
        roots = self.servers.roots | {"worker": self.workers.pids if self.workers else []}
        return Usage(done, {part: processes.cpu_seconds(roots[part]) for part in CPU_OF})

    def follow(self, until: int, *marks: int) -> list[Usage]:
        """Watch until so many jobs are done. Returns the usage at each of the marks.

        Raises:
            Void: a worker has ended, or the time limit of the run has passed.
        """
        usages: list[Usage] = []
        while True:
            done = self.done()
            self.progress.append(Progress(time.monotonic(), done))
            if len(usages) < len(marks) and done >= marks[len(usages)]:
                usages.append(self.usage())
            if done >= until:
                return usages
            self._check(f"{done} of {until} were done")
            time.sleep(OBSERVE_SECONDS)

    def watch(self, seconds: float) -> list[Progress]:
        """Observe the progress for so many seconds."""
        seen = [Progress(time.monotonic(), self.done())]
        while seen[-1].at < seen[0].at + seconds:
            self._check("the time of the run is up")
            time.sleep(OBSERVE_SECONDS)
            seen.append(Progress(time.monotonic(), self.done()))
        return seen

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        while not condition():
            self._check(f"not in time: {what}")
            time.sleep(OBSERVE_SECONDS)

    def verify(self) -> None:
        """Raises Void unless every published job has one completed row and is counted once."""
        if not self.system.durable:
            if self.done() != self.published:
                raise Void(f"{self.done()} results of {self.published} jobs")
            return
        rows, completed, counted = (now - before for now, before in zip(self.there(), self.before, strict=True))
        if not rows == completed == counted == self.published:
            raise Void(f"{rows} rows, {completed} completed, {counted} counted of {self.published} jobs")

    def there(self) -> tuple[int, int, int]:
        """The numbers of rows, completed rows, and counted jobs."""
        (rows, completed), (counted,) = self._numbers(ROWS), self._numbers(COUNTED)
        return rows, completed, counted

    def _numbers(self, query: LiteralString) -> tuple[int, ...]:
        found = self.connection.execute(query).fetchone()
        return tuple(map(int, found or ()))

    def _check(self, otherwise: str) -> None:
        if self.workers is not None:
            self.workers.check()
        if time.monotonic() > self.deadline:
            said = f"; {self.workers.tail()}" if self.workers else ""
            raise Void(f"{otherwise}{said}")


@dataclass(frozen=True)
class Stage:
    """Makes runs, one after the other.

    Attributes:
        seconds: the time limit of a run.
        tree: the checkout whose workers and producers run.
    """

    servers: Servers
    directory: Path
    seconds: float
    tree: Path = ROOT

    @contextmanager
    def run(
        self, system: System, *, latency_ms: int = 0, results: bool = False, concurrency: int = 0, kept: str = ""
    ) -> Generator[Run]:
        """A run in an empty database and broker.

        Args:
            latency_ms: how long the work of a job takes.
            results: whether a caller waits for each result.
            concurrency: jobs at once in each worker process; the system's own number by default.
            kept: an existing database to use, with the broker as it is, instead of empty ones.
        """
        deadline = time.monotonic() + self.seconds
        environment = self.servers.environment(kept or DATABASE) | {
            "BENCH_LATENCY_MS": str(latency_ms),
            "BENCH_RESULTS": str(int(results)),
            "BENCH_CONCURRENCY": str(concurrency or system.concurrency),
        }
        if not kept:
            self.servers.empty(DATABASE, system.queues)
        with ExitStack() as ending:
            log = self.directory / "producer.log"
            told = ending.enter_context(producer(system.name, environment, log, deadline, self.tree))
            if not kept:
                told.do("prepare")
            url = self.servers.database_url(kept or DATABASE)
            connection = ending.enter_context(psycopg.connect(url, autocommit=True))
            self.servers.settle()
            run = Run(system, self.servers, told, deadline, environment, self.directory, connection, ending, self.tree)
            if kept:
                run.before = run.there()
            yield run


def cpu_per_thousand(before: Usage, after: Usage) -> dict[str, float]:
    """CPU seconds of each part for 1,000 jobs."""
    thousands = (after.done - before.done) / 1000
    return {f"cpu {part}": (after.seconds[part] - before.seconds[part]) / thousands for part in CPU_OF}
