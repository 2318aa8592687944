"""A process registers itself, renews its row with its leases, says when it drains, and takes the row away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import update

from deploy.processes import wait_until
from store.database.tenancy import ALL
from store.queues import register
from store.queues.register import State, Worker
from store.tables import NOW, workers
from tests.unit.system import PATIENCE, System
from workers.application.own import Own
from workers.maintenance.registration import Registration
from workers.maintenance.relay import Relay


@pytest.fixture
def idle(start: Callable[..., System]) -> Iterator[System]:
    """One whose threads are not started, so that it does not register itself."""
    system = start(running=False)
    yield system
    system._stopped = True
    system.app.close()


def live(system: System) -> list[Worker]:
    with system.app.read(ALL) as connection:
        return register.page(connection, None, 10)


def test_from_its_start_to_its_end(start: Callable[..., System]) -> None:
    system, other = start(threads=3, lease_seconds=1), start()
    names = {one.app.writes.lease.worker for one in (system, other)}
    assert wait_until(lambda: {worker.name for worker in live(system)} == names, PATIENCE), live(system)
    [mine] = [worker for worker in live(system) if worker.name == system.app.writes.lease.worker]
    assert (mine.pid, mine.state, mine.places, mine.taken, mine.serves) == (os.getpid(), State.WORKING, 3, 0, {})
    seen = mine.seen_at
    assert seen is not None
    assert wait_until(lambda: any(worker.seen_at > seen for worker in live(system)), PATIENCE)  # type: ignore[operator]
    system.process.stop(PATIENCE)
    assert [worker.name for worker in live(system)] == [other.app.writes.lease.worker]


def test_it_drains(idle: System) -> None:
    registration = Registration(idle.app)
    registration.drain()
    assert wait_until(lambda: [worker.state for worker in live(idle)] == [State.DRAINING], PATIENCE)


def test_one_that_leaves_others_alone_says_so(idle: System) -> None:
    Registration(replace(idle.app, own=Own("mine"))).renew()
    assert wait_until(lambda: [worker.state for worker in live(idle)] == [State.OWN], PATIENCE)


def test_a_write_that_comes_too_late_brings_no_row_back(idle: System) -> None:
    registration = Registration(idle.app)
    registration.renew()
    registration.leave()  # before the posted write is made
    idle.app.writer.call(idle.app.writes.each, lambda _: None)
    assert wait_until(lambda: not idle.app.writer._posted, PATIENCE)
    idle.app.writer.call(idle.app.writes.each, lambda _: None)
    assert live(idle) == []


def test_the_relay_sweeps_the_dead(idle: System) -> None:
    Registration(idle.app).renew()
    assert wait_until(lambda: len(live(idle)) == 1, PATIENCE)
    Relay(idle.app).run()
    assert len(live(idle)) == 1
    with idle.app.engine.begin() as connection:
        connection.execute(update(workers).values(lease_expires_at=NOW))
    Relay(idle.app).run()
    with idle.app.engine.begin() as connection:
        assert connection.execute(workers.select()).all() == []


def test_a_register_that_cannot_be_written_stops_nothing(
    idle: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such table: workers")

    monkeypatch.setattr(register, "renew", refuse)
    monkeypatch.setattr(register, "leave", refuse)
    registration = Registration(idle.app)
    registration.renew()
    assert wait_until(lambda: "no such table" in caplog.text, PATIENCE)
    registration.leave()
    assert idle.app.writer.call(idle.app.writes.each, lambda _: 7) == 7
    assert idle.app.writer.fit()
