"""docs/outbox.md: its code, as a service would have it, against real servers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, create_engine, inspect, select
from sqlalchemy.orm import Session

from dspex import decode_command, uuid7
from tests.integration.test_outbox import bound
from tests.pages import blocks
from tests.waiting import wait_until

Load = Callable[[str], ModuleType]


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a module of the service whose code is the page's."""
    for found in blocks("python", of="docs/outbox.md"):
        file = tmp_path / found.text.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(found.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda name: importlib.import_module(f"orders.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "orders"]:
        del sys.modules[name]


def test_the_migration_makes_the_table(orders: Load, database_url: str) -> None:
    engine = create_engine(database_url)
    models, migration = orders("models"), orders("migration")
    with engine.begin() as connection:
        models.Ticket.__table__.create(connection)
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            migration.upgrade()
            assert compare_metadata(context, models.Base.metadata) == []
            migration.downgrade()
        assert inspect(connection).get_table_names() == ["tickets"]
    engine.dispose()


def test_a_request_and_the_relay(
    orders: Load, database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_DATABASE_URL", database_url)
    monkeypatch.setenv("ORDERS_BROKER_URL", amqp_url)
    models, requests, service = orders("models"), orders("requests"), orders("service")
    asked = []

    def serve(engine: Engine) -> None:
        models.Base.metadata.create_all(engine)
        with Session(engine) as session:
            asked.append(requests.open_ticket(session, uuid7(), "It is on fire."))
            assert session.scalars(select(models.Ticket.text)).all() == ["It is on fire."]
        with engine.connect() as connection:
            wait_until(lambda: not connection.execute(select(models.outbox.table)).all(), "it is published")

    with bound(amqp_url) as (broker, queue):
        service.run(serve)
        (arrived,) = broker.take(queue)
    envelope = decode_command(arrived.body)
    assert (envelope.source, envelope.subject) == ("/orders", str(asked[0]))
