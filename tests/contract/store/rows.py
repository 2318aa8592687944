"""What the tests of the store make and look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, select, text, update

from dspex import Configuration, ErrorDetail, ExecutionOptions, ExecutionStatus, Signature, Usage, uuid7
from dspex.contract.events import ProblemDetail
from store import counters, executions, programs, signatures
from store.column_types import database_now
from store.database.batch import encode, upsert
from store.executions import Claim, Claimed, Finish, Lease, Request, Running, Waiting, choosing, statements
from store.executions.rows import request_row
from store.queues.turns import Turns
from store.tables import executions as executions_table

ALICE: Final = Lease("alice", 60)
BOB: Final = Lease("bob", 60)
EXPIRED: Final = -1.0
"""Seconds of a lease that has run out already."""

SIGNATURE = Signature.parse("question, k: int = 3 -> answer, score: float")
ERROR = ErrorDetail(code="timeout", message="no answer", problems=(ProblemDetail(field="score", message="is missing"),))


def keep_signature(connection: Connection, signature: Signature = SIGNATURE, *, activate: bool = True) -> UUID:
    return signatures.create(connection, uuid7(), signature, activate=activate).id


def keep_program(connection: Connection, signature_id: UUID | None = None) -> UUID:
    """A program that is a draft."""
    return programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature_id or keep_signature(connection),
        adapter_type="mock",
        configuration=Configuration(),
    ).id


def ready_program(connection: Connection) -> UUID:
    program_id = keep_program(connection)
    begun = programs.begin_initialize(connection, program_id)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return program_id


def request(program_id: UUID, execution_id: UUID | None = None, **inputs: Any) -> Request:
    return Request(
        execution_id or uuid7(), program_id, inputs or {"question": "why?"}, ExecutionOptions(), "/tests", None
    )


def taken(claim: Claim) -> Claimed:
    assert isinstance(claim, Claimed)
    return claim


def claim_now(connection: Connection, lease: Lease, asked: Sequence[Request]) -> list[Claim]:
    """Claim what is new, with a place for each."""
    return executions.claim(connection, lease, asked, now=[True] * len(asked))


def take(connection: Connection, asked: Request, lease: Lease = ALICE) -> Claimed:
    """Claim one: a new one, or one that waits; before, it is rescued, if its lease has run out."""
    [claimed] = claim_now(connection, lease, [asked])
    if isinstance(claimed, Running):
        assert executions.rescue(connection, 1, only=[asked.identity]) == [asked.identity]
    if isinstance(claimed, Running | Waiting):
        [claimed] = executions.claim_alone(connection, lease, [asked])
    return taken(claimed)


def accept(connection: Connection, *asked: Request) -> None:
    """Write them down as waiting."""
    claims = executions.claim(connection, ALICE, asked, now=[False] * len(asked))
    assert claims == [Waiting(one.id) for one in asked]


def chosen(connection: Connection, lease: Lease = ALICE, places: int = 100) -> list[Request]:
    """Take what may run, as a process with so many free places does."""
    found = choosing.choose(connection, lease, places, Turns(), alone_at=3).chosen
    assert all(isinstance(one.claim, Claimed) for one in found)
    return [one.request for one in found]


def completed(asked: Request, claimed: Claimed, **outputs: Any) -> Finish:
    outputs = outputs or {"answer": "because", "score": 0.5}
    usage = Usage(calls=1, input_tokens=10, output_tokens=2, cost=0.25)
    return Finish(asked.id, asked.program_id, claimed.lock_version, 12.5, usage, outputs)


def failed(asked: Request, claimed: Claimed, error: ErrorDetail = ERROR) -> Finish:
    return Finish(asked.id, asked.program_id, claimed.lock_version, 7.5, Usage(calls=1), error=error)


def cancelled(asked: Request, claimed: Claimed) -> Finish:
    return Finish(asked.id, asked.program_id, claimed.lock_version, 3.0, Usage(input_tokens=4), cancelled=True)


ENDS: Final[Sequence[Callable[[Request, Claimed], Finish]]] = (completed, failed, cancelled)


def expire(connection: Connection, execution_id: UUID) -> None:
    """Let the lease of one that runs run out."""
    c = executions_table.c
    running = update(executions_table).where(c.id == execution_id, c.status == "running")
    connection.execute(running.values(lease_expires_at=database_now(EXPIRED)))


def keep_pending(connection: Connection, *asked: Request, **changes: Any) -> None:
    """Insert them as pending, with these changes, offered nowhere, and counted nowhere."""
    statement = statements.claim(connection.dialect.name, upsert(connection))
    rows = encode(request_row(one) | {"now": False} for one in asked)
    connection.execute(statement, rows | {"worker": "/tests", "lease_seconds": 0.0})
    if changes:
        these = update(executions_table).where(executions_table.c.id.in_([one.id for one in asked]))
        connection.execute(these.values(changes))


def left_by_an_older_worker(connection: Connection, *asked: Request, due_in: float = EXPIRED) -> None:
    """They wait as a worker from before queues leaves them: in no queue, and due for a relay."""
    keep_pending(connection, *asked, run_at=None, due_at=database_now(due_in))


def row(connection: Connection, execution_id: UUID) -> tuple[Any, ...]:
    """Everything that is kept of an execution."""
    return tuple(connection.execute(select(executions_table).where(executions_table.c.id == execution_id)).one())


def get(connection: Connection, execution_id: UUID) -> executions.Execution:
    return executions.get(connection, [execution_id])[0]


def counted(connection: Connection, program_id: UUID) -> tuple[int, int]:
    totals = counters.totals(connection, program_id)
    return totals.completed, totals.failed


def counted_by_status(connection: Connection, program_id: UUID) -> dict[ExecutionStatus, int]:
    """What the counters say, as `executions.count` says it of the rows that have ended."""
    totals = counters.totals(connection, program_id)
    found = {
        ExecutionStatus.COMPLETED: totals.completed,
        ExecutionStatus.FAILED: totals.failed,
        ExecutionStatus.CANCELLED: totals.cancelled,
    }
    return {status: number for status, number in found.items() if number}


def ended_by_status(connection: Connection, program_id: UUID) -> dict[ExecutionStatus, int]:
    """What the rows say."""
    rows = executions.count(connection, program_id).by_status
    return {status: number for status, number in rows.items() if status.terminal}


def clock(connection: Connection) -> datetime:
    now: datetime = connection.execute(select(database_now())).scalar_one()
    return now


def at_once(actions: Sequence[Callable[[], None]]) -> None:
    """Run each in a thread of its own, all beginning together; raises what any of them raised."""
    barrier, errors = threading.Barrier(len(actions)), list[Exception]()

    def run(action: Callable[[], None]) -> None:
        try:
            barrier.wait()
            action()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ExceptionGroup("in threads", errors)


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether a session does; on SQLite, whoever writes waits for whoever does already."""
    if engine.dialect.name == "sqlite":
        return True
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with engine.connect() as connection:
        return bool(connection.execute(waiting).scalar_one())


def told(connection: Connection, execution_id: UUID) -> list[tuple[str, int, str | None]]:
    """The timeline without its moments, which must not go back."""
    entries = get(connection, execution_id).timeline
    moments = [entry.at for entry in entries]
    assert moments == sorted(moments)
    assert all(moment.tzinfo is UTC for moment in moments)
    return [(entry.status, entry.attempt, entry.by) for entry in entries]
