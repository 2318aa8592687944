"""A database for each test of the store, on SQLite and on PostgreSQL; and the interface, in process and remote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from deploy.local_servers import RabbitMQServer
from dspex.client import RemoteClient
from dspex.interface import Interface
from store.engine import make_engine
from store.tables import metadata
from tests.conftest import new_database, start
from tests.contract.interface import working
from workers.brokers import amqp
from workers.local import LocalClient
from workers.settings import Settings


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=20)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """In a transaction that is never committed."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@pytest.fixture(scope="module")
def broker_url(servers_directory: Path) -> Iterator[str]:
    """A RabbitMQ of this module's own: the names of the queues are fixed."""
    broker = RabbitMQServer(servers_directory / "interface-rabbitmq")
    start(broker)
    yield broker.url
    broker.stop()


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
    common: dict[str, Any] = {"threads": 8, "lease_seconds": 3, "log_level": "WARNING"}
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('interface') / 'dspex.db'}"
        with working(Settings(database_url=url, broker_url="memory://", **common)) as app:
            yield LocalClient(app)
        return
    with new_database(request.getfixturevalue("postgres_url")) as url:
        if request.param == "postgresql":
            with working(Settings(database_url=url, broker_url="memory://", **common)) as app:
                yield LocalClient(app)
        else:
            broker_url: str = request.getfixturevalue("broker_url")
            amqp.check(broker_url)
            with (
                working(Settings(database_url=url, broker_url=broker_url, **common)),
                RemoteClient(broker_url, source="/tests") as client,
            ):
                yield client
