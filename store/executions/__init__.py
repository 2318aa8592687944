"""Executions: create, claim, finish, cancel, replay, leases, and lists. The hot path works on batches.

A claim takes the row for one worker: status running, attempt + 1, lock_version + 1, and a lease by the database's
clock. Every later write contains the claimed lock_version; if the row has another, the write changes nothing.
"""

from store.executions.adoption import adopt
from store.executions.alone import claim_alone
from store.executions.cancels import MAX_CANCELS, cancel, cancel_many
from store.executions.claims import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Lease,
    NoProgram,
    Running,
    ToRunAlone,
    Waiting,
)
from store.executions.leases import Heartbeat, anything_due, heartbeat, left, release, rescue
from store.executions.queries import (
    Result,
    count,
    dead,
    ended,
    get,
    of_all_tenants,
    page,
    results,
    unended,
)
from store.executions.replays import MAX_REPLAYS, discard, replay
from store.executions.rows import (
    Carried,
    Execution,
    Finish,
    Request,
    Retry,
    Trace,
)
from store.executions.transitions import claim, finish, finish_and_read, retry

__all__ = [
    "MAX_CANCELS",
    "MAX_REPLAYS",
    "Carried",
    "Claim",
    "Claimed",
    "Conflicting",
    "Ended",
    "Execution",
    "Finish",
    "Heartbeat",
    "Lease",
    "NoProgram",
    "Request",
    "Result",
    "Retry",
    "Running",
    "ToRunAlone",
    "Trace",
    "Waiting",
    "adopt",
    "anything_due",
    "cancel",
    "cancel_many",
    "claim",
    "claim_alone",
    "count",
    "dead",
    "discard",
    "ended",
    "finish",
    "finish_and_read",
    "get",
    "heartbeat",
    "left",
    "of_all_tenants",
    "page",
    "release",
    "replay",
    "rescue",
    "results",
    "retry",
    "unended",
]
