"""Notifies operators of disabled endpoints by an event, until the broker has confirmed it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine

from dspex import wrap
from dspex.amqp.publication import event_publication
from dspex.amqp.publisher import Publisher
from dspex.contract.callback import parse_url
from dspex.contract.events import WebhookDisabled
from dspex.errors import PublishError
from store import webhooks
from store.database.engine import READ_ONLY
from store.webhooks import Endpoint
from workers.outbound.encoder import SOURCE
from workers.persistence.group_commit import Writer, WriterClosed

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 30.0
"""Seconds until an unconfirmed notice is sent again."""
LIMIT: Final = 100


class Notices:
    """Sends notices. `send` is for one thread, and does not wait for the broker."""

    def __init__(self, engine: Engine, writer: Writer, publisher: Publisher) -> None:
        self._engine = engine
        self._writer = writer
        self._publisher = publisher
        self._next = 0.0

    def send(self) -> None:
        """Send pending notices, if it is time to look for them."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            if not webhooks.anything_to_announce(connection):
                return
        for endpoint in self._writer.call(self._take, LIMIT):
            self._publish(endpoint)

    def _publish(self, endpoint: Endpoint) -> None:
        event = WebhookDisabled(
            endpoint_id=endpoint.id,
            tenant=endpoint.tenant,
            host=parse_url(endpoint.callback.url).host_port,
            reason=endpoint.disabled_reason or "",
        )
        message_id = f"{endpoint.id}.{endpoint.lock_version}"
        envelope = wrap(event, source=SOURCE, message_id=message_id, tenant=endpoint.tenant)
        try:
            future = self._publisher.submit(
                event_publication(envelope.encode(), endpoint.tenant, event.type, envelope.id)
            )
        except PublishError as error:
            logger.info("The notice that endpoint %s was disabled will be sent later: %s", endpoint.id, error)
        else:
            future.add_done_callback(partial(self._confirmed, endpoint))

    def _confirmed(self, endpoint: Endpoint, future: Future[None]) -> None:
        if future.exception() is not None:
            logger.info(
                "The notice that endpoint %s was disabled will be sent later: %s", endpoint.id, future.exception()
            )
            return
        try:
            self._writer.post(self._announced, endpoint)
        except WriterClosed:
            logger.info("The notice that endpoint %s was disabled was sent, and will be sent again.", endpoint.id)

    # As the writer's operations

    def _take(self, connection: Connection, limits: Sequence[int]) -> list[list[Endpoint]]:
        return [webhooks.announcements(connection, AGAIN_SECONDS, limit) for limit in limits]

    def _announced(self, connection: Connection, told: Sequence[Endpoint]) -> list[None]:
        for endpoint in told:
            webhooks.announced(connection, endpoint)
        return [None] * len(told)
