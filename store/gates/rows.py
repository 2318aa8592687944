"""Gates, their keys and limits, as read from their rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final, NamedTuple

from dspex.errors import InvalidValues, Problem
from dspex.text import storable
from store.database.tenancy import ALL

EVERYTHING: Final = "everything"
LANE: Final = "lane"
TENANT: Final = "tenant"
PROGRAM: Final = "program"
LM: Final = "lm"
WORKER: Final = "worker"
LABEL: Final = "label"
KINDS: Final = (EVERYTHING, LANE, TENANT, PROGRAM, LM, WORKER, LABEL)

MAX_NAME: Final = 330
MAX_KEY: Final = 400
"""The lengths of the columns."""
MAX_REASON: Final = 500


class GateKey(NamedTuple):
    """Of what a gate is. A label's name is `name=value`, a program's its id; everything has none.

    `tenant`: whose it is; `ALL` for the operators', which is for the executions of every tenant.
    """

    kind: str
    name: str = ""
    tenant: str = ALL

    @property
    def text(self) -> str:
        """The key of its row. No kind and no tenant contains a colon."""
        return f"{self.kind}:{self.tenant}:{self.name}"


@dataclass(frozen=True)
class Limits:
    """How much may run at once, or begin within a minute. None: no limit.

    Attributes:
        in_flight: how many executions may run at once.
        requests_per_minute: executions that begin; of an LM: its calls.
        tokens_per_minute: of both directions. They are reserved by an estimate, and settled by what was used.
        least_in_flight: with it, the number in flight adapts by itself, between the two: up while all goes well, down
            once for each time that the provider asks for less.
    """

    in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    least_in_flight: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())


LIMITS: Final = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True)
class Gate:
    """A gate as it is now.

    Attributes:
        running: how many executions hold a slot of it. Only those that began under it do.
        allowed: how many may run at once now, where that adapts.
        closed_until: until then its provider takes no calls; when it has passed, one finds out.
    """

    key: GateKey
    paused: bool = False
    paused_by: str | None = None
    paused_reason: str | None = None
    paused_at: datetime | None = None
    limits: Limits = Limits()
    limited_by: str | None = None
    running: int = 0
    allowed: int | None = None
    closed_until: datetime | None = None

    @property
    def has_effect(self) -> bool:
        """Whether it may hold anything."""
        return self.paused or bool(self.limits) or self.closed_until is not None


def gate_of(row: Any, running: int = 0) -> Gate:
    """Read a gate from its row."""
    adapts = row.least_in_flight is not None and row.in_flight is not None
    allowed = row.in_flight if row.allowed is None else int(row.allowed)
    return Gate(
        GateKey(row.kind, row.name, row.tenant),
        row.paused,
        row.paused_by,
        row.paused_reason,
        row.paused_at,
        Limits(*(getattr(row, name) for name in LIMITS)),
        row.limited_by,
        running,
        allowed if adapts else None,
        row.closed_until,
    )


def checked_key(key: GateKey) -> GateKey:
    """Check a key.

    Raises:
        InvalidValues: the kind is none, or the name is missing, too long, or not storable.
    """
    if key.kind not in KINDS:
        raise InvalidValues([Problem("kind", f"must be one of {', '.join(KINDS)}")])
    if (key.name == "") != (key.kind == EVERYTHING):
        text = "everything has none" if key.name else f"give the name of the {key.kind}"
        raise InvalidValues([Problem("name", text)])
    if len(key.name) > MAX_NAME or storable(key.name) != key.name:
        raise InvalidValues([Problem("name", f"must be text of at most {MAX_NAME} characters")])
    if len(key.text) > MAX_KEY:
        raise InvalidValues([Problem("name", f"is {len(key.text) - MAX_KEY} characters too long")])
    return key


def checked_limits(limits: Limits) -> Limits:
    """Check limits.

    Raises:
        InvalidValues: none is given, one is below 1, or the bounds of an adapting one are in the wrong order.
    """
    if not limits:
        raise InvalidValues([Problem("limits", f"give one of {', '.join(LIMITS)}")])
    for name, value in asdict(limits).items():
        if value is not None and value < 1:
            raise InvalidValues([Problem(f"limits.{name}", "must be at least 1: pause it to let nothing run")])
    least = limits.least_in_flight
    if least is not None and (limits.in_flight is None or limits.in_flight < least):
        raise InvalidValues([Problem("limits.least_in_flight", "needs an in_flight that is not below it")])
    return limits
