"""The tables. Migrations make them; a test holds the two equal.

An execution has no foreign key to its program: the check would lock the program's row at every insert, by every
worker. The claim joins the program instead; the executions of a program that is destroyed are kept.

Columns that came with a later migration stand last in their table, where a migration adds them. Those that must have
a value have a default: workers of the version before do not know them.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from dspex import ExecutionStatus, ProgramStatus, SignatureStatus
from dspex.contract.status import DeadLetterStatus, DeliveryStatus
from dspex.ids import DEFAULT_TENANT
from store.column_types import Json, UtcDateTime, database_now

MAX_NAME = 512
"""Characters of the id or the type of a rejected message."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _status(statuses: type[StrEnum]) -> tuple[Column[str], CheckConstraint]:
    listed = ", ".join(f"'{status}'" for status in statuses)
    return Column("status", String(16), nullable=False), CheckConstraint(f"status IN ({listed})", "status")


def _versioned() -> tuple[Column[int], Column[object], Column[object]]:
    return (
        Column("lock_version", Integer, nullable=False, server_default=text("1")),
        Column("inserted_at", UtcDateTime, nullable=False),
        Column("updated_at", UtcDateTime, nullable=False),
    )


def _tenant(*, in_key: bool = False) -> Column[str]:
    """`in_key`: the rest of the key is what producers give, and may be another tenant's too. It comes after the id."""
    default = text(f"'{DEFAULT_TENANT}'")
    return Column("tenant", String(64), nullable=False, server_default=default, primary_key=in_key)


def _dead_letter_status() -> tuple[Column[str], CheckConstraint]:
    listed = ", ".join(f"'{status}'" for status in DeadLetterStatus)
    return (
        Column("status", String(16), nullable=False, server_default=text(f"'{DeadLetterStatus.DEAD}'")),
        CheckConstraint(f"status IN ({listed})", "status"),
    )


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


signatures = Table(
    "signatures",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("module", String(200)),
    Column("version", String(64), nullable=False),
    Column("instructions", Text),
    Column("inputs", Json, nullable=False),
    Column("outputs", Json, nullable=False),
    Column("digest", String(64), nullable=False),
    *_status(SignatureStatus),
    *_versioned(),
    _tenant(in_key=True),
    Index(None, "tenant", "module", "version", unique=True),
    Index(None, "tenant", "inserted_at"),
    Index(None, "tenant", "name", "inserted_at"),
    Index(None, "tenant", "status", "inserted_at"),
    Index(None, "tenant", "digest"),
)

programs = Table(
    "programs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("signature_id", Uuid, nullable=False, index=True),
    Column("adapter_type", String(64), nullable=False),
    Column("configuration", Json, nullable=False),
    Column("backend_id", String(128)),
    Column("error_code", String(64)),
    Column("error_message", Text),
    *_status(ProgramStatus),
    *_versioned(),
    _tenant(in_key=True),
    # Of its executions; NULL: all defaults.
    Column("policy", Json),
    # Where the ends of its executions are pushed to.
    Column("callback", Json),
    ForeignKeyConstraint(["signature_id", "tenant"], [signatures.c.id, signatures.c.tenant]),
    Index(None, "tenant", "inserted_at"),
    Index(None, "tenant", "name", "inserted_at"),
    Index(None, "tenant", "status", "inserted_at"),
)

executions = Table(
    "executions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("program_id", Uuid, nullable=False),
    Column("inputs", Json, nullable=False),
    Column("options", Json, nullable=False),
    # Of program, inputs and options: the same id with another digest is another request, and a conflict.
    Column("request_digest", String(64), nullable=False),
    Column("source", Text, nullable=False),
    Column("traceparent", String(55)),
    Column("backend_id", String(128)),
    Column("attempt", Integer, nullable=False),
    Column("worker", String(128)),
    # running: when the worker's claim lapses.
    Column("lease_expires_at", UtcDateTime),
    Column("outputs", Json),
    Column("error", Json),
    Column("usage", Json),
    Column("duration_ms", Float),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    *_status(ExecutionStatus),
    *_versioned(),
    _tenant(in_key=True),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    # See `store.executions.timeline`.
    Column("timeline", Json, nullable=False, server_default=text("'[]'")),
    # Copied from `error` and `usage`, so that lists and statistics find them in an index.
    Column("error_code", String(64)),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost", Float),
    # pending: when the relay publishes it (again), and before when it may not be claimed.
    Column("due_at", UtcDateTime),
    Column("not_before", UtcDateTime),
    Column("deadline", UtcDateTime),
    # The program's, as it was at the claim; NULL: all defaults.
    Column("policy", Json),
    # Where the answer goes, and what it is matched by.
    Column("reply_to", Text),
    Column("correlation_id", Text),
    # What earlier attempts leave to the next, see `store.executions.rows.Carried`.
    Column("carried", Json),
    # How many attempts ended with their worker.
    Column("lost", SmallInteger, nullable=False, server_default=text("0")),
    # failed: no dead letter any more.
    Column("discarded", Boolean, nullable=False, server_default=text("false")),
    # Where its end is pushed to: as it was asked for, and as its program had it at the claim.
    Column("callback", Json),
    Column("program_callback", Json),
    # What its caller says of it, and the extension attributes of the envelope that asked for it; NULL: none.
    Column("metadata", Json),
    Column("extensions", Json),
    # Lists by tenant.
    Index(None, "tenant", "inserted_at"),
    # Lists by program; the statistics of a window are in it, so that PostgreSQL reads no row.
    Index(
        "ix_executions_program",
        "tenant",
        "program_id",
        "inserted_at",
        postgresql_include=["status", "duration_ms", "input_tokens", "output_tokens", "cost"],
    ),
    # Lists of what failed or was cancelled, rare among the others: the last three columns are compared in the index.
    _partial(
        "ix_executions_unsuccessful",
        *("tenant", "inserted_at", "status", "error_code", "program_id"),
        where="status IN ('failed', 'cancelled')",
    ),
    # What runs: small however long the history; the lease is in no index, so a heartbeat is a HOT update.
    _partial("ix_executions_running", "worker", where="status = 'running'"),
    # What waits, by when it is due.
    _partial("ix_executions_pending", "due_at", where="status = 'pending'"),
    postgresql_with={"fillfactor": "85"},
)

