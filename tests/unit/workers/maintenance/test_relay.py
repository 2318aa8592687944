"""The relay has what lost workers had run again, and takes what older ones have left into the queues."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import event, text

from adapters.port import AdapterError, Outcome
from deploy.processes import wait_until
from dspex import ErrorCode, ExecutionStatus, uuid7
from dspex.amqp.publication import Publication
from store.database.identity import Identity
from tests.contract.store.rows import left_by_an_older_worker
from tests.unit.system import System
from workers.application.wiring import Application
from workers.maintenance.relay import Relay
from workers.persistence.operations import RELAY_LIMIT


def test_what_older_workers_have_left_is_run(start: Callable[..., System]) -> None:
    """More than are taken at a time."""
    system = start(threads=4)
    program_id = system.program(adapter="scripted")
    ids = [uuid7() for _ in range(RELAY_LIMIT + 20)]
    with system.app.engine.begin() as connection:
        left_by_an_older_worker(connection, *(system.request(program_id, id_, question="q") for id_ in ids))
    for id_ in ids:
        assert system.ended(id_).attempt == 1


def test_events_are_looked_at_less_often_than_executions(start: Callable[..., System]) -> None:
    """No index finds them, and they are due after a lease."""
    system = start(lease_seconds=30)
    looks: list[str] = []
    event.listen(system.app.engine, "before_cursor_execute", lambda _c, _u, said, *_: looks.append(said))
    assert wait_until(lambda: sum("FROM executions" in said and "EXISTS" in said for said in looks) >= 4, 30)
    assert sum("FROM event_outbox" in said and "EXISTS" in said for said in looks) <= 1
    with system.app.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM event_outbox")).scalar_one() == 0


def test_nothing_is_published_for_what_waits(start: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt, and what is scheduled, wait in the database alone."""
    system = start(threads=2)
    program_id = system.program(adapter="scripted")
    published: list[Any] = []

    def run(inputs: Mapping[str, Any]) -> Outcome:
        if len(system.scripted.runs) < 3:
            raise AdapterError(ErrorCode.TRANSIENT, "gone")
        return Outcome({"answer": inputs["question"]})

    system.scripted.run = run
    real = system.app.publisher.submit
    execution_id = system.execute(program_id, question="q")

    def submit(publication: Publication, **how: Any) -> Any:
        published.append(publication.exchange)
        return real(publication, **how)

    monkeypatch.setattr(system.app.publisher, "submit", submit)
    row = system.ended(execution_id)
    assert (row.status, row.attempt) == (ExecutionStatus.COMPLETED, 3)
    assert set(published) <= {"dspex.events"}


@pytest.mark.parametrize(
    ("own", "due", "more", "looks", "sent"),
    [
        (0, [], [], 0, 0),
        (1, [False], [], 1, 0),
        (1, [True], [False], 1, 1),
        (1, [True, False], [True], 2, 1),
        (2, [True, True], [True, False], 2, 2),
    ],
)
def test_of_its_own_it_rescues_what_is_lost_and_ends(
    own: int, due: list[bool], more: list[bool], looks: int, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [Identity(uuid7()) for _ in range(own)]
    looked_around = list[float]()
    relay = Relay(
        cast("Application", SimpleNamespace(own=SimpleNamespace(identities=mine))),
        lambda: looked_around.append(time.monotonic()),
    )
    monkeypatch.setattr(relay._archived, "run", lambda: None)
    monkeypatch.setattr(relay._counts, "run", lambda: None)
    monkeypatch.setattr(relay._early_cancels, "run", lambda: None)
    looked, taken = iter(due), list[Any]()

    def rescue(only: Sequence[Identity]) -> bool:
        taken.append(only)
        return more[len(taken) - 1]

    monkeypatch.setattr(relay, "_end_expired", lambda: None)
    monkeypatch.setattr(relay, "_is_due", lambda _look: next(looked))
    monkeypatch.setattr(relay, "_rescue", rescue)
    relay.run()
    assert (len(due) - len(list(looked)), taken) == (looks, [mine] * sent)
    assert len(looked_around) == 1
