"""Workers that come and go, executions of any tenant, program and lane, and what the database says of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, LiteralString
from uuid import UUID

import pika
import psycopg

from benchmarks.harness.failures import Void
from benchmarks.harness.process_tree import Processes
from benchmarks.harness.processes import Workers, environment, workers
from benchmarks.harness.runs import CPU_OF, DATABASE, OBSERVE_SECONDS, Stage
from benchmarks.systems import System
from dspex import LM, Configuration, ExecuteProgram, ExecutionOptions, uuid7
from dspex.amqp.publisher import AmqpPublisher
from dspex.client import RemoteClient
from dspex.contract.options import Lane
from dspex.producer import Producer

SOURCE = "/benchmark"
QUEUE = "dspex.executions"
SIGNATURE = "question: str, k: int = 3 -> answer: str, score: float"
QUESTION = "why is the sky blue, and why is it red at night?"
WORKER: Final = "bench_worker"
ROLE: LiteralString = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{WORKER}') THEN CREATE ROLE {WORKER} LOGIN; END IF;
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA public TO {WORKER};
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {WORKER};
"""
COPY_SIGNATURE = """
INSERT INTO signatures SELECT (jsonb_populate_record(s, jsonb_build_object('tenant', %(tenant)s::text))).*
FROM signatures AS s JOIN programs AS p ON p.signature_id = s.id AND p.tenant = s.tenant WHERE p.id = %(program_id)s
ON CONFLICT DO NOTHING
"""
COPY_PROGRAM = """
INSERT INTO programs
SELECT (jsonb_populate_record(p, jsonb_build_object('tenant', %(tenant)s::text, 'id', %(id)s::text))).*
FROM programs AS p WHERE p.id = %(program_id)s
"""
WORKER_PID: LiteralString = "split_part(reverse(worker), '-', 2) = reverse(%(pid)s::text)"
"""Whether a process has an execution: the name of its worker ends with the process id and a random part."""


class Fleet:
    """An empty database and broker, with workers that the scenario starts.

    The benchmark sends with the workers' own login, which may act for any tenant.
    """

    def __init__(self, stage: Stage, settings: Mapping[str, str], ending: ExitStack, *, tenancy: bool) -> None:
        self.stage = stage
        self.broker_url = stage.servers.rabbitmq.url
        self.deadline = time.monotonic() + stage.seconds
        self._settings = stage.servers.environment(DATABASE) | dict(settings)
        for command in ("migrate", "declare"):
            self.command(command)
        url = stage.servers.database_url(DATABASE)
        self.database_url = url.replace("postgresql:", "postgresql+psycopg:")
        self.connection = ending.enter_context(psycopg.connect(url, autocommit=True))
        self._tenancy = {}
        if tenancy:
            self.connection.execute(ROLE)
            self._tenancy = {"DSPEX_TENANCY": "1", "DSPEX_DATABASE_URL": url.replace("//dspex@", f"//{WORKER}@")}
        publisher = AmqpPublisher(self.broker_url, patient=True)
        ending.callback(publisher.close, 0)
        self._producer = Producer(publisher, source=SOURCE)
        parameters = pika.URLParameters(self.broker_url)
        parameters.heartbeat = 0  # it is idle for minutes, in a thread that does something else
        self._broker = pika.BlockingConnection(parameters)
        ending.callback(self._broker.close)
        stage.servers.settle()

    @property
    def lanes(self) -> bool:
        """Whether the version that is measured has lanes: one without rejects a command that names one."""
        return "class Lane" in (self.stage.tree / "messages/dspex/contract/options.py").read_text(encoding="utf-8")

    def command(self, *words: str) -> str:
        """Run `dspex …`; returns what it prints.

        Raises:
            Void: it failed.
        """
        tree = self.stage.tree
        command = [sys.executable, "-m", "workers.cli", *words]
        env = environment(self._settings, tree)
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Void(f"dspex {' '.join(words)}: {done.stderr.strip()[-800:]}")
        return done.stdout

    @contextmanager
    def workers(self, threads: int, processes: int = 1, **settings: str) -> Generator[Workers]:
        """Worker processes that have begun to take commands. At the end they are killed: jobs may be long."""
        with self._workers(threads, processes, self._settings | self._tenancy | settings) as started:
            yield started

    @contextmanager
    def _workers(self, threads: int, processes: int, settings: Mapping[str, str]) -> Generator[Workers]:
        words = ["worker", "--processes", str(processes), "--threads", str(threads)]
        there = self.consumers()
        log = self.stage.directory / "workers.log"
        command = [sys.executable, "-m", "workers.cli", *words]
        with workers([command], settings, log, self.stage.tree) as started:
            try:
                self.wait(lambda: self.consumers() >= there + processes, "the workers take commands", started)
                yield started
            finally:
                started.kill()

    @contextmanager
    def client(self) -> Generator[RemoteClient]:
        """A client of the default tenant, and a worker that carries out what it asks for."""
        with (
            self._workers(4, 1, self._settings),
            RemoteClient(self.broker_url, source=SOURCE, validate=False) as client,
        ):
            yield client

    def copy_program(self, program_id: UUID, tenant: str) -> UUID:
        """A tenant's own copy of a program, by SQL."""
        copied = uuid7()
        given = {"program_id": program_id, "tenant": tenant, "id": copied}
        self.connection.execute(COPY_SIGNATURE, given)
        self.connection.execute(COPY_PROGRAM, given)
        return copied

    def send(self, commands: Iterable[ExecuteProgram], tenant: str | None = None) -> None:
        """Publish, and wait until the broker has all."""
        producer = self._producer
        if tenant is not None:
            producer = Producer(producer._publisher, source=SOURCE, tenant=tenant)  # noqa: SLF001
        producer.send_all(commands)

    def ready(self) -> int:
        """How many commands wait on the broker."""
        return int(self._declared().message_count)

    def consumers(self) -> int:
        """How many processes take commands."""
        return int(self._declared().consumer_count)

    def _declared(self) -> Any:
        channel = self._broker.channel()
        try:
            return channel.queue_declare(QUEUE, passive=True).method
        finally:
            channel.close()

    def rows(self, query: LiteralString, **given: Any) -> list[tuple[Any, ...]]:
        """What the database answers."""
        return self.connection.execute(query, given).fetchall()

    def number(self, query: LiteralString, **given: Any) -> float:
        """The one number that the database answers; 0 for NULL."""
        return float(self.rows(query, **given)[0][0] or 0)

    def wait(self, condition: Callable[[], bool], what: str, started: Workers | None = None) -> None:
        """Wait until a condition holds.

        Raises:
            Void: it did not in time, or a worker has ended.
        """
        while not condition():
            if started is not None:
                started.check()
            self.in_time(f"{what}; {started.tail()}" if started else what)
            time.sleep(OBSERVE_SECONDS)

    def in_time(self, what: str) -> None:
        """Raises Void if the time of the run is up."""
        if time.monotonic() > self.deadline:
            raise Void(f"not in time: {what}")

    def cpu(self, started: Workers) -> dict[str, float]:
        """The CPU seconds that workers and servers have used so far, by part."""
        processes = Processes()
        roots = self.stage.servers.roots | {"worker": started.pids}
        return {part: processes.cpu_seconds(roots[part]) for part in CPU_OF}

    def accepted(self, patience: float) -> None:
        """Wait until no command is left on the broker, but no longer than so many seconds."""
        until = time.monotonic() + patience
        while self.ready() and time.monotonic() < until:
            time.sleep(OBSERVE_SECONDS)


