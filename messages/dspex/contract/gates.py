"""The commands that steer what waits: pauses and limits. What has one, or both, is a gate.

A pause keeps pending executions from being chosen; what runs goes on to its end. A limit lets a few of them run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, Field, StrictBool, StrictInt, ValidationInfo, field_validator, model_validator

from dspex.contract.commands import Command
from dspex.contract.options import Lane
from dspex.contract.queries import Query
from dspex.contract.results import Page
from dspex.contract.selections import Cursor, Limit
from dspex.model import Frozen, Sparse
from dspex.scalars import WHOLE

Reason = Annotated[str, Field(min_length=1, max_length=500)]


class GateKind(StrEnum):
    """Of what a gate is."""

    EVERYTHING = "everything"
    LANE = "lane"
    TENANT = "tenant"
    PROGRAM = "program"
    LM = "lm"
    WORKER = "worker"
    LABEL = "label"


LIMITED = frozenset({GateKind.TENANT, GateKind.PROGRAM, GateKind.LM, GateKind.LABEL})
"""What may have a limit."""


class Scope(Frozen):
    """What a pause or a limit is for: all executions of a lane, a tenant, a program, an LM, a worker, or a label.

    `name` is that of a lane or a worker, the id of a program, an LM as programs name it (an alias, or
    `provider/model`), or a label of `metadata`: `NAME=VALUE`. Without a name, a tenant is the sender's. Everything has
    none.
    """

    kind: GateKind
    name: Annotated[str, Field(min_length=1, max_length=330)] | None = Field(default=None, validate_default=True)

    @field_validator("name")
    @classmethod
    def _of_its_kind(cls, name: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if kind is GateKind.EVERYTHING and name is not None:
            raise ValueError("everything has no name")
        if name is None:
            if kind not in (None, GateKind.EVERYTHING, GateKind.TENANT):
                raise ValueError(f"give the name of the {kind}")
            return None
        if kind is GateKind.LANE and name not in tuple(Lane):
            raise ValueError(f"must be a lane: {', '.join(Lane)}")
        if kind is GateKind.PROGRAM:
            return _id(name)
        if kind is GateKind.LABEL:
            label, given, value = name.partition("=")
            if not (given and 1 <= len(label) <= 64 and len(value) <= 256):
                raise ValueError("must be a label of metadata: NAME=VALUE")
        return name

    def __str__(self) -> str:
        return str(self.kind) if self.name is None else f"{self.kind} {self.name}"


def _id(name: str) -> str:
    try:
        return str(UUID(name))
    except ValueError:
        raise ValueError("must be the id of a program") from None


class Limits(Sparse):
    """How much of it may be at once, or within a minute; what is null has no limit.

    Tokens are reserved by an estimate when an execution is chosen, and settled when it has ended.
    """

    in_flight: Annotated[StrictInt, Field(ge=1, le=1_000_000), WHOLE] | None = None
    """Executions that run at once."""
    least_in_flight: Annotated[StrictInt, Field(ge=1, le=1_000_000), WHOLE] | None = None
    """With it, `in_flight` adapts between the two: up while calls go well, down when the provider refuses them."""
    requests_per_minute: Annotated[StrictInt, Field(ge=1, le=100_000_000), WHOLE] | None = None
    """Executions that begin; of an LM: its calls."""
    tokens_per_minute: Annotated[StrictInt, Field(ge=1, le=1_000_000_000_000), WHOLE] | None = None
    """Tokens of their LM calls, in and out."""

    @model_validator(mode="after")
    def _names_some(self) -> Limits:
        if self.in_flight is None and self.requests_per_minute is None and self.tokens_per_minute is None:
            raise ValueError("give in_flight, requests_per_minute or tokens_per_minute")
        if self.least_in_flight is not None and not self.least_in_flight <= (self.in_flight or 0):
            raise ValueError("least_in_flight: give in_flight, too, and not less")
        return self


class Paused(Frozen):
    """By whom, when and why it was paused."""

    by: str
    at: AwareDatetime
    reason: str | None = None


class GateView(Frozen):
    """A gate; or what was one, with neither a pause nor limits.

    `shared`: it is of the operators of all tenants; else of the tenant alone. `in_flight`: how many of its executions
    run, and `allowed`: how many may, now; null: it has no such limit. `closed_until`: its LM's provider takes no calls
    until then.
    """

    scope: Scope
    shared: bool
    paused: Paused | None = None
    limits: Limits | None = None
    in_flight: int | None = None
    allowed: int | None = None
    closed_until: AwareDatetime | None = None


class Steering(Command):
    """Base of the commands that change a gate. Doing it again has no further effect."""

    answer = GateView

    scope: Scope


class Pause(Steering):
    """Choose no more executions of a scope until it is resumed, within a second everywhere. What runs goes on.

    Of one that is paused, only the reason changes. A producer may pause programs only.
    """

    type = "dspex.queue.pause.v1"

    reason: Reason | None = None


class Resume(Steering):
    """Go on with what was paused. A producer may resume only what it has paused itself."""

    type = "dspex.queue.resume.v1"


class SetLimit(Steering):
    """Replace the limits of a tenant, a program, an LM or a label."""

    type = "dspex.queue.set_limit.v1"

    limits: Limits

    @model_validator(mode="after")
    def _may_be_limited(self) -> SetLimit:
        if self.scope.kind not in LIMITED:
            raise ValueError(f"scope.kind: limits are of {', '.join(sorted(LIMITED))}")
        return self


class RemoveLimit(Steering):
    """Take the limits of a scope away."""

    type = "dspex.queue.remove_limit.v1"


class ListGates(Query):
    """What is paused or limited, by kind and name; with `paused: true`, what is paused."""

    type = "dspex.queue.gates.v1"
    answer = Page[GateView]

    kind: GateKind | None = None
    paused: StrictBool | None = None
    limit: Limit = 50
    cursor: Cursor | None = None
