"""Tenants: what one has is not there for another, by the queries everywhere, and by the policies on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, insert, literal, make_url, select, text, update
from sqlalchemy.exc import ProgrammingError

import migrations
from dspex import Configuration, ExecutionStatus, uuid7
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.errors import InvalidValues, NotFound
from dspex.ids import DEFAULT_TENANT
from store import counters, executions, programs, rejections, signatures, statistics, webhooks
from store.counters import Counts
from store.database import tenancy
from store.database.engine import make_engine
from store.executions import (
    Claimed,
    Heartbeat,
    NoProgram,
    Request,
    Running,
    Trace,
    choosing,
    external,
)
from store.programs import Program
from store.queues import counts
from store.queues.keys import QueueKey
from store.queues.offers import offer
from store.queues.turns import Turns
from store.rejections import Rejection
from store.signatures import SignatureRow
from store.tables import NOW, PROTECTED, early_cancels, queue_counts
from store.tables import executions as executions_table
from store.tables import rejected_messages as rejected_table
from store.webhooks import Settled
from tests.contract.store.rows import (
    ALICE,
    BOB,
    SIGNATURE,
    accept,
    chosen,
    claim_now,
    clock,
    completed,
    failed,
    get,
    keep_program,
    request,
    take,
    taken,
)

OTHER = "acme"
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Kept:
    """What a tenant has: at least one of each."""

    signature: SignatureRow
    program: Program
    pending: Request
    running: Request
    claimed: Claimed
    done: Request
    failed: Request


def keep(connection: Connection, tenant: str) -> Kept:
    content = SIGNATURE.model_copy(update={"module": "shop.questions"})
    signature = signatures.create(connection, uuid7(), content, activate=True, tenant=tenant)
    program = programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature.id,
        adapter_type="mock",
        configuration=Configuration(),
        tenant=tenant,
    )
    begun = programs.begin_initialize(connection, program.id, tenant=tenant)
    ready = programs.end_initialize(connection, begun, f"backend of {tenant}")
    assert ready is not None
    pending, running, done, bad = (replace(request(program.id), tenant=tenant) for _ in range(4))
    accept(connection, pending)
    given = {"image": f"blob:sha256:{'a' * 64}"}
    claimed = take(connection, replace(running, idempotency_key="key"))
    webhooks.register(
        connection, uuid7(), Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET"), tenant=tenant
    )
    end = replace(completed(done, take(connection, replace(done, inputs=given))), tenant=tenant, trace=Trace(1, []))
    failure = replace(failed(bad, take(connection, bad)), tenant=tenant)
    assert executions.finish(connection, 0, [end, failure]) == [True, True]
    for due in webhooks.take(connection, {f"{tenant} receiver.example:443": 2}, 60):
        assert webhooks.settle(connection, [Settled(due, DeliveryStatus.DELIVERED, outcome="delivered")]) == [True]
    rejections.record(connection, Rejection("q", "malformed_message", "no", b"{", 1, tenant=tenant))
    counts.came(connection, [counts.Counted(tenant, program.id)])
    offer(connection, [(QueueKey(tenant, program.id, 1), None)])
    cancelled = {"execution_id": uuid7(), "tenant": tenant, "by": "/tests", "inserted_at": NOW}
    connection.execute(insert(early_cancels).values(cancelled))
    numbers = dict.fromkeys(("lane", "waiting", "period", "came", "went"), 1)
    counted = {"tenant": tenant, "program_id": program.id, "moving_since": FUTURE, **numbers}
    connection.execute(insert(queue_counts).values(counted))
    return Kept(signature, ready, pending, running, claimed, done, bad)


@pytest.fixture
def both(connection: Connection) -> tuple[Kept, Kept]:
    """Of the default tenant, and of another. They have the same module and version."""
    return keep(connection, DEFAULT_TENANT), keep(connection, OTHER)


class TestQueries:
    def test_find_what_is_the_tenants(self, connection: Connection, both: tuple[Kept, Kept]) -> None:
        for tenant, kept in zip((DEFAULT_TENANT, OTHER), both, strict=True):
            assert signatures.get(connection, kept.signature.id, tenant=tenant) == kept.signature
            assert signatures.find(connection, "shop.questions", "1.0.0", tenant=tenant) == kept.signature
            assert signatures.versions(connection, "shop.questions", tenant=tenant) == [kept.signature]
            assert signatures.page(connection, tenant=tenant).items == (kept.signature,)
            assert signatures.find_or_create(connection, kept.signature.signature, tenant=tenant) == kept.signature
            assert [item.id for item in programs.page(connection, tenant=tenant).items] == [kept.program.id]
            ids = {kept.pending.id, kept.running.id, kept.done.id, kept.failed.id}
            ended = {kept.done.id, kept.failed.id}
            assert {item.id for item in executions.get(connection, list(ids), tenant=tenant)} == ids
            assert {item.id for item in executions.page(connection, tenant=tenant).items} == ids
            assert {item.id for item in executions.page(connection, tenant=tenant).items} == ids
            assert {item.tenant for item in executions.page(connection, tenant=tenant).items} == {tenant}
            assert {item.id for item in executions.ended(connection, list(ids), tenant=tenant)} == ended
            assert sum(executions.count(connection, kept.program.id, tenant=tenant).by_status.values()) == 4
            assert executions.dead(connection, tenant=tenant).items == (kept.failed.id,)
            assert statistics.all_time(connection, kept.program.id, tenant=tenant).successful == 1
            since = kept.program.inserted_at
            assert statistics.window(connection, kept.program.id, since, FUTURE, tenant=tenant).successful == 1
            assert counters.totals(connection, kept.program.id, tenant=tenant).completed == 1
            [rejected] = rejections.page(connection, tenant=tenant).items
            assert rejected.tenant == tenant
            assert rejections.get(connection, rejected.id, tenant=tenant) == rejected
            assert rejections.dead(connection, tenant=tenant).items == (rejected.id,)

    def test_do_not_find_what_is_anothers(self, connection: Connection, both: tuple[Kept, Kept]) -> None:
        _, his = both
        signature, program, pending = his.signature.id, his.program.id, his.pending.id
        ids = [his.pending.id, his.running.id, his.done.id, his.failed.id]
        [rejected] = rejections.dead(connection, tenant=OTHER).items
        now = clock(connection)
        everything = [tuple(connection.execute(select(table)).all()) for table in PROTECTED]
        for missing in (
            lambda: signatures.get(connection, signature),
            lambda: signatures.update(connection, signature, SIGNATURE),
            lambda: signatures.activate(connection, signature),
            lambda: signatures.deprecate(connection, signature),
            lambda: signatures.destroy(connection, signature),
            lambda: programs.get(connection, program),
            lambda: programs.begin_initialize(connection, program),
            lambda: programs.update(connection, program, configuration=Configuration(), backend_id="b"),
            lambda: programs.archive(connection, program),
            lambda: programs.destroy(connection, program),
            lambda: keep_program(connection, signature),
            lambda: executions.cancel(connection, pending, by="ann"),
            lambda: external.create(connection, request(program)),
            lambda: external.mark_running(connection, external.Mark(pending, 1, "m", "x"), 60.0),
            lambda: statistics.all_time(connection, program),
            lambda: statistics.window(connection, program, now, now),
            lambda: rejections.get(connection, rejected),
        ):
            with pytest.raises(NotFound):
                missing()
        assert rejections.find(connection, [rejected]) == []
        assert rejections.discard(connection, [rejected]) == 0
        assert executions.replay(connection, ids, by="ann") == executions.discard(connection, ids, by="ann") == 0
        assert executions.dead(connection, program_id=program).items == ()
        assert executions.get(connection, ids) == []
        assert executions.ended(connection, ids) == []
        assert executions.count(connection, program) == ({}, True, None)
        assert executions.page(connection, program_id=program).items == ()
        assert programs.page(connection, signature_id=signature).items == ()
        assert counters.totals(connection, program) == Counts()
        assert counters.durations(connection, program) == {}
        stolen = completed(replace(his.running, tenant="default"), his.claimed)
        assert executions.finish(connection, 0, [stolen]) == [False]
        new, waits = request(program), replace(his.pending, tenant="default")
        assert executions.claim_alone(connection, ALICE, [waits]) == [NoProgram(waits.id)]
        assert claim_now(connection, ALICE, [new]) == [NoProgram(new.id)]
        assert [tuple(connection.execute(select(table)).all()) for table in PROTECTED] == everything

    def test_the_same_id_of_two_tenants_in_a_batch(self, connection: Connection, both: tuple[Kept, Kept]) -> None:
        mine, his = both
        asked = request(mine.program.id)
        other = replace(request(his.program.id, asked.id), tenant=OTHER)
        claims = claim_now(connection, ALICE, [asked, other, asked])
        assert [type(claim) for claim in claims] == [Claimed, Claimed, Running]

    def test_a_worker_serves_all(self, connection: Connection, both: tuple[Kept, Kept]) -> None:
        mine, his = both
        assert executions.heartbeat(connection, ALICE).extended == 2
        executions.cancel(connection, his.running.id, by="ann", tenant=OTHER)
        assert executions.heartbeat(connection, ALICE).cancel_requested == {his.running.identity}
        assert executions.release(connection, ALICE) == 2
        found = choosing.choose(connection, BOB, 10, Turns(), alone_at=3).chosen
        assert {one.request.id: one.request for one in found} == {
            one.id: one for kept in both for one in (kept.running, kept.pending)
        }
        backends = {one.claim.id: one.claim.backend_id for one in found if isinstance(one.claim, Claimed)}
        assert backends[his.running.id] == "backend of acme"
        assert backends[mine.running.id] == "backend of default"


@pytest.mark.parametrize("tenant", ["", " ", "a b", "a'b", "*a", "-a", "a\\", "a" * 65, "ü", "a\n"])
def test_names_that_no_tenant_can_have(tenant: str) -> None:
    with pytest.raises(InvalidValues, match="tenant: "):
        tenancy.checked(tenant)
    with pytest.raises(InvalidValues):
        make_engine("postgresql+psycopg://nowhere/nothing", tenant=tenant)


def test_a_scope_on_sqlite_is_nothing(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}", tenant=OTHER)
    with engine.begin() as connection:
        tenancy.scope(connection, OTHER)
    engine.dispose()


@dataclass(frozen=True)
class Guarded:
    """A migrated PostgreSQL with rows of two tenants, and engines of a role that owns nothing."""

    url: str
    mine: Kept
    his: Kept

    def engine(self, tenant: str = tenancy.ALL) -> Engine:
        return make_engine(self.url, tenant=tenant)


@pytest.fixture
def guarded(postgres_database_url: str) -> Iterator[Guarded]:
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine)
    role = f"dspex_service_{uuid7().hex}"
    with engine.begin() as connection:
        both = keep(connection, DEFAULT_TENANT), keep(connection, OTHER)
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
    yield Guarded(make_url(postgres_database_url).set(username=role).render_as_string(), *both)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


def tenants_seen(connection: Connection) -> dict[str, set[str]]:
    """By queries that forget their filter."""
    return {table.name: set(connection.execute(select(table.c.tenant)).scalars()) for table in PROTECTED}


class TestPolicies:
    def test_a_query_that_forgets_its_filter_sees_its_tenant_alone(self, guarded: Guarded) -> None:
        for tenant in (DEFAULT_TENANT, OTHER):
            engine = guarded.engine(tenant)
            with engine.begin() as connection:
                assert tenants_seen(connection) == {table.name: {tenant} for table in PROTECTED}
            engine.dispose()

    def test_a_scope_ends_with_its_transaction(self, guarded: Guarded) -> None:
        engine = guarded.engine("nobody")
        with engine.connect() as connection:
            for tenant in (DEFAULT_TENANT, OTHER):
                with connection.begin():
                    tenancy.scope(connection, tenant)
                    assert tenants_seen(connection) == {table.name: {tenant} for table in PROTECTED}
                with connection.begin():
                    assert tenants_seen(connection) == {table.name: set() for table in PROTECTED}
        engine.dispose()

    def test_a_session_without_the_setting_sees_nothing(self, guarded: Guarded) -> None:
        engine = create_engine(guarded.url)
        with engine.connect() as connection:
            assert tenants_seen(connection) == {table.name: set() for table in PROTECTED}
            tenancy.scope(connection, OTHER)
            assert executions.page(connection, tenant=OTHER).items
            connection.rollback()  # the setting is there now, and empty
            assert tenants_seen(connection) == {table.name: set() for table in PROTECTED}
            assert connection.execute(delete(executions_table).returning(executions_table.c.id)).all() == []
        engine.dispose()

    def test_nothing_is_written_for_another(self, guarded: Guarded) -> None:
        engine = guarded.engine(OTHER)
        foreign: dict[str, Any] = {column.name: column for column in rejected_table.c}
        foreign |= {"id": literal(uuid7()), "tenant": literal("default")}
        given_away = update(executions_table).values(tenant="default")
        smuggled = insert(rejected_table).from_select(list(foreign), select(*foreign.values()))
        with engine.connect() as connection:
            for change in (given_away, smuggled):
                with pytest.raises(ProgrammingError, match="row-level security"):
                    connection.execute(change)
                connection.rollback()
            gone = connection.execute(delete(executions_table).returning(executions_table.c.tenant)).scalars()
            assert list(gone) == [OTHER] * 4
            connection.rollback()
        engine.dispose()

    def test_the_ids_of_another_tenant_are_free(self, guarded: Guarded) -> None:
        engine, mine, his = guarded.engine(DEFAULT_TENANT), guarded.mine, guarded.his
        with engine.connect() as connection:
            signature = signatures.create(connection, his.signature.id, SIGNATURE, activate=True)
            program = programs.create(
                connection,
                his.program.id,
                name="a",
                signature_id=signature.id,
                adapter_type="mock",
                configuration=Configuration(),
            )
            accept(connection, request(mine.program.id, his.done.id))
            assert get(connection, his.done.id).status == ExecutionStatus.PENDING
        assert (signature.id, program.id) == (his.signature.id, his.program.id)
        engine.dispose()

    def test_a_worker_and_a_service_do_all_they_have_to(self, guarded: Guarded) -> None:
        """The whole way, by a role that is held by the policies."""
        workers, service = guarded.engine(), guarded.engine("nobody")
        with service.begin() as connection:
            tenancy.scope(connection, "new")
            kept = keep(connection, "new")
            executions.cancel(connection, kept.pending.id, by="ann", tenant="new")
            executions.cancel(connection, kept.running.id, by="ann", tenant="new")
            assert executions.replay(connection, [kept.failed.id], by="ann", tenant="new") == 1
            assert statistics.all_time(connection, kept.program.id, tenant="new").total == 2
            assert programs.get(connection, kept.program.id, tenant="new").execution_count == 2
        with workers.begin() as connection:
            asked = [
                replace(request(item.program.id), tenant=tenant)
                for tenant, item in (("new", kept), (OTHER, guarded.his))
            ]
            claims = [taken(claim) for claim in claim_now(connection, BOB, asked)]
            ends = [
                replace(completed(item, claim), tenant=item.tenant) for item, claim in zip(asked, claims, strict=True)
            ]
            assert executions.finish(connection, 0, ends) == [True, True]
            for change in (executions.discard, executions.replay):
                assert change(connection, [guarded.his.failed.id], by="ann", tenant=OTHER) == 1
            assert executions.heartbeat(connection, ALICE) == Heartbeat(3, frozenset({kept.running.identity}))
            assert executions.release(connection, ALICE) == 3
            assert kept.running in chosen(connection)
        workers.dispose()
        service.dispose()
