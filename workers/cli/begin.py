"""Set-up that commands share: logging, checks of the servers, and Python's garbage collection."""

from __future__ import annotations

import gc

from store.database.engine import make_engine
from workers.application.blobs import check_blobs
from workers.persistence.schema import require_rights, require_schema
from workers.settings import Settings
from workers.telemetry import logs

GC_THRESHOLD = 10_000
"""How many new containers there are before Python collects its youngest generation (default: 700)."""


def configure_logging(settings: Settings) -> None:
    """See `workers.telemetry.logs`."""
    logs.configure(settings.log_level)


def check_servers(settings: Settings) -> str | None:
    """Check that database, blob store and broker answer. Only the start fails without them; a running worker waits.

    Returns:
        A warning about the broker for operators, or None.

    Raises:
        SettingsError, BrokerUnavailable: one does not answer.
    """
    engine = make_engine(settings.database_url)
    require_rights(engine, tenancy=settings.tenancy)
    require_schema(engine)
    engine.dispose()
    check_blobs(settings)
    if settings.embedded:
        return None
    from workers.brokers import amqp

    return amqp.check(settings.broker_url, settings.queue_type)


def collect_seldom(*, after_a_look: bool = True) -> None:
    """Make Python collect garbage less often, and never among the objects loaded so far. It took an eighth of the CPU.

    Args:
        after_a_look: collect once before.
    """
    if after_a_look:
        gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
