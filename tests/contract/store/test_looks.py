"""What a relay looks for is found by an index, however many rows there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from dspex import uuid7
from store import executions
from store.database.engine import Plans
from store.executions import external
from tests.sizes import sized

ROWS = sized(50_000, 200_000)

FILL = """
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, attempt, status, inserted_at,
                        updated_at, due_at, lease_expires_at, worker)
SELECT {id}, {program}, '{{}}', '{{}}', '', '/', 1,
       CASE WHEN n % 100 = 0 THEN 'running' WHEN n % 2 = 0 THEN 'pending' ELSE 'completed' END, {then}, {now},
       CASE WHEN n % 100 > 0 AND n % 2 = 0 THEN {later} END, CASE WHEN n % 100 = 0 THEN {later} END, 'w'
FROM {numbers}
"""
POSTGRESQL = {
    "id": "gen_random_uuid()",
    "program": "gen_random_uuid()",
    "then": "now() - n * interval '1 second'",
    "now": "now()",
    "later": "now() + interval '1 hour'",
    "numbers": f"generate_series(1, {ROWS}) n",
}
SQLITE = {
    "id": "lower(hex(randomblob(16)))",
    "program": "lower(hex(randomblob(16)))",
    "then": "strftime('%Y-%m-%d %H:%M:%f', 'now', -n || ' seconds') || '000'",
    "now": "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'",
    "later": "strftime('%Y-%m-%d %H:%M:%f', 'now', '1 hour') || '000'",
    "numbers": f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)",
}


FEW = """
UPDATE executions SET due_at = CASE WHEN due_at IS NOT NULL THEN inserted_at END,
       lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL THEN inserted_at END
WHERE id IN (SELECT id FROM executions WHERE status = 'pending' LIMIT 50)
   OR id IN (SELECT id FROM executions WHERE status = 'running' LIMIT 50)
"""


@pytest.fixture
def full(engine: Engine) -> Iterator[Connection]:
    """Half has ended, half is pending and due later, a hundredth runs."""
    postgresql = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        connection.execute(text(FILL.format(**(POSTGRESQL if postgresql else SQLITE)).replace(":", r"\:")))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE executions" if postgresql else "ANALYZE")
    with engine.connect() as connection, connection.begin() as transaction:
        # A few are due, and a few lost: what is then changed is looked at as well.
        connection.execute(text(FEW))
        Plans().renew(connection)  # as writers have them
        yield connection
        transaction.rollback()


def plans(connection: Connection, act: Any) -> str:
    """How the statements of an act are carried out."""
    said: list[tuple[str, Any]] = []

    def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    act(connection)
    event.remove(connection, "before_cursor_execute", note)
    how = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    assert len(said) >= 1
    lines = [row for statement, parameters in said for row in connection.exec_driver_sql(how + statement, parameters)]
    return "\n".join(str(row[-1]) for row in lines)


def test_no_look_reads_the_table(full: Connection) -> None:
    looks: dict[str, Any] = {
        "anything_due": executions.anything_due,
        "adopt": lambda connection: executions.adopt(connection, 100),
        "rescue": lambda connection: executions.rescue(connection, 100),
        "anything_expired": external.anything_expired,
        "end_expired": lambda connection: external.end_expired(connection, 0, 100),
        "count": executions.count,
        "count of a program": lambda connection: executions.count(connection, uuid7()),
        "page by metadata": lambda connection: executions.page(connection, metadata={"batch": "7"}, most=1000),
        "count by metadata": lambda connection: executions.count(connection, metadata={"batch": "7"}),
    }
    for look, act in looks.items():
        with full.begin_nested() as looking:
            found = plans(full, act)
            looking.rollback()
        assert "ix_executions_" in found, look
        assert "Seq Scan on executions" not in found, look
        assert "SCAN executions\n" not in f"{found}\n", look  # SQLite, without an index
