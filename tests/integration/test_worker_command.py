"""`dspex worker` on RabbitMQ and PostgreSQL: it drains, it replaces what dies, and every execution ends once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen
from uuid import UUID

import pika
import pytest
from sqlalchemy import Engine, func, select

from deploy.processes import Process, free_port, start_time, wait_until
from dspex import (
    Configuration,
    CreateProgram,
    CreateSignature,
    ExecuteProgram,
    ExecutionOptions,
    ExecutionStatus,
    InitializeProgram,
    ProgramStatus,
    Signature,
    uuid7,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE, QUEUES
from dspex.contract.options import Lane
from dspex.errors import NotFound, SettingsError
from dspex.producer import Producer
from store import counters, executions, programs
from store.database.engine import make_engine
from store.database.tenancy import ALL
from store.executions import Execution
from store.queues import position, register, unserved
from store.queues.figures import Scope
from store.tables import workers as workers_table
from tests import preloaded
from tests.conftest import new_database
from tests.tcp_proxy import TcpProxy
from workers.brokers import amqp
from workers.brokers.topology import dead_letter_queue
from workers.process.watchdog import EXIT_CODE
from workers.telemetry.metrics import require_free

pytestmark = pytest.mark.integration

DOOM = """
import ctypes, os, signal, sys, threading, time

def handles(frame):
    while frame is not None and frame.f_code.co_name != "process_message":
        frame = frame.f_back
    return frame is not None

def kill(thread):
    while thread.is_alive():
        # What an actor raises, Dramatiq catches. A short look: the thread must not get there meanwhile.
        if not handles(sys._current_frames()[thread.ident]):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        time.sleep(0.02)

def doom(*_):
    for thread in threading.enumerate():
        if thread.name == os.environ["DOOMED_THREAD"]:
            threading.Thread(target=kill, args=(thread,), daemon=True).start()

signal.signal(signal.SIGUSR1, doom)
"""
"""Run at the start of a process; at a signal, one thread ends as if a bug had ended it."""

UNTOLD = """
import threading
from workers.execution.places import Places

chosen = Places._chosen

def die(places, room, choice, error):
    if choice is not None and choice.chosen and threading.current_thread().name == "claimer":
        raise SystemExit
    chosen(places, room, choice, error)

Places._chosen = die
"""
"""Run at the start of a process: its claimer ends between the first commit of a choice and telling of it."""

DSPEX = (sys.executable, "-m", "workers.cli")
PATIENCE = 60.0


class Workers:
    """A `dspex worker`, and the processes that it has started."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path, before: str) -> None:
        self.log = log
        self.process = preloaded.start(["worker", *arguments], environment, log, session=True, before=before)
        self._supervisor = Process(self.process.pid, start_time(self.process.pid) or 0, signal.SIGTERM)
        self.known: dict[int, Process] = {}

    @property
    def children(self) -> list[Process]:
        """The worker processes that live now."""
        family = self._supervisor.family()
        for member in family:
            self.known.setdefault(member.pid, member)
        return [member for member in family if member.pid != self.process.pid]

    def said(self, text: str) -> int:
        """How often the log has this text."""
        return self.log.read_text(encoding="utf-8").count(text)

    def wait_until_said(self, text: str, times: int = 1) -> None:
        assert wait_until(lambda: self.said(text) >= times or self.process.poll() is not None, PATIENCE)
        assert self.said(text) >= times, self.log.read_text(encoding="utf-8")

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.children  # noqa: B018  noted, to be sure that all of them end
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def alive(self) -> list[int]:
        """The ids of what still runs, of all that was seen."""
        return [pid for pid, process in self.known.items() if pid != self.process.pid and process.alive()]

    def close(self) -> None:
        self.children  # noqa: B018  noted, to be ended
        for process in (self._supervisor, *self.known.values()):
            process.send(signal.SIGKILL)
        self.process.wait(PATIENCE)


