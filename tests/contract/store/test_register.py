"""The register of live workers, and what waits that none of them serves."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, event, literal, null, select, update

from dspex import Configuration, ExecutionOptions, uuid7
from dspex.contract.options import Lane
from store import executions, gates, programs
from store.database.tenancy import ALL
from store.executions import Lease
from store.gates import GateKey
from store.queues import counts, position, register
from store.queues.counts import Counted
from store.queues.figures import Scope
from store.queues.position import Position, Reason
from store.queues.register import Fleet, State, Worker
from store.queues.services import Needs, Service, missing, read_service
from store.queues.unserved import unserved
from store.tables import executions as executions_table
from store.tables import programs as programs_table
from store.tables import queue_counts
from store.tables import workers as workers_table
from tests.contract.store.rows import clock, ready_program, request, take

EVERYTHING = Service()


def live(
    connection: Connection, name: str, state: State = State.WORKING, *, seconds: float = 60.0, **serves: list[str]
) -> None:
    worker = Worker(name, "host", 7, "0.1.0", state, serves, places=4, taken=1)
    register.renew(connection, worker, lease_seconds=seconds, age=3600.0)


def program(connection: Connection, adapter: str = "mock", environment: str | None = None) -> UUID:
    signature_id = programs.get(connection, ready_program(connection)).signature_id
    configuration = Configuration(environment=environment)
    given: dict[str, Any] = {"signature_id": signature_id, "adapter_type": adapter, "configuration": configuration}
    return programs.create(connection, uuid7(), name="p", **given).id


def waits(connection: Connection, program_id: UUID, lane: Lane = Lane.DEFAULT, *, seconds: float = 60.0) -> UUID:
    """An execution that might have run for so long."""
    asked = replace(request(program_id), options=ExecutionOptions(lane=lane))
    executions.claim(connection, Lease("accepted", 60), [asked], now=[False])
    c = executions_table.c
    since = clock(connection) - timedelta(seconds=seconds)
    connection.execute(update(executions_table).where(c.id == asked.id).values(run_at=since))
    return asked.id


def told(connection: Connection, scope: Scope = Scope(ALL)) -> set[tuple[UUID, Lane, str]]:  # noqa: B008
    return {(one.program_id, one.lane, one.missing) for one in unserved(connection, register.read(connection), scope)}


def where(connection: Connection, execution_id: UUID) -> Position:
    found = position.position(connection, execution_id)
    assert found is not None
    return found


@contextmanager
def statements(connection: Connection) -> Generator[list[str]]:
    """The statements that are sent meanwhile."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield sent
    event.remove(connection, "before_cursor_execute", note)


class TestRows:
    def test_one_lives_for_a_lease_and_is_renewed(self, connection: Connection) -> None:
        live(connection, "b", lanes=["high"])
        live(connection, "a", State.OWN)
        live(connection, "dead", seconds=-1)
        first, second = register.page(connection, None, 10)
        assert (first.name, first.state, first.serves) == ("a", State.OWN, {})
        assert (second.name, second.host, second.pid, second.version) == ("b", "host", 7, "0.1.0")
        assert (second.state, second.serves, second.places, second.taken) == (State.WORKING, {"lanes": ["high"]}, 4, 1)
        assert second.started_at is not None
        assert second.seen_at is not None
        assert second.seen_at - second.started_at == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=2))
        live(connection, "b", State.DRAINING)
        [again] = register.page(connection, "a", 10)
        assert (again.state, again.serves) == (State.DRAINING, {})
        assert (again.started_at, again.seen_at > second.seen_at) == (second.started_at, True)  # type: ignore[operator]

    def test_pages(self, connection: Connection) -> None:
        for name in ("c", "a", "b"):
            live(connection, name)
        assert [worker.name for worker in register.page(connection, None, 2)] == ["a", "b"]
        assert [worker.name for worker in register.page(connection, "b", 2)] == ["c"]

    def test_it_goes_by_its_end_and_by_the_sweep(self, connection: Connection) -> None:
        live(connection, "ends")
        live(connection, "lives")
        assert not register.anything_dead(connection)
        live(connection, "dead", seconds=-1)
        register.leave(connection, "ends")
        assert register.anything_dead(connection)
        assert register.sweep(connection) == 1
        assert connection.execute(select(workers_table.c.name)).scalars().all() == ["lives"]

    def test_how_many_choose_from_each_lane(self, connection: Connection) -> None:
        live(connection, "all")
        live(connection, "high", lanes=["high"])
        live(connection, "again", lanes=["high"])
        live(connection, "bulk", lanes=["bulk"], adapters=["native"])
        live(connection, "drains", State.DRAINING)
        live(connection, "own", State.OWN)
        live(connection, "dead", seconds=-1)
        assert register.count_by_lane(connection) == {Lane.HIGH: 3, Lane.DEFAULT: 1, Lane.BULK: 2}


