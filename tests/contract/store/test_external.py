"""External executions in the store: what no worker takes, marks that race, leases that run out."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, null, select, true, update

from dspex import Configuration, ErrorCode, ExecutionStatus, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.errors import Conflict, DspexError, IllegalTransition, NotFound
from store import counters, event_outbox, executions, programs, webhooks
from store.column_types import database_now
from store.executions import (
    Claimed,
    Conflicting,
    Heartbeat,
    Request,
    blobs,
    external,
)
from store.executions.external import Mark, Result
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    ERROR,
    EXPIRED,
    at_once,
    chosen,
    claim_now,
    counted_by_status,
    ended_by_status,
    get,
    ready_program,
    request,
    row,
    take,
    told,
)
from tests.sizes import sized

DONE = Result(outputs={"answer": "a", "score": 1.0}, usage=Usage(calls=1, input_tokens=3, output_tokens=1, cost=0.5))
FAILED = Result(error=ERROR)


def mark(asked: Request | UUID, version: int, name: str = "", tenant: str = "default") -> Mark:
    id_ = asked.id if isinstance(asked, Request) else asked
    return Mark(id_, version, name or str(uuid7()), "external:ann", tenant)


def running(connection: Connection, program_id: UUID, seconds: float = 60.0) -> Request:
    """One that is marked running; its version is 2."""
    asked = request(program_id)
    external.create(connection, asked)
    external.mark_running(connection, mark(asked, 1), seconds)
    return asked


def cancelled_by_an_older_worker(connection: Connection, asked: Request) -> None:
    """What `cancel` of the version before does to a row that runs."""
    c = executions_table.c
    connection.execute(update(executions_table).where(c.id == asked.id).values(cancel_requested=true(), due_at=null()))


def test_no_worker_takes_it_and_no_relay_publishes_it(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked = request(program_id)
    external.create(connection, asked)
    runs = running(connection, program_id)
    late = running(connection, program_id, EXPIRED)
    before = [row(connection, one.id) for one in (asked, runs, late)]
    for one in (asked, runs, late):
        assert claim_now(connection, ALICE, [one]) == [Conflicting(one.id)]
        assert not isinstance(executions.claim_alone(connection, ALICE, [one])[0], Claimed)
    assert not executions.anything_due(connection)
    assert chosen(connection) == []
    assert executions.adopt(connection, 10) == 0
    assert executions.rescue(connection, 10) == []
    assert executions.heartbeat(connection, ALICE) == Heartbeat(0, frozenset())
    assert executions.release(connection, ALICE) == 0
    assert executions.left(connection, 10) == []
    assert [row(connection, one.id) for one in (asked, runs, late)] == before


def test_the_same_id_is_another_request_for_who_executes(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked, run = request(program_id), request(program_id)
    external.create(connection, asked)
    assert executions.claim(connection, ALICE, [asked], now=[False]) == [Conflicting(asked.id)]
    take(connection, run)
    with pytest.raises(Conflict, match=str(run.id)):
        external.create(connection, run)


def test_an_end_is_counted_and_told_of(connection: Connection) -> None:
    program_id = ready_program(connection)
    good, bad = running(connection, program_id), running(connection, program_id)
    done = external.end(connection, mark(good, 2), DONE, shard=5)
    lost = external.end(connection, mark(bad, 2), FAILED, shard=5)
    assert (done.ended, done.execution) == (True, get(connection, good.id))
    assert (lost.ended, lost.execution.error) == (True, ERROR)
    assert (done.execution.outputs, done.execution.usage) == (DONE.outputs, DONE.usage)
    totals = counters.totals(connection, program_id)
    assert (totals.completed, totals.failed, totals.input_tokens, totals.cost) == (1, 1, 3, 0.5)
    assert (totals.tokens_known, totals.cost_known) == (1, 1)
    assert totals.last_executed_at is not None
    assert event_outbox.pending(connection, [good.id, bad.id]) == {good.id, bad.id}
    assert told(connection, good.id) == [
        ("pending", 0, "/tests"),
        ("running", 1, "external:ann"),
        ("completed", 1, "external:ann"),
    ]


def test_every_end_is_pushed_to_its_callback_or_the_programs(connection: Connection) -> None:
    program_id = ready_program(connection)
    own = Callback(url="https://own.example/hook", secret="A_WEBHOOK_SECRET")
    of_program = Callback(url="https://program.example/hook", secret="A_WEBHOOK_SECRET")
    programs.update(connection, program_id, configuration=Configuration(), callback=of_program, backend_id="backend-2")
    asked = replace(request(program_id), callback=own)
    external.create(connection, asked)
    external.mark_running(connection, mark(asked, 1), 60.0)
    external.end(connection, mark(asked, 2), DONE, shard=0)
    failed, late, stopped = (running(connection, program_id, seconds) for seconds in (60.0, EXPIRED, 60.0))
    external.end(connection, mark(failed, 2), FAILED, shard=0)
    external.end_expired(connection, 0, 10)
    executions.cancel(connection, stopped.id, by="ann")
    found = {it.execution_id: (it.host, it.event, it.event_id) for it in webhooks.deliveries(connection).items}
    assert found == {
        asked.id: ("own.example:443", "completed", f"{asked.id}.3"),
        failed.id: ("program.example:443", "failed", f"{failed.id}.3"),
        late.id: ("program.example:443", "failed", f"{late.id}.3"),
        stopped.id: ("program.example:443", "cancelled", f"{stopped.id}.3"),
    }


def test_its_blobs_are_referred_to(connection: Connection) -> None:
    program_id = ready_program(connection)
    question, answer = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    kept = {"size": 3, "media_type": "text/plain"}
    asked = replace(request(program_id), inputs={"$blobs": {"question": {"digest": question, **kept}}})
    external.create(connection, asked)
    external.mark_running(connection, mark(asked, 1), 60.0)
    outputs = {"$blobs": {"answer": {"digest": answer, **kept}}, "score": 1.0}
    external.end(connection, mark(asked, 2), replace(DONE, outputs=outputs), shard=0)
    both = {(question, "default"), (answer, "default")}
    assert blobs.referred(connection, both | {(question, "other")}) == both


def test_another_tenants_is_not_found(connection: Connection) -> None:
    asked = running(connection, ready_program(connection))
    before = row(connection, asked.id)
    with pytest.raises(NotFound):
        external.mark_running(connection, mark(asked, 2, tenant="other"), 60.0)
    with pytest.raises(NotFound):
        external.end(connection, mark(asked, 2, tenant="other"), DONE, shard=0)
    assert row(connection, asked.id) == before


def test_what_a_worker_runs_is_not_marked(connection: Connection) -> None:
    asked = request(ready_program(connection))
    claimed = take(connection, asked)
    before = row(connection, asked.id)
    for act in (
        lambda: external.mark_running(connection, mark(asked, claimed.lock_version), 60.0),
        lambda: external.end(connection, mark(asked, claimed.lock_version), DONE, shard=0),
    ):
        with pytest.raises(Conflict, match="is run by workers"):
            act()
    assert row(connection, asked.id) == before


def test_a_lease_that_ran_out_ends_it_once(connection: Connection) -> None:
    program_id = ready_program(connection)
    late, other = running(connection, program_id, EXPIRED), running(connection, program_id)
    assert external.anything_expired(connection)
    [ended] = external.end_expired(connection, 3, 10)
    assert ended == get(connection, late.id)
    assert (ended.status, ended.lock_version, ended.duration_ms) == (ExecutionStatus.FAILED, 3, None)
    assert ended.error is not None
    assert ended.error.code == ErrorCode.LEASE_EXPIRED
    assert not external.anything_expired(connection)
    assert external.end_expired(connection, 3, 10) == []
    assert get(connection, other.id).status == ExecutionStatus.RUNNING
    assert counted_by_status(connection, program_id) == {ExecutionStatus.FAILED: 1}
    assert counters.totals(connection, program_id).tokens_known == 0
    with pytest.raises(Conflict, match=r"is failed \(lock_version 3\)"):
        external.end(connection, mark(late, 2), DONE, shard=0)
    assert executions.replay(connection, [late.id], by="ann") == 0


def test_a_renewal_in_time_keeps_it(connection: Connection) -> None:
    late = running(connection, ready_program(connection), EXPIRED)
    external.mark_running(connection, mark(late, 2), 60.0)
    assert external.end_expired(connection, 3, 10) == []


def test_cancelled_by_an_older_worker_it_takes_no_mark_and_ends(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked = running(connection, program_id)
    cancelled_by_an_older_worker(connection, asked)
    for act in (
        lambda: external.mark_running(connection, mark(asked, 2), 60.0),
        lambda: external.end(connection, mark(asked, 2), DONE, shard=0),
    ):
        with pytest.raises(Conflict, match="was cancelled"):
            act()
    [ended] = external.end_expired(connection, 0, 10)
    assert (ended.status, ended.error) == (ExecutionStatus.CANCELLED, None)
    assert counted_by_status(connection, program_id) == {ExecutionStatus.CANCELLED: 1}


def test_cancelled_while_it_runs_it_ends_at_once(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked = running(connection, program_id)
    ended = executions.cancel(connection, asked.id, by="ann")
    assert (ended.status, ended.lock_version, ended.cancel_requested) == (ExecutionStatus.CANCELLED, 3, True)
    assert ended.finished_at is not None
    assert counted_by_status(connection, program_id) == {ExecutionStatus.CANCELLED: 1}
    assert event_outbox.pending(connection, [asked.id]) == {asked.id}
    assert external.end_expired(connection, 0, 10) == []


def test_the_lease_is_by_the_clock_of_the_database(connection: Connection) -> None:
    asked = running(connection, ready_program(connection), 60.0)
    c = executions_table.c
    due = connection.execute(select(c.due_at, database_now(59.0), database_now(61.0)).where(c.id == asked.id)).one()
    assert due[1] - due[2] < due[0] - due[2]
    assert due[1] <= due[0] <= due[2]


Act = Callable[[Connection, Request, int], object]
ACTS: dict[str, Act] = {
    "run": lambda connection, asked, version: external.mark_running(connection, mark(asked, version), 60.0),
    "run late": lambda connection, asked, version: external.mark_running(connection, mark(asked, version), EXPIRED),
    "complete": lambda connection, asked, version: external.end(connection, mark(asked, version), DONE, shard=1),
    "fail": lambda connection, asked, version: external.end(connection, mark(asked, version), FAILED, shard=2),
    "cancel": lambda connection, asked, _: executions.cancel(connection, asked.id, by="ann", shard=3),
    "end expired": lambda connection, *_: external.end_expired(connection, 4, 10),
    "older cancel": lambda connection, asked, _: (
        cancelled_by_an_older_worker(connection, asked)
        if get(connection, asked.id).status == ExecutionStatus.RUNNING
        else None
    ),
    "claim": lambda connection, asked, _: claim_now(connection, ALICE, [asked]),
    "replay": lambda connection, asked, _: executions.replay(connection, [asked.id], by="ann"),
    "rescue": lambda connection, *_: executions.rescue(connection, 10),
}


@settings(
    max_examples=sized(10, 300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts=st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.integers(1, 4)), min_size=4, max_size=14))
def test_whatever_is_done_it_ends_once_and_the_counters_are_the_rows(
    connection: Connection, acts: list[tuple[str, int]]
) -> None:
    program_id = ready_program(connection)
    asked = request(program_id)
    external.create(connection, asked)
    before = get(connection, asked.id)
    for name, version in acts:
        with suppress(Conflict, IllegalTransition):
            ACTS[name](connection, asked, version)
        now = get(connection, asked.id)
        if before.status.terminal:
            assert now == before
        assert now.lock_version - before.lock_version == (now.status != before.status)
        assert now.attempt <= 1
        before = now
    assert counted_by_status(connection, program_id) == ended_by_status(connection, program_id)
    assert len(event_outbox.pending(connection, [asked.id])) == before.status.terminal


def test_of_a_hundred_marks_at_once_one_ends_it(engine: Engine) -> None:
    with engine.begin() as connection:
        program_id = ready_program(connection)
    draw = random.Random(7)
    for _ in range(2):
        with engine.begin() as connection:
            asked = running(connection, program_id)
        ends: list[bool] = []

        def service(acts: list[tuple[str, int]], asked: Request = asked, ends: list[bool] = ends) -> None:
            for name, shard in acts:
                with engine.begin() as connection, suppress(DspexError):
                    if name == "run":
                        external.mark_running(connection, mark(asked, 2), 60.0)
                    else:
                        result = DONE if name == "complete" else FAILED
                        ends.append(external.end(connection, mark(asked, 2), result, shard=shard).ended)

        services = [[(draw.choice(("run", "complete", "fail")), number) for _ in range(10)] for number in range(10)]
        at_once([lambda acts=acts: service(acts) for acts in services])  # type: ignore[misc]
        assert ends.count(True) == 1
        with engine.begin() as connection:
            assert len(told(connection, asked.id)) == 3
    with engine.begin() as connection:
        assert sum(counted_by_status(connection, program_id).values()) == 2
        assert counted_by_status(connection, program_id) == ended_by_status(connection, program_id)


def test_two_services_begin_at_once_and_one_runs_it(engine: Engine) -> None:
    with engine.begin() as connection:
        asked = request(ready_program(connection))
        external.create(connection, asked)
    begun: list[Any] = []

    def service(name: str) -> None:
        with engine.begin() as connection, suppress(Conflict):
            by = replace(mark(asked, 1), by=name)
            begun.append(external.mark_running(connection, by, 60.0))

    at_once([lambda name=f"external:{number}": service(name) for number in range(8)])  # type: ignore[misc]
    [one] = begun
    with engine.begin() as connection:
        assert get(connection, asked.id) == one


def test_a_key_is_taken_once(engine: Engine) -> None:
    with engine.begin() as connection:
        program_id = ready_program(connection)
    made: list[UUID] = []

    def service() -> None:
        with engine.begin() as connection:
            asked = replace(request(program_id), idempotency_key="key")
            made.append(external.create(connection, asked).id)

    at_once([service] * 6)
    assert len(set(made)) == 1
    with engine.begin() as connection:
        executed = replace(request(program_id), idempotency_key="key")
        [claim] = claim_now(connection, ALICE, [executed])
        assert claim == Conflicting(executed.id, by_key=True)
