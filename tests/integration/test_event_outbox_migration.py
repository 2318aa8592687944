"""`callbacks` becomes `event_outbox`: until the workers that know the first name are gone, both are one table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

import migrations
from dspex import uuid7
from dspex.errors import SettingsError
from store import event_outbox
from store.database.engine import make_engine
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from tests.integration.worker_before import WorkerBefore
from tests.roles import Roles
from workers.persistence.schema import require_schema

pytestmark = pytest.mark.integration

PAST, LATER = -1.0, 60.0
OLD = WorkerBefore("0009")


@pytest.fixture
def engine(postgres_database_url: str) -> Iterator[Engine]:
    engine = make_engine(postgres_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def old(postgres_database_url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_database_url, connect_args={"application_name": "dspex/3"})
    yield engine
    engine.dispose()


def test_both_names_are_one_table_until_old_workers_are_gone(engine: Engine, old: Engine) -> None:
    migrations.upgrade(engine, "0009")
    kept, theirs, ours = uuid7(), uuid7(), uuid7()
    with old.begin() as connection:
        OLD.add(connection, kept, 2, PAST)
    with pytest.raises(CommandError, match=r"are connected \(1 sessions\), .*: replace them, then migrate again"):
        migrations.upgrade(engine)
    assert migrations.current(engine) == "0018"
    assert migrations.serves(engine)

    with old.begin() as connection:
        OLD.add(connection, theirs, 2, PAST)
        OLD.add(connection, theirs, 5, PAST)  # of an end after a replay
    with engine.begin() as connection:
        event_outbox.add(connection, [OutboxEntry(ours, 2)], PAST)
        assert event_outbox.pending(connection, [kept, theirs, ours]) == {kept, theirs, ours}
    with old.begin() as connection:
        OLD.sent(connection, theirs, 2)
        assert set(OLD.due(connection, PAST)) == {kept, theirs, ours}
    with old.begin() as connection:
        OLD.sent(connection, theirs, 5)
        OLD.sent(connection, ours, 2)
    with engine.begin() as connection:
        assert event_outbox.due(connection, PAST, 10) == [Identity(kept)]

    old.dispose()
    migrations.upgrade(engine)
    assert migrations.current(engine) == "0019"
    with engine.begin() as connection:
        assert connection.execute(text("SELECT to_regclass('callbacks')")).scalar() is None
        assert event_outbox.due(connection, LATER, 10) == [Identity(kept)]
    migrations.downgrade(engine, "0009")
    with old.begin() as connection:
        assert connection.execute(text("SELECT execution_id FROM callbacks")).scalars().all() == [kept]


def test_relays_of_both_versions_take_different_events(engine: Engine, old: Engine) -> None:
    migrations.upgrade(engine, "0010")
    with engine.begin() as connection:
        event_outbox.add(connection, [OutboxEntry(uuid7(), 2) for _ in range(20)], PAST)
    with engine.begin() as one, old.begin() as other:
        first = [found.id for found in event_outbox.due(one, LATER, 10)]
        second = OLD.due(other, LATER)
    assert (len(first), len(second)) == (10, 10)
    assert not set(first) & set(second)


def test_rights_and_policies_are_those_of_the_table(postgres_database_url: str) -> None:
    with Roles.made(postgres_database_url) as roles:
        roles.engine_of(roles.owner, lambda engine: migrations.downgrade(engine, "0009"))
        roles.run(f"REVOKE ALL ON callbacks FROM {roles.worker}; GRANT SELECT, INSERT ON callbacks TO {roles.worker}")
        roles.run(f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.owner} REVOKE ALL ON TABLES FROM {roles.worker}")
        roles.engine_of(roles.owner, lambda engine: migrations.upgrade(engine, "0010"))
        engine = make_engine(roles.url(roles.worker), tenant="acme")
        insert = text(
            "INSERT INTO callbacks (execution_id, tenant, lock_version, due_at) VALUES (:id, :tenant, 2, now())"
        )
        with engine.begin() as connection:
            connection.execute(insert, {"id": uuid7(), "tenant": "acme"})
        for statement in (insert, text("DELETE FROM callbacks")):
            with pytest.raises(DBAPIError, match=r"row-level security|permission denied"), engine.begin() as connection:
                connection.execute(statement, {"id": uuid7(), "tenant": "other"})
        engine.dispose()
        roles.run("INSERT INTO event_outbox SELECT gen_random_uuid(), 'other', 2, now()")
        engine = make_engine(roles.url(roles.worker), tenant="acme")
        with engine.begin() as connection:
            assert connection.execute(text("SELECT tenant FROM callbacks")).scalars().all() == ["acme"]
        engine.dispose()


def test_it_waits_no_longer_than_two_seconds_for_the_table(engine: Engine, old: Engine) -> None:
    migrations.upgrade(engine, "0009")
    with old.begin() as connection:
        OLD.add(connection, uuid7(), 2, LATER)
        with pytest.raises(DBAPIError, match="lock timeout"):
            migrations.upgrade(engine, "0010")
    assert migrations.current(engine) == "0009"
    migrations.upgrade(engine, "0010")


def test_this_version_runs_after_the_migration_alone(engine: Engine) -> None:
    migrations.upgrade(engine, "0009")
    with pytest.raises(SettingsError, match="run `dspex migrate`"):
        require_schema(engine)
    migrations.upgrade(engine, "0018")
    require_schema(engine)


@pytest.mark.parametrize(("revision", "served"), [("0018", {"postgresql"}), ("0019", set())])
def test_which_revisions_serve_the_version_before(
    database_url: str, monkeypatch: pytest.MonkeyPatch, revision: str, served: set[str]
) -> None:
    """SQLite takes no upsert by a second name: code from before 0010 says at its start that it cannot run on it."""
    engine = make_engine(database_url)
    migrations.upgrade(engine, revision)
    assert migrations.serves(engine)
    monkeypatch.setattr(migrations, "revisions", lambda _oldest="base": [f"000{number}" for number in range(9, 0, -1)])
    assert migrations.serves(engine) == (engine.dialect.name in served)
    engine.dispose()
