"""The relay's tick adds up what has moved, corrects what nobody has counted, and shows what waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from dspex import ExecutionOptions, uuid7
from dspex.contract.options import Lane
from store import executions
from store.column_types import database_now
from store.database.tenancy import ALL
from store.executions import Lease
from store.queues import counts, figures, register
from store.queues.counts import Counted
from store.queues.register import State, Worker
from store.tables import executions as executions_table
from store.tables import queue_moves, workers
from tests.contract.store.rows import (
    accept,
    ready_program,
    request,
)
from tests.unit.system import System
from workers.maintenance import queue_counts
from workers.maintenance.queue_counts import QueueCounts


def waiting(system: System) -> int:
    with system.app.engine.begin() as connection:
        return figures.total(figures.lanes(connection, figures.Scope(ALL))).waiting


def test_it_adds_up_everything(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_counts, "FOLD_LIMIT", 3)
    for _ in range(7):
        with system.app.engine.begin() as connection:
            counts.came(connection, [Counted("acme", uuid7())])
    QueueCounts(system.app).run()
    with system.app.engine.begin() as connection:
        assert connection.execute(select(func.count()).select_from(queue_moves)).scalar_one() == 0
    assert waiting(system) == 7


def test_it_corrects_from_time_to_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_counts, "REPAIR_SECONDS", 0.0)
    with system.app.engine.begin() as connection:
        accept(connection, request(ready_program(connection)))
        connection.execute(delete(queue_moves))
    assert waiting(system) == 0
    QueueCounts(system.app).run()
    assert waiting(system) == 1


def test_it_shows_what_waits_where_somebody_looks(system: System) -> None:
    with system.app.engine.begin() as connection:
        counts.came(connection, [Counted("acme", uuid7(), Lane.BULK.number)] * 3)

    def shown() -> float | None:
        return system.app.metrics.registry.get_sample_value("dspex_waiting_executions", {"lane": "bulk"})

    QueueCounts(system.app).run()
    assert shown() == 0
    looked_at = system.app.settings.model_copy(update={"metrics_address": "127.0.0.1:9"})
    QueueCounts(replace(system.app, settings=looked_at)).run()
    assert shown() == 3


def test_it_shows_who_serves_and_what_nobody_serves(start: Callable[..., System]) -> None:
    system = start(running=False)
    with system.app.engine.begin() as connection:
        program_id = ready_program(connection)
    bulk = request(program_id)
    asked = [request(program_id), replace(bulk, options=ExecutionOptions(lane=Lane.BULK))]
    only = Worker("other", "host", 7, "0.1.0", State.WORKING, {"lanes": ["high", "default"]}, places=4)
    with system.app.engine.begin() as connection:
        executions.claim(connection, Lease("accepted", 60), asked, now=[False, False])
        connection.execute(update(executions_table).values(run_at=database_now(-60)))
        connection.execute(delete(workers))
        register.renew(connection, only, lease_seconds=60, age=0)
        looked_at = system.app.settings.model_copy(update={"metrics_address": "127.0.0.1:9"})

    def shown(name: str) -> list[float | None]:
        read = system.app.metrics.registry.get_sample_value
        return [read(f"dspex_{name}", {"lane": lane}) for lane in Lane]

    QueueCounts(replace(system.app, settings=looked_at)).run()
    assert shown("workers") == [1, 1, 0]
    assert shown("unserved_programs") == [0, 0, 1]
    system.app.close()
    system._stopped = True