class TestWhatIsServed:
    def test_what_live_ones_serve_each_once(self, connection: Connection) -> None:
        assert register.read(connection) == Fleet(frozenset(), complete=True)
        some = uuid7()
        for name in "ab":
            live(connection, name, lanes=["high", "bulk"], programs=[str(some)])
        live(connection, "c", environments=["rag", "-"])
        live(connection, "drains", State.DRAINING, lanes=["default"])
        live(connection, "dead", seconds=-1, adapters=["native"])
        first = Service(lanes=frozenset({0, 2}), programs=frozenset({some}))
        second = Service(environments=frozenset({"rag", "-"}))
        assert register.read(connection).services == {first, second}
        live(connection, "own", State.OWN)
        assert register.read(connection).services == {first, second, EVERYTHING}

    def test_one_that_is_paused_serves_nothing(self, connection: Connection) -> None:
        live(connection, "a", lanes=["bulk"])
        live(connection, "b")
        gates.pause(connection, GateKey("worker", "b"), by="ann")
        assert register.read(connection).services == {Service(frozenset({2}))}
        assert register.count_by_lane(connection) == {Lane.HIGH: 0, Lane.DEFAULT: 0, Lane.BULK: 1}
        assert [worker.paused for worker in register.page(connection, None, 10)] == [False, True]
        gates.resume(connection, GateKey("worker", "b"), by="ann")
        assert EVERYTHING in register.read(connection).services

    def test_others_are_known_by_what_they_run(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked, Lease("of the version before", 60))
        assert not register.read(connection).complete
        live(connection, "of the version before")
        assert register.read(connection).complete
        register.leave(connection, "of the version before")
        c = executions_table.c
        dead = {"lease_expires_at": clock(connection) - timedelta(seconds=1)}
        connection.execute(update(executions_table).where(c.id == asked.id).values(**dead))
        assert register.read(connection).complete

    def test_the_rule_is_the_same_in_python_and_in_the_database(self, connection: Connection) -> None:
        one, other = uuid7(), uuid7()
        services = [
            EVERYTHING,
            Service(frozenset({0})),
            Service(programs=frozenset({one})),
            Service(adapters=frozenset({"native"})),
            Service(frozenset({0, 1}), adapters=frozenset({"native", "mock"}), environments=frozenset({"rag"})),
        ]
        needs = [
            *map(Needs._make, product((0, 2), (one, other), ("native", "mock"), ("rag", "-"))),
            Needs(0, other, None, None),
        ]
        for service, needed in product(services, needs):
            columns = [null() if value is None else literal(value) for value in needed]
            assert connection.execute(select(service.condition(columns))).scalar() == service.takes(needed)

    def test_what_is_missing(self) -> None:
        one = uuid7()
        needs = Needs(2, one, "native", "-")
        high, native, mine = (
            read_service({"lanes": ["high"]}),
            read_service({"adapters": ["native"], "lanes": ["high"]}),
            read_service({"programs": [str(one)], "adapters": ["mock"]}),
        )
        assert missing([], needs) == "anything"
        assert missing([high, EVERYTHING], needs) is None
        assert missing([high, native], needs) == "lane bulk"
        assert missing([mine], needs) == "adapter native"
        assert missing([read_service({"environments": ["rag"]})], needs) == "environment -"
        assert missing([read_service({"programs": [str(uuid7())]})], needs) == f"program {one}"
        assert missing([high, mine], needs) == "lane bulk with adapter native"
        assert missing([native, read_service({"adapters": ["mock"]})], needs) == "lane bulk with adapter native"


