"""The backlog as people see it: of whom, by what, held by what; and what one that waits waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, update

from dspex import ExecutionOptions, uuid7
from dspex.contract.backlog import Backlog, BacklogView, By, Holder
from dspex.contract.options import Lane
from dspex.errors import Denied, InvalidValues
from store import executions, gates
from store.column_types import database_now
from store.executions import Lease
from store.gates import GateKey
from store.queues import counts, register
from store.queues.counts import Counted
from store.queues.register import State, Worker
from store.tables import executions as executions_table
from store.tables import queues, workers
from tests.contract.store.rows import (
    left_by_an_older_worker,
    request,
)
from tests.unit.system import System
from workers.cli.ask import show
from workers.cli.backlog import show_backlog, span
from workers.local import LocalClient
from workers.security.authorization import Principal, Role


def as_one(system: System, tenant: str = "default", *, fleet: bool = False) -> LocalClient:
    return LocalClient(system.app, Principal("ann", tenant, frozenset({Role.VIEWER}), fleet=fleet))


def program(system: System, name: str, tenant: str = "default") -> UUID:
    maker = LocalClient(system.app, Principal("maker", tenant, frozenset({Role.PRODUCER})))
    return maker.create_program(name, "question -> answer", adapter_type="mock").program_id


def waits(system: System, program_id: UUID, number: int, *, tenant: str = "default", lane: Lane = Lane.BULK) -> None:
    with system.app.engine.begin() as connection:
        counts.came(connection, [Counted(tenant, program_id, lane.number)] * number)


def queue(system: System, program_id: UUID, holder: str, lane: Lane = Lane.BULK) -> None:
    where = {"tenant": "default", "program_id": program_id, "lane": lane.number, "group_key": ""}
    with system.app.engine.begin() as connection:
        connection.execute(insert(queues).values(**where, holder=holder, inserted_at=datetime.now(UTC)))


def numbers(view: BacklogView) -> list[tuple[str | None, int]]:
    return [(row.name or row.tenant or row.lane, row.waiting) for row in view.items]


def test_by_lane_program_and_tenant(system: System) -> None:
    one, other = program(system, "one"), program(system, "other")
    waits(system, one, 3)
    waits(system, other, 5, lane=Lane.HIGH)
    waits(system, uuid7(), 7, tenant="acme")
    ann, fleet = as_one(system), as_one(system, fleet=True)
    assert numbers(ann.get_backlog()) == [("high", 5), ("default", 0), ("bulk", 3)]
    assert numbers(ann.get_backlog("program")) == [("other", 5), ("one", 3)]
    assert numbers(ann.get_backlog(By.PROGRAM, lane="bulk")) == [("one", 3)]
    assert numbers(ann.get_backlog(By.LANE, program_id=one)) == [("high", 0), ("default", 0), ("bulk", 3)]
    assert numbers(ann.get_backlog(By.TENANT)) == [("default", 8)]
    assert ann.get_backlog().total.waiting == 8
    everything = fleet.get_backlog(By.TENANT, all_tenants=True)
    assert (numbers(everything), everything.total.waiting) == ([("default", 8), ("acme", 7)], 15)
    first = fleet.get_backlog(By.TENANT, all_tenants=True, limit=1)
    assert numbers(first) == [("default", 8)]
    assert numbers(fleet.get_backlog(By.TENANT, all_tenants=True, cursor=first.next_cursor)) == [("acme", 7)]


def test_a_tenant_sees_its_own_alone(system: System) -> None:
    waits(system, uuid7(), 7, tenant="acme")
    assert as_one(system).get_backlog().total.waiting == 0
    assert as_one(system, "acme").get_backlog().total.waiting == 7
    for by in By:
        with pytest.raises(Denied, match="all_tenants: 'ann' sees tenant 'default' alone"):
            as_one(system).get_backlog(by, all_tenants=True)


def test_wrong_arguments(system: System) -> None:
    arguments: list[dict[str, Any]] = [
        *({"lane": "none"}, {"by": "lm"}, {"cursor": "c"}, {"limit": 0}),
        {"by": "program", "cursor": "c"},
    ]
    for wrong in arguments:
        with pytest.raises(InvalidValues):
            as_one(system).get_backlog(**wrong)


def test_what_holds_it(system: System) -> None:
    program_id = program(system, "held")
    waits(system, program_id, 1)
    queue(system, program_id, "lm:*:fast")
    queue(system, program_id, f"program:default:{program_id}", Lane.HIGH)
    limit = gates.Limits(in_flight=1)
    with system.app.engine.begin() as connection:
        gates.set_limit(connection, GateKey("lm", "fast"), limit, by="ops")
        gates.set_limit(connection, GateKey("lm", "slow"), limit, by="ops")
        gates.pause(connection, GateKey("program", str(program_id), "default"), by="ops")
        gates.pause(connection, GateKey("lane", "bulk"), by="ops")
        gates.pause(connection, GateKey("tenant", "acme"), by="ops")
    ann = as_one(system)
    [found] = ann.get_backlog("program").items
    assert found.held_by == (Holder(scope=f"program {program_id}", paused=True), Holder(scope="lm fast", paused=False))
    bulk = (Holder(scope="lane bulk", paused=True), Holder(scope="lm fast", paused=False))
    high = (Holder(scope=f"program {program_id}", paused=True),)
    assert [row.held_by for row in ann.get_backlog().items] == [high, (), bulk]
    [tenant] = ann.get_backlog("tenant").items
    assert tenant.held_by == (Holder(scope="lm fast", paused=False), *high)
    assert ann.get_backlog().total.held_by == ()
    with system.app.engine.begin() as connection:
        gates.pause(connection, GateKey("everything"), by="ops")
        gates.pause(connection, GateKey("tenant", "default"), by="ops")
    everything = Holder(scope="everything", paused=True)
    assert ann.get_backlog().total.held_by == (everything,)
    [tenant] = ann.get_backlog("tenant").items
    assert tenant.held_by[:2] == (everything, Holder(scope="tenant default", paused=True))


def test_what_one_that_waits_waits_for(system: System) -> None:
    program_id, ann = program(system, "one"), as_one(system)
    asked = request(program_id)
    with system.app.engine.begin() as connection:
        left_by_an_older_worker(connection, asked, due_in=3600.0)
    assert ann.get_execution(asked.id).waiting is None  # nothing that a worker chooses
    run_at = datetime.now(UTC) + timedelta(hours=1)
    change = update(executions_table).where(executions_table.c.id == asked.id)
    with system.app.engine.begin() as connection:
        connection.execute(change.values(run_at=run_at, lane=2))
    found = ann.get_execution(asked.id).waiting
    assert found is not None
    assert (found.reason, found.lane, found.held_by, found.ahead) == ("not_before", Lane.BULK, None, None)
    with system.app.engine.begin() as connection:
        connection.execute(change.values(run_at=run_at - timedelta(hours=2)))
    queue(system, program_id, "lm:*:fast")
    waits(system, program_id, 1)
    found = ann.get_execution(asked.id).waiting
    assert found is not None
    assert (found.reason, found.held_by, found.ahead, found.expected_seconds) == ("limit", "lm fast", 0, None)
    assert all(item.waiting is None for item in ann.list_executions().items)


def in_vain(system: System, program_id: UUID, lane: Lane) -> UUID:
    """An execution that might have run for a minute."""
    asked = replace(request(program_id), options=ExecutionOptions(lane=lane))
    with system.app.engine.begin() as connection:
        executions.claim(connection, Lease("accepted", 60), [asked], now=[False])
        change = update(executions_table).where(executions_table.c.id == asked.id)
        connection.execute(change.values(run_at=database_now(-60)))
    return asked.id


def live(system: System, *others: Worker) -> None:
    """These workers live, and no other."""
    with system.app.engine.begin() as connection:
        connection.execute(delete(workers))
        for worker in others:
            register.renew(connection, worker, lease_seconds=60, age=0)


HIGH = Worker("b", "host", 7, "0.1.0", State.WORKING, {"lanes": ["high"]}, places=4, taken=3)
MOCK = replace(HIGH, name="a", serves={"adapters": ["mock"], "programs": [str(uuid7())]}, state=State.DRAINING)


def test_what_nobody_serves(start: Callable[..., System], capsys: pytest.CaptureFixture[str]) -> None:
    system = start(running=False)
    one, ann = program(system, "one"), as_one(system)
    live(system, HIGH)
    execution_id = in_vain(system, one, Lane.BULK)
    in_vain(system, one, Lane.HIGH)
    assert [row.unserved for row in ann.get_backlog().items] == [(), (), ("lane bulk",)]
    for by in (By.TENANT, By.PROGRAM):
        found = ann.get_backlog(by)
        assert [found.total.unserved, *(row.unserved for row in found.items)] == [("lane bulk",)] * 2
    assert ann.get_backlog(lane="high").total.unserved == ()
    assert as_one(system, "acme").get_backlog().total.unserved == ()
    waiting = ann.get_execution(execution_id).waiting
    assert waiting is not None
    assert (waiting.reason, waiting.unserved, waiting.expected_seconds) == ("place", "lane bulk", None)
    show_backlog(ann.get_backlog())
    printed = capsys.readouterr().out
    assert "No live worker serves lane bulk: start one that does, or it waits on." in printed
    assert "no worker for lane bulk" in printed
    live(system, HIGH, replace(HIGH, name="all", serves={}))
    assert ann.get_backlog().total.unserved == ()
    waiting = ann.get_execution(execution_id).waiting
    assert waiting is not None
    assert (waiting.unserved, waiting.ahead) == (None, 0)
    live(system)
    assert ann.get_backlog().total.unserved == ("anything",)
    system.app.close()
    system._stopped = True


def test_who_works(start: Callable[..., System], capsys: pytest.CaptureFixture[str]) -> None:
    system = start(running=False)
    live(system, HIGH, MOCK)
    fleet = as_one(system, fleet=True)
    page = fleet.list_workers(limit=1)
    [mock] = page.items
    assert (mock.name, mock.state, page.next_cursor) == ("a", "draining", "a")
    assert (mock.serves.lanes, mock.serves.adapters, mock.serves.environments) == (None, ("mock",), None)
    [high] = fleet.list_workers(cursor=page.next_cursor).items
    assert (high.name, high.host, high.pid, high.version) == ("b", "host", 7, "0.1.0")
    assert (high.state, high.serves.lanes, high.places, high.taken) == ("working", (Lane.HIGH,), 4, 3)
    with pytest.raises(Denied, match="workers are of all tenants, and 'ann' sees 'default' alone"):
        as_one(system).list_workers()
    with system.app.engine.begin() as connection:
        gates.pause(connection, GateKey("worker", "b"), by="ops")
    show(fleet.list_workers(), as_json=False)
    printed = capsys.readouterr().out
    assert "lanes high" in printed
    assert "3 of 4" in printed
    assert "working, paused" in printed
    assert "adapters mock" in printed
    system.app.close()
    system._stopped = True


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    row = Backlog(
        tenant="acme",
        program_id=uuid7(),
        name="triage\x1b[31m",
        waiting=1_000_000,
        running=64,
        oldest_at=datetime.now(UTC) - timedelta(minutes=90, seconds=30),
        came_per_minute=6000.4,
        went_per_minute=12_000,
        expected_seconds=5000,
        held_by=(Holder(scope="lm fast", paused=False), Holder(scope="lane bulk", paused=True)),
    )
    still = row.model_copy(update={"oldest_at": None, "expected_seconds": None, "held_by": (), "name": None})
    show_backlog(BacklogView(by=By.PROGRAM, total=still, items=(row, still), next_cursor="abc"))
    printed = capsys.readouterr()
    words = ["1000000", "64", "1 h 30 min", "6000", "12000", "1 h 23 min", "lm fast, lane bulk (paused)"]
    [line] = [line for line in printed.out.splitlines() if "triage" in line]
    assert all(word in line for word in words)
    assert "\x1b" not in line.replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert "(gone)" in printed.out
    assert "not known" in printed.out
    assert "--cursor abc" in printed.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7200, "2 h"), (90_000, "1 d 1 h")],
)
def test_a_length_of_time(seconds: float, text: str) -> None:
    assert span(seconds) == text
