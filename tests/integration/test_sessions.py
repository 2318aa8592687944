"""Our sessions on PostgreSQL: their settings, on connections of our own and behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, Integer, String, bindparam, cast, event, func, literal, select, text
from sqlalchemy.exc import DBAPIError

from store.column_types import UtcDateTime
from store.database.batch import ALONE, execute
from store.database.engine import Plans, make_engine
from store.database.failures import Cause, cause_of
from store.database.sessions import shares_session
from store.database.tenancy import scope

SHOWN = ("dspex.tenant", "jit", "idle_in_transaction_session_timeout", "lock_timeout")


@pytest.fixture(params=["direct", "pooled"])
def engine(request: pytest.FixtureRequest, postgres_database_url: str) -> Iterator[Engine]:
    url = postgres_database_url if request.param == "direct" else request.getfixturevalue("pooled_database_url")
    engine = make_engine(url, pool_size=8, lease_seconds=30)
    yield engine
    engine.dispose()


def shown(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in SHOWN]


def test_every_transaction_has_our_settings(engine: Engine) -> None:
    for _ in range(3):
        assert shown(engine) == ["*", "off", "10s", "1s"]
    with engine.begin() as connection:
        scope(connection, "acme")
        assert connection.exec_driver_sql("SHOW dspex.tenant").scalar_one() == "acme"
    assert shown(engine)[0] == "*"


def test_a_transaction_is_one(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n integer)")
    with engine.connect() as connection:
        with connection.begin() as transaction:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            transaction.rollback()
        with connection.begin(), connection.begin_nested() as savepoint:
            connection.exec_driver_sql("INSERT INTO t VALUES (2)")
            savepoint.rollback()
        with connection.begin():
            connection.exec_driver_sql("INSERT INTO t VALUES (3)")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT n FROM t").scalars().all() == [3]


def test_a_transaction_pays_no_round_trip_for_its_settings(engine: Engine) -> None:
    said: list[str] = []
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _u, text, *_: said.append(text))
        with connection.begin():
            connection.exec_driver_sql("SELECT 1")
        pooled = shares_session(connection)
    # Without a pooler, psycopg sends the BEGIN.
    assert [text.split(";")[0] for text in said] == (["BEGIN", "SELECT 1"] if pooled else ["SELECT 1"])


def test_many_sessions_share_a_few_and_nothing_is_prepared_there(pooled_database_url: str) -> None:
    """Statements that are run often, over more sessions than the pooler has: none names what another has prepared."""
    engine = make_engine(pooled_database_url, pool_size=20)
    plans = [Plans() for _ in range(20)]
    connections = [engine.connect() for _ in plans]
    assert all(shares_session(connection) for connection in connections)
    for number in range(200):
        connection, plan = connections[number % 20], plans[number % 20]
        with connection.begin():
            plan.renew(connection)
            asked = connection.exec_driver_sql("SELECT %(n)s::int", {"n": number})
            assert asked.scalar_one() == number
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one() == 0
    for connection in connections:
        connection.close()
    engine.dispose()


def test_a_statement_outside_of_a_transaction_is_outside(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n integer)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE INDEX CONCURRENTLY i ON t (n)")
    assert shown(engine) == ["*", "off", "10s", "1s"]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_first_and_the_last_time_are_read_whatever_the_zone_of_the_server(
    engine: Engine, postgres_database_url: str, zone: str
) -> None:
    """There, they are of years that Python has not: a row with one could not be read."""
    before = make_engine(postgres_database_url)
    with before.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE \"{before.url.database}\" SET TimeZone = '{zone}'")
    before.dispose()
    moments = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    with engine.begin() as connection:
        found = connection.execute(select(*(literal(moment, UtcDateTime) for moment in moments))).one()
    assert list(found) == moments


NUMBER = select(cast(bindparam("given", type_=String), Integer).label("number"))
END_SESSION = select(func.pg_terminate_backend(func.pg_backend_pid()).label("ended"))


def test_a_hot_statement_is_one_of_the_transaction(engine: Engine) -> None:
    """It goes to psycopg itself; all else is as with others: its rows, its listeners, its errors."""
    said: list[str] = []
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _u, text, *_: said.append(text))
        [row] = execute(connection, NUMBER, {"given": "7"})
        assert (row.number, connection.in_transaction()) == (7, True)
        connection.rollback()
        assert execute(connection, text("SET LOCAL jit = on"), {}) == []
        connection.rollback()
        assert any("AS number" in text for text in said)
        with pytest.raises(DBAPIError) as caught, connection.begin():
            execute(connection, NUMBER, {"given": "a secret"})
        assert cause_of(caught.value) is Cause.DATA
        assert "secret" not in str(caught.value)
        connection.info[ALONE] = True
        with pytest.raises(DBAPIError), connection.begin():
            execute(connection, NUMBER, {"given": "a secret"}, alone=True)
        with connection.begin() as transaction:  # it is one again
            execute(connection, text("CREATE TABLE numbers ()"), {})
            transaction.rollback()
        with connection.begin():
            assert connection.exec_driver_sql("SELECT to_regclass('numbers')").scalar_one() is None
        with pytest.raises(DBAPIError) as caught, connection.begin():
            execute(connection, END_SESSION, {})
        assert cause_of(caught.value) is Cause.AWAY
        assert caught.value.connection_invalidated
        with connection.begin():  # on a new session
            assert execute(connection, NUMBER, {"given": "8"})[0].number == 8
