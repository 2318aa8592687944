"""`dspex migrate`, `dspex downgrade`, `dspex declare`: an operator's commands for the servers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

import migrations
from dspex.errors import SettingsError
from store.database.engine import make_engine
from workers.brokers import amqp
from workers.persistence.schema import unreachable, where
from workers.settings import load_settings


def migrate_database(revision: str | None = None) -> str:
    """Upgrade the database. Returns a line with the result.

    Args:
        revision: the migration to upgrade to; None: the newest.

    Raises:
        SettingsError: the database cannot be reached, or is above this revision.
    """
    with _migrating() as engine:
        before = migrations.current(engine)
        if migrations.newer(engine) is not None:
            raise SettingsError(f"the database is at {before}, of a newer version: there is nothing to migrate here")
        wanted = revision or migrations.head()
        if before != wanted and wanted in _below(before, wanted):
            raise SettingsError(f"--to: the database is at {before}, above {wanted}: `dspex downgrade` takes it back")
        migrations.upgrade(engine, wanted)
        return _told(engine, before)


def downgrade_database(revision: str, *, agreed: Callable[[list[str]], bool]) -> str:
    """Downgrade the database to a migration. Returns a line with the result.

    Args:
        agreed: called with the data that would be lost, one line for each kind, if there is any. Returns whether to go
    on.

    Raises:
        SettingsError: the database cannot be reached, or is below this revision, or `agreed` returned False.
    """
    with _migrating() as engine:
        before = migrations.current(engine)
        lost = migrations.losses(engine, revision)
        if before != revision and revision not in _below(before, revision):
            raise SettingsError(f"--to: the database is at {before}, below {revision}: `dspex migrate` brings it up")
        if lost and not agreed(lost):
            raise SettingsError("nothing is changed: give --yes where this may be lost")
        migrations.downgrade(engine, revision)
        return _told(engine, before)


def _below(revision: str | None, wanted: str) -> list[str]:
    """The revisions below one, including `base`."""
    names = [*migrations.revisions(), "base"]
    if wanted not in names:
        raise migrations.NotARevision(f"there is no revision {wanted!r}; there are {', '.join(reversed(names))}")
    return [] if revision is None else names[names.index(revision) + 1 :]


def _told(engine: Engine, before: str | None) -> str:
    after = migrations.current(engine)
    return f"{where(engine)} is at {after or 'base'}" + ("" if before == after else f" (was {before or 'empty'})")


@contextmanager
def _migrating() -> Generator[Engine]:
    """Connect to the database of the settings for a migration."""
    engine = make_engine(load_settings().database_url)
    try:
        yield engine
    except DBAPIError as error:
        raise unreachable(engine, error) from None
    except migrations.NotARevision as error:
        raise SettingsError(f"--to: {error}") from None
    except CommandError as error:
        raise SettingsError(f"the database is at {migrations.current(engine)}: {error}") from None
    finally:
        engine.dispose()


def declare_topology() -> str:
    """Declare the topology on RabbitMQ. Returns a line with the result, and a warning about the broker, if any.

    Raises:
        SettingsError: no RabbitMQ is set.
        BrokerUnavailable: the broker cannot be reached.
    """
    settings = load_settings()
    if settings.embedded:
        raise SettingsError("DSPEX_BROKER_URL: the in-process broker has nothing to declare; set amqp://…")
    weakness = amqp.check(settings.broker_url, settings.queue_type)
    return "\n".join(filter(None, ["The exchanges and queues are declared.", weakness]))
