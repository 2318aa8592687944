"""What is written in batches, with everything in one batch that may differ: tenants, programs, outcomes.

A statement that takes one row's value for all, or one tenant's for both, looks right wherever a batch has one kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, select

from dspex import Configuration, ErrorDetail, ExecutionOptions, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import DeliveryStatus
from store import counters, event_outbox, executions, programs, signatures, webhooks
from store.counters import Counts
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import (
    Carried,
    Claim,
    Claimed,
    Conflicting,
    Finish,
    Lease,
    NoProgram,
    Request,
    Retry,
    Running,
    Waiting,
    choosing,
)
from store.queues.turns import Turns
from store.tables import event_outbox as event_outbox_table
from store.tables import webhook_attempts, webhook_deliveries, webhook_endpoints
from store.webhooks import Settled
from tests.contract.store.rows import (
    ALICE,
    BOB,
    EXPIRED,
    SIGNATURE,
    accept,
    chosen,
    claim_now,
)

A, B = "acme", "bells"


@dataclass(frozen=True)
class Programs:
    """Two tenants with two programs each; every one has a policy and a backend of its own."""

    a1: UUID
    a2: UUID
    b1: UUID
    b2: UUID

    def __iter__(self) -> Iterator[tuple[str, UUID]]:
        return iter([(A, self.a1), (A, self.a2), (B, self.b1), (B, self.b2)])

    def tenant(self, program_id: UUID) -> str:
        return A if program_id in (self.a1, self.a2) else B

    def ask(self, program_id: UUID, **more: Any) -> Request:
        tenant = self.tenant(program_id)
        asked = Request(uuid7(), program_id, {"question": "why?"}, ExecutionOptions(), "/tests", tenant=tenant)
        return replace(asked, **more)

    def finish(self, asked: Request, claimed: Claimed, **how: Any) -> Finish:
        given: dict[str, Any] = {"duration_ms": 1.0, "usage": Usage()} | how
        return Finish(asked.id, asked.program_id, claimed.lock_version, tenant=asked.tenant, **given)


NUMBERS = {"a1": 1, "a2": 2, "b1": 3, "b2": 4}


@pytest.fixture
def four(connection: Connection) -> Programs:
    made: dict[str, UUID] = {}
    for name, number in NUMBERS.items():
        tenant = A if name.startswith("a") else B
        signature = signatures.create(connection, uuid7(), SIGNATURE, activate=True, tenant=tenant)
        program = programs.create(
            connection,
            uuid7(),
            name=name,
            signature_id=signature.id,
            adapter_type="mock",
            configuration=Configuration(),
            policy=ExecutionPolicy(max_attempts=number),
            tenant=tenant,
        )
        begun = programs.begin_initialize(connection, program.id, tenant=tenant)
        assert programs.end_initialize(connection, begun, f"backend of {name}") is not None
        made[name] = program.id
    return Programs(**made)


def claim_all(connection: Connection, asked: list[Request], lease: Lease = ALICE) -> list[Claimed]:
    claims = claim_now(connection, lease, asked)
    assert all(isinstance(claim, Claimed) for claim in claims)
    return [claim for claim in claims if isinstance(claim, Claimed)]


def choose_all(connection: Connection, lease: Lease, _asked: list[Request]) -> list[Claim]:
    return [one.claim for one in choosing.choose(connection, lease, 10, Turns(), alone_at=3).chosen]


def hook(host: str, **more: Any) -> Callback:
    return Callback.model_validate({"url": f"https://{host}/hook", "secret": "A_WEBHOOK_SECRET"} | more)


class TestClaims:
    def test_each_has_the_backend_and_the_policy_of_its_own_program(
        self, connection: Connection, four: Programs
    ) -> None:
        new = [four.ask(four.b2), four.ask(four.a1), four.ask(four.b1), four.ask(four.a2)]
        expected = [("backend of b2", 4), ("backend of a1", 1), ("backend of b1", 3), ("backend of a2", 2)]
        claims = claim_all(connection, new)
        assert [(claim.backend_id, claim.policy.max_attempts) for claim in claims] == expected
        assert [claim.id for claim in claims] == [asked.id for asked in new]
        # And claimed again, by the other statements.
        for take in (choose_all, executions.claim_alone):
            assert executions.release(connection, ALICE) + executions.release(connection, BOB) == 4
            again = {claim.id: claim for claim in take(connection, BOB, new) if isinstance(claim, Claimed)}
            assert [(again[one.id].backend_id, again[one.id].policy.max_attempts) for one in new] == expected
            assert {get_of(connection, asked).worker for asked in new} == {"bob"}

    def test_every_answer_of_a_claim_in_one_batch(self, connection: Connection, four: Programs) -> None:
        """Each request of either tenant gets the answer that is its own, and so does each of what waits."""
        later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))
        ended_a, running_b, due_a, due_b = (four.ask(p) for p in (four.a1, four.b1, four.a2, four.b2))
        end, *_ = claim_all(connection, [ended_a, running_b], BOB)
        assert executions.finish(connection, 0, [four.finish(ended_a, end, outputs={})]) == [True]
        claim_all(connection, [due_a, due_b], Lease("dead", EXPIRED))
        assert set(executions.rescue(connection, 10)) == {due_a.identity, due_b.identity}
        batch = [
            four.ask(four.a1),
            four.ask(four.b1, options=later),
            four.ask(four.a1, tenant=B),
            due_a,
            ended_a,
            running_b,
            replace(ended_a, inputs={"question": "another"}),
            replace(running_b, program_id=four.a1, tenant=A),
            four.ask(four.b2),
            due_b,
        ]
        claims = claim_now(connection, ALICE, batch)
        assert [type(claim) for claim in claims] == [
            *(Claimed, Waiting, NoProgram, Waiting, executions.Ended),
            *(Running, Conflicting, Claimed, Claimed, Waiting),
        ]
        alone = executions.claim_alone(connection, ALICE, [batch[1], due_b, ended_a, running_b, due_a])
        assert [type(claim) for claim in alone] == [Waiting, Claimed, executions.Ended, Running, Claimed]
        begun = [(claim.attempt, claim.lost) for claim in (*claims, *alone) if isinstance(claim, Claimed)]
        assert begun == [(1, 0), (1, 0), (1, 0), (2, 1), (2, 1)]

    def test_keys_of_two_tenants_in_one_batch(self, connection: Connection, four: Programs) -> None:
        """The same key of each is its own; a key that came to nothing is free, and the others are kept."""
        mine, his = four.ask(four.a1, idempotency_key="k"), four.ask(four.b1, idempotency_key="k")
        nothing = replace(four.ask(four.a1, idempotency_key="n"), tenant=B)
        claims = claim_now(connection, ALICE, [mine, his, nothing, four.ask(four.a1, idempotency_key="n")])
        assert [type(claim) for claim in claims] == [Claimed, Claimed, NoProgram, Claimed]
        again = [replace(asked, id=uuid7()) for asked in (mine, his)]
        assert claim_now(connection, ALICE, again) == [Running(mine.id), Running(his.id)]
        freed = four.ask(four.b1, idempotency_key="n")
        assert isinstance(claim_now(connection, ALICE, [freed])[0], Claimed)


def get_of(connection: Connection, asked: Request) -> executions.Execution:
    return executions.get(connection, [asked.id], tenant=asked.tenant)[0]


class TestEnds:
    def test_each_ends_as_it_did_and_is_counted_where_it_belongs(self, connection: Connection, four: Programs) -> None:
        order = [four.a1, four.b1, four.a2, four.b2, four.a1, four.b1, four.b2]
        asked = [four.ask(program_id) for program_id in order]
        claims = claim_all(connection, asked)
        hows: list[dict[str, Any]] = [
            {"outputs": {"n": 0}, "usage": Usage(input_tokens=1, output_tokens=10, cost=0.5), "duration_ms": 1.0},
            {
                "error": ErrorDetail(code="auth", message="b1"),
                "usage": Usage(calls=1, input_tokens=2),
                "duration_ms": 20.0,
            },
            {"cancelled": True, "usage": Usage(output_tokens=3), "duration_ms": 400.0},
            {"outputs": {"n": 3}, "usage": Usage(calls=1, cost=0.25), "duration_ms": 8000.0, "attempt": 7},
            {"error": ErrorDetail(code="timeout", message="a1"), "usage": Usage(input_tokens=5), "duration_ms": 2.0},
            {"outputs": {"n": 5}, "usage": Usage(), "duration_ms": 30.0},
            {"outputs": {"stale": True}, "usage": Usage(input_tokens=1000, cost=99.0)},
        ]
        ends = [four.finish(one, claimed, **how) for one, claimed, how in zip(asked, claims, hows, strict=True)]
        ends[6] = replace(ends[6], lock_version=9)
        assert executions.finish(connection, 5, ends, event_in=EXPIRED) == [True] * 6 + [False]
        rows = [get_of(connection, one) for one in asked]
        assert [(r.status, r.outputs, r.error and r.error.message, r.duration_ms, r.attempt) for r in rows] == [
            ("completed", {"n": 0}, None, 1.0, 1),
            ("failed", None, "b1", 20.0, 1),
            ("cancelled", None, None, 400.0, 1),
            ("completed", {"n": 3}, None, 8000.0, 7),
            ("failed", None, "a1", 2.0, 1),
            ("completed", {"n": 5}, None, 30.0, 1),
            ("running", None, None, None, 1),
        ]
        assert [row.usage for row in rows] == [*(how["usage"] for how in hows[:6]), Usage()]
        expected = {
            four.a1: Counts(1, 1, 0, 3.0, 6, 10, 0.5, 2, 2),
            four.a2: Counts(0, 0, 1, 0.0, 0, 3, 0.0, 1, 1),
            four.b1: Counts(1, 1, 0, 50.0, 2, 0, 0.0, 1, 1),
            four.b2: Counts(1, 0, 0, 8000.0, 0, 0, 0.25, 0, 1),
        }
        for tenant, program_id in four:
            totals = counters.totals(connection, program_id, tenant=tenant)
            want = expected[program_id]
            assert totals == replace(want, last_executed_at=totals.last_executed_at)
            ran = sum(counters.durations(connection, program_id, tenant=tenant).values())
            assert ran == want.completed + want.failed
            assert counters.totals(connection, program_id, tenant=B if tenant == A else A).executions == 0
        # Each event is in its execution's tenant, at the version of its end.
        c = event_outbox_table.c
        events = {(r.execution_id, r.lock_version, r.tenant) for r in connection.execute(select(event_outbox_table))}
        assert events == {(one.id, 2, one.tenant) for one in asked[:6]}
        assert set(event_outbox.due(connection, 60.0, 10)) == {one.identity for one in asked[:6]}
        assert {t for (t,) in connection.execute(select(c.tries))} == {1}

    def test_who_waits_gets_the_row_that_is_theirs(self, connection: Connection, four: Programs) -> None:
        """Of one batch: two answered, of two tenants; one that nobody waits for; one that is fenced."""
        asked = [four.ask(p, reply_to="q") for p in (four.a1, four.b1)] + [four.ask(four.a2), four.ask(four.b2)]
        claims = claim_all(connection, asked)
        ends = [
            replace(four.finish(one, claimed, outputs={"n": number}), answered=number in (0, 1, 3))
            for number, (one, claimed) in enumerate(zip(asked, claims, strict=True))
        ]
        ends[3] = replace(ends[3], lock_version=9)
        done = executions.finish_and_read(connection, 0, ends)
        assert [held for held, _ in done] == [True, True, True, False]
        assert [row and (row.id, row.tenant, row.outputs) for _, row in done] == [
            (asked[0].id, A, {"n": 0}),
            (asked[1].id, B, {"n": 1}),
            None,
            None,
        ]

    def test_what_is_confirmed_is_struck_off_for_these_ends_alone(self, connection: Connection, four: Programs) -> None:
        one, two, three = (uuid7() for _ in range(3))
        event_outbox.add(
            connection, [OutboxEntry(one, 2, A), OutboxEntry(two, 2, B), OutboxEntry(three, 5, B)], EXPIRED
        )
        event_outbox.sent(connection, [OutboxEntry(one, 2, A), OutboxEntry(two, 5, B), OutboxEntry(three, 5, B)])
        assert event_outbox.pending(connection, [one, two, three], tenant=B) == {two}
        assert event_outbox.pending(connection, [one, two, three], tenant=A) == set()


class TestRetries:
    def test_each_waits_for_its_own_time_with_what_it_carries(self, connection: Connection, four: Programs) -> None:
        asked = [four.ask(p) for p in (four.a1, four.b1, four.a2, four.b2)]
        claims = claim_all(connection, asked)
        given: list[tuple[float, int, str, Usage, Carried]] = [
            (100.0, 1, "timeout", Usage(input_tokens=1), Carried()),
            (EXPIRED, 0, "parse_failure", Usage(input_tokens=2, cost=0.5), Carried(repaired=True)),
            (300.0, 1, "crashed", Usage(), Carried(waits=2, waited=7.0)),
            (EXPIRED, 1, "transient", Usage(input_tokens=9), Carried()),
        ]
        retries = [
            Retry(
                one.id, c.lock_version, delay, attempt, ErrorDetail(code=code, message=code), used, carried, one.tenant
            )
            for one, c, (delay, attempt, code, used, carried) in zip(asked, claims, given, strict=True)
        ]
        retries[3] = replace(retries[3], tenant=A)  # not its own
        assert executions.retry(connection, retries) == [True, True, True, False]
        rows = [get_of(connection, one) for one in asked]
        assert [(r.status, r.attempt, r.error and r.error.code, r.usage.input_tokens) for r in rows] == [
            ("pending", 1, "timeout", 1),
            ("pending", 0, "parse_failure", 2),
            ("pending", 1, "crashed", 0),
            ("running", 1, None, 0),
        ]
        assert rows[0].not_before is not None
        assert rows[2].not_before is not None
        between = (rows[2].not_before - rows[0].not_before).total_seconds()
        assert 199 < between < 201
        assert [type(claim) for claim in claim_now(connection, BOB, asked)] == [Waiting, Waiting, Waiting, Running]
        [(_, again)] = choosing.choose(connection, BOB, 10, Turns(), alone_at=3).chosen
        assert isinstance(again, Claimed)
        assert (again.carried.repaired, again.usage, again.attempt) == (True, Usage(input_tokens=2, cost=0.5), 1)


class TestLeases:
    def test_of_one_worker_for_all_tenants_and_of_no_other(self, connection: Connection, four: Programs) -> None:
        mine = [four.ask(p) for p in (four.a1, four.b1, four.a2)]
        his = [four.ask(p) for p in (four.b2, four.a1)]
        claim_all(connection, mine, Lease("alice", EXPIRED))
        claim_all(connection, his, Lease("bob", EXPIRED))
        for asked in (mine[1], his[1]):
            executions.cancel(connection, asked.id, by="ann", tenant=asked.tenant)
        beat = executions.heartbeat(connection, ALICE, [mine[0].identity, mine[1].identity, his[0].identity])
        assert (beat.extended, beat.cancel_requested) == (2, frozenset({mine[1].identity}))
        rescued = executions.rescue(connection, 10)
        assert set(rescued) == {one.identity for one in (mine[2], *his)}
        # Given back by name: of this worker's, those alone, and the attempt is not spent.
        assert executions.release(connection, ALICE, [mine[0].identity, his[0].identity]) == 1
        told = {one.id: get_of(connection, one) for one in (*mine, *his)}
        assert [(told[one.id].status, told[one.id].attempt) for one in (*mine, *his)] == [
            ("pending", 0),
            ("running", 1),
            ("pending", 1),
            ("pending", 1),
            ("pending", 1),
        ]

    def test_what_is_chosen_has_its_own_tenant_and_program(self, connection: Connection, four: Programs) -> None:
        asked = [four.ask(program_id) for _, program_id in four]
        accept(connection, *asked)
        found = [*chosen(connection, places=3), *chosen(connection, places=3)]
        assert len(found) == 4
        assert {one.id: one for one in found} == {one.id: one for one in asked}


class TestWebhooks:
    def test_ends_of_two_tenants_go_to_each_ones_own_urls(self, connection: Connection, four: Programs) -> None:
        """Registered endpoints and callbacks of commands, for what each asked for, of one batch."""
        webhooks.register(connection, uuid7(), hook("a.example"), tenant=A)
        webhooks.register(connection, uuid7(), hook("a-failed.example", events=["failed"]), tenant=A)
        webhooks.register(connection, uuid7(), hook("b.example"), tenant=B)
        # Both tenants ask for the same URL: an endpoint of each one's own.
        own = hook("own.example", events=["completed"])
        asked = [
            four.ask(four.a1, callback=own),
            four.ask(four.b1, callback=own),
            four.ask(four.a2),
            four.ask(four.b2),
            four.ask(four.a1, callback=own),
        ]
        claims = claim_all(connection, asked)
        error = ErrorDetail(code="auth", message="no")
        hows: list[dict[str, Any]] = [
            {"outputs": {}},
            {"outputs": {}},
            {"error": error},
            {"cancelled": True},
            {"error": error},
        ]
        ends = [four.finish(one, claimed, **how) for one, claimed, how in zip(asked, claims, hows, strict=True)]
        assert all(executions.finish(connection, 0, ends))
        d, e = webhook_deliveries.c, webhook_endpoints.c
        found = connection.execute(
            select(d.execution_id, d.event, d.place, d.tenant, e.tenant.label("of"), e.url, e.registered).join_from(
                webhook_deliveries, webhook_endpoints, d.endpoint_id == e.id
            )
        ).all()
        assert {(r.execution_id, r.event, r.place, r.registered) for r in found} == {
            (asked[0].id, "completed", "acme a.example:443", True),
            (asked[0].id, "completed", "acme own.example:443", False),
            (asked[1].id, "completed", "bells b.example:443", True),
            (asked[1].id, "completed", "bells own.example:443", False),
            (asked[2].id, "failed", "acme a.example:443", True),
            (asked[2].id, "failed", "acme a-failed.example:443", True),
            (asked[3].id, "cancelled", "bells b.example:443", True),
            (asked[4].id, "failed", "acme a.example:443", True),
            (asked[4].id, "failed", "acme a-failed.example:443", True),
        }
        assert len(found) == 9
        tenants = {one.id: one.tenant for one in asked}
        assert all(r.tenant == r.of == tenants[r.execution_id] for r in found)

    def test_a_tenant_without_endpoints_is_told_nothing_beside_one_that_has_some(
        self, connection: Connection, four: Programs
    ) -> None:
        webhooks.register(connection, uuid7(), hook("a.example"), tenant=A)
        asked = [four.ask(four.b1), four.ask(four.a1)]
        claims = claim_all(connection, asked)
        ends = [four.finish(*one, outputs={}) for one in zip(asked, claims, strict=True)]
        assert executions.finish(connection, 0, ends) == [True, True]
        assert [d.execution_id for d in webhooks.deliveries(connection, tenant=A).items] == [asked[1].id]
        assert webhooks.deliveries(connection, tenant=B).items == ()

    def test_deliveries_of_two_tenants_are_settled_each_as_it_went(
        self, connection: Connection, four: Programs
    ) -> None:
        for tenant, host in ((A, "a.example"), (B, "b.example")):
            webhooks.register(connection, uuid7(), hook(host), tenant=tenant)
        asked = [four.ask(p) for p in (four.a1, four.b1, four.a2, four.b2)]
        claims = claim_all(connection, asked)
        ends = [four.finish(*one, outputs={}) for one in zip(asked, claims, strict=True)]
        assert all(executions.finish(connection, 0, ends))
        taken = webhooks.take(connection, {"acme a.example:443": 5, "bells b.example:443": 5}, 60.0)
        by_execution = {due.delivery.execution_id: due for due in taken}
        one, two, three, four_ = (by_execution[asked_.id] for asked_ in asked)
        settled = [
            Settled(one, DeliveryStatus.DELIVERED, outcome="delivered", http_status=204, duration_ms=1.0),
            Settled(two, DeliveryStatus.FAILED, reason="gone", outcome="failed", http_status=410, failed=True),
            Settled(
                three,
                DeliveryStatus.PENDING,
                retry_in=3600.0,
                reason="later",
                outcome="failed",
                http_status=500,
                failed=True,
            ),
            Settled(
                replace(four_, delivery=replace(four_.delivery, lock_version=99)),
                DeliveryStatus.DELIVERED,
                outcome="delivered",
            ),
        ]
        assert webhooks.settle(connection, settled) == [True, True, True, False]
        rows = {r.execution_id: r for r in connection.execute(select(webhook_deliveries))}
        assert [(rows[a.id].status, rows[a.id].reason, rows[a.id].attempts) for a in asked] == [
            ("delivered", None, 1),
            ("failed", "gone", 1),
            ("pending", "later", 1),
            ("pending", None, 0),
        ]
        assert [rows[a.id].due_at is None for a in asked] == [True, True, False, False]
        log = connection.execute(select(webhook_attempts)).all()
        assert {(r.delivery_id, r.tenant, r.http_status) for r in log} == {
            (one.delivery.id, A, 204),
            (two.delivery.id, B, 410),
            (three.delivery.id, A, 500),
        }
        c = webhook_endpoints.c
        failing = {r.tenant: r.failing_since for r in connection.execute(select(c.tenant, c.failing_since))}
        assert failing[B] is not None


class TestReplays:
    def test_of_one_tenant_takes_back_what_is_its_own(self, connection: Connection, four: Programs) -> None:
        asked = [four.ask(p) for p in (four.a1, four.b1, four.a2, four.a1, four.a2)]
        claims = claim_all(connection, asked)
        error = ErrorDetail(code="auth", message="no")
        hows: list[dict[str, Any]] = [
            {"error": error, "usage": Usage(input_tokens=1), "duration_ms": 2.0},
            {"error": error, "usage": Usage(input_tokens=10), "duration_ms": 20.0},
            {"error": error, "usage": Usage(input_tokens=100), "duration_ms": 200.0},
            {"outputs": {}, "usage": Usage(input_tokens=1000), "duration_ms": 2000.0},
            {"cancelled": True, "usage": Usage(input_tokens=10_000)},
        ]
        ends = [four.finish(one, claimed, **how) for one, claimed, how in zip(asked, claims, hows, strict=True)]
        assert all(executions.finish(connection, 0, ends))
        assert executions.replay(connection, [one.id for one in asked], by="ann", tenant=A) == 2
        statuses = [get_of(connection, one).status for one in asked]
        assert statuses == ["pending", "failed", "pending", "completed", "cancelled"]
        events = {one.identity for one in asked if event_outbox.pending(connection, [one.id], tenant=one.tenant)}
        assert events == {asked[n].identity for n in (1, 3, 4)}
        totals = [counters.totals(connection, program_id, tenant=tenant) for tenant, program_id in four]
        assert [(t.completed, t.failed, t.cancelled, t.input_tokens, t.duration_ms) for t in totals] == [
            (1, 0, 0, 1000, 2000.0),
            (0, 0, 1, 10_000, 0.0),
            (0, 1, 0, 10, 20.0),
            (0, 0, 0, 0, 0.0),
        ]
        ran = [counters.durations(connection, program_id, tenant=tenant) for tenant, program_id in four]
        assert [sum(durations.values()) for durations in ran] == [1, 0, 1, 0]


def test_counters_of_programs_of_two_tenants_in_one_batch(connection: Connection, four: Programs) -> None:
    for shard in (0, 63):
        batch = {
            Identity(program_id, tenant): Counts(completed=number, failed=2 * number, duration_ms=number / 2)
            for number, (tenant, program_id) in enumerate(four, 1)
        }
        for number, counts in enumerate(batch.values(), 1):
            counts.durations = {number: number, 9: 1}
        counters.increment(connection, shard, batch)
    for number, (tenant, program_id) in enumerate(four, 1):
        totals = counters.totals(connection, program_id, tenant=tenant)
        assert (totals.completed, totals.failed, totals.duration_ms) == (2 * number, 4 * number, float(number))
        assert counters.durations(connection, program_id, tenant=tenant) == {number: 2 * number, 9: 2}
