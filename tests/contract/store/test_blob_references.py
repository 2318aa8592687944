"""References to blobs: kept with a claim and with an end, gone with the execution, of one tenant each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event

from dspex.blobs.values import BLOBS
from store import executions
from store.database.identity import Identity
from store.executions import blobs, external
from store.tables import executions as executions_table
from tests.contract.store.rows import completed, ready_program, request, take

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")


def stored(digest: str) -> dict[str, Any]:
    return {"digest": digest, "size": 1, "media_type": "text/plain"}


@pytest.fixture
def sent(connection: Connection) -> Iterator[list[str]]:
    texts = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        texts.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield texts
    event.remove(connection, "before_cursor_execute", note)


def test_a_claim_and_an_end_keep_what_they_refer_to(connection: Connection, sent: list[str]) -> None:
    program_id = ready_program(connection)
    plain = request(program_id)
    sent.clear()
    claimed = take(connection, plain)
    executions.finish(connection, 0, [completed(plain, claimed)])
    without = len(sent)
    assert not any("blob_references" in text for text in sent)
    asked = replace(request(program_id), inputs={"images": [f"blob:{A}", {"a": f"blob:{B}"}], BLOBS: {"x": stored(C)}})
    sent.clear()
    claimed = take(connection, asked)
    wanted = {(digest, asked.tenant) for digest in (A, B, C)}
    assert blobs.referred(connection, wanted) == wanted
    sent.pop()
    end = replace(completed(asked, claimed), outputs={BLOBS: {"answer": stored("sha256:" + "d" * 64)}})
    executions.finish(connection, 0, [end])
    assert len(sent) == without + 2
    assert sum("blob_references" in text for text in sent) == 2
    assert blobs.referred(connection, [("sha256:" + "d" * 64, asked.tenant)])


def test_an_execution_that_a_service_runs(connection: Connection) -> None:
    asked = replace(request(ready_program(connection)), inputs={"image": f"blob:{A}", BLOBS: {"question": stored(B)}})
    wanted = {(A, asked.tenant), (B, asked.tenant)}
    for _ in range(2):
        external.create(connection, asked)
        assert blobs.referred(connection, wanted) == wanted


def test_what_is_claimed_again_keeps_the_same(connection: Connection) -> None:
    asked = replace(request(ready_program(connection)), inputs={BLOBS: {"question": stored(A)}})
    take(connection, asked)
    blobs.keep(connection, {asked.identity: {A}})
    blobs.keep(connection, {asked.identity: [A, B]})
    assert blobs.referred(connection, [(A, asked.tenant), (B, asked.tenant), (C, asked.tenant)]) == {
        (A, asked.tenant),
        (B, asked.tenant),
    }


def test_it_goes_with_its_execution_and_is_of_its_tenant(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked = [replace(request(program_id), inputs={BLOBS: {"question": stored(A)}}) for _ in range(2)]
    for one in asked:
        take(connection, one)
    assert blobs.referred(connection, [(A, "other")]) == set()
    for one, left in zip(asked, (True, False), strict=True):
        connection.execute(delete(executions_table).where(executions_table.c.id == one.id))
        assert (blobs.referred(connection, [(A, one.tenant)]) != set()) == left


@pytest.mark.parametrize(
    ("values", "digests"),
    [
        ({}, set()),
        ({"a": "sha256:" + "a" * 64, "b": f"see blob:{A}", "c": f"blob:{A} "}, set()),
        ({"a": f"blob:{A}"}, {A}),
        ({BLOBS: 5}, set()),
        ({BLOBS: {"x": 5, "y": {"size": 1}}}, set()),
        ({BLOBS: {"x": {"digest": B}}}, {B}),
    ],
)
def test_what_refers_to_a_blob(values: dict[str, Any], digests: set[str]) -> None:
    assert blobs.digests_in(values) == digests


def test_nothing_to_keep_is_no_statement(connection: Connection, sent: list[str]) -> None:
    sent.clear()
    blobs.keep(connection, {})
    blobs.keep(connection, {Identity(request(ready_program(connection)).id): set()})
    assert not any("blob_references" in text for text in sent)
