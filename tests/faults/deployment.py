"""The deployment of the fault tests: worker processes one by one, each to be killed or stopped, and what they left."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Collection, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pika
from pydantic import JsonValue

import migrations
from adapters.port import ProgramSpec
from dspex import Configuration, ExecuteProgram, ExecutionStatus, uuid7, wrap
from dspex.amqp.publication import command_publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import EVENTS_EXCHANGE, QUEUES, event_key
from dspex.contract.commands import Command
from dspex.contract.retry_policy import ExecutionPolicy
from store import counters, executions, programs, signatures
from store.database.engine import make_engine
from tests import preloaded
from tests.deployment import Deployment, environment_of
from tests.faults import worker
from tests.faults.adapter import HISTORY, NAME, SIGNATURE
from tests.faults.history import History
from tests.faults.verdict import Evidence, Told, Verdict, judge
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.brokers.topology import dead_letter_queue

EVENTS: Final = "faults.events"
"""A durable queue that gets the events of executions: what a listener would have got."""

POLICY: Final = ExecutionPolicy(first_delay=0.2, max_delay=1.0)
"""Of the program: its retries do not keep a test waiting."""
NO_MORE: Final[Mapping[str, str]] = {}

# Forked from a process that has loaded the worker's code, a worker starts in a fiftieth of a second.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([*preloaded.PRELOADED, worker.__name__, "pytest"])


class Worker:
    """One worker process."""

    def __init__(self, environment: Mapping[str, str], log: Path, history: History) -> None:
        self._log = log
        self._history = history
        # multiprocessing's own end of it, SIGTERM when the tests end, would be a drain.
        self._process = _processes.Process(target=worker.main, args=(dict(environment), str(log)), daemon=True)
        self._process.start()
        self.pid: int = self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it lives."""
        return self._process.is_alive()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_until_ready(self) -> None:
        """Wait until it takes jobs."""
        wait_until(lambda: "takes jobs" in self.log or not self.alive, "the worker takes jobs", 60)
        assert self.alive, self.log

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.join(30)

    def stop(self) -> None:
        """SIGSTOP: it lives, and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it does not know that time has passed."""
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> None:
        """SIGTERM, and wait until it drains."""
        self._process.terminate()
        wait_until(lambda: "Draining" in self.log, "it drains")

    def terminate(self, seconds: float = 60) -> int | None:
        """SIGTERM; returns the exit code, None where it did not end."""
        self._process.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> int | None:
        """Wait for its end; returns the exit code, None where it did not end."""
        self._process.join(seconds)
        return self._process.exitcode

    def threads(self) -> tuple[int, int]:
        """How many threads that take and run messages live, and how many were started."""
        asked = len(self._told_of_threads())
        os.kill(self.pid, signal.SIGUSR1)
        wait_until(lambda: len(self._told_of_threads()) > asked, "the worker tells of its threads")
        told = self._told_of_threads()[-1]
        return told["alive"], told["started"]

    def _told_of_threads(self) -> list[dict[str, Any]]:
        return [record for record in self._history.records("threads") if record["pid"] == self.pid]