class System:
    """RabbitMQ, PostgreSQL, a producer, and workers as the test starts them."""

    def __init__(self, broker_url: str, database_url: str, folder: Path) -> None:
        self.broker_url = broker_url
        self.engine: Engine = make_engine(database_url)
        self.producer = Producer.connect(broker_url, source="/tests")
        self._folder = folder
        self._workers: list[Workers] = []
        bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
        self.environment = bare | {
            "DSPEX_BROKER_URL": broker_url,
            "DSPEX_DATABASE_URL": database_url,
            "DSPEX_WEBHOOK_THREADS": "0",  # `test_webhooks.py` is about the process that delivers them
        }

    def work(self, *arguments: str, wait: int = 1, before: str = "", **settings: object) -> Workers:
        """Start `dspex worker`, and wait until `wait` processes take jobs. `before`: see `preloaded.start`."""
        environment = {f"DSPEX_{name.upper()}": str(value) for name, value in settings.items()}
        log = self._folder / f"worker-{len(self._workers)}.log"
        workers = Workers(arguments, self.environment | environment, log, before)
        self._workers.append(workers)
        workers.wait_until_said("takes jobs", wait)
        return workers

    def program(self, latency_ms: float) -> UUID:
        """A program on the mock adapter, ready."""
        signature_id, program_id = uuid7(), uuid7()
        self.producer.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("question -> answer")))
        self.producer.send(
            CreateProgram(
                program_id=program_id,
                signature_id=signature_id,
                name="program",
                adapter_type="mock",
                configuration=Configuration(parameters={"latency_ms": latency_ms}),
            )
        )
        self.producer.send(InitializeProgram(program_id=program_id))

        def ready() -> bool:
            with self.engine.connect() as connection:
                try:
                    return programs.get(connection, program_id).status == ProgramStatus.READY
                except NotFound:
                    return False

        assert wait_until(ready, PATIENCE)
        return program_id

    def execute(self, program_id: UUID, number: int) -> list[UUID]:
        ids = [uuid7() for _ in range(number)]
        self.producer.send_all(
            ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": str(execution_id)})
            for execution_id in ids
        )
        return ids

    def rows(self, ids: list[UUID]) -> list[Execution]:
        with self.engine.connect() as connection:
            return executions.get(connection, ids)

    def count(self, ids: list[UUID], *statuses: ExecutionStatus) -> int:
        return sum(row.status in statuses for row in self.rows(ids))

    def wait_for(self, ids: list[UUID], number: int, *statuses: ExecutionStatus) -> None:
        """Until this many executions are in one of these states."""
        assert wait_until(lambda: self.count(ids, *statuses) >= number, PATIENCE), [r.status for r in self.rows(ids)]

    def check(self, program_id: UUID, ids: list[UUID]) -> list[Execution]:
        """Each has one row, completed, and the counters say the same."""
        self.wait_for(ids, len(ids), ExecutionStatus.COMPLETED)
        with self.engine.connect() as connection:
            assert executions.count(connection, program_id).by_status == {ExecutionStatus.COMPLETED: len(ids)}
            totals = counters.totals(connection, program_id)
        assert (totals.completed, totals.failed) == (len(ids), 0)
        return self.rows(ids)

    def waiting(self) -> list[UUID]:
        """The executions whose messages wait in the queue. They go back to it when the connection closes."""
        found = []
        with pika.BlockingConnection(pika.URLParameters(self.broker_url)) as connection:
            channel = connection.channel()
            while (body := channel.basic_get(EXECUTIONS_QUEUE)[2]) is not None:
                found.append(UUID(json.loads(body)["data"]["execution_id"]))
        return found

    def close(self) -> None:
        for workers in self._workers:
            workers.close()
        self.producer.close()
        self.engine.dispose()


