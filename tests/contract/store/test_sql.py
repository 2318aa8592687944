"""What the database is sent is what `docs/sql` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event

from deploy.sql import statements, wrapped
from dspex import Usage
from store import event_outbox, executions
from store.event_outbox import OutboxEntry
from store.executions import Carried, Claimed, Retry
from tests.contract.store.rows import ALICE, ERROR, completed, expire, ready_program, request, take

_LIST = re.compile(r"IN \((?:(?:\?|%\(\w+\)s(?:::\w+)?)(?:, )?)+\)")


@pytest.fixture
def sent(connection: Connection) -> Iterator[list[str]]:
    """The texts that are sent from here on."""
    texts = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        texts.append(one_line(statement))

    event.listen(connection, "before_cursor_execute", note)
    yield texts
    event.remove(connection, "before_cursor_execute", note)


def one_line(text: str) -> str:
    return _LIST.sub("IN (...)", " ".join(wrapped(text).split()))


def test_the_walk_of_an_execution(connection: Connection, sent: list[str]) -> None:
    shown = {one_line(seen.text) for seen in statements(connection.dialect.name)}
    program_id = ready_program(connection)
    one, other = request(program_id), request(program_id)
    sent.clear()
    claimed = take(connection, one)
    take(connection, other)
    executions.heartbeat(connection, ALICE, [one.identity, other.identity])
    assert executions.finish(connection, 0, [completed(one, claimed)]) == [True]
    event_outbox.sent(connection, [OutboxEntry(one.id, claimed.lock_version + 1)])
    assert executions.retry(connection, [Retry(other.id, 1, -60.0, 1, ERROR, Usage(), Carried())]) == [True]
    assert not executions.anything_due(connection)
    [again] = executions.claim_alone(connection, ALICE, [other])
    assert isinstance(again, Claimed)
    executions.release(connection, ALICE, [other.identity])
    assert len(sent) >= 12
    assert [text for text in sent if text not in shown and not text.startswith(("SAVEPOINT", "RELEASE"))] == []


def test_a_rescue(connection: Connection, sent: list[str]) -> None:
    shown = {one_line(seen.text) for seen in statements(connection.dialect.name)}
    asked = request(ready_program(connection))
    take(connection, asked)
    expire(connection, asked.id)
    sent.clear()
    assert executions.rescue(connection, 100) == [asked.identity]
    assert len(sent) == 4
    assert set(sent) <= shown
