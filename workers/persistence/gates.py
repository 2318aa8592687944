"""What a worker process asks gates, and tells them: whether a new execution may begin; what those that ended used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from dspex import ErrorCode
from store import executions, gates
from store.database.identity import Identity
from store.database.tenancy import ALL
from store.executions import Claim, Claimed, Finish, Lease, Request, Retry, Waiting
from store.executions.grouping import group_new
from store.executions.rows import lane_of
from store.gates import GateKey, KnownGates, Subject, Used
from store.gates.labels import gated, group_of
from store.gates.rooms import EXHAUSTED, FAILED, LIMITED, OK
from store.gates.rows import LM


def may_begin(known: KnownGates, request: Request, *, backend_id: str | None = None) -> bool:
    """Whether no gate is known for a new execution, so that it need not be chosen.

    Args:
        backend_id: that of its claim, if it is claimed.
    """
    subject = Subject(request.tenant, request.program_id, lane_of(request.options).number)
    return known.may_begin(subject, request.metadata, backend_id=backend_id)


def give_way(
    connection: Connection, known: KnownGates, lease: Lease, requests: Sequence[Request], claims: Sequence[Claim]
) -> list[Claim]:
    """Give back, in the transaction of their claims, what has gates that this process did not know of.

    Returns:
        The claims; those that were given back are `Waiting`.
    """
    known.refresh(connection, anyway=True)
    late = {
        Identity(claim.id, request.tenant)
        for request, claim in zip(requests, claims, strict=True)
        if isinstance(claim, Claimed) and not may_begin(known, request, backend_id=claim.backend_id)
    }
    if not late:
        return list(claims)
    executions.release(connection, lease, late)
    return [
        Waiting(claim.id, new=True)
        if isinstance(claim, Claimed) and Identity(claim.id, request.tenant) in late
        else claim
        for request, claim in zip(requests, claims, strict=True)
    ]


def claim_passing(connection: Connection, known: KnownGates, lease: Lease, requests: Sequence[Request]) -> list[Claim]:
    """Claim executions that wait, without a choice, if their gates have room for them; else they are `Waiting`."""
    passing = gates.Choice(connection, known)
    subjects = [_waiting(known, request) for request in requests]
    may = [0] * len(subjects) if known.stopped else passing.admit([(subject, 1) for subject in subjects])
    let = [index for index, number in enumerate(may) if number]
    claimed = executions.claim_alone(connection, lease, [requests[index] for index in let])
    if any(isinstance(claim, Claimed) and not known.covers(claim) for claim in claimed):
        claimed = give_way(connection, known, lease, [requests[index] for index in let], claimed)
    claims: list[Claim] = [Waiting(request.id) for request in requests]
    for index, claim in zip(let, claimed, strict=True):
        claims[index] = claim
    passing.taken(
        (subject, Identity(claim.id, subject.tenant), claim.lock_version)
        for subject, claim in zip(subjects, claims, strict=True)
        if isinstance(claim, Claimed)
    )
    return claims


def _waiting(known: KnownGates, request: Request) -> Subject:
    """An execution as it waits: with the group of its labels that have gates."""
    labels = gated(known.labels, request.tenant, request.metadata)
    group_key = group_of(labels)
    if labels:
        known.groups.setdefault(group_key, labels)
    return Subject(request.tenant, request.program_id, lane_of(request.options).number, group_key)


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
    closed = dict[GateKey, float | None]()
    for end in ends:
        for lm, seconds in end.limited.items():
            key = _closed_by(lm, end.tenant)
            before = closed.get(key)
            closed[key] = before if seconds is None else max(seconds, before or 0.0)
    if closed:
        gates.close(connection, closed)
    if known.counted:
        known.freed |= gates.settle(connection, [_used(end) for end in ends])


def _closed_by(lm: str, tenant: str) -> GateKey:
    """The gate that a provider's word closes. An alias has one key for all; `provider/model` may have the tenant's own,
    whose quota is nothing to others.
    """
    return GateKey(LM, lm, tenant if "/" in lm else ALL)


def _used(end: Finish | Retry) -> Used:
    spent, error = end.spent, end.error
    if error is None:
        # A wait that was named with a good answer: its provider has nothing left, so it does not find out that it has.
        outcome = OK if all(seconds is None for seconds in end.limited.values()) else EXHAUSTED
    else:
        outcome = LIMITED if error.code == ErrorCode.RATE_LIMITED else FAILED
    calls, tokens = 0, None
    if spent is not None:
        calls = spent.calls
        if spent.input_tokens is not None and spent.output_tokens is not None:
            tokens = spent.input_tokens + spent.output_tokens
    return Used(end.identity, end.lock_version, outcome, calls, tokens)
