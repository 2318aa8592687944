"""What ends say to gates: what was used of the limits, and that a provider takes no calls for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Float, bindparam, select, update

from store.column_types import database_now, seconds_until
from store.database.batch import encode, execute, records
from store.database.identity import Identity
from store.gates.rows import GateKey
from store.gates.steering import change, made
from store.tables import gates, slots

_C = gates.c
_CLOSED_FOR = seconds_until(_C.closed_until).label("closed_for")

LONGEST_SECONDS: Final = 3600.0
"""For how long one word of a provider stops calls."""
FIRST_SECONDS: Final = 1.0
MOST_DOUBLINGS: Final = 2
"""Where the provider does not say for how long: a second, and twice as long each time that it is so still, up to
four. So it is found out within ten seconds when it takes calls again, by less than one call a second."""


class Used(NamedTuple):
    """What an attempt used of the limits.

    Attributes:
        lock_version: that of its claim.
        outcome: see `store.gates.rooms`.
        tokens: None: not known.
    """

    identity: Identity
    lock_version: int
    outcome: str
    calls: int = 0
    tokens: int | None = None


def settle(connection: Connection, used: Sequence[Used]) -> set[str]:
    """Give the slots of attempts back that have ended. What they hold of the limits is free with the next choice.

    Returns:
        The keys of the gates.
    """
    rows = encode(
        {
            "execution_id": one.identity.id,
            "tenant": one.identity.tenant,
            "lock_version": one.lock_version,
            "outcome": one.outcome,
            "calls": one.calls,
            "tokens": one.tokens,
        }
        for one in used
    )
    return {row.gate_key for row in execute(connection, _settle(connection.dialect.name), rows)}


@lru_cache(maxsize=2)
def _settle(dialect: str) -> Any:
    c = slots.c
    names = ("execution_id", "tenant", "lock_version", "outcome", "calls", "tokens")
    r = records(dialect, {name: c[name].type for name in names})
    return (
        update(slots)
        .where(
            c.execution_id == r.c.execution_id,
            c.tenant == r.c.tenant,
            c.lock_version == r.c.lock_version,
            c.outcome.is_(None),
        )
        .values(outcome=r.c.outcome, calls=r.c.calls, tokens=r.c.tokens)
        .returning(c.gate_key)
    )


def close(connection: Connection, lms: Mapping[GateKey, float | None]) -> None:
    """Stop the calls to LMs as their providers ask for.

    When the time is over, one execution finds out whether they are taken again (`store.gates.rooms.Levels`). Call it
    before `settle`, since a choice locks a gate before its slots, too.

    Args:
        lms: for how many seconds, by their gates; None: the provider does not say.
    """
    for key in sorted(lms):
        made(connection, key)
        row = connection.execute(select(_CLOSED_FOR, _C.closures).where(_C.key == key.text)).one()
        left: float | None = row.closed_for
        goes_on = left is not None and left > 0
        times = row.closures if goes_on or left is None else row.closures + 1
        said = lms[key]
        wait = FIRST_SECONDS * 2 ** min(times, MOST_DOUBLINGS) if said is None else min(said, LONGEST_SECONDS)
        if not goes_on or (said is not None and left is not None and wait > left):
            until = database_now(bindparam("wait", max(wait, FIRST_SECONDS), Float))
            change(connection, key, closed_until=until, closures=times)
