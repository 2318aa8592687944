"""The statements of operators: cancel, replay, discard, and those that find and count what they look at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from deploy.sql_calls import ID, ROW, Call, Statement
from dspex import ExecutionStatus
from store import executions, rejections, webhooks
from store.rejections import RecordedRejection
from store.tables import executions as table

KEY, PROGRAM, COUNTERS, DURATIONS = "pk_executions", "pk_programs", "pk_program_counters", "pk_program_durations"
BY_TENANT, BY_PROGRAM, UNSUCCESSFUL = (
    "ix_executions_tenant_inserted_at",
    "ix_executions_program",
    "ix_executions_unsuccessful",
)
DELIVERY, REJECTION = "pk_webhook_deliveries", "pk_rejected_messages"

_NONE: dict[str, Any] = dict.fromkeys(table.c.keys())
CANCELLED = SimpleNamespace(
    **_NONE
    | {"id": ID.id, "tenant": ID.tenant, "program_id": ID.id, "status": ExecutionStatus.CANCELLED, "lock_version": 2}
    | {"inputs": {}, "options": {}, "attempt": 0, "timeline": ()}
)
FAILED = SimpleNamespace(**vars(CANCELLED) | {"status": ExecutionStatus.FAILED, "duration_ms": 1.0})
COUNTED = (SimpleNamespace(program_id=ID.id, tenant=ID.tenant),)
MESSAGE = cast("RecordedRejection", SimpleNamespace(id=ID.id, deliveries=1))

OPERATORS = (
    Call(
        executions.cancel,
        (ID.id,),
        (
            Statement("cancel", "for one that has not ended", (KEY,), (CANCELLED,)),
            Statement("count", "as after `finish`, where it was pending", (COUNTERS,), COUNTED),
            Statement("add events", "as above", ()),
            Statement("find endpoints of a tenant", "after that", ("ix_webhook_endpoints_registered",)),
        ),
        {"by": "ann"},
    ),
    Call(
        executions.cancel_many,
        ([ID.id],),
        (
            Statement(
                "lock those to cancel", "200 at a time, of all that a filter finds", (KEY,), ((ID.id, ID.tenant),)
            ),
            Statement("cancel many", "for those", (KEY,)),
            Statement("still locked", "after that: these are cancelled one by one", (KEY,)),
        ),
        {"by": "ann"},
    ),
    Call(
        executions.dead,
        (),
        (
            Statement(
                "find dead executions", "to replay or discard all that a filter finds: 500 at a time", (UNSUCCESSFUL,)
            ),
        ),
        {"error_code": "timeout"},
    ),
    Call(
        executions.replay,
        ([ID.id],),
        (
            Statement("lock failed", "before a replay: 500 at a time", (KEY,), (FAILED,)),
            Statement("lock programs", "after that: what has none any more is left", (PROGRAM,), (ROW,)),
            Statement("replay", "for those that are there", (KEY,)),
            Statement("count", "as after `finish`, below zero", (COUNTERS,), COUNTED),
            Statement("count durations", "as above", (DURATIONS,), only="sqlite"),
            Statement("forget events", "after that: their end is taken back; the table is small", ()),
        ),
        {"by": "ann"},
    ),
    Call(
        executions.discard,
        ([ID.id],),
        (Statement("discard", "500 at a time", (KEY,)),),
        {"by": "ann"},
    ),
    Call(
        executions.count,
        (),
        (Statement("count executions", "when asked: it reads 100,000 rows of the index at most", (BY_TENANT,)),),
    ),
    Call(
        executions.count,
        (ID.id,),
        (
            Statement(
                "count executions of a program", "the same: the index has the status, so no row is read", (BY_PROGRAM,)
            ),
        ),
    ),
    Call(
        rejections.dead,
        (),
        (Statement("find dead messages", "as for dead executions", ("ix_rejected_messages_tenant_inserted_at",)),),
    ),
    Call(
        rejections.replayed,
        ([MESSAGE],),
        (Statement("messages replayed", "when the broker has confirmed them", (REJECTION,)),),
    ),
    Call(
        rejections.discard,
        ([ID.id],),
        (Statement("discard messages", "500 at a time", (REJECTION,)),),
    ),
    Call(
        webhooks.replayable,
        (None,),
        (
            Statement(
                "find failed deliveries",
                "to replay all that a filter finds: 500 at a time",
                ("ix_webhook_deliveries_failed",),
            ),
        ),
    ),
    Call(
        webhooks.replay,
        ([ID.id],),
        (Statement("replay deliveries", "500 at a time", (DELIVERY, "pk_webhook_endpoints")),),
    ),
)