program_counters = Table(
    "program_counters",
    metadata,
    Column("program_id", Uuid, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("completed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", Float, nullable=False),
    # NULL while all that was counted was cancelled before it ran.
    Column("last_executed_at", UtcDateTime),
    Column("lock_version", Integer, nullable=False, server_default=text("1")),
    _tenant(in_key=True),
    Column("cancelled", BigInteger, nullable=False, server_default=text("0")),
    # Of how many of the executions.
    Column("tokens_known", BigInteger, nullable=False, server_default=text("0")),
    Column("cost_known", BigInteger, nullable=False, server_default=text("0")),
    postgresql_with={"fillfactor": "50"},
)

program_durations = Table(
    "program_durations",
    metadata,
    Column("program_id", Uuid, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    # See `store.histogram`.
    Column("bucket", SmallInteger, primary_key=True),
    Column("runs", BigInteger, nullable=False),
    _tenant(in_key=True),
    postgresql_with={"fillfactor": "70"},
)

event_outbox = Table(
    "event_outbox",
    metadata,
    # The event of an execution that has ended, and the answer where one is waited for. The row comes with the end of
    # the execution, and goes when the broker has confirmed. No index beside the key: few rows live at a time, and each
    # lives for milliseconds.
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    # Of the row that has ended: a replay makes another end of it.
    Column("lock_version", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("execution_id", Uuid, nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("inserted_at", UtcDateTime, nullable=False),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    # Of one that came with a callback: derived from it, so that what is the same endpoint is one row.
    Column("id", Uuid, primary_key=True),
    Column("url", Text, nullable=False),
    # The name of the secret that signs; while it is being changed, of the one before as well.
    Column("secret", String(100), nullable=False),
    Column("previous_secret", String(100)),
    Column("previous_until", UtcDateTime),
    Column("events", Json, nullable=False),
    Column("headers", Json, nullable=False),
    Column("thin", Boolean, nullable=False),
    # It gets every end of the tenant's executions; else it came with a callback.
    Column("registered", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_reason", Text),
    Column("disabled_at", UtcDateTime),
    # When it failed first after its last success.
    Column("failing_since", UtcDateTime),
    # When operators are to be told (again) that it was disabled.
    Column("announce_at", UtcDateTime),
    *_versioned(),
    _tenant(in_key=True),
    Index(None, "tenant", "inserted_at"),
    _partial("ix_webhook_endpoints_registered", "tenant", "inserted_at", where="registered"),
    _partial("ix_webhook_endpoints_announce", "announce_at", where="announce_at IS NOT NULL"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    # No foreign keys, as in `executions`: the log outlives what it is about.
    Column("endpoint_id", Uuid, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    # The lock_version that the execution ended with. With the execution's id, the id of the event.
    Column("event_version", Integer, nullable=False),
    Column("event", String(16), nullable=False),
    # What fails together: the tenant and `host:port`.
    Column("place", String(400), nullable=False),
    # pending: when it is sent, or sent again where whoever took it is gone.
    Column("due_at", UtcDateTime),
    # Attempts in all, and since it was replayed.
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("reason", Text),
    Column("finished_at", UtcDateTime),
    *_status(DeliveryStatus),
    *_versioned(),
    _tenant(),
    Index("ix_webhook_deliveries_end", "execution_id", "event_version", "endpoint_id", "tenant", unique=True),
    Index(None, "tenant", "inserted_at"),
    Index(None, "tenant", "endpoint_id", "inserted_at"),
    _partial("ix_webhook_deliveries_failed", "tenant", "inserted_at", where="status = 'failed'"),
    # What is due, if anything is; and by place, so that a dead one with a million of them is stepped over.
    _partial("ix_webhook_deliveries_due", "due_at", where="status = 'pending'"),
    _partial("ix_webhook_deliveries_place", "place", "due_at", where="status = 'pending'"),
    postgresql_with={"fillfactor": "85"},
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("http_status", Integer),
    Column("reason", Text),
    Column("duration_ms", Float, nullable=False),
    Column("response", Text, nullable=False),
    _tenant(),
)

rejected_messages = Table(
    "rejected_messages",
    metadata,
    # Derived from queue and body: a message that is delivered twice is one row.
    Column("id", Uuid, primary_key=True),
    Column("queue", String(255), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error_message", Text, nullable=False),
    Column("message_id", String(MAX_NAME)),
    Column("message_type", String(MAX_NAME)),
    Column("body", LargeBinary, nullable=False),
    Column("body_size", Integer, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("inserted_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _tenant(),
    *_dead_letter_status(),
    Index(None, "tenant", "inserted_at"),
)

NOW = database_now()

REGISTERED = text("webhook_endpoints.registered")
"""As the partial index writes it."""

PROTECTED = (
    signatures,
    programs,
    executions,
    program_counters,
    program_durations,
    rejected_messages,
    event_outbox,
    idempotency_keys,
    webhook_endpoints,
    webhook_deliveries,
    webhook_attempts,
)
"""The tables with row-level security on PostgreSQL: all that have tenants."""
