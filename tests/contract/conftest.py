"""A database for each test of the store, on SQLite and on PostgreSQL; and the interface, in process and remote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from dspex.blobs import open_store
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from store.database.engine import make_engine
from store.tables import metadata
from tests.conftest import new_database
from tests.contract.interface import working
from workers.brokers import amqp
from workers.local import LocalClient
from workers.settings import Settings


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with every table, to be copied."""
    file = tmp_path_factory.mktemp("tables") / "dspex.db"
    create_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_tables(postgres_url: str) -> Iterator[str]:
    """A PostgreSQL database with every table, all empty. To make one takes many times as long as to empty one."""
    with new_database(postgres_url) as url:
        create_tables(url)
        yield url


def create_tables(url: str) -> None:
    engine = make_engine(url)
    metadata.create_all(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """On a database with every table, all empty: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_tables"), tmp_path / "dspex.db")
        url = f"sqlite:///{tmp_path / 'dspex.db'}"
    else:
        url = request.getfixturevalue("postgres_tables")
    engine = make_engine(url, pool_size=20, lease_seconds=600)  # tests hold transactions open
    yield engine
    engine.dispose()
    if request.param == "postgresql":
        empty(url)


def empty(url: str) -> None:
    """Truncate what was written to, whoever still holds it: the planner finds tables as new as they were."""
    engine = make_engine(url, pool_size=1)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        written = "SELECT relname FROM pg_stat_user_tables WHERE pg_relation_size(relid) > 0"
        names = ", ".join(connection.exec_driver_sql(written).scalars())
        if names:
            connection.exec_driver_sql(f"TRUNCATE {names} CASCADE")
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """In a transaction that is never committed."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.integration),
        pytest.param("remote", marks=pytest.mark.integration),
    ],
)
def dspex(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interface]:
    """The interface, with a worker behind it."""
    blobs = str(tmp_path_factory.mktemp("blobs"))
    common: dict[str, Any] = {"threads": 8, "lease_seconds": 3, "log_level": "WARNING", "blobs": blobs}
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('interface') / 'dspex.db'}"
        with working(Settings(database_url=url, broker_url="memory://", **common)) as app, LocalClient(app) as client:
            yield client
        return
    with new_database(request.getfixturevalue("postgres_url")) as url:
        if request.param == "postgresql":
            settings = Settings(database_url=url, broker_url="memory://", **common)
            with working(settings) as app, LocalClient(app) as client:
                yield client
        else:
            broker_url: str = request.getfixturevalue("own_amqp_url")
            amqp.check(broker_url)
            with (
                working(Settings(database_url=url, broker_url=broker_url, **common)),
                RemoteClient(broker_url, source="/tests", blobs=open_store(blobs)) as client,
            ):
                yield client
