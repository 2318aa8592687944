"""What commands begin with: the log, the servers that have to be there, and how often Python looks for cycles."""

from __future__ import annotations

import gc

from store.database.engine import make_engine
from workers.persistence.schema import require_rights, require_schema
from workers.settings import Settings
from workers.telemetry import logs

GC_THRESHOLD = 10_000
"""Containers that are made, and not gone, before Python looks for cycles among the youngest (its default is 700)."""


def configure_logging(settings: Settings) -> None:
    """See `workers.telemetry.logs`."""
    logs.configure(settings.log_level)


def check_servers(settings: Settings) -> str | None:
    """Whether the database and the broker are there: later, a worker waits for them; at the start, it says so.

    Returns:
        What an operator should know of the broker, if anything.

    Raises:
        SettingsError, BrokerUnavailable: one is not.
    """
    engine = make_engine(settings.database_url)
    require_rights(engine, tenancy=settings.tenancy)
    require_schema(engine)
    engine.dispose()
    if settings.embedded:
        return None
    from workers.brokers import amqp

    return amqp.check(settings.broker_url, settings.queue_type)


def collect_seldom(*, after_a_look: bool = True) -> None:
    """Have Python look for cycles less often, and never among what was loaded so far: that was an eighth of the CPU.

    Args:
        after_a_look: look for some once more before.
    """
    if after_a_look:
        gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