@pytest.fixture
def system(own_amqp_url: str, migrated_database_url: str, tmp_path: Path) -> Iterator[System]:
    amqp.check(own_amqp_url)
    with pika.BlockingConnection(pika.URLParameters(own_amqp_url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_purge(queue)
            channel.queue_purge(dead_letter_queue(queue))
    system = System(own_amqp_url, migrated_database_url, tmp_path)
    yield system
    system.close()


def refused(*said: str, **environment: str) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    done = preloaded.run(["worker"], Path.cwd(), bare | environment, "", PATIENCE)
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("dspex: ")
    for text in said:
        assert text in line


class TestRefusals:
    def test_the_broker_in_memory(self) -> None:
        refused("DSPEX_BROKER_URL", "amqp://", "`dspex run`", DSPEX_BROKER_URL="memory://")

    def test_a_database_without_tables(self, own_amqp_url: str, postgres_url: str) -> None:
        with new_database(postgres_url) as url:
            refused("`dspex migrate`", DSPEX_BROKER_URL=own_amqp_url, DSPEX_DATABASE_URL=url)

    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_a_port_for_metrics_that_is_taken(self, system: System, processes: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            given = {"DSPEX_METRICS_ADDRESS": address, "DSPEX_PROCESSES": processes, "DSPEX_LOG_LEVEL": "ERROR"}
            refused(f"DSPEX_METRICS_ADDRESS: cannot listen on {address}", **system.environment | given)

    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_queues_of_the_other_type(self, system: System, processes: str) -> None:
        given = {"DSPEX_QUEUE_TYPE": "quorum", "DSPEX_PROCESSES": processes}
        refused("DSPEX_QUEUE_TYPE: queue", "set DSPEX_QUEUE_TYPE=classic, or", **system.environment | given)


class TestMetrics:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_each_process_serves_its_own(self, system: System, processes: int) -> None:
        port = free_ports(processes)
        workers = system.work(
            "--processes", str(processes), "--threads", "1", wait=processes, metrics_address=f"127.0.0.1:{port}"
        )
        for number in range(processes):
            with urlopen(f"http://127.0.0.1:{port + number}/metrics", timeout=PATIENCE) as response:
                lines = response.read().decode().splitlines()
            assert "dspex_stale_writes_total 0.0" in lines
        assert workers.terminate() == 0


def free_ports(number: int) -> int:
    """The first of some ports in a row on which nobody listens."""
    while True:
        first = free_port()
        with suppress(SettingsError):
            require_free(f"127.0.0.1:{first + offset}" for offset in range(number))
            return first


class TestDrain:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_one_process(self, system: System, number: signal.Signals) -> None:
        workers = system.work("--threads", "2")
        program_id = system.program(latency_ms=300)
        ids = system.execute(program_id, 20)
        system.wait_for(ids, 1, ExecutionStatus.COMPLETED)  # what is RUNNING may be claimed and not begun
        workers.process.send_signal(number)
        assert workers.process.wait(PATIENCE) == 0
        self.check_drained(system, ids)

    def test_two_processes(self, system: System) -> None:
        workers = system.work("--processes", "2", "--threads", "2", wait=2)
        program_id = system.program(latency_ms=300)
        ids = system.execute(program_id, 40)
        system.wait_for(ids, 4, ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED)
        assert len(workers.children) == 2
        assert workers.terminate() == 0
        assert workers.alive() == []
        self.check_drained(system, ids)
        assert workers.said("Draining.") == 2
        assert workers.said("Traceback") == 0
        # Once for all of its processes, and it is no reason not to start.
        with pika.BlockingConnection(pika.URLParameters(system.broker_url)) as connection:
            version = connection._impl.server_properties["version"]  # pyright: ignore[reportAttributeAccessIssue]
        old = int(version.partition(".")[0]) < 4
        assert workers.said(f"WARNING workers.cli.worker: The broker is RabbitMQ {version}: before 4") == int(old)

        system.work("--threads", "32")
        assert {row.attempt for row in system.check(program_id, ids)} == {1}

    @staticmethod
    def check_drained(system: System, ids: list[UUID]) -> None:
        """What ran has ended; what was not begun waits; what was not accepted is in the broker's queue."""
        rows = system.rows(ids)
        free = [row.id for row in rows if (row.status, row.attempt) == (ExecutionStatus.PENDING, 0)]
        assert {row.status for row in rows if row.id not in free} == {ExecutionStatus.COMPLETED}
        waited = set(ids) - {row.id for row in rows}

        def all_wait() -> bool:
            waiting = system.waiting()
            return len(waiting) == len(set(waiting)) and set(waiting) - set(free) == waited

        assert wait_until(all_wait, PATIENCE), (waited, free, system.waiting())

    def test_what_does_not_end_in_time_ends_elsewhere(self, system: System) -> None:
        first = system.work("--threads", "4", shutdown_seconds=0.2)
        program_id = system.program(latency_ms=3_000)
        ids = system.execute(program_id, 4)
        system.wait_for(ids, 4, ExecutionStatus.RUNNING)
        assert first.terminate() == 0
        assert first.said("are given back") == 1
        assert {(row.status, row.attempt) for row in system.rows(ids)} == {(ExecutionStatus.PENDING, 0)}
        system.work("--threads", "4")
        rows = system.check(program_id, ids)
        assert {row.attempt for row in rows} == {1}

    def test_what_can_be_handed_to_nobody_is_an_error(self, system: System, migrated_database_url: str) -> None:
        with TcpProxy(migrated_database_url) as proxy:
            workers = system.work("--threads", "2", shutdown_seconds=1, database_url=proxy.url)
            program_id = system.program(latency_ms=60_000)
            ids = system.execute(program_id, 2)
            system.wait_for(ids, 2, ExecutionStatus.RUNNING)
            proxy.refuse()
            proxy.reset()
            assert workers.terminate() == 1
            assert workers.said("were not given back") == 1
            assert workers.said("Traceback") == 0

    @pytest.mark.parametrize("command", ["worker", "deliverer"])
    def test_a_signal_is_not_lost_while_it_starts(self, own_amqp_url: str, command: str) -> None:
        """As the first process of a container, which has no default for signals; here its database does not answer."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(PATIENCE)
            bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
            database_url = f"postgresql://dspex@127.0.0.1:{silent.getsockname()[1]}/dspex"
            process = subprocess.Popen(
                ["unshare", "--fork", "--pid", "--kill-child", *DSPEX, command],
                env=bare | {"DSPEX_BROKER_URL": own_amqp_url, "DSPEX_DATABASE_URL": database_url},
            )
            family = Process(process.pid, start_time(process.pid) or 0, signal.SIGKILL, process)
            try:
                connection, _ = silent.accept()
                with connection:
                    (first,) = [member for member in family.family() if member.pid != process.pid]
                    first.send(signal.SIGTERM)
                    assert process.wait(PATIENCE) == 0
            finally:
                family.send(signal.SIGKILL)
                process.wait(PATIENCE)


class TestDeath:
    def test_a_process_that_is_killed_is_replaced_and_its_executions_end(self, system: System) -> None:
        workers = system.work("--processes", "2", "--threads", "8", wait=2, lease_seconds=1)
        program_id = system.program(latency_ms=50)
        ids = system.execute(program_id, 400)
        for death in range(1, 3):
            system.wait_for(ids, 100 * death, ExecutionStatus.COMPLETED)
            workers.children[0].send(signal.SIGKILL)
            workers.wait_until_said("it is replaced", death)
            workers.wait_until_said("takes jobs", 2 + death)
        rows = system.check(program_id, ids)
        assert {row.attempt for row in rows} <= {1, 2, 3}
        assert max(row.attempt for row in rows) > 1
        assert len(workers.children) == 2
        assert workers.terminate() == 0
        assert workers.alive() == []

    def test_the_supervisor_is_killed(self, system: System) -> None:
        workers = system.work("--processes", "2", "--threads", "4", wait=2)
        program_id = system.program(latency_ms=200)
        ids = system.execute(program_id, 60)
        system.wait_for(ids, 8, ExecutionStatus.COMPLETED)
        assert len(workers.children) == 2
        workers.process.kill()
        workers.process.wait(PATIENCE)
        assert wait_until(lambda: workers.alive() == [], PATIENCE)
        assert workers.said("The supervisor is gone") == 2
        TestDrain.check_drained(system, ids)
        system.work("--threads", "32")
        assert {row.attempt for row in system.check(program_id, ids)} == {1}

    def test_all_processes_are_killed_at_once(self, system: System) -> None:
        workers = system.work("--processes", "2", "--threads", "2", wait=2)
        program_id = system.program(latency_ms=1)
        for child in workers.children:
            child.send(signal.SIGKILL)
        workers.wait_until_said("takes jobs", 4)
        system.check(program_id, system.execute(program_id, 20))
        assert workers.terminate() == 0


class TestTheRegister:
    def test_what_no_live_worker_serves_is_told_until_one_does(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (unserved, position):
            monkeypatch.setattr(module, "LATE_SECONDS", 0.0)

        def live() -> list[object]:
            with system.engine.connect() as connection:
                return [worker.serves["lanes"] for worker in register.page(connection, None, 10)]

        def told() -> set[str]:
            with system.engine.connect() as connection:
                fleet = register.read(connection)
                return {one.missing for one in unserved.unserved(connection, fleet, Scope(ALL))}

        def told_of(execution_id: UUID) -> str | None:
            with system.engine.connect() as connection:
                found = position.position(connection, execution_id)
            return None if found is None else found.unserved

        system.work("--lanes", "high", lease_seconds=1)
        program_id, bulk = system.program(0), uuid7()
        options = ExecutionOptions(lane=Lane.BULK)
        system.producer.send(
            ExecuteProgram(execution_id=bulk, program_id=program_id, inputs={"question": "?"}, options=options)
        )
        assert wait_until(lambda: told_of(bulk) == "lane bulk", PATIENCE)
        assert told() == {"lane bulk"}
        other = system.work("--lanes", "bulk", lease_seconds=1)
        system.check(program_id, [bulk])
        assert (told(), told_of(bulk)) == (set(), None)
        assert wait_until(lambda: sorted(map(str, live())) == ["['bulk']", "['high']"], PATIENCE), live()
        other.process.kill()
        assert wait_until(lambda: live() == [["high"]], PATIENCE), live()

        def rows() -> int:
            with system.engine.connect() as connection:
                return connection.execute(select(func.count()).select_from(workers_table)).scalar_one()

        assert wait_until(lambda: rows() == 1, PATIENCE)


class TestALostThread:
    @pytest.mark.parametrize(
        "name", ["worker-1", f"consumer-{EXECUTIONS_QUEUE}", "claimer", "writer", "heartbeat", "relay"]
    )
    def test_the_process_says_so_and_ends(self, system: System, name: str) -> None:
        system.environment["DOOMED_THREAD"] = name
        # Without a writer nothing can be given back: only what runs out is run again.
        lease = 1 if name == "writer" else 30
        workers = system.work("--threads", "4", lease_seconds=lease, before=DOOM)
        program_id = system.program(latency_ms=500)
        ids = system.execute(program_id, 8)
        system.wait_for(ids, 4, ExecutionStatus.RUNNING)
        workers.process.send_signal(signal.SIGUSR1)
        assert workers.process.wait(PATIENCE) == EXIT_CODE
        assert workers.said("has died") == workers.said(f"Thread {name} has died: this process ends.") == 1
        system.work("--threads", "8", lease_seconds=lease)
        rows = system.check(program_id, ids)
        assert max(row.attempt for row in rows) == (2 if name == "writer" else 1)

    def test_what_it_has_chosen_last_is_given_back_although_nobody_knows_of_it(self, system: System) -> None:
        workers = system.work("--threads", "2", lease_seconds=30, before=UNTOLD)
        program_id = system.program(latency_ms=100)
        ids = system.execute(program_id, 8)
        assert workers.process.wait(PATIENCE) == EXIT_CODE
        assert workers.said("Thread claimer has died: this process ends.") == 1
        assert system.count(ids, ExecutionStatus.RUNNING) == 0
        system.work("--threads", "8", lease_seconds=30)
        assert {row.attempt for row in system.check(program_id, ids)} == {1}

    def test_the_supervisor_replaces_it(self, system: System, tmp_path: Path) -> None:
        # The supervisor starts interpreters, each of which runs this.
        (tmp_path / "sitecustomize.py").write_text(DOOM, encoding="utf-8")
        system.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
        system.environment["DOOMED_THREAD"] = "worker-0"
        workers = system.work("--processes", "2", "--threads", "2", wait=2)
        program_id = system.program(latency_ms=20)
        workers.children[0].send(signal.SIGUSR1)
        workers.wait_until_said(f"ended with {EXIT_CODE}: it is replaced")
        workers.wait_until_said("takes jobs", 3)
        system.check(program_id, system.execute(program_id, 20))
        assert workers.terminate() == 0
        assert workers.said("has died") == 1
        assert workers.alive() == []
