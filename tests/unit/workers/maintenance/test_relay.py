"""The relay publishes each once, and again only what nobody has, later each time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import event, text

from adapters.port import Outcome
from deploy.processes import wait_until
from dspex import ExecuteProgram, decode_command, uuid7
from dspex.amqp.publication import Publication
from store import executions
from store.database.identity import Identity
from store.executions import Lease, Request
from tests.unit.system import System
from workers.application.wiring import Application
from workers.maintenance.relay import Relay


class Publishes:
    """Counts the commands that a system publishes, by execution."""

    def __init__(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[UUID] = Counter()
        real = system.app.publisher.submit

        def submit(publication: Publication, **how: Any) -> Any:
            if publication.routing_key == ExecuteProgram.type:
                command = decode_command(publication.body).data
                assert isinstance(command, ExecuteProgram)
                self.counts[command.execution_id] += 1
            return real(publication, **how)

        monkeypatch.setattr(system.app.publisher, "submit", submit)


def waiting(system: System, number: int) -> list[UUID]:
    """Executions that are due, and that nobody has published."""
    program_id = system.program(adapter="scripted")
    ids = [uuid7() for _ in range(number)]
    release(system, [system.request(program_id, id_, question="q") for id_ in ids])
    return ids


def release(system: System, asked: Sequence[Request]) -> None:
    """Have them pending and due."""
    with system.app.engine.begin() as connection:
        executions.claim(connection, Lease("gone", 60), asked)
        executions.release(connection, Lease("gone", 60))


def test_what_waits_for_its_turn_is_not_published_again_and_again(
    start: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 at the rate of 40 a second, with a lease of a second: ten leases long all but a few wait."""
    system = start(lease_seconds=1, threads=4)
    gate = threading.Semaphore(0)

    def run(inputs: Mapping[str, Any]) -> Outcome:
        assert gate.acquire(timeout=60)
        return Outcome({"answer": inputs["question"]})

    system.scripted.run = run
    published = Publishes(system, monkeypatch)
    began = time.monotonic()
    ids = waiting(system, 400)
    assert wait_until(lambda: len(published.counts) == 400, 30)
    pause = threading.Event()
    for _ in range(100):
        pause.wait(0.1)
        gate.release(4)
    for id_ in ids:
        system.ended(id_)
    assert set(published.counts) == set(ids)
    leases = max(10.0, time.monotonic() - began)  # more where the machine is slow
    assert published.counts.total() <= 80 * leases  # each once a lease, those that wait: 200
    assert all(row.attempt == 1 for id_ in ids if (row := system.row(id_)) is not None)


def test_what_was_lost_is_published_again(start: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker has lost what it confirmed."""
    system = start(lease_seconds=1, threads=4)
    program_id, execution_id = system.program(adapter="scripted"), uuid7()
    lost: list[bytes] = []
    with monkeypatch.context() as losing:
        losing.setattr(system.broker, "put", lambda _queue, body, _timeout: lost.append(body))
        release(system, [system.request(program_id, execution_id, question="q")])
        assert wait_until(lambda: len(lost) == 2, 30)
    system.ended(execution_id)


def test_events_are_looked_at_less_often_than_executions(start: Callable[..., System]) -> None:
    """No index finds them, and they are due after a lease."""
    system = start(lease_seconds=30)
    looks: list[str] = []
    event.listen(system.app.engine, "before_cursor_execute", lambda _c, _u, said, *_: looks.append(said))
    assert wait_until(lambda: sum("FROM executions" in said and "EXISTS" in said for said in looks) >= 4, 30)
    assert sum("FROM event_outbox" in said and "EXISTS" in said for said in looks) <= 1
    with system.app.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM event_outbox")).scalar_one() == 0


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
def test_of_its_own_it_sends_what_is_due_and_ends(
    own: int, due: list[bool], more: list[bool], looks: int, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [Identity(uuid7()) for _ in range(own)]
    relay = Relay(cast("Application", SimpleNamespace(own=SimpleNamespace(identities=mine))))
    looked, taken = iter(due), list[Any]()

    def send(only: Sequence[Identity]) -> bool:
        taken.append(only)
        return more[len(taken) - 1]

    monkeypatch.setattr(relay, "_end_expired", lambda: None)
    monkeypatch.setattr(relay, "_is_due", lambda _look: next(looked))
    monkeypatch.setattr(relay, "_executions", send)
    relay.run()
    assert (len(due) - len(list(looked)), taken) == (looks, [mine] * sent)
