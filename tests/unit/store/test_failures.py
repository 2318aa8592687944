"""What database errors mean, and that they carry no values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from store.database.engine import make_engine
from store.database.failures import Cause, cause_of, describe, passing

CANARY = "sesame-4711"


@pytest.mark.parametrize(
    ("orig", "expected"),
    [
        ({"sqlstate": "08006"}, Cause.AWAY),  # connection failure
        ({"sqlstate": "08P01"}, Cause.AWAY),  # what a pooler says when its server is away
        ({"sqlstate": "25006"}, Cause.AWAY),  # read-only: a replica
        ({"sqlstate": "25P03"}, Cause.AWAY),  # idle in a transaction for too long
        ({"sqlstate": "26000"}, Cause.AWAY),  # no such prepared statement
        ({"sqlstate": "28P01"}, Cause.AWAY),  # password
        ({"sqlstate": "3D000"}, Cause.AWAY),  # no such database
        ({"sqlstate": "40001"}, Cause.AWAY),  # serialization
        ({"sqlstate": "40P01"}, Cause.AWAY),  # deadlock
        ({"sqlstate": "42P05"}, Cause.AWAY),  # a prepared statement of another session
        ({"sqlstate": "0A000"}, Cause.AWAY),  # a plan from before a migration
        ({"sqlstate": "53100"}, Cause.AWAY),  # disk full
        ({"sqlstate": "53300"}, Cause.AWAY),  # too many connections
        ({"sqlstate": "57014"}, Cause.BLOCKED),  # cancelled
        ({"sqlstate": "57P01"}, Cause.AWAY),  # shutdown
        ({"sqlstate": "57P03"}, Cause.AWAY),  # starting up
        ({"sqlstate": "58030"}, Cause.AWAY),  # input and output
        ({"sqlstate": "XX000"}, Cause.BLOCKED),  # internal
        ({"sqlstate": "55P03"}, Cause.BLOCKED),  # a lock
        ({"sqlstate": "42501"}, Cause.UNFIT),  # no right
        ({"sqlstate": "42703"}, Cause.UNFIT),  # no such column
        ({"sqlstate": "42P01"}, Cause.UNFIT),  # no such table
        ({"sqlstate": "3F000"}, Cause.UNFIT),  # no such schema
        ({"sqlstate": "22P05"}, Cause.DATA),  # NUL in a text
        ({"sqlstate": "23505"}, Cause.DATA),  # unique
        ({"sqlstate": "54000"}, Cause.DATA),  # too large for an index
        ({"sqlite_errorcode": 5}, Cause.AWAY),  # busy
        ({"sqlite_errorcode": 261}, Cause.AWAY),  # busy, extended
        ({"sqlite_errorcode": 6}, Cause.AWAY),  # locked
        ({"sqlite_errorcode": 8}, Cause.AWAY),  # read-only
        ({"sqlite_errorcode": 10}, Cause.AWAY),  # input and output
        ({"sqlite_errorcode": 13}, Cause.AWAY),  # full
        ({"sqlite_errorcode": 1}, Cause.DATA),  # an error in the statement
        ({"sqlite_errorcode": 19}, Cause.DATA),  # constraint
        ({}, Cause.AWAY),  # no code: the connection never was
    ],
)
def test_what_an_error_means(orig: dict[str, Any], expected: Cause) -> None:
    cause = Exception("why")
    for name, value in orig.items():
        setattr(cause, name, value)
    error = OperationalError("SELECT 1", {"secret": CANARY}, cause)
    assert cause_of(error) is expected
    assert passing(error) is (expected is not Cause.DATA)


def test_what_is_no_error_of_the_database_means_nothing() -> None:
    assert cause_of(ValueError("no")) is None
    assert not passing(ValueError("no"))
    assert cause_of(PoolTimeout("all connections are in use")) is Cause.AWAY


@pytest.mark.parametrize("state", ["23505", "42P01", "55P03", None])
def test_a_connection_that_is_lost_is_away_whatever_was_said_last(state: str | None) -> None:
    cause = Exception("why")
    cause.sqlstate = state  # type: ignore[attr-defined]
    error = DBAPIError("SELECT 1", {"secret": CANARY}, cause, connection_invalidated=True)
    assert cause_of(error) is Cause.AWAY
    assert passing(error)


def test_a_missing_table_of_sqlite_is_waited_for() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql(f"SELECT '{CANARY}' FROM missing")
    assert cause_of(caught.value) is Cause.UNFIT
    assert describe(caught.value) == "no such table: missing"
    assert describe(ValueError()) == "ValueError"


REFUSED = {
    "a row that fails a check": (
        "INSERT INTO t VALUES (%(canary)s, 7)",
        "CheckViolation (SQLSTATE 23514)",
    ),
    "a row that is there": (
        "INSERT INTO t VALUES (%(canary)s, 1), (%(canary)s, 2)",
        "UniqueViolation",
    ),
    "a text that is no number": ("SELECT CAST(%(canary)s AS integer)", "InvalidTextRepresentation (SQLSTATE 22P02)"),
    "a text that is no JSON": ("SELECT CAST(%(canary)s AS jsonb)", "InvalidTextRepresentation (SQLSTATE 22P02)"),
    "a value that is too long": ("INSERT INTO t VALUES (%(canary)s || %(canary)s, 1)", "StringDataRightTruncation"),
}


@pytest.mark.parametrize(("statement", "said"), REFUSED.values(), ids=REFUSED)
def test_errors_carry_no_values(postgres_database_url: str, statement: str, said: str) -> None:
    engine = make_engine(postgres_database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id varchar(20) PRIMARY KEY, n integer CHECK (n < 5))")
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql(statement, {"canary": CANARY})
    assert cause_of(caught.value) is Cause.DATA
    assert CANARY not in f"{caught.value} {caught.value!r} {caught.value.orig} {caught.value.orig!r}"
    assert describe(caught.value).startswith(said)
    engine.dispose()


def test_sqlite_shows_no_parameters(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql("INSERT INTO missing VALUES (?)", (CANARY,))
    assert CANARY not in str(caught.value)
    engine.dispose()
