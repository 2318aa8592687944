"""The job in plain psycopg: a statement for each thing to do, prepared by the driver, and no ORM."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.peers.job import CONCURRENCY, DATABASE_URL, LATENCY_SECONDS, OUTPUTS
from benchmarks.peers.tables import COUNT, FINISH, READ_PROGRAM, START

MAX_CONNECTIONS = 64

_READ_PROGRAM, _COUNT = READ_PROGRAM.format("%s"), COUNT.format("%s")
_START, _FINISH = START.format("%s", "%s", "%s"), FINISH.format("%s", "%s")

_local = threading.local()
_free = threading.BoundedSemaphore(MAX_CONNECTIONS)
_idle: list[psycopg.Connection[Any]] = []


def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run one job, once however often it is delivered."""
    with _connection() as connection:
        connection.execute(_READ_PROGRAM, (program_id,)).fetchone()
        if connection.execute(_START, (execution_id, program_id, Jsonb(inputs))).fetchone() is None:
            return OUTPUTS  # it had been delivered before, and has completed
    if LATENCY_SECONDS:
        time.sleep(LATENCY_SECONDS)
    with _connection() as connection, connection.transaction():
        if connection.execute(_FINISH, (Jsonb(OUTPUTS), execution_id)).rowcount:
            connection.execute(_COUNT, (program_id,))
    return OUTPUTS


@contextmanager
def _connection() -> Generator[psycopg.Connection[Any]]:
    """One for each thread, which costs nothing to find; more threads than `MAX_CONNECTIONS` share that many."""
    if CONCURRENCY <= MAX_CONNECTIONS:
        if not hasattr(_local, "connection"):
            _local.connection = psycopg.connect(DATABASE_URL, autocommit=True)
        yield _local.connection
        return
    with _free:
        try:
            connection = _idle.pop()
        except IndexError:
            connection = psycopg.connect(DATABASE_URL, autocommit=True)
        yield connection
        _idle.append(connection)
