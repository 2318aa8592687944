"""Rows of idle queues are deleted by whoever runs, some at a time."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from dspex import uuid7
from store.tables import queues
from tests.contract.store.test_forgetting import keep_queue
from tests.unit.system import System
from workers.maintenance import idle_queues
from workers.maintenance.idle_queues import IdleQueues


def kept(system: System) -> int:
    with system.app.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(queues)).scalar_one())


def test_it_looks_at_all_of_them_in_turn_from_time_to_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_queues, "LOOKED_AT", 2)
    with system.app.engine.begin() as connection:
        for _ in range(5):
            keep_queue(connection, uuid7())
    idle = IdleQueues(system.app)
    idle.run()
    assert kept(system) == 5  # it is not time yet
    monkeypatch.setattr(idle_queues, "LOOK_SECONDS", 0.0)
    idle = IdleQueues(system.app)
    left = list[int]()
    while not left or left[-1] > 0:
        idle.run()
        left.append(kept(system))
    assert left == [3, 1, 0]
