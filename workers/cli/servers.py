"""`dspex migrate`, `dspex downgrade`, `dspex declare`: what an operator does with the servers."""

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
    """Upgrade the database; returns a line that says so.

    Args:
        revision: to which migration; None: to the newest.

    Raises:
        SettingsError: it cannot be reached, or it is not below this revision.
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
    """Take the database back to a migration; returns a line that says so.

    Args:
        agreed: asked with what would be lost, a line for each kind, where there is any.

    Raises:
        SettingsError: it cannot be reached, or it is not above this revision; or what would be lost may not be.
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
    """The revisions below one, `base` too."""
    names = [*migrations.revisions(), "base"]
    if wanted not in names:
        raise migrations.NotARevision(f"there is no revision {wanted!r}; there are {', '.join(reversed(names))}")
    return [] if revision is None else names[names.index(revision) + 1 :]


def _told(engine: Engine, before: str | None) -> str:
    after = migrations.current(engine)
    return f"{where(engine)} is at {after or 'base'}" + ("" if before == after else f" (was {before or 'empty'})")


@contextmanager
def _migrating() -> Generator[Engine]:
    """The database of the settings."""
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
    """Declare the topology on RabbitMQ; returns a line that says so, and one of what should be known of the broker.

    Raises:
        SettingsError: no RabbitMQ is set.
        BrokerUnavailable: it cannot be reached.
    """
    settings = load_settings()
    if settings.embedded:
        raise SettingsError("DSPEX_BROKER_URL: the in-process broker has nothing to declare; set amqp://…")
    weakness = amqp.check(settings.broker_url, settings.queue_type)
    return "\n".join(filter(None, ["The exchanges and queues are declared.", weakness]))