@contextmanager
def fleet(stage: Stage, system: System, *, tenancy: bool = False, **settings: str) -> Generator[Fleet]:
    """An empty database and broker.

    Args:
        tenancy: whether there are tenants; then the workers have a role of their own, which row-level security holds.
        settings: of all workers.
    """
    stage.servers.empty(DATABASE, system.queues)
    with ExitStack() as ending:
        yield Fleet(stage, settings, ending, tenancy=tenancy)
    stage.servers.delete_queues(system.queues)


def mock(client: RemoteClient, latency_ms: float = 0, name: str = "p") -> UUID:
    """A program on the mock adapter that takes so long."""
    configuration = Configuration(parameters={"latency_ms": latency_ms} if latency_ms else {})
    made = client.create_program(name, SIGNATURE, adapter_type="mock", configuration=configuration)
    return client.initialize_program(made.program_id).program_id


def native(client: RemoteClient, alias: str) -> UUID:
    """A program that calls an LM."""
    configuration = Configuration(lm=LM(model=alias))
    made = client.create_program(
        "q", "question: str, k: int = 3 -> answer: str", adapter_type="native", configuration=configuration
    )
    return client.initialize_program(made.program_id).program_id


def commands(
    program_ids: Sequence[UUID], count: int, *, lane: Lane | None = None, not_before: datetime | None = None
) -> list[ExecuteProgram]:
    """So many executions of these programs in turn."""
    options = ExecutionOptions(lane=lane, not_before=not_before)
    return [
        ExecuteProgram(
            execution_id=uuid7(),
            program_id=program_ids[number % len(program_ids)],
            inputs={"question": f"{QUESTION} {number}", "k": number},
            options=options,
        )
        for number in range(count)
    ]


def some_day() -> datetime:
    """A time that no benchmark reaches."""
    return datetime.now(UTC) + timedelta(days=30)


def lines(log: Path) -> int:
    """How many lines were logged."""
    return log.read_bytes().count(b"\n")


def per_thousand(before: Mapping[str, float], after: Mapping[str, float], done: float) -> dict[str, float]:
    """CPU seconds of each part for 1,000 of what was done between."""
    return {f"cpu {part}": (after[part] - before[part]) / done * 1000 for part in before}
