"""PostgreSQL says that a queue has become ready, to whoever listens. Behind a pooler, nobody does."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dspex import uuid7
from dspex.contract.options import Lane
from dspex.errors import DatabaseUnavailable
from store.database.engine import make_engine
from store.queues.keys import QueueKey
from store.queues.listening import Listening, listen
from store.queues.offers import offer
from tests.conftest import pooled
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

PATIENCE = 30.0


@pytest.fixture
def engine(migrated_database_url: str) -> Iterator[Engine]:
    engine = make_engine(migrated_database_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def listening(engine: Engine) -> Iterator[Listening]:
    found = listen(engine)
    assert found is not None
    with closing(found):
        yield found


def test_it_hears_of_a_queue_that_has_become_ready_and_of_no_other(engine: Engine, listening: Listening) -> None:
    key = QueueKey("default", uuid7(), Lane.DEFAULT.number)
    with engine.begin() as connection:
        offer(connection, [(key, None)])
        assert not listening.heard(), "it is not committed"
    wait_until(lambda: bool(select.select([listening], [], [], 1.0)[0]), "it can be read", PATIENCE)
    assert listening.heard()
    assert not listening.heard()
    with engine.begin() as connection:
        offer(connection, [(key, None)])  # it is ready already
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_notify('another', '')"))
    assert not listening.heard()


def test_it_takes_no_place_of_the_pool(engine: Engine, listening: Listening) -> None:
    assert not listening.heard()
    with engine.connect(), engine.connect():
        pass


def test_a_session_that_has_ended_is_told(engine: Engine, listening: Listening) -> None:
    with engine.begin() as connection:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        connection.execute(text(end))
    select.select([listening], [], [], PATIENCE)
    with pytest.raises(DatabaseUnavailable):
        wait_until(listening.heard, "it is lost", PATIENCE)


def test_behind_a_pooler_nobody_listens(migrated_database_url: str, servers_directory: Path) -> None:
    with pooled(migrated_database_url, servers_directory) as url:
        engine = make_engine(url)
        assert listen(engine) is None
        engine.dispose()


def test_a_database_that_is_away_is_told(migrated_database_url: str) -> None:
    engine = make_engine(migrated_database_url.rpartition("/")[0] + "/nowhere")
    with pytest.raises(DatabaseUnavailable):
        listen(engine)
    engine.dispose()
