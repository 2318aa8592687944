"""Row 38: a worker ends in the middle of what operators ask for, and of what an older worker has left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import JsonValue

from dspex import ExecuteProgram, ExecutionOptions, uuid7
from dspex.contract.commands import CancelExecution
from dspex.contract.selections import CancelExecutions
from store import gates, programs
from store.gates import GateKey
from tests.faults import failpoints
from tests.faults.backlog import rest
from tests.faults.deployment import FaultDeployment

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

LABEL = "job"
LEFT = """
    INSERT INTO executions SELECT (jsonb_populate_record(one, to_jsonb(one) || jsonb_build_object(
        'id', CAST(:id AS text), 'status', 'pending', 'attempt', 0, 'lock_version', 1, 'due_at', now(),
        'worker', null, 'started_at', null, 'finished_at', null, 'outputs', null, 'usage', null, 'duration_ms', null,
        'input_tokens', null, 'output_tokens', null, 'cost', null, 'run_at', null, 'timeline', jsonb_build_array()
    ))).* FROM executions one WHERE one.id = CAST(:of AS uuid)
"""
"""What a worker from before queues leaves: pending, and due, without a place in a queue."""


class Steered:
    """What is asked for in one round: of each kind, so that a worker comes to its point."""

    def __init__(self, deployment: FaultDeployment) -> None:
        self._deployment = deployment
        self.cancelled: list[UUID] = []
        self.never_called: list[UUID] = []
        self.archived: list[UUID] = []
        self.completed: list[UUID] = []

    def ask(self, point: str) -> None:
        """Have the worker come to a point."""
        getattr(self, f"_{point.partition('.')[0]}")(point)

    def _early(self, point: str) -> None:
        """The command comes when the cancel waits for it, or its worker is gone; there are two of these points."""
        execution_id = uuid7()
        self._deployment.tell(CancelExecution(execution_id=execution_id))
        self._later = execution_id
        self.cancelled.append(execution_id)
        if point.endswith("after"):
            self.never_called.append(execution_id)

    def after(self, point: str) -> None:
        """When the worker has come to it."""
        if point.startswith("early"):
            self._send(self._later, gate="never")

    def _cancel_many(self, point: str) -> None:
        ids = self._waiting(point, minutes=60)
        self.cancelled += ids
        self.never_called += ids
        self._deployment.tell(CancelExecutions(metadata={LABEL: point}))

    def _end_waiting(self, point: str) -> None:
        program_id = self._deployment.make_program(uuid7())
        ids = self._waiting(point, minutes=60, program_id=program_id)
        self.archived += ids
        self.never_called += ids
        with self._deployment.engine.begin() as connection:
            programs.archive(connection, program_id)

    def _group(self, point: str) -> None:
        self.completed += self._waiting(point, minutes=0.03)
        with self._deployment.engine.begin() as connection:
            gates.pause(connection, GateKey("label", f"{LABEL}={point}"), by="faults")

    def _wake(self, point: str) -> None:
        self.completed += self._waiting(point, minutes=0.03)

    def _adopt(self, _point: str) -> None:
        [of] = self._deployment.send(1)
        self._deployment.wait_until_ended([of])
        left = uuid7()
        with self._deployment.engine.begin() as connection:
            connection.exec_driver_sql(LEFT.replace(":id", "%(id)s").replace(":of", "%(of)s"), {"id": left, "of": of})
        self._deployment.confirmed.add(left)
        self.completed.append(left)

    def _waiting(self, point: str, minutes: float, program_id: UUID | None = None) -> list[UUID]:
        later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(minutes=minutes))
        ids = [self._send(uuid7(), later, point, program_id) for _ in range(10)]
        self._deployment.wait(lambda: self._deployment.count("status = 'pending'", ids) == len(ids), "all wait")
        return ids

    def _send(
        self,
        execution_id: UUID,
        options: ExecutionOptions | None = None,
        label: str = "",
        program_id: UUID | None = None,
        **order: JsonValue,
    ) -> UUID:
        command = ExecuteProgram(
            execution_id=execution_id,
            program_id=program_id or self._deployment.program_id,
            inputs=order,
            options=options or ExecutionOptions(),
            metadata={LABEL: label},
        )
        self._deployment.publish(command).result(100)
        return execution_id

    def resume(self) -> None:
        """Let go what is paused."""
        with self._deployment.engine.begin() as connection:
            for gate in gates.listing(connection):
                gates.resume(connection, gate.key, by="faults")


def test_killed_in_what_operators_ask_for(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """One worker after another; each finishes what those before it have left, until it comes to its own point."""
    rounds, asked = sized(1, 10), Steered(deployment)
    for _ in range(rounds):
        for point in failpoints.STEERING:
            doomed = deployment.work(threads=4, environment=failpoints.setting(point, 1))
            asked.ask(point)
            assert doomed.wait(30) == -9, point
            asked.after(point)
    reached = [record["point"] for record in deployment.history.records("failpoint")]
    assert reached == [*failpoints.STEERING] * rounds
    deployment.work(threads=4)
    asked.resume()
    verdict = deployment.judge()
    passed(38, f"SIGKILL at each of {len(failpoints.STEERING)} points of steering", len(reached), verdict)
    assert ends(deployment, asked.cancelled) == {("cancelled", None)}
    assert ends(deployment, asked.archived) == {("failed", "program_archived")}
    assert ends(deployment, asked.completed) == {("completed", None)}
    calls = deployment.history.count("call")
    assert [id_ for id_ in asked.never_called if str(id_) in calls] == []
    assert rest(deployment) == []


def ends(deployment: FaultDeployment, ids: Iterable[UUID]) -> set[tuple[object, ...]]:
    """How these have ended."""
    query = "SELECT DISTINCT status, error_code FROM executions WHERE id = ANY(CAST(:ids AS uuid[]))"
    return set(deployment.rows(query, ids=[str(id_) for id_ in ids]))
