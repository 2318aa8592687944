"""The wiring: one function makes a process's parts from its settings, and tests call it with their own."""

from __future__ import annotations

import logging
import os
import socket
import uuid
import zlib
from dataclasses import dataclass, field
from functools import partial

import dramatiq
from sqlalchemy import Engine

from adapters.lm import LMCatalog
from adapters.registry import AdapterRegistry
from dspex.envelope import wrap
from dspex.events import Event
from dspex.publisher import AmqpPublisher, Publisher
from dspex.topology import EVENTS_EXCHANGE
from store.counters import SHARDS
from store.engine import make_engine
from store.executions import Claimed, Lease
from workers.brokers.amqp import AmqpBroker
from workers.brokers.encoding import CloudEventEncoder
from workers.brokers.memory import MemoryBroker, MemoryPublisher
from workers.programs import ProgramCache
from workers.settings import Settings, load_secrets
from workers.writer import Writer
from workers.writes import Writes

logger = logging.getLogger(__name__)

SOURCE = "/dspex/worker"


@dataclass(frozen=True)
class Application:
    """The parts of one process. Nothing is connected until it is used."""

    settings: Settings
    engine: Engine
    adapters: AdapterRegistry
    programs: ProgramCache
    broker: dramatiq.Broker
    publisher: Publisher
    writer: Writer
    writes: Writes
    running: set[Claimed] = field(default_factory=set)
    """What threads of this process are running now: the same execution twice, where it was rescued from one of them."""

    def emit(self, event: Event, traceparent: str | None = None) -> None:
        """Publish an event; returns when the broker has it.

        Raises:
            PublishError: it does not.
        """
        envelope = wrap(event, source=SOURCE, traceparent=traceparent)
        self.publisher.publish(
            envelope.encode(self.settings.max_message_bytes + EVENT_MARGIN_BYTES),
            exchange=EVENTS_EXCHANGE,
            routing_key=event.type,
            message_id=envelope.id,
            mandatory=False,
        )

    def close(self) -> None:
        """Close every part."""
        self.writer.close()
        self.publisher.close(timeout=5)
        self.broker.close()
        self.adapters.close()
        self.engine.dispose()


EVENT_MARGIN_BYTES = 64 * 1024
"""What an event may have besides the outputs, which are within the cap of a message."""


def bootstrap(settings: Settings, *, catalog: LMCatalog | None = None) -> Application:
    """Make the parts of a process.

    Args:
        catalog: resolves LMs; by default from the settings' aliases and the environment's secrets.
    """
    worker = f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    engine = make_engine(settings.database_url)
    adapters = AdapterRegistry(catalog or LMCatalog(settings.lms, load_secrets().get))
    writer = Writer(engine)
    writes = Writes(Lease(worker, settings.lease_seconds), zlib.crc32(worker.encode()) % SHARDS)
    broker, publisher = _messaging(settings)
    dramatiq.set_encoder(CloudEventEncoder(settings.max_message_bytes))
    application = Application(
        settings=settings,
        engine=engine,
        adapters=adapters,
        programs=ProgramCache(partial(writer.call, writes.get_program), adapters),
        broker=broker,
        publisher=publisher,
        writer=writer,
        writes=writes,
    )
    writer.start()
    return application


def _messaging(settings: Settings) -> tuple[dramatiq.Broker, Publisher]:
    if settings.embedded:
        memory = MemoryBroker(max_bytes=settings.max_message_bytes)
        return memory, MemoryPublisher(memory)
    publisher = AmqpPublisher(settings.broker_url)
    return AmqpBroker(settings.broker_url, publisher, max_bytes=settings.max_message_bytes), publisher
