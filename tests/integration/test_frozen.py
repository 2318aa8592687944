"""A worker that is frozen in a transaction stops nobody: others go on at once, and what it holds is free in a while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from deploy.processes import wait_until
from dspex import Configuration, ExecutionStatus, Signature, Usage, uuid7
from store import counters, executions, programs, signatures
from store.database.engine import make_engine
from store.executions import Claimed, Execution, Finish, Lease, Running
from tests.conftest import pooled
from tests.contract.store.test_refusals import Held
from tests.integration.frozen import LEASE, request
from workers.persistence.group_commit import Writer
from workers.persistence.operations import Submission, Writes

LEASE_SECONDS = LEASE.seconds
OTHERS = 30


class Fleet:
    """A frozen worker, and a healthy one whose batches meet it."""

    def __init__(self, url: str, pool: ThreadPoolExecutor) -> None:
        self.url = url
        self.engine: Engine = make_engine(url, lease_seconds=LEASE_SECONDS)
        self.writes = Writes(Lease("healthy", LEASE_SECONDS), 0)
        self.writer = Writer(self.engine)
        self.writer.start()
        self._pool = pool
        self.program, self.other = self._program(), self._program()
        self.frozen: subprocess.Popen[str] | None = None
        self.session = 0

    def _program(self) -> UUID:
        with self.engine.begin() as connection:
            signature = signatures.create(connection, uuid7(), Signature.parse("question -> answer"), activate=True)
            program = programs.create(
                connection,
                uuid7(),
                name="p",
                signature_id=signature.id,
                adapter_type="mock",
                configuration=Configuration(),
            )
            begun = programs.begin_initialize(connection, program.id)
            programs.end_initialize(connection, begun, "backend")
        return program.id

    def claimed(self, program_id: UUID, worker: str = "healthy") -> UUID:
        execution_id = uuid7()
        with self.engine.begin() as connection:
            asked = [request(program_id, execution_id)]
            [claim] = executions.claim(connection, Lease(worker, LEASE_SECONDS), asked, now=[True])
        assert isinstance(claim, Claimed)
        return execution_id

    def freeze(self, action: str, execution_id: UUID) -> None:
        """Start a worker that does this, and freeze it before it commits."""
        command = [sys.executable, "-m", "tests.integration.frozen", self.url, action]
        self.frozen = subprocess.Popen(
            [*command, str(self.program), str(execution_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.frozen.stdout is not None
        self.session = int(self.frozen.stdout.readline())
        self.frozen.send_signal(signal.SIGSTOP)

    def holds(self) -> bool:
        with self.engine.connect() as connection:
            found = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
            return bool(connection.execute(found, {"pid": self.session}).scalar_one())

    def thaw(self) -> dict[str, Any]:
        """Let it go on: what it says of its commit."""
        assert self.frozen is not None
        self.frozen.send_signal(signal.SIGCONT)
        said, _ = self.frozen.communicate("commit\n", timeout=60)
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answer

    def together(self, writes: list[tuple[Any, Any]]) -> list[Future[Any]]:
        """Have these written as one batch."""
        held = Held()
        gate = self._pool.submit(self.writer.call, held, None)
        assert held.entered.wait(30)
        futures = [self._pool.submit(self.writer.call, operation, item) for operation, item in writes]
        assert wait_until(lambda: len(self.writer._waiting) == len(writes), 30)
        held.open.set()
        gate.result(30)
        return futures

    def row(self, execution_id: UUID) -> Execution:
        with self.engine.connect() as connection:
            return executions.get(connection, [execution_id])[0]

    def close(self) -> None:
        if self.frozen is not None:
            self.frozen.kill()
            self.frozen.communicate()
        self.writer.close()
        self.engine.dispose()


@pytest.fixture(params=["direct", "pooled"])
def fleet(request: pytest.FixtureRequest, migrated_database_url: str, servers_directory: Path) -> Iterator[Fleet]:
    with ExitStack() as ending:
        pool = ending.enter_context(ThreadPoolExecutor(64))
        url = migrated_database_url
        if request.param == "pooled":
            url = ending.enter_context(pooled(url, servers_directory))
        fleet = Fleet(url, pool)
        yield fleet
        fleet.close()


def goes_on(fleet: Fleet, blocked: list[tuple[Any, Any]]) -> list[Any]:
    """Others are written while the frozen one holds its locks, and what it blocks within a lease."""
    others = [(fleet.writes.claim, Submission(request(fleet.other, uuid7()), now=True)) for _ in range(OTHERS)]
    ends = [
        (fleet.writes.finish, Finish(fleet.claimed(fleet.other), fleet.other, 1, 1.0, Usage(), {"answer": "a"}))
        for _ in range(OTHERS)
    ]
    beats: list[tuple[Any, Any]] = [(fleet.writes.heartbeat, [])]
    began = time.monotonic()
    futures = fleet.together([*blocked, *others, *ends, *beats])
    waiting, free = futures[: len(blocked)], futures[len(blocked) :]
    assert all(isinstance(future.result(60), Claimed) for future in free[:OTHERS])
    assert all(future.result(60).held for future in free[OTHERS:-1])
    free[-1].result(60)
    assert fleet.holds(), "they had to wait for the frozen session to be ended"
    assert not any(future.done() for future in waiting)
    found = [future.result(LEASE_SECONDS) for future in waiting]
    assert time.monotonic() - began < LEASE_SECONDS
    return found


def test_an_open_claim(fleet: Fleet) -> None:
    execution_id = uuid7()
    fleet.freeze("claim", execution_id)
    [claim] = goes_on(fleet, [(fleet.writes.claim, Submission(request(fleet.program, execution_id), now=True))])
    assert isinstance(claim, Claimed)
    assert not fleet.thaw()["committed"]
    assert fleet.row(execution_id).worker == "healthy"
    assert fleet.row(execution_id).attempt == 1


def test_an_open_claim_of_a_key(fleet: Fleet) -> None:
    first, second = uuid7(), uuid7()
    fleet.freeze("claim_by_key", first)
    [claim] = goes_on(fleet, [(fleet.writes.claim, Submission(request(fleet.program, second, "the key"), now=True))])
    assert isinstance(claim, Claimed)
    assert claim.id == second
    assert not fleet.thaw()["committed"]
    with fleet.engine.connect() as connection:
        assert executions.get(connection, [first]) == []


def test_an_open_end(fleet: Fleet) -> None:
    """It holds its row, and the counters of its program."""
    execution_id, mine = fleet.claimed(fleet.program, "frozen"), fleet.claimed(fleet.program)
    fleet.freeze("end", execution_id)

    def cancel(connection: Connection) -> Execution:
        return executions.cancel(connection, execution_id, by="ann")

    end = Finish(mine, fleet.program, 1, 1.0, Usage(), {"answer": "of the healthy one"})
    written, cancelled = goes_on(fleet, [(fleet.writes.finish, end), (fleet.writes.each, cancel)])
    assert written.held
    assert cancelled.cancel_requested
    assert not fleet.thaw()["committed"]
    assert fleet.row(execution_id).status == ExecutionStatus.RUNNING
    with fleet.engine.connect() as connection:
        assert counters.totals(connection, fleet.program).completed == 1


@pytest.mark.parametrize("action", ["cancel", "release"])
def test_an_open_change_of_a_row(fleet: Fleet, action: str) -> None:
    execution_id = fleet.claimed(fleet.program, "frozen")
    fleet.freeze(action, execution_id)

    def cancel(connection: Connection) -> Execution:
        return executions.cancel(connection, execution_id, by="ann")

    [cancelled] = goes_on(fleet, [(fleet.writes.each, cancel)])
    assert cancelled.cancel_requested
    assert not fleet.thaw()["committed"]
    row = fleet.row(execution_id)
    assert (row.status, row.attempt, row.cancel_requested) == (ExecutionStatus.RUNNING, 1, True)
    [again] = [fleet.writer.call(fleet.writes.claim, Submission(request(fleet.program, execution_id), now=True))]
    assert isinstance(again, Running)
