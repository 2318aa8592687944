"""How many executions a gate lets begin now: its limits, less what the running ones hold, and its buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from store.gates.rows import LM

BURST_SECONDS: Final = 3.0
"""A bucket takes as much as flows in in this time, and one execution: so no minute has over a twentieth too much, and
nothing is lost between two looks."""
FIRST_TOKENS: Final = 1_000.0
"""The estimate for an execution as long as none has ended."""
WEIGHT: Final = 0.1
"""Of the last execution in the estimate for the next one."""
SHRINK: Final = 0.7
"""To which part the number in flight goes down, once for each time that the provider asks for less."""

OK: Final = "ok"
LIMITED: Final = "limited"
FAILED: Final = "failed"
EXHAUSTED: Final = "exhausted"
"""How an execution that held a slot ended: well; told by the provider to call less; with another error; well, but with
nothing left of the provider's limits.
"""


@dataclass(frozen=True)
class Settled:
    """A slot that is given back.

    Attributes:
        outcome: None: it was lost, or its execution given back; nobody knows what it used.
        age: for how many seconds it was held.
    """

    reserved: float = 0.0
    outcome: str | None = None
    calls: int | None = None
    tokens: int | None = None
    probe: bool = False
    age: float = 0.0


@dataclass(frozen=True)
class Levels:
    """A gate as a choice sees it, under its lock.

    Attributes:
        held: how many slots are held now, and of these by probes (`probes`).
        begins: its limits are new, and nothing begins until all that runs is counted; see `store.gates.beginning`.
        allowed: how many may be in flight, where that adapts.
        since_shrunk: seconds since `allowed` went down; None: it never did.
        closed_for: for how many seconds its provider takes no calls; below zero: since when it may; None: not closed.
    """

    kind: str
    paused: bool = False
    in_flight: int | None = None
    least_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    held: int = 0
    probes: int = 0
    allowed: float | None = None
    since_shrunk: float | None = None
    requests_left: float | None = None
    tokens_left: float | None = None
    tokens_each: float | None = None
    closed_for: float | None = None
    closures: int = 0
    begins: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether who passes it takes a slot."""
        limits = (self.in_flight, self.requests_per_minute, self.tokens_per_minute, self.closed_for)
        return any(limit is not None for limit in limits)

    @property
    def changes(self) -> bool:
        """Whether it has more to remember than its slots: what is left of a minute, or a number that adapts."""
        kept = (self.requests_left, self.tokens_left, self.allowed)
        return not self.begins and any(value is not None for value in kept)

    @property
    def estimate(self) -> float:
        """The tokens to reserve for an execution."""
        return max(1.0, FIRST_TOKENS if self.tokens_each is None else self.tokens_each)

    @property
    def most(self) -> float:
        """How many may be in flight now."""
        if self.in_flight is None:
            return math.inf
        if self.least_in_flight is None or self.allowed is None:
            return self.in_flight
        return max(self.least_in_flight, min(self.in_flight, math.floor(self.allowed)))

    def room(self, *, falls_back: bool = False) -> float:
        """How many more may begin now.

        Args:
            falls_back: they try another LM where the provider takes no calls, so they need not wait until it does.
        """
        closed = not falls_back and self.closed_for is not None
        if self.paused or self.begins or (closed and (self.closed_for or 0) > 0):
            return 0
        room = self.most - self.held
        if closed:
            room = min(room, 1 - self.probes)
        if self.requests_left is not None:
            room = min(room, math.floor(self.requests_left))
        if self.tokens_left is not None:
            room = min(room, math.floor(self.tokens_left / self.estimate))
        return max(0, room)

    def filled(self, seconds: float | None) -> Levels:
        """After what has flown into its buckets in the time since they were written; None: they are new, and full."""
        return replace(
            self,
            requests_left=_filled(self.requests_left, self.requests_per_minute, seconds, 1.0),
            tokens_left=_filled(self.tokens_left, self.tokens_per_minute, seconds, self.estimate),
        )

    def settled(self, slot: Settled) -> Levels:
        """After a slot was given back, which `held` does not count any more."""
        after, used = self, slot.reserved if slot.tokens is None else float(slot.tokens)
        if after.tokens_left is not None:
            after = replace(after, tokens_left=after.tokens_left + slot.reserved - used)
        if slot.tokens is not None:
            each = used if after.tokens_each is None else after.tokens_each + WEIGHT * (used - after.tokens_each)
            after = replace(after, tokens_each=each)
        if after.requests_left is not None and self.kind == LM and slot.calls is not None:
            after = replace(after, requests_left=after.requests_left - max(0, slot.calls - 1))
        if slot.probe and (slot.outcome == OK or (slot.outcome == FAILED and slot.calls)):
            after = replace(after, closed_for=None, closures=0)
        if self.in_flight is None or self.least_in_flight is None:
            return after
        now = float(self.in_flight) if self.allowed is None else self.allowed
        if slot.outcome == OK:
            return replace(after, allowed=min(float(self.in_flight), now + 1 / max(1.0, now)))
        # What began before it went down last says nothing about the number of now.
        if slot.outcome == LIMITED and (self.since_shrunk is None or slot.age < self.since_shrunk):
            return replace(after, allowed=max(float(self.least_in_flight), now * SHRINK), since_shrunk=0.0)
        return after

    def taken(self, number: int, *, probe: bool = False) -> Levels:
        """After so many have begun; `probe`: to find out whether the provider takes calls again."""
        after = replace(self, held=self.held + number, probes=self.probes + (number if probe else 0))
        if after.requests_left is not None:
            after = replace(after, requests_left=after.requests_left - number)
        if after.tokens_left is not None:
            after = replace(after, tokens_left=after.tokens_left - number * self.estimate)
        return after


def _filled(left: float | None, per_minute: int | None, seconds: float | None, one: float) -> float | None:
    if per_minute is None:
        return None
    a_second = per_minute / 60
    full = one + BURST_SECONDS * a_second
    return full if left is None or seconds is None else min(full, left + max(0.0, seconds) * a_second)


def levels_of(row: Any) -> Levels:
    """Read a gate's row with `held`, `probes`, and its times as seconds; see `store.gates.choice`."""
    since = None if row.shrunk_for is None else -row.shrunk_for
    read = Levels(
        row.kind,
        row.paused,
        row.in_flight,
        row.least_in_flight,
        row.requests_per_minute,
        row.tokens_per_minute,
        row.held,
        row.probes,
        row.allowed,
        since,
        row.requests_left,
        row.tokens_left,
        row.tokens_each,
        row.closed_for,
        row.closures,
    )
    return read.filled(None if row.filled_for is None else -row.filled_for)
