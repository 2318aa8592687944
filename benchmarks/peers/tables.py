"""The tables of all peers: the same program, execution and counter as ours, without our other features.

They are tuned in favour of the peers: the counter is a separate row, so that no foreign key locks it, the only indexes
are the primary keys, and pages have room for HOT updates.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.peers.job import DATABASE_URL, PROGRAM_IDS, SIGNATURE, Ask, Job

TABLES = """
CREATE TABLE programs (id uuid PRIMARY KEY, name text NOT NULL, configuration jsonb NOT NULL);
CREATE TABLE executions (
    id uuid PRIMARY KEY, program_id uuid NOT NULL, status text NOT NULL, attempt integer NOT NULL,
    inputs jsonb NOT NULL, outputs jsonb, started_at timestamptz NOT NULL, finished_at timestamptz,
    lock_version integer NOT NULL
) WITH (fillfactor = 85);
CREATE TABLE program_counters (program_id uuid PRIMARY KEY, completed bigint NOT NULL, lock_version integer NOT NULL)
WITH (fillfactor = 50);
"""

READ_PROGRAM = "SELECT configuration FROM programs WHERE id = {}"
START = """
INSERT INTO executions AS e (id, program_id, status, attempt, inputs, started_at, lock_version)
VALUES ({}, {}, 'running', 1, {}, now(), 1)
ON CONFLICT (id) DO UPDATE SET attempt = e.attempt + 1, started_at = now(), lock_version = e.lock_version + 1
WHERE e.status = 'running'
RETURNING attempt
"""
FINISH = """
UPDATE executions SET status = 'completed', outputs = {}, finished_at = now(), lock_version = lock_version + 1
WHERE id = {} AND status = 'running'
"""
COUNT = """
UPDATE program_counters SET completed = completed + 1, lock_version = lock_version + 1 WHERE program_id = {}
"""
"""Statements for any driver: the placeholders are filled in, `%s` or `$1`."""

POLL_SECONDS = 0.0005
PATIENCE_SECONDS = 30.0


def create() -> None:
    """Make the tables and the programs in an empty database."""
    with psycopg.connect(DATABASE_URL) as connection:
        connection.execute(TABLES)
        for number, program_id in enumerate(PROGRAM_IDS):
            configuration = Jsonb({"signature": SIGNATURE, "module": "Predict"})
            connection.execute("INSERT INTO programs VALUES (%s, %s, %s)", (program_id, f"p {number}", configuration))
            connection.execute("INSERT INTO program_counters VALUES (%s, 0, 1)", (program_id,))


@contextmanager
def reading(publish: Ask) -> Generator[Ask]:
    """An Ask for a system without results: publish, then poll the row until it has completed."""
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        query = "SELECT outputs FROM executions WHERE id = %s AND status = 'completed'"

        def ask(job: Job) -> object:
            publish(job)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (row := connection.execute(query, (job.execution_id,)).fetchone()) is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{job.execution_id} has not completed")
                time.sleep(POLL_SECONDS)
            return row[0]

        yield ask
