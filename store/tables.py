"""The tables. Migrations create them; a test checks that both are equal.

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
"""The longest id or type of a rejected message, in characters."""

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
    # For people; the digest is without it.
    Column("description", Text),
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
    # The retry policy of its executions; NULL: all defaults.
    Column("policy", Json),
    # The webhook for the ends of its executions.
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
    # The digest of program, inputs and options. The same id with another digest is a conflict.
    Column("request_digest", String(64), nullable=False),
    Column("source", Text, nullable=False),
    Column("traceparent", String(55)),
    Column("backend_id", String(128)),
    Column("attempt", Integer, nullable=False),
    Column("worker", String(128)),
    # If running: when the lease of the claim runs out.
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
    # Copied from `error` and `usage`, so that an index covers lists and statistics.
    Column("error_code", String(64)),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cost", Float),
    # If pending: when a relay from before 0015 publishes it, and the earliest time of a claim.
    Column("due_at", UtcDateTime),
    Column("not_before", UtcDateTime),
    Column("deadline", UtcDateTime),
    # The program's retry policy at the time of the claim; NULL: all defaults.
    Column("policy", Json),
    # The queue for the answer, and the id that matches it.
    Column("reply_to", Text),
    Column("correlation_id", Text),
    # The state that attempts pass on, see `store.executions.rows.Carried`.
    Column("carried", Json),
    # How many attempts were lost with their worker.
    Column("lost", SmallInteger, nullable=False, server_default=text("0")),
    # If failed: whether it is no longer a dead letter.
    Column("discarded", Boolean, nullable=False, server_default=text("false")),
    # The webhooks for its end: its own, and the program's at the time of the claim.
    Column("callback", Json),
    Column("program_callback", Json),
    # The caller's metadata, and the extension attributes of the command's envelope; NULL: none.
    Column("metadata", Json),
    Column("extensions", Json),
    # When it was asked for, by the clock of who did: it waited from then on.
    Column("requested_at", UtcDateTime),
    # The number of its lane, see `dspex.contract.options.Lane`.
    Column("lane", SmallInteger, nullable=False, server_default=text("1")),
    # Tells its queue from others of the same program and lane, by its labels with a limit; '': it has none.
    Column("group_key", String(64), nullable=False, server_default=text("''")),
    # If pending: from when on it may be chosen. NULL: an external one, or a worker from before 0015 has left it.
    Column("run_at", UtcDateTime),
    # Lists by tenant.
    Index(None, "tenant", "inserted_at"),
    # Lists by program. It includes the columns for statistics of a window, so that PostgreSQL reads no rows.
    Index(
        "ix_executions_program",
        "tenant",
        "program_id",
        "inserted_at",
        postgresql_include=["status", "duration_ms", "input_tokens", "output_tokens", "cost"],
    ),
    # Lists of failed and cancelled executions, which are rare. The last three columns are compared in the index.
    _partial(
        "ix_executions_unsuccessful",
        *("tenant", "inserted_at", "status", "error_code", "program_id"),
        where="status IN ('failed', 'cancelled')",
    ),
    # Running executions: small, whatever the history. No index contains the lease, so a heartbeat is a HOT update.
    _partial("ix_executions_running", "worker", where="status = 'running'"),
    # Pending executions, by the time when they are due.
    _partial("ix_executions_pending", "due_at", where="status = 'pending'"),
    # The waiting executions of a queue, in the order in which they are chosen.
    _partial(
        "ix_executions_queue", *("tenant", "program_id", "lane", "group_key", "run_at"), where="status = 'pending'"
    ),
    postgresql_with={"fillfactor": "85"},
)

queues = Table(
    "queues",
    metadata,
    # The waiting executions of one program, lane and group; see `store.queues`.
    Column("tenant", String(64), primary_key=True),
    Column("program_id", Uuid, primary_key=True),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("group_key", String(64), primary_key=True, server_default=text("''")),
    # Why it is looked at: '' when something in it may run; the key of a gate when that gate holds it; NULL: not now.
    Column("holder", String(400)),
    # If there is no holder: when something in it may run. NULL: nothing waits.
    Column("wake_at", UtcDateTime),
    # The labels of its group; NULL: it has none.
    Column("labels", Json),
    Column("inserted_at", UtcDateTime, nullable=False),
    _partial("ix_queues_holder", *("holder", "lane", "tenant", "program_id", "group_key"), where="holder IS NOT NULL"),
    _partial("ix_queues_wake", "wake_at", where="holder IS NULL AND wake_at IS NOT NULL"),
    postgresql_with={"fillfactor": "70"},
)

queue_moves = Table(
    "queue_moves",
    metadata,
    # How many executions were made pending, and how many are not any more; see `store.queues.counts`.
    Column("id", Uuid, primary_key=True),
    Column("program_id", Uuid, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("came", Integer, nullable=False),
    Column("went", Integer, nullable=False),
    _tenant(),
)

queue_counts = Table(
    "queue_counts",
    metadata,
    # The sums of `queue_moves`, without those that are still there.
    Column("tenant", String(64), primary_key=True),
    Column("program_id", Uuid, primary_key=True),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("waiting", BigInteger, nullable=False),
    # From when on the first may run.
    Column("oldest_at", UtcDateTime),
    # How many came and went in a period of a minute, and in the one before.
    Column("period", BigInteger, nullable=False),
    Column("came", BigInteger, nullable=False),
    Column("went", BigInteger, nullable=False),
    Column("came_before", BigInteger, nullable=False, server_default=text("0")),
    Column("went_before", BigInteger, nullable=False, server_default=text("0")),
    # The first move after two periods without one.
    Column("moving_since", UtcDateTime, nullable=False),
    postgresql_with={"fillfactor": "50"},
)

early_cancels = Table(
    "early_cancels",
    metadata,
    # Who cancelled an execution before its command was accepted; for a moment only.
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    Column("by", String(400), nullable=False),
    Column("inserted_at", UtcDateTime, nullable=False),
)

gates = Table(
    "gates",
    metadata,
    # What is paused or limited; see `store.gates`. `key` is made of kind, tenant and name.
    Column("key", String(400), primary_key=True),
    # '*': it is the operators'.
    Column("tenant", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(330), nullable=False),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("paused_by", String(400)),
    Column("paused_reason", Text),
    Column("paused_at", UtcDateTime),
    # The limits. With the least in flight, the number adapts between the two, and `allowed` has it.
    Column("in_flight", Integer),
    Column("least_in_flight", Integer),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("limited_by", String(400)),
    Column("allowed", Float),
    Column("shrunk_at", UtcDateTime),
    # The buckets of what may be used within a minute, as they were at `filled_at`.
    Column("requests_left", Float),
    Column("tokens_left", Float),
    Column("filled_at", UtcDateTime),
    # How many tokens an execution uses, on average: the estimate that is reserved for the next one.
    Column("tokens_each", Float),
    # When slots of executions that do not run any more were looked for.
    Column("swept_at", UtcDateTime),
    # The provider takes no calls until then, and afterwards one, until it has succeeded. How often in a row it closed.
    Column("closed_until", UtcDateTime),
    Column("closures", Integer, nullable=False, server_default=text("0")),
    *_versioned(),
    Index(None, "updated_at"),
    postgresql_with={"fillfactor": "70"},
)

slots = Table(
    "slots",
    metadata,
    # What a running execution holds of a gate's limits; see `store.gates`.
    Column("gate_key", String(400), primary_key=True),
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    # That of the claim: a slot whose execution does not run with it is free.
    Column("lock_version", Integer, nullable=False),
    # The tokens that are reserved for it.
    Column("reserved", Float, nullable=False, server_default=text("0")),
    # It finds out whether the provider takes calls again.
    Column("probe", Boolean, nullable=False, server_default=text("false")),
    # How it ended, and what it used; NULL: it has not ended.
    Column("outcome", String(16)),
    Column("calls", Integer),
    Column("tokens", BigInteger),
    Column("inserted_at", UtcDateTime, nullable=False),
    Index("ix_slots_execution", "execution_id", "tenant"),
    postgresql_with={"fillfactor": "70"},
)

workers = Table(
    "workers",
    metadata,
    # The register of live worker processes; see `store.queues.register`.
    Column("name", String(128), primary_key=True),
    # Always '*': only sessions that see all tenants see it.
    Column("tenant", String(64), nullable=False, server_default=text("'*'")),
    Column("host", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    # The names of what it serves, by kind; a kind that is missing is not restricted.
    Column("serves", Json, nullable=False),
    # How many executions it runs at once at most, and now.
    Column("places", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("lease_expires_at", UtcDateTime, nullable=False),
    postgresql_with={"fillfactor": "50"},
)

execution_traces = Table(
    "execution_traces",
    metadata,
    # The steps of the last traced attempt; see `store.executions.traces`.
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    Column("attempt", Integer, nullable=False),
    Column("steps", Json, nullable=False),
    # Whether it was cut to fit.
    Column("shortened", Boolean, nullable=False),
    Column("inserted_at", UtcDateTime, nullable=False),
    # It goes with its execution.
    ForeignKeyConstraint(["execution_id", "tenant"], [executions.c.id, executions.c.tenant], ondelete="CASCADE"),
)

blob_references = Table(
    "blob_references",
    metadata,
    # The blobs that an execution refers to; see `store.executions.blobs`.
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    Column("digest", String(71), primary_key=True),
    # They go with their execution.
    ForeignKeyConstraint(["execution_id", "tenant"], [executions.c.id, executions.c.tenant], ondelete="CASCADE"),
    # To find whether a blob is in use.
    Index("ix_blob_references_digest", "digest", "tenant"),
)

blob_owners = Table(
    "blob_owners",
    metadata,
    # The marks of this database in blob stores; see `store.blob_owners`.
    Column("id", Uuid, primary_key=True),
    Column("inserted_at", UtcDateTime, nullable=False),
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
    # NULL as long as every counted execution was cancelled before it ran.
    Column("last_executed_at", UtcDateTime),
    Column("lock_version", Integer, nullable=False, server_default=text("1")),
    _tenant(in_key=True),
    Column("cancelled", BigInteger, nullable=False, server_default=text("0")),
    # For how many of the executions the tokens are known.
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
    # Ends whose event, or answer, is not confirmed. The row is inserted with the end of the execution, and deleted with
    # the confirm. There is no index besides the key, as there are few rows, which live for milliseconds.
    Column("execution_id", Uuid, primary_key=True),
    _tenant(in_key=True),
    # The lock_version of the ended row, as a replay leads to another end.
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
    # For an endpoint from a callback, derived from it, so that equal callbacks share one row.
    Column("id", Uuid, primary_key=True),
    Column("url", Text, nullable=False),
    # The name of the signing secret; during a rotation, also that of the previous one.
    Column("secret", String(100), nullable=False),
    Column("previous_secret", String(100)),
    Column("previous_until", UtcDateTime),
    Column("events", Json, nullable=False),
    Column("headers", Json, nullable=False),
    Column("thin", Boolean, nullable=False),
    # Whether it gets every end of the tenant's executions; if not, it is from a callback.
    Column("registered", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_reason", Text),
    Column("disabled_at", UtcDateTime),
    # The time of the first failure after the last success.
    Column("failing_since", UtcDateTime),
    # When operators must be notified (again) that it was disabled.
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
    # No foreign keys, as in `executions`: the log outlives executions and endpoints.
    Column("endpoint_id", Uuid, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    # The lock_version with which the execution ended. With the execution's id, it gives the id of the event.
    Column("event_version", Integer, nullable=False),
    Column("event", String(16), nullable=False),
    # The tenant and `host:port`, whose deliveries fail together.
    Column("place", String(400), nullable=False),
    # If pending: when it is sent, or sent again after a deliverer died.
    Column("due_at", UtcDateTime),
    # Attempts in all, and since the last replay.
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
    # Due deliveries; and due deliveries by place, so that a dead place with a million of them is skipped.
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
    # Derived from queue and body, so that a message that is delivered twice is one row.
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
"""Written like the predicate of the partial index."""

PROTECTED = (
    signatures,
    programs,
    executions,
    execution_traces,
    blob_references,
    program_counters,
    program_durations,
    rejected_messages,
    event_outbox,
    idempotency_keys,
    webhook_endpoints,
    webhook_deliveries,
    webhook_attempts,
    queues,
    early_cancels,
    queue_moves,
    queue_counts,
)
"""The tables with row-level security on PostgreSQL: all tables with tenants."""
