"""Ids are their producers', and unique within their tenant: two tenants with the same ids never meet."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Connection

from dspex import Configuration, ExecutionStatus, Signature, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus, ProgramStatus, SignatureStatus
from dspex.errors import IllegalTransition, NotFound
from store import counters, executions, programs, signatures, statistics, webhooks
from store import event_outbox as event_outbox
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import (
    Carried,
    Claimed,
    Conflicting,
    Ended,
    Execution,
    NoProgram,
    Request,
    Retry,
    Running,
    Waiting,
    idempotency,
)
from store.webhooks import Settled
from store.webhooks.fan_out import endpoint_id_of
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    accept,
    cancelled,
    chosen,
    claim_now,
    completed,
    expire,
    failed,
    request,
    taken,
)

MINE, HIS = "default", "acme"
BOTH = (MINE, HIS)
CONTENT = {
    MINE: Signature.parse("question -> answer"),
    HIS: Signature.parse("text -> summary"),
}
URLS = {MINE: "https://mine.example/", HIS: "https://his.example/"}
SIGNATURE_ID, PROGRAM_ID = uuid7(), uuid7()


def keep(connection: Connection, tenant: str, *, activate: bool = True) -> None:
    """A signature and a program of the tenant, under the ids that the other has too."""
    signatures.create(connection, SIGNATURE_ID, CONTENT[tenant], activate=activate, tenant=tenant)
    programs.create(
        connection,
        PROGRAM_ID,
        name=f"of {tenant}",
        signature_id=SIGNATURE_ID,
        adapter_type="mock",
        configuration=Configuration(),
        tenant=tenant,
    )


def ready(connection: Connection) -> None:
    for tenant in BOTH:
        keep(connection, tenant)
        begun = programs.begin_initialize(connection, PROGRAM_ID, tenant=tenant)
        assert programs.end_initialize(connection, begun, f"backend of {tenant}") is not None


def asked_by(tenant: str, execution_id: UUID | None = None) -> Request:
    return replace(request(PROGRAM_ID, execution_id, question=tenant), tenant=tenant)


def pair() -> tuple[Request, Request]:
    """Two requests with one id."""
    mine = asked_by(MINE)
    return mine, asked_by(HIS, mine.id)


def claimed_pair(connection: Connection) -> tuple[Request, Request, Claimed, Claimed]:
    mine, his = pair()
    one, other = claim_now(connection, ALICE, [mine, his])
    return mine, his, taken(one), taken(other)


def read(connection: Connection, asked: Request) -> Execution:
    [found] = executions.get(connection, [asked.id], tenant=asked.tenant)
    return found


def status(connection: Connection, asked: Request) -> ExecutionStatus:
    return read(connection, asked).status


class TestSignaturesAndPrograms:
    def test_a_signature_lives_beside_the_others(self, connection: Connection) -> None:
        for tenant in BOTH:
            signatures.create(connection, SIGNATURE_ID, CONTENT[tenant], activate=False, tenant=tenant)
        changed = Signature.parse("question, hint -> answer")
        assert signatures.update(connection, SIGNATURE_ID, changed, tenant=MINE).signature == changed
        assert signatures.activate(connection, SIGNATURE_ID, tenant=MINE).status == SignatureStatus.ACTIVE
        assert signatures.deprecate(connection, SIGNATURE_ID, tenant=MINE).status == SignatureStatus.DEPRECATED
        his = signatures.get(connection, SIGNATURE_ID, tenant=HIS)
        assert (his.signature, his.status, his.lock_version) == (CONTENT[HIS], SignatureStatus.DRAFT, 1)
        signatures.destroy(connection, SIGNATURE_ID, tenant=MINE)
        with pytest.raises(NotFound):
            signatures.get(connection, SIGNATURE_ID, tenant=MINE)
        assert signatures.get(connection, SIGNATURE_ID, tenant=HIS) == his

    def test_a_signature_that_another_tenant_uses_is_destroyed(self, connection: Connection) -> None:
        signatures.create(connection, SIGNATURE_ID, CONTENT[MINE], activate=True, tenant=MINE)
        keep(connection, HIS)
        signatures.destroy(connection, SIGNATURE_ID, tenant=MINE)
        with pytest.raises(IllegalTransition, match="1 programs use it"):
            signatures.destroy(connection, SIGNATURE_ID, tenant=HIS)
        assert programs.get(connection, PROGRAM_ID, tenant=HIS).signature == CONTENT[HIS]

    def test_a_draft_of_another_tenant_is_in_nobodys_way(self, connection: Connection) -> None:
        keep(connection, MINE, activate=False)
        keep(connection, HIS)
        with pytest.raises(IllegalTransition, match="its signature is a draft"):
            programs.begin_initialize(connection, PROGRAM_ID, tenant=MINE)
        assert programs.begin_initialize(connection, PROGRAM_ID, tenant=HIS).status == ProgramStatus.INITIALIZING
        assert programs.get(connection, PROGRAM_ID, tenant=MINE).status == ProgramStatus.DRAFT

    def test_a_program_lives_beside_the_others(self, connection: Connection) -> None:
        ready(connection)
        for tenant in BOTH:
            [program] = programs.page(connection, tenant=tenant).items
            assert (program.name, program.backend_id) == (f"of {tenant}", f"backend of {tenant}")
            assert program.signature == CONTENT[tenant]
        done = asked_by(HIS)
        end = replace(completed(done, taken(claim_now(connection, ALICE, [done])[0])), tenant=HIS)
        assert executions.finish(connection, 0, [end]) == [True]
        assert [programs.get(connection, PROGRAM_ID, tenant=tenant).execution_count for tenant in BOTH] == [0, 1]
        programs.archive(connection, PROGRAM_ID, tenant=MINE)
        programs.destroy(connection, PROGRAM_ID, tenant=MINE)
        his = programs.get(connection, PROGRAM_ID, tenant=HIS)
        assert (his.status, his.execution_count) == (ProgramStatus.READY, 1)
        mine, his_next = pair()
        claims = claim_now(connection, ALICE, [mine, his_next])
        assert [type(claim) for claim in claims] == [NoProgram, Claimed]


class TestExecutions:
    def test_both_run_at_once_in_one_worker(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        assert (one.backend_id, other.backend_id) == ("backend of default", "backend of acme")
        assert claim_now(connection, BOB, [his, mine]) == [Running(mine.id), Running(mine.id)]
        assert [read(connection, asked).inputs for asked in (mine, his)] == [{"question": MINE}, {"question": HIS}]
        ends = [replace(failed(his, other), tenant=HIS, answered=True), replace(completed(mine, one), answered=True)]
        done = executions.finish_and_read(connection, 0, ends)
        assert [(held, row and (row.tenant, row.status)) for held, row in done] == [
            (True, (HIS, ExecutionStatus.FAILED)),
            (True, (MINE, ExecutionStatus.COMPLETED)),
        ]
        # As where the commit arrived and the answer did not.
        again = executions.finish_and_read(connection, 0, ends)
        assert [row and (row.tenant, row.status) for _, row in again] == [
            (HIS, ExecutionStatus.FAILED),
            (MINE, ExecutionStatus.COMPLETED),
        ]
        mine_again, his_again = claim_now(connection, BOB, [mine, his])
        assert isinstance(mine_again, Ended)
        assert isinstance(his_again, Ended)
        assert (mine_again.execution.tenant, his_again.execution.tenant) == BOTH

    def test_an_id_that_is_anothers_is_free(self, connection: Connection) -> None:
        """Whatever became of the other's, and in whatever order they come."""
        ready(connection)
        mine, his = pair()
        accept(connection, his)
        accept(connection, mine)
        assert read(connection, mine).inputs == {"question": MINE}
        different = replace(mine, inputs={"question": "another"})
        claims = claim_now(connection, ALICE, [different, mine, his])
        assert [type(claim) for claim in claims] == [Conflicting, Waiting, Waiting]
        claims = executions.claim_alone(connection, ALICE, [his, mine])
        assert [taken(claim).backend_id for claim in claims] == ["backend of acme", "backend of default"]
        unknown = replace(asked_by(MINE, mine.id), tenant="third")
        assert claim_now(connection, ALICE, [unknown]) == [NoProgram(mine.id)]

    def test_one_is_cancelled(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        executions.cancel(connection, his.id, by="ann", tenant=HIS)
        both = [mine.identity, his.identity]
        beat = executions.heartbeat(connection, ALICE, both)
        assert (beat.extended, beat.cancel_requested) == (2, frozenset({Identity(mine.id, HIS)}))
        assert executions.heartbeat(connection, ALICE, [mine.identity]).cancel_requested == set()
        ends = [replace(cancelled(his, other), tenant=HIS), completed(mine, one)]
        assert executions.finish(connection, 0, ends) == [True, True]
        assert [status(connection, asked) for asked in (mine, his)] == ["completed", "cancelled"]

    def test_one_is_given_back_and_one_is_rescued(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        assert executions.release(connection, ALICE, [his.identity]) == 1
        assert [status(connection, asked) for asked in (mine, his)] == ["running", "pending"]
        assert executions.finish(connection, 0, [replace(completed(his, other), tenant=HIS)]) == [False]
        expire(connection, mine.id)
        assert executions.rescue(connection, 10) == [mine.identity]
        assert {found.identity for found in chosen(connection)} == {mine.identity, his.identity}
        assert executions.finish(connection, 0, [completed(mine, one)]) == [False]

    def test_one_waits_for_its_next_attempt(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        later = Retry(his.id, other.lock_version, 60, 1, ERROR, Usage(calls=1), Carried(), tenant=HIS)
        assert executions.retry(connection, [later]) == [True]
        assert executions.retry(connection, [later]) == [True]  # as it was committed before
        assert [status(connection, asked) for asked in (mine, his)] == ["running", "pending"]
        assert executions.finish(connection, 0, [completed(mine, one)]) == [True]

    def test_one_is_sent_and_the_other_is_still_to_be_sent(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        ends = [completed(mine, one), replace(completed(his, other), tenant=HIS)]
        assert executions.finish(connection, 0, ends, event_in=-1) == [True, True]
        assert event_outbox.pending(connection, [mine.id], tenant=MINE) == {mine.id}
        assert set(event_outbox.due(connection, -1, 10)) == {mine.identity, his.identity}
        event_outbox.sent(connection, [OutboxEntry(his.id, other.lock_version + 1, HIS)])
        assert event_outbox.pending(connection, [mine.id], tenant=HIS) == set()
        assert event_outbox.due(connection, -1, 10) == [mine.identity]

    def test_one_is_replayed_and_one_is_discarded(self, connection: Connection) -> None:
        ready(connection)
        mine, his, one, other = claimed_pair(connection)
        ends = [failed(mine, one), replace(failed(his, other), tenant=HIS)]
        assert executions.finish(connection, 0, ends) == [True, True]
        assert executions.replay(connection, [mine.id], by="ann", tenant=HIS) == 1
        assert [status(connection, asked) for asked in (mine, his)] == ["failed", "pending"]
        assert event_outbox.pending(connection, [mine.id], tenant=MINE) == {mine.id}
        assert event_outbox.pending(connection, [mine.id], tenant=HIS) == set()
        assert [statistics.all_time(connection, PROGRAM_ID, tenant=tenant).failed for tenant in BOTH] == [1, 0]
        assert executions.discard(connection, [mine.id], by="ann", tenant=MINE) == 1
        assert [read(connection, asked).discarded for asked in (mine, his)] == [True, False]

    def test_are_counted_apart(self, connection: Connection) -> None:
        """In one batch, on one shard, and also where only one of them was counted before."""
        ready(connection)
        for _ in range(2):
            first = asked_by(HIS)
            claim = taken(claim_now(connection, ALICE, [first])[0])
            assert executions.finish(connection, 7, [replace(failed(first, claim), tenant=HIS)]) == [True]
            mine, his, one, other = claimed_pair(connection)
            ends = [completed(mine, one), replace(completed(his, other), tenant=HIS)]
            assert executions.finish(connection, 7, ends) == [True, True]
        totals = [counters.totals(connection, PROGRAM_ID, tenant=tenant) for tenant in BOTH]
        assert [(one.completed, one.failed) for one in totals] == [(2, 0), (2, 2)]
        durations = [counters.durations(connection, PROGRAM_ID, tenant=tenant) for tenant in BOTH]
        assert [sum(one.values()) for one in durations] == [2, 4]

    def test_with_the_same_idempotency_key(self, connection: Connection) -> None:
        ready(connection)
        mine, his = (replace(asked, idempotency_key="key") for asked in pair())
        repeated = replace(his, id=uuid7())
        claims = claim_now(connection, ALICE, [mine, his, repeated])
        assert [type(claim) for claim in claims] == [Claimed, Claimed, Running]
        assert idempotency.find(connection, "key", tenant=HIS) == his.id


class TestWebhooks:
    def callback(self, tenant: str) -> Callback:
        return Callback(url=URLS[tenant], secret="A_WEBHOOK_SECRET")

    def end_both(self, connection: Connection, callback: Callback | None = None) -> None:
        mine, his = pair()
        asked = [replace(mine, callback=callback), his]
        claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
        ends = [replace(completed(a, c), tenant=a.tenant) for a, c in zip(asked, claims, strict=True)]
        assert executions.finish(connection, 0, ends, webhook_in=-1) == [True, True]

    def test_endpoints_with_one_id(self, connection: Connection) -> None:
        ready(connection)
        endpoint_id = uuid7()
        for tenant in BOTH:
            webhooks.register(connection, endpoint_id, self.callback(tenant), tenant=tenant)
        self.end_both(connection)
        wanted = dict.fromkeys(webhooks.places(connection, "", 10), 10)
        assert set(wanted) == {"default mine.example:443", "acme his.example:443"}
        due = {one.delivery.tenant: one for one in webhooks.take(connection, wanted, 60)}
        assert {tenant: one.endpoint and one.endpoint.callback.url for tenant, one in due.items()} == URLS
        # What fails is held against the one endpoint.
        settled = [
            Settled(due[HIS], DeliveryStatus.FAILED, outcome="failed", failed=True, disable="it is gone"),
            Settled(due[MINE], DeliveryStatus.DELIVERED, outcome="delivered"),
        ]
        assert webhooks.settle(connection, settled) == [True, True]
        mine, his = (webhooks.endpoint(connection, endpoint_id, tenant=tenant) for tenant in BOTH)
        assert (mine.enabled, mine.failing_since) == (True, None)
        assert not his.enabled
        assert [one.identity for one in webhooks.announcements(connection, 60, 10)] == [Identity(endpoint_id, HIS)]
        webhooks.delete(connection, endpoint_id, tenant=HIS)
        assert webhooks.endpoint(connection, endpoint_id, tenant=MINE) == mine

    def test_the_endpoint_of_a_callback_that_another_tenant_has_taken(self, connection: Connection) -> None:
        """Whoever knows how its id is derived gets nothing of what is sent there."""
        ready(connection)
        callback = self.callback(MINE)
        webhooks.register(connection, endpoint_id_of(MINE, callback), self.callback(HIS), tenant=HIS)
        self.end_both(connection, callback=callback)
        wanted = dict.fromkeys(webhooks.places(connection, "", 10), 10)
        due = [(one.delivery.tenant, one.endpoint) for one in webhooks.take(connection, wanted, 60)]
        assert sorted((tenant, endpoint and endpoint.callback.url) for tenant, endpoint in due) == [
            (HIS, URLS[HIS]),
            (MINE, URLS[MINE]),
        ]