class TestWhatWaitsInVain:
    def test_by_lane_adapter_environment_and_program(self, connection: Connection) -> None:
        mock, port, rag = (
            program(connection),
            program(connection, "python_port"),
            program(connection, "python_port", "rag"),
        )
        for one in (mock, port, rag):
            waits(connection, one)
        waits(connection, mock, Lane.BULK)
        default, bulk = Lane.DEFAULT, Lane.BULK
        everything = {(one, default, "anything") for one in (mock, port, rag)} | {(mock, bulk, "anything")}
        assert told(connection) == everything
        live(connection, "a", lanes=["high", "default"], adapters=["mock"])
        in_vain = {(one, default, "adapter python_port") for one in (port, rag)} | {(mock, bulk, "lane bulk")}
        assert told(connection) == in_vain
        assert told(connection, Scope(ALL, mock)) == {(mock, bulk, "lane bulk")}
        assert told(connection, Scope("acme")) == set()
        live(connection, "b", adapters=["python_port"], environments=["-"])
        assert told(connection) == {
            (rag, default, "adapter python_port with environment rag"),
            (mock, bulk, "lane bulk with adapter mock"),
        }
        live(connection, "c")
        assert told(connection) == set()

    def test_nothing_is_told_too_early_or_while_it_is_not_known(self, connection: Connection) -> None:
        made = program(connection)
        live(connection, "a", lanes=["high"])
        waits(connection, made, seconds=1)
        assert told(connection) == set()
        waits(connection, made, seconds=60)
        assert told(connection) == {(made, Lane.DEFAULT, "lane default")}
        take(connection, request(ready_program(connection)), Lease("of the version before", 60))
        assert told(connection) == set()

    def test_any_worker_ends_what_waits_of_a_program_that_is_gone(self, connection: Connection) -> None:
        gone = program(connection, "native")
        waits(connection, gone)
        live(connection, "a", adapters=["mock"])
        assert told(connection) == {(gone, Lane.DEFAULT, "adapter native")}
        connection.execute(delete(programs_table).where(programs_table.c.id == gone))
        assert told(connection) == set()

    def test_of_one_execution(self, connection: Connection) -> None:
        made = program(connection)
        execution_id, early = waits(connection, made, Lane.BULK), waits(connection, made, Lane.BULK, seconds=1)
        assert where(connection, execution_id).unserved == "anything"
        live(connection, "a", lanes=["high"])
        found = where(connection, execution_id)
        assert (found.reason, found.unserved, found.ahead) == (Reason.PLACE, "lane bulk", 0)
        assert where(connection, early).unserved is None
        live(connection, "b", lanes=["bulk"])
        assert (where(connection, execution_id).unserved, where(connection, execution_id).ahead) == (None, 0)
        live(connection, "b", State.DRAINING, lanes=["bulk"])
        assert where(connection, execution_id).unserved == "lane bulk"
        gates.pause(connection, GateKey("lane", "bulk"), by="ann")
        found = where(connection, execution_id)
        assert (found.reason, found.unserved) == (Reason.PAUSED, None)
        gates.resume(connection, GateKey("lane", "bulk"), by="ann")
        take(connection, request(ready_program(connection)), Lease("of the version before", 60))
        assert where(connection, execution_id).unserved is None


def test_a_client_that_polls_costs_two_statements(connection: Connection) -> None:
    made = program(connection)
    ids = [waits(connection, made, Lane.BULK, seconds=seconds) for seconds in (60, 50, 40)]
    live(connection, "a")
    counts.went(connection, [Counted("default", made, 2)] * 6)
    counts.fold(connection, 100)
    connection.execute(update(queue_counts).values(moving_since=clock(connection) - timedelta(minutes=10)))
    with statements(connection) as sent:
        found = where(connection, ids[2])
    assert len(sent) == 2
    assert (found.ahead, found.unserved) == (2, None)
    assert found.expected_seconds is not None
    live(connection, "a", lanes=["high"])
    with statements(connection) as sent:
        assert where(connection, ids[2]).unserved == "lane bulk"
    assert len(sent) == 2
    c, later = executions_table.c, clock(connection) + timedelta(hours=1)
    connection.execute(update(executions_table).where(c.id == ids[2]).values(run_at=later))
    with statements(connection) as sent:
        assert where(connection, ids[2]).reason is Reason.NOT_BEFORE
    assert len(sent) == 1
