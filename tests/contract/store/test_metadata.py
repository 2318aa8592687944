"""What a caller says of an execution stays with it, and is no part of what is asked."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from store import executions, programs
from store.executions import (
    Claimed,
    Ended,
    choosing,
)
from store.queues.turns import Turns
from tests.contract.store.rows import (
    ALICE,
    BOB,
    EXPIRED,
    accept,
    claim_now,
    completed,
    ready_program,
    request,
    take,
)

SAID = {"order": "17", "käufer": "Ünal"}
ATTRIBUTES = {"partitionkey": "a", "sampledrate": 3, "final": True}


def test_it_is_in_the_claim_and_in_the_row(connection: Connection) -> None:
    asked = replace(request(ready_program(connection)), metadata=SAID, extensions=ATTRIBUTES)
    claimed = take(connection, asked)
    assert (claimed.metadata, claimed.extensions) == (SAID, ATTRIBUTES)
    assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]
    (row,) = executions.get(connection, [asked.id])
    assert (row.metadata, row.extensions) == (SAID, ATTRIBUTES)


def test_where_there_is_none(connection: Connection) -> None:
    asked = request(ready_program(connection))
    claimed = take(connection, asked)
    (row,) = executions.get(connection, [asked.id])
    assert (claimed.metadata, claimed.extensions, row.metadata, row.extensions) == ({}, {}, {}, {})


def test_the_same_request_with_other_metadata_is_the_same_and_the_first_stays(connection: Connection) -> None:
    program_id = ready_program(connection)
    asked = replace(request(program_id), metadata=SAID, extensions=ATTRIBUTES)
    take(connection, asked, replace(ALICE, seconds=EXPIRED))
    again = replace(asked, metadata={"order": "18"}, extensions={"partitionkey": "b"})
    claimed = take(connection, again, BOB)
    assert (claimed.attempt, claimed.metadata, claimed.extensions) == (2, SAID, ATTRIBUTES)
    executions.finish(connection, 0, [completed(asked, claimed)])
    (ended,) = claim_now(connection, BOB, [again])
    assert isinstance(ended, Ended)
    assert ended.execution.metadata == SAID


def test_it_waits_with_the_execution(connection: Connection) -> None:
    asked = replace(request(ready_program(connection)), metadata=SAID)
    accept(connection, asked)
    (one,) = choosing.choose(connection, ALICE, 10, Turns(), alone_at=3).chosen
    assert isinstance(one.claim, Claimed)
    assert one.claim.metadata == one.request.metadata == SAID
    assert programs.get(connection, asked.program_id).execution_count == 0
