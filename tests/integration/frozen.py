"""A worker that is frozen in a transaction: it does one thing of these, says so, and commits when it is told to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from dspex import ExecutionOptions, Usage
from store import executions
from store.database.engine import make_engine
from store.database.identity import Identity
from store.executions import Finish, Lease, Request

LEASE = Lease("frozen", 18)


def request(program_id: UUID, execution_id: UUID, key: str | None = None) -> Request:
    asked = Request(execution_id, program_id, {"question": "why?"}, ExecutionOptions(), "/tests")
    return replace(asked, idempotency_key=key)


def claim(connection: Connection, program_id: UUID, execution_id: UUID) -> None:
    executions.claim(connection, LEASE, [request(program_id, execution_id)], now=[True])


def claim_by_key(connection: Connection, program_id: UUID, execution_id: UUID) -> None:
    executions.claim(connection, LEASE, [request(program_id, execution_id, "the key")], now=[True])


def end(connection: Connection, program_id: UUID, execution_id: UUID) -> None:
    ended = Finish(execution_id, program_id, 1, 1.0, Usage(), {"answer": "of the frozen one"})
    assert executions.finish(connection, 0, [ended]) == [True]


def cancel(connection: Connection, program_id: UUID, execution_id: UUID) -> None:
    executions.cancel(connection, execution_id, by="frozen")


def release(connection: Connection, program_id: UUID, execution_id: UUID) -> None:
    executions.release(connection, LEASE, [Identity(execution_id)])


ACTIONS: dict[str, Callable[[Connection, UUID, UUID], None]] = {
    action.__name__: action for action in (claim, claim_by_key, end, cancel, release)
}


def main(url: str, name: str, program_id: str, execution_id: str) -> None:
    engine = make_engine(url, lease_seconds=LEASE.seconds)
    said: dict[str, Any] = {"committed": True}
    with engine.connect() as connection:
        ACTIONS[name](connection, UUID(program_id), UUID(execution_id))
        print(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one(), flush=True)
        sys.stdin.readline()
        try:
            connection.commit()
        except DBAPIError as error:
            said = {"committed": False, "sqlstate": getattr(error.orig, "sqlstate", None)}
            connection.invalidate()
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
