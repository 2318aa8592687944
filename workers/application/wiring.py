"""The wiring: one function makes the parts of a process from its settings. Tests pass their own settings."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import dramatiq
from sqlalchemy import Connection, Engine

from adapters.lm import LMCatalog
from adapters.own_modules import OwnModules
from adapters.registry import AdapterRegistry
from dspex.amqp.publication import event_publication
from dspex.amqp.publisher import AmqpPublisher, Publisher
from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.blobs import BlobStore
from dspex.contract.envelope import MAX_ANSWER_BYTES, NO_CONTEXT, Context
from dspex.contract.events import Event
from store.counters import SHARDS
from store.database.engine import make_engine
from store.executions import Lease
from store.gates import KnownGates
from store.programs import Program
from store.queues.serving import Serving
from store.queues.turns import Turns
from workers.application.blobs import open_blobs
from workers.application.callback_check import CallbackCheck
from workers.application.in_flight import InFlight, Isolation, Unwritten
from workers.application.lm_catalog import make_catalog
from workers.application.notifications import Notifications
from workers.application.own import Own
from workers.application.pace import Pace
from workers.application.program_cache import ProgramCache
from workers.application.waking import Waking
from workers.attachments.resolving import Attachments
from workers.brokers.amqp import AmqpBroker, can_read
from workers.brokers.encoding import CloudEventEncoder
from workers.brokers.memory import LOGIN, MemoryBroker, MemoryPublisher
from workers.outbound.encoder import encode_event
from workers.persistence.group_commit import Writer
from workers.persistence.operations import Writes
from workers.persistence.reading import read
from workers.security.authorization import Principal
from workers.security.direct_replies import DirectReplies
from workers.security.principals import Principals
from workers.security.screening import Admission
from workers.settings import Settings
from workers.telemetry.episodes import Episodes
from workers.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Application:
    """The parts of one process. None connects before it is used."""

    settings: Settings
    engine: Engine
    adapters: AdapterRegistry
    programs: ProgramCache
    broker: dramatiq.Broker
    publisher: Publisher
    claimer: Writer
    writer: Writer
    writes: Writes
    principals: Principals
    unwritten: Unwritten
    callbacks: CallbackCheck
    attachments: Attachments
    blobs: BlobStore | None = None
    """The blob store; None: there is none here."""
    own: Own | None = None
    """The executions of this process, if it leaves those of others alone; None: it runs all."""
    direct_replies: DirectReplies = field(default_factory=DirectReplies)
    notifications: Notifications = field(default_factory=Notifications)
    in_flight: InFlight[Any] = field(default_factory=InFlight)
    isolation: Isolation = field(default_factory=Isolation)
    waking: Waking = field(default_factory=Waking)
    pace: Pace = field(default_factory=Pace)
    unconfirmed: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(UNCONFIRMED))
    metrics: Metrics = field(default_factory=Metrics)
    episodes: Episodes = field(default_factory=Episodes)

    @property
    def may_gather(self) -> float:
        """How many seconds a claim or an end may wait for others."""
        return self.pace.allows(len(self.in_flight))

    def write(self, action: Callable[[Connection], Result]) -> Result:
        """Run a write, and wait until it is committed. Waits while the database is unreachable.

        Args:
            action: the write. It may run more than once, each time in a new transaction.

        Raises:
            DatabaseUnavailable: a table or a privilege is missing, or another session held a lock for too long.
        """
        result: Result = self.writer.call(self.writes.each, action, patience=PATIENCE_SECONDS)
        return result

    def read(self, tenant: str) -> AbstractContextManager[Connection]:
        """A connection that only reads, and sees one tenant.

        Raises:
            DatabaseUnavailable: the database cannot be read now. Raised here, or by use of the connection.
        """
        return read(self.engine, tenant)

    @property
    def largest_answer(self) -> int:
        """The largest answer in bytes. An operator who allows larger messages has configured the broker for them."""
        return self._within_limit(max(MAX_ANSWER_BYTES, self.settings.max_message_bytes))

    @property
    def largest_event(self) -> int:
        """The largest event with all its fields, in bytes."""
        return self._within_limit(self.settings.max_message_bytes + EVENT_MARGIN_BYTES)

    def _within_limit(self, size: int) -> int:
        limit = self.publisher.limit
        return size if limit is None else min(size, limit)

    def emit(self, event: Event, tenant: str, context: Context = NO_CONTEXT) -> None:
        """Publish an event of a tenant. Returns when the broker has stored it.

        Raises:
            PublishError: the event is not known to be stored.
        """
        message_id, body, _ = encode_event(event, tenant, self.largest_event, context=context)
        self.publisher.publish(event_publication(body, tenant, event.type, message_id))

    def close(self) -> None:
        """Close every part. The publisher is first, so that its last confirms are still written."""
        self.publisher.close(timeout=5)
        self.claimer.close()
        self.writer.close()
        self.notifications.close()
        self.attachments.close()
        self.broker.close()
        self.adapters.close()
        self.engine.dispose()
        self.metrics.close()


PATIENCE_SECONDS = 1.0
"""Seconds that a message keeps its thread while the database refuses a write; then it is put aside."""

UNCONFIRMED = 2048
"""How many executions may have unconfirmed events. The window of the publisher is larger."""

EVENT_MARGIN_BYTES = 64 * 1024
"""The largest part of an event besides the outputs, which are limited to the size of a message."""


def bootstrap(settings: Settings, *, catalog: LMCatalog | None = None, run_others: bool = True) -> Application:
    """Make the parts of a process.

    Args:
        run_others: whether it runs all executions that are due in the database, or only those submitted to it.
        catalog: resolves LMs; by default from the settings' aliases and the environment's secrets.
    """
    worker = f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    engine = make_engine(settings.database_url, lease_seconds=settings.lease_seconds)
    catalog = catalog or make_catalog(settings)
    adapters = AdapterRegistry(catalog, settings.environments)
    writer = Writer(engine)
    # SQLite allows one writer only. On PostgreSQL, claims do not wait for the commits of ends.
    claimer = writer if settings.database_url.startswith("sqlite") else Writer(engine, "claimer", after=writer)
    writes = Writes(
        lease=Lease(worker, settings.lease_seconds),
        shard=zlib.crc32(worker.encode()) % SHARDS,
        webhook_in=settings.webhook_retries[0],
        max_attempts=settings.max_attempts,
        only_own=not run_others,
        gates=KnownGates(worker),
        turns=Turns(serving=_serving(settings)),
    )
    principals, episodes = _principals(settings), Episodes()
    blobs = open_blobs(settings)
    broker, publisher = _messaging(settings, f"dspex worker {worker}", principals)
    dramatiq.set_encoder(CloudEventEncoder(settings.max_message_bytes))
    application = Application(
        settings=settings,
        engine=engine,
        adapters=adapters,
        programs=ProgramCache(
            partial(_find_program, writer, writes),
            adapters,
            catalog,
            OwnModules(settings.own_modules, adapters.find_module),
        ),
        broker=broker,
        publisher=publisher,
        claimer=claimer,
        writer=writer,
        writes=writes,
        principals=principals,
        unwritten=Unwritten(2 * settings.threads),
        callbacks=CallbackCheck(settings, episodes),
        attachments=Attachments(
            settings.fetch_hosts,
            blobs,
            max_bytes=settings.fetch_max_bytes,
            timeout=settings.fetch_timeout,
            episodes=episodes,
        ),
        blobs=blobs,
        own=None if run_others else Own(worker),
        direct_replies=_direct_replies(settings),
        notifications=Notifications(settings.redis_url),
        episodes=episodes,
    )
    for thread in {writer, claimer}:
        thread.start()
    return application


def _direct_replies(settings: Settings) -> DirectReplies:
    return DirectReplies() if settings.embedded else DirectReplies(partial(can_read, settings.broker_url))


def _serving(settings: Settings) -> Serving:
    """What this process serves. One without a broker serves everything, as nobody else would."""
    if settings.embedded:
        return Serving()
    return Serving(settings.serve_lanes, settings.serve_programs, settings.serve_adapters, settings.serve_environments)


def _find_program(writer: Writer, writes: Writes, program_id: UUID, tenant: str) -> Program:
    found: Program = writer.call(writes.program, (program_id, tenant))
    return found


def _principals(settings: Settings) -> Principals:
    if not settings.tenancy:
        return Principals()
    by_login = {
        login: Principal(login, given.tenant, frozenset(given.roles)) for login, given in settings.principals.items()
    }
    return Principals(by_login, settings.broker_login or LOGIN)


def _messaging(settings: Settings, name: str, principals: Principals) -> tuple[dramatiq.Broker, Publisher]:
    admit = Admission(principals) if settings.tenancy else None
    if settings.embedded:
        memory = MemoryBroker(max_bytes=settings.max_message_bytes, admit=admit)
        return memory, MemoryPublisher(memory)
    undeclared = threading.Event()
    publisher = AmqpPublisher(settings.broker_url, window=3 * UNCONFIRMED, name=name, on_undeclared=undeclared.set)
    return AmqpBroker(
        settings.broker_url,
        publisher,
        max_bytes=settings.max_message_bytes,
        queue_type=settings.queue_type,
        name=name,
        admit=admit,
        undeclared=undeclared,
        ahead={EXECUTIONS_QUEUE: settings.accepted_ahead},
    ), publisher
