"""A batch is one parameter of one statement, whose text is the same for every size and on every call."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import BigInteger, Dialect, Float, String, Uuid, select
from sqlalchemy.dialects import postgresql, sqlite

from dspex import ErrorDetail, Usage
from store import counters
from store.column_types import Json
from store.database.batch import encode, records
from store.executions import Carried, Finish, Retry, alone, statements
from store.executions.rows import finish_row, retry_row

ID = UUID("0190a0e0-7c11-7000-8000-00000000000a")
FINISH = Finish(ID, ID, 1, 1.5, Usage())
RETRY = Retry(ID, 1, 2.5, 1, ErrorDetail(code="timeout", message="no"), Usage(), Carried())
COLUMNS: dict[str, Any] = {"id": Uuid(), "value": Json, "name": String(), "number": BigInteger(), "cost": Float()}
DIALECTS: dict[str, Callable[[], Dialect]] = {"postgresql": postgresql.dialect, "sqlite": sqlite.dialect}


def insert_of(dialect: str) -> Any:
    return {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[dialect]


STATEMENTS: dict[str, Callable[[str], Any]] = {
    "records": lambda dialect: select(records(dialect, COLUMNS)),
    "claim": lambda dialect: statements.claim(dialect, insert_of(dialect)),
    "claim_alone": alone._claiming,
    "finish": lambda dialect: statements.finish(dialect, insert_of(dialect), tuple(finish_row(FINISH))),
    "retry": lambda dialect: statements.retry(dialect, tuple(retry_row(RETRY))),
    "count": lambda dialect: counters._swap(dialect, insert_of(dialect)),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_takes_each_of_its_batches_as_one_parameter(name: str, dialect: str) -> None:
    compiled = STATEMENTS[name](dialect).compile(dialect=DIALECTS[dialect]())
    batches = {"records", counters.DURATIONS} & set(compiled.params)
    assert batches == ({"records", counters.DURATIONS} if (name, dialect) == ("count", "postgresql") else {"records"})
    assert str(compiled).count("jsonb_to_recordset" if dialect == "postgresql" else "json_each") == len(batches)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["claim", "claim_alone", "finish", "retry", "count"])
def test_a_hot_statement_is_made_once_and_can_be_cached(name: str, dialect: str) -> None:
    statement = STATEMENTS[name](dialect)
    assert STATEMENTS[name](dialect) is statement
    assert statement._generate_cache_key() is not None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_open_is_written_as_in_the_partial_index(dialect: str) -> None:
    """As a parameter it would hide from a prepared statement that the index is enough."""
    assert "status = 'running'" in text(select(statements.RUNNING), dialect)


def text(statement: Any, dialect: str) -> str:
    return str(statement.compile(dialect=DIALECTS[dialect]()))


@pytest.mark.parametrize("size", [0, 1, 50])
def test_every_size_is_one_text_with_other_parameters(size: int) -> None:
    parameters = encode({"id": ID, "value": None} for _ in range(size))
    assert list(parameters) == ["records"]
    assert json.loads(parameters["records"]) == [{"id": str(ID), "value": None}] * size


def test_sqlite_reads_back_what_was_encoded() -> None:
    rows: list[dict[str, Any]] = [
        {"id": ID, "value": {"a": [1, {"b": None}]}, "name": "7", "number": 2**62, "cost": 0.1},
        {"id": ID, "value": None, "name": None, "number": None, "cost": None},
        {"id": ID, "value": "null", "name": "null", "number": -1, "cost": 1e300},
        {"id": ID, "value": {}, "name": "", "number": 0, "cost": 0.0},
        {"id": ID, "value": [], "name": "$.id' -- \"é\n😀", "number": 1, "cost": -1.5},
    ]
    statement = select(records("sqlite", COLUMNS)).compile(dialect=sqlite.dialect())
    with closing(sqlite3.connect(":memory:")) as connection:
        parameters = {**statement.params, **encode(rows)}
        found = connection.execute(
            str(statement), [parameters[name] for name in statement.positiontup or ()]
        ).fetchall()
    for row, (id_, value, name, number, cost) in zip(rows, found, strict=True):
        assert id_ == ID.hex
        assert (None if value is None else json.loads(value)) == row["value"]
        assert (name, number, cost) == (row["name"], row["number"], row["cost"])
