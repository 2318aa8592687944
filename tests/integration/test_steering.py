"""Pauses, limits, cancels by filter and restored programs, as two workers on RabbitMQ and PostgreSQL keep to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import text

from dspex import Configuration, ExecutionOptions
from dspex.client.handles import Handle
from dspex.client.remote import RemoteClient
from dspex.contract.options import Lane
from store.database.engine import make_engine
from tests import preloaded
from tests.contract.interface import ready
from tests.deployment import environment_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

THREADS: Final = 4
PATIENCE: Final = 60.0
EFFECTIVE_SECONDS: Final = 5.0
"""It is a second; a machine with other work may take longer to begin what was chosen before."""


class Fleet:
    """Two workers, a client of RabbitMQ, and the command line of whoever has the database."""

    def __init__(self, broker_url: str, database_url: str, folder: Path) -> None:
        self.environment = environment_of(broker_url, database_url) | {
            "DSPEX_THREADS": str(THREADS),
            "DSPEX_WEBHOOK_THREADS": "0",
        }
        self._folder = folder
        self._engine = make_engine(database_url)
        logs = [folder / f"worker-{number}.log" for number in range(2)]
        self._workers = [preloaded.start(["worker"], self.environment, log, session=True) for log in logs]
        for log in logs:
            wait_until(lambda log=log: "takes jobs" in log.read_text(), "it takes jobs", PATIENCE)  # type: ignore[misc]
        self.client = RemoteClient(broker_url, source="/tests", timeout=PATIENCE)

    def program(self, latency_ms: float = 20) -> UUID:
        return ready(self.client, configuration=Configuration(parameters={"latency_ms": latency_ms})).program_id

    def submit(
        self, program_id: UUID, number: int, lane: Lane | None = None, not_before: datetime | None = None
    ) -> list[Handle]:
        options = ExecutionOptions(lane=lane, not_before=not_before)
        return [self.client.submit_program(program_id, {"question": "?"}, options=options) for _ in range(number)]

    def dspex(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        done = preloaded.run([*arguments, "--json"], self._folder, self.environment, "", PATIENCE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def count(self, condition: str, handles: Sequence[Handle]) -> int:
        found = self.rows(
            f"SELECT count(*) FROM executions WHERE id = ANY(CAST(:ids AS uuid[])) AND {condition}", handles
        )
        number: int = found[0][0]
        return number

    def rows(self, query: str, handles: Sequence[Handle]) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            given = {"ids": [str(handle.execution_id) for handle in handles]}
            return [tuple(row) for row in connection.execute(text(query), given)]

    def wait_for(self, condition: str, handles: Sequence[Handle], number: int) -> None:
        wait_until(lambda: self.count(condition, handles) >= number, f"{number} of {condition}", PATIENCE)

    def close(self) -> None:
        self.client.close()
        for worker in self._workers:
            worker.terminate()
        assert [worker.wait(PATIENCE) for worker in self._workers] == [0, 0]
        self._engine.dispose()


@pytest.fixture
def fleet(own_amqp_url: str, migrated_database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(own_amqp_url, migrated_database_url, tmp_path)
    yield made
    made.close()


def completed(handles: Sequence[Handle]) -> set[tuple[str, int]]:
    """How these end, and in which attempt."""
    ended = [handle.execution(PATIENCE) for handle in handles]
    return {(view.status, view.attempt) for view in ended}


def test_a_pause_holds_everywhere_within_a_second_and_is_seen(fleet: Fleet) -> None:
    """By command line and by message, in the middle of a backlog; what ran goes on to its end."""
    program_id, other = fleet.program(latency_ms=150), fleet.program()
    handles = fleet.submit(program_id, 300)
    fleet.wait_for("status = 'completed'", handles, 16)
    paused = fleet.dspex("pause", "--program", str(program_id), "--reason", "the index is built again")
    assert paused["paused"]["reason"] == "the index is built again"
    wait_until(lambda: fleet.count("status = 'running'", handles) == 0, "what ran has ended")
    waiting = fleet.count("status = 'pending'", handles)
    assert waiting > 0
    assert completed(fleet.submit(other, 40)) == {("completed", 1)}  # by both workers, which chose meanwhile
    assert fleet.count("status = 'pending'", handles) == waiting
    late = f"started_at > CAST('{paused['paused']['at']}' AS timestamptz) + interval '{EFFECTIVE_SECONDS} seconds'"
    assert fleet.count(late, handles) == 0
    workers = "SELECT count(DISTINCT worker) FROM executions WHERE id = ANY(CAST(:ids AS uuid[])) AND attempt > 0"
    assert fleet.rows(workers, handles) == [(2,)]

    seen = fleet.dspex("queue", "--by", "program")["items"]
    [held] = [one for one in seen if one["program_id"] == str(program_id)]
    assert held["waiting"] == waiting
    assert held["held_by"] == [{"scope": f"program {program_id}", "paused": True}]
    [gate] = fleet.dspex("gates")["items"]
    assert (gate["scope"]["name"], gate["paused"]) == (str(program_id), paused["paused"])
    ids = {
        one.execution_id
        for one in fleet.client.list_executions(program_id=program_id, status="pending", limit=20).items
    }
    for id_ in list(ids)[:1]:
        view = fleet.client.get_execution(id_)
        assert view.waiting is not None
        assert (view.waiting.reason, view.waiting.held_by) == ("paused", f"program {program_id}")

    # What waits can be cancelled all the same; so the test need not wait for all of them.
    rest = [handle for handle in handles if handle.execution_id not in ids]
    cancelled = fleet.client.cancel_executions([handle.execution_id for handle in rest]).count
    assert cancelled == waiting - len(ids)
    assert fleet.client.resume("program", program_id).paused is None
    assert completed([handle for handle in handles if handle.execution_id in ids]) == {("completed", 1)}
    assert completed(rest) == {("completed", 1), ("cancelled", 0)}
    wait_until(lambda: fleet.dspex("gates")["items"] == [], "nothing is paused")


def test_a_limit_holds_for_both_workers_together(fleet: Fleet) -> None:
    program_id = fleet.program(latency_ms=30)
    limited = fleet.dspex("limit", "set", "--program", str(program_id), "--in-flight", "3")
    assert limited["allowed"] == 3
    # Later than all know of it.
    handles = fleet.submit(program_id, 40, not_before=datetime.now(UTC) + timedelta(seconds=2))
    most = set()

    def ended() -> bool:
        most.add(fleet.count("status = 'running'", handles))
        return fleet.count("status = 'completed'", handles) == 40

    wait_until(ended, "all have ended", PATIENCE)
    assert max(most) <= 3
    assert completed(handles) == {("completed", 1)}
    assert fleet.client.remove_limit("program", program_id).limits is None


def test_what_waits_is_cancelled_by_filter_and_a_program_is_restored(fleet: Fleet) -> None:
    program_id = fleet.program()
    fleet.dspex("pause", "--lane", "bulk")
    bulk = fleet.submit(program_id, 30, Lane.BULK, not_before=datetime.now(UTC) + timedelta(seconds=1.5))
    fleet.wait_for("status = 'pending' AND run_at < clock_timestamp()", bulk, 30)
    assert completed(fleet.submit(program_id, 10)) == {("completed", 1)}  # another lane
    cancelled = fleet.dspex(
        "execution", "cancel", "--program", str(program_id), "--status", "pending", "--lane", "bulk"
    )
    assert cancelled["count"] == 30
    assert completed(bulk) == {("cancelled", 0)}
    fleet.dspex("resume", "--lane", "bulk")

    waits = fleet.submit(program_id, 10, not_before=datetime(2100, 1, 1, tzinfo=UTC))
    fleet.wait_for("status = 'pending'", waits, 10)
    fleet.client.archive_program(program_id)
    assert completed(waits) == {("failed", 0)}
    assert {handle.execution(0).error.code for handle in waits} == {"program_archived"}  # type: ignore[union-attr]
    fleet.dspex("program", "restore", str(program_id))
    assert completed(fleet.submit(program_id, 10, Lane.HIGH)) == {("completed", 1)}
    assert fleet.client.get_backlog().total.waiting == 0
