"""`dspex migrate`, `dspex declare`: what an operator does with the servers."""

from __future__ import annotations

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

import migrations
from dspex.errors import SettingsError
from store.engine import make_engine
from workers.brokers import amqp
from workers.schema import unreachable
from workers.settings import load_settings


def migrate_database() -> str:
    """Upgrade the database to the newest migration; returns a line that says so.

    Raises:
        SettingsError: it cannot be reached.
    """
    engine = make_engine(load_settings().database_url)
    try:
        before = migrations.current(engine)
        migrations.upgrade(engine)
    except DBAPIError as error:
        raise unreachable(engine, error) from None
    except CommandError as error:
        raise SettingsError(f"the database is at {migrations.current(engine)}: {error}") from None
    where = engine.url.render_as_string(hide_password=True)
    after = migrations.head()
    return f"{where} is at {after}" + ("" if before == after else f" (was {before or 'empty'})")


def declare_topology() -> str:
    """Declare the topology on RabbitMQ; returns a line that says so.

    Raises:
        SettingsError: no RabbitMQ is set.
        BrokerUnavailable: it cannot be reached.
    """
    settings = load_settings()
    if settings.embedded:
        raise SettingsError("DSPEX_BROKER_URL: the in-process broker has nothing to declare; set amqp://…")
    amqp.check(settings.broker_url, settings.queue_type)
    return "The exchanges and queues are declared."