class FaultDeployment(Deployment):
    """A database and the queues of a broker, empty at first, and one program that does what its inputs say."""

    def __init__(self, broker_url: str, database_url: str, directory: Path) -> None:
        environment = environment_of(broker_url, database_url) | {
            HISTORY: str(directory),
            "DSPEX_LEASE_SECONDS": "1",
            "DSPEX_WEBHOOK_THREADS": "0",  # nobody asks for any: a process less that starts with each worker
        }
        super().__init__(broker_url, environment, make_engine(database_url), directory)
        self.history = History(directory)
        self.workers: list[Worker] = []
        self.confirmed: set[UUID] = set()
        """The executions whose publish was confirmed."""
        self.program_id = uuid7()
        self._numbers = itertools.count()
        self._publisher = AmqpPublisher(broker_url, timeout=100)
        self._prepare()

    def _prepare(self) -> None:
        migrations.upgrade(self.engine)
        self.make_program(self.program_id)
        amqp.check(self.broker_url)
        with self.channel() as channel:
            channel.queue_declare(EVENTS, durable=True)
            channel.queue_bind(EVENTS, EVENTS_EXCHANGE, event_key("*", "dspex.execution.#"))
            for queue in (EVENTS, *QUEUES, *map(dead_letter_queue, QUEUES)):
                channel.queue_purge(queue)

    def make_program(self, program_id: UUID) -> UUID:
        """Make a program that is ready."""
        with self.engine.begin() as connection:
            signature = signatures.create(connection, uuid7(), SIGNATURE, activate=True)
            program = programs.create(
                connection,
                program_id,
                name=NAME,
                signature_id=signature.id,
                adapter_type=NAME,
                configuration=Configuration(),
                policy=POLICY,
            )
            begun = programs.begin_initialize(connection, program_id)
            spec = ProgramSpec(NAME, SIGNATURE, program.configuration)
            programs.end_initialize(connection, begun, spec.backend_id)
        return program_id

    def work(
        self, threads: int = 8, *, wait: bool = True, environment: Mapping[str, str] = NO_MORE, **settings: object
    ) -> Worker:
        """Start a worker.

        Args:
            wait: until it takes jobs.
            environment: variables of its own.
            settings: variables too, in small letters and without `DSPEX_`.
        """
        given = {f"DSPEX_{name.upper()}": str(value) for name, value in settings.items()}
        environment = {**self.environment, "DSPEX_THREADS": str(threads), **given, **environment}
        log = self.directory / f"worker-{next(self._numbers):03}.log"
        started = Worker(environment, log, self.history)
        self.workers.append(started)
        if wait:
            started.wait_until_ready()
        return started

    def submit(self, number: int = 1, **order: JsonValue) -> dict[UUID, Future[None]]:
        """Start publishing executions; what is confirmed goes into the history."""
        submitted = {}
        for _ in range(number):
            command = ExecuteProgram(execution_id=uuid7(), program_id=self.program_id, inputs=order)
            submitted[command.execution_id] = self.publish(command)
        return submitted

    def tell(self, command: Command) -> None:
        """Publish a command whose answer nobody waits for, and wait until it is confirmed."""
        envelope = wrap(command, source="/faults")
        self._publisher.submit(command_publication(envelope, envelope.encode())).result(100)

    def publish(self, command: ExecuteProgram) -> Future[None]:
        """Start publishing one; that it is confirmed goes into the history."""
        envelope, id_ = wrap(command, source="/faults"), command.execution_id
        future = self._publisher.submit(command_publication(envelope, envelope.encode()))

        def note(done: Future[None]) -> None:
            if done.exception() is None:
                self.history.record("confirmed", id=id_)
                self.confirmed.add(id_)

        future.add_done_callback(note)
        return future

    def send(self, number: int = 1, **order: JsonValue) -> list[UUID]:
        """Publish executions, and wait until all are confirmed."""
        submitted = self.submit(number, **order)
        for future in submitted.values():
            future.result(100)
        return list(submitted)

    def ended(self, ids: Collection[UUID]) -> int:
        """How many of these have ended."""
        return self.count("status NOT IN ('pending', 'running')", ids)

    def running(self, ids: Collection[UUID]) -> int:
        """How many of these are claimed now."""
        return self.count("status = 'running'", ids)

    def count(self, condition: str, ids: Collection[UUID]) -> int:
        """How many rows of these hold a condition."""
        query = f"SELECT count(*) FROM executions WHERE id = ANY(CAST(:ids AS uuid[])) AND {condition}"
        number: int = self.scalar(query, ids=[str(id_) for id_ in list(ids)])  # confirms come meanwhile
        return number

    def wait_until_ended(self, ids: Collection[UUID] | None = None, seconds: float = 60) -> None:
        """Wait until these, or all that were confirmed, have ended."""
        wanted = self.confirmed.copy() if ids is None else ids
        self.wait(lambda: self.ended(wanted) == len(wanted), f"{len(wanted)} executions have ended", seconds)

    def judge(self, seconds: float = 60) -> Verdict:
        """Wait until all that was confirmed has ended and is told of, at most so long; then say what is wrong."""
        told: list[Told] = []

        def done() -> bool:
            told.extend(self._take_told())
            wanted = self.confirmed.copy()
            return wanted <= {event.execution_id for event in told} and self.ended(wanted) == len(wanted)

        try:
            self.wait(done, "all have ended", seconds)
        except AssertionError:
            told.extend(self._take_told())  # the verdict says what is missing
        calls = self.history.count("call")
        with self.engine.connect() as connection:
            found = executions.get(connection, [*connection.exec_driver_sql("SELECT id FROM executions").scalars()])
            totals = {
                program: counters.totals(connection, program)
                for program in {self.program_id, *(row.program_id for row in found)}
            }
            evidence = Evidence(
                confirmed=frozenset(self.confirmed),
                calls={UUID(id_): number for id_, number in calls.items()},
                executions=found,
                counted={
                    program: {str(s): getattr(total, s) for s in ExecutionStatus if s.terminal}
                    for program, total in totals.items()
                },
                told=told,
            )
        return judge(evidence)

    def _take_told(self) -> list[Told]:
        taken = []
        with self.channel() as channel:
            for method, _, body in channel.consume(EVENTS, inactivity_timeout=0.1):
                if body is None:
                    break
                event = json.loads(body)
                taken.append(Told(UUID(event["data"]["execution_id"]), event["type"], event["data"]))
                channel.basic_ack(method.delivery_tag)
            channel.cancel()  # what came meanwhile goes back
        return taken

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with self.channel() as channel:
            count: int = channel.queue_declare(queue, passive=True).method.message_count
            return count

    @contextmanager
    def channel(self) -> Generator[Any]:
        """A channel of a connection of its own."""
        with pika.BlockingConnection(pika.URLParameters(self.broker_url)) as connection:
            yield connection.channel()

    def close(self) -> None:
        """Kill the workers."""
        for started in self.workers:
            started.kill()
        self._publisher.close(timeout=1)
        self.engine.dispose()
