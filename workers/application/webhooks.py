"""Makes a deliverer from the settings, for its own process or for an embedded application."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from dspex.amqp.publisher import AmqpPublisher, Publisher
from store.database.engine import make_engine
from store.webhooks import Mine
from workers.application.callback_check import granted
from workers.persistence.group_commit import Writer
from workers.settings import Settings, load_webhook_secrets
from workers.telemetry.episodes import Episodes
from workers.webhooks.addresses import Guard
from workers.webhooks.deliverer import Deliverer
from workers.webhooks.notices import Notices
from workers.webhooks.schedule import Schedule
from workers.webhooks.secrets import WebhookSecrets

if TYPE_CHECKING:
    from workers.webhooks.delivery import DeliveryRunner


def make_deliverer(
    settings: Settings,
    engine: Engine,
    writer: Writer,
    publisher: Publisher,
    mine: Callable[[], Mine] | None = None,
) -> Deliverer:
    """Make a deliverer that uses the parts of a process. Reads the values of secrets now.

    Args:
        mine: returns the selection of its deliveries; None: it delivers all.
    """
    secrets = WebhookSecrets(load_webhook_secrets(), granted(settings), settings.webhook_secret_hosts)
    schedule, episodes = Schedule(settings.webhook_retries), Episodes()

    def runner() -> DeliveryRunner:
        # Imported at the first delivery, so that a process that sends no webhooks loads no HTTP client.
        from workers.webhooks.delivery import DeliveryRunner
        from workers.webhooks.sender import Sender

        guard = Guard(settings.webhook_ports, settings.webhook_hosts, episodes=episodes)
        sender = Sender(guard, timeout=settings.webhook_timeout, connections=settings.webhook_threads)
        return DeliveryRunner(sender, secrets, schedule, episodes)

    return Deliverer(
        engine,
        writer,
        Notices(engine, writer, publisher),
        runner,
        threads=settings.webhook_threads,
        timeout=settings.webhook_timeout,
        mine=mine,
        episodes=episodes,
    )


class DelivererProcess:
    """A process that only delivers webhooks: it has no adapters and consumes no messages."""

    def __init__(self, settings: Settings) -> None:
        self._engine = make_engine(settings.database_url, lease_seconds=settings.lease_seconds)
        self._writer = Writer(self._engine)
        name = f"dspex deliverer {socket.gethostname()[:64]}-{os.getpid()}"
        self._publisher = AmqpPublisher(settings.broker_url, name=name)
        self._deliverer = make_deliverer(settings, self._engine, self._writer, self._publisher)

    @property
    def threads(self) -> list[threading.Thread]:
        """All threads that live from `start` to `stop`."""
        return [*self._deliverer.threads, *self._writer.threads]

    def start(self) -> None:
        """Start to deliver."""
        self._writer.start()
        self._deliverer.start()

    def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for deliveries in progress. The others become due again."""
        self._deliverer.stop(seconds)
        self._publisher.close(timeout=5)
        self._writer.close()
        self._engine.dispose()
