"""What a worker process asks gates, and tells them: whether a new execution may begin; what those that ended used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from dspex import ErrorCode
from dspex.contract.options import Lane
from store import gates
from store.database.identity import Identity
from store.executions import Claim, Finish, Request, Retry, Waiting
from store.executions.grouping import group_new
from store.gates import KnownGates, Subject, Used
from store.gates.rooms import FAILED, LIMITED, OK


def may_begin(known: KnownGates, request: Request) -> bool:
    """Whether no gate is known for a new execution, so that it need not be chosen."""
    lane = request.options.lane or Lane.DEFAULT
    return known.may_begin(Subject(request.tenant, request.program_id, lane.number), request.metadata)


def group(connection: Connection, known: KnownGates, requests: Sequence[Request], claims: Sequence[Claim]) -> None:
    """Put those of new executions into queues of their own that wait, and have labels with gates."""
    waiting = [
        (Identity(claim.id, request.tenant), request.metadata)
        for request, claim in zip(requests, claims, strict=True)
        if isinstance(claim, Waiting)
    ]
    group_new(connection, known, waiting)


def settle(connection: Connection, known: KnownGates, ends: Sequence[Finish | Retry]) -> None:
    """Give back what these attempts held of limits, and stop the calls to LMs whose providers ask for it.

    Where nothing is limited, this looks at the ends alone.
    """
    closed = dict[str, float | None]()
    for end in ends:
        for lm, seconds in end.limited.items():
            before = closed.get(lm)
            closed[lm] = before if seconds is None else max(seconds, before or 0.0)
    if closed:
        gates.close(connection, closed)
    if known.counted:
        known.freed |= gates.settle(connection, [_used(end) for end in ends])


def _used(end: Finish | Retry) -> Used:
    spent, error = end.spent, end.error
    if error is None:
        outcome = OK
    else:
        outcome = LIMITED if error.code == ErrorCode.RATE_LIMITED else FAILED
    calls, tokens = 0, None
    if spent is not None:
        calls = spent.calls
        if spent.input_tokens is not None and spent.output_tokens is not None:
            tokens = spent.input_tokens + spent.output_tokens
    return Used(end.identity, end.lock_version, outcome, calls, tokens)
