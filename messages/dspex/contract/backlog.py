"""The backlog in figures: how much waits and runs, since when, how fast it moves, and what holds it."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime, StrictBool, model_validator

from dspex.contract.options import Lane
from dspex.contract.queries import Query
from dspex.contract.selections import Cursor, Limit
from dspex.model import Frozen


class By(StrEnum):
    """What a row of figures is of."""

    LANE = "lane"
    TENANT = "tenant"
    PROGRAM = "program"


class Holder(Frozen):
    """A pause, or a limit without room, that keeps something from being chosen: `lm fast`, `lane bulk`, ..."""

    scope: str
    paused: bool


class Backlog(Frozen):
    """The figures of a lane, a tenant or a program (those that name it), or of everything.

    Attributes:
        waiting: executions that are pending: for a place, for their time, or held.
        running: executions that workers run.
        oldest_at: from when on the oldest that waits might have run, at most seconds old; in the future: nothing may
            run before.
        came_per_minute, went_per_minute: executions that began and ceased to wait, on average of the last minute or
            two. Those that run at once do neither.
        expected_seconds: how long one that comes now waits, if it goes on like this; null: nothing goes.
        held_by: what holds some of it, or all.
        unserved: what no live worker serves of it: `lane bulk`, `adapter native`, `environment rag`, `program ID`. That
            waits until a worker comes that does. Empty also while it is not known.
    """

    tenant: str | None = None
    program_id: UUID | None = None
    name: str | None = None
    lane: Lane | None = None
    waiting: int
    running: int
    oldest_at: AwareDatetime | None
    came_per_minute: float
    went_per_minute: float
    expected_seconds: float | None
    held_by: tuple[Holder, ...] = ()
    unserved: tuple[str, ...] = ()


class BacklogView(Frozen):
    """The backlog: all of it, and by what was asked for. Tenants and programs with most that waits come first."""

    by: By
    total: Backlog
    items: tuple[Backlog, ...]
    next_cursor: str | None = None


class GetBacklog(Query):
    """How much waits and runs, by lane, tenant or program. Counted without a scan: it costs the same for a million.

    `all_tenants`: of all of them, for who may operate the fleet; else of the sender's.
    """

    type = "dspex.queue.get.v1"
    answer = BacklogView

    by: By = By.LANE
    program_id: UUID | None = None
    lane: Lane | None = None
    all_tenants: StrictBool = False
    limit: Limit = 50
    cursor: Cursor | None = None

    @model_validator(mode="after")
    def _lanes_have_no_pages(self) -> GetBacklog:
        if self.by is By.LANE and self.cursor is not None:
            raise ValueError("cursor: there are three lanes, on one page")
        return self
