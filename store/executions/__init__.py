"""Executions: create, claim, finish, cancel, what keeps a claim alive, and lists. The hot path takes batches.

A claim takes the row for one worker: status running, attempt + 1, lock_version + 1, a lease in the database's time.
Every later write carries the lock_version that was claimed; where the row has moved on, it changes nothing.
"""

from store.executions.leases import Heartbeat, heartbeat, release, rescue
from store.executions.queries import by_program, count, ended, get, page, recent
from store.executions.rows import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Execution,
    Finish,
    Lease,
    NoProgram,
    Request,
    Running,
)
from store.executions.single import cancel, create, mark_completed, mark_failed, mark_running
from store.executions.statements import _OPEN as _OPEN
from store.executions.statements import _claim as _claim
from store.executions.statements import _finish as _finish
from store.executions.transitions import claim, finish

__all__ = [
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
    "Running",
    "by_program",
    "cancel",
    "claim",
    "count",
    "create",
    "ended",
    "finish",
    "get",
    "heartbeat",
    "mark_completed",
    "mark_failed",
    "mark_running",
    "page",
    "recent",
    "release",
    "rescue",
]
