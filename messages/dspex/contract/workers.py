"""The query for the live worker processes."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from dspex.contract.options import Lane
from dspex.contract.queries import Query
from dspex.contract.results import Page
from dspex.contract.selections import Cursor, Limit
from dspex.model import Frozen


class Serves(Frozen):
    """What a worker process runs, of each kind; null: all. The environment `-` is of programs that name none."""

    lanes: tuple[Lane, ...] | None = None
    programs: tuple[UUID, ...] | None = None
    adapters: tuple[str, ...] | None = None
    environments: tuple[str, ...] | None = None


class WorkerView(Frozen):
    """A live worker process.

    Attributes:
        name: as its log and `started` entries of timelines have it.
        state: `working`; `draining`: it ends, and takes no more; `own`: it runs what was submitted to it, no more.
        places, taken: how many executions it runs at once at most, and how many when it was seen last.
        seen_at: when it wrote this, by the database's clock. It is taken for dead a lease later.
        paused: it takes no more until it is resumed, by its name.
    """

    name: str
    host: str
    pid: int
    version: str
    state: Literal["working", "draining", "own"]
    serves: Serves
    places: int
    taken: int
    started_at: AwareDatetime
    seen_at: AwareDatetime
    paused: bool = False


class ListWorkers(Query):
    """The live worker processes, by name: for whoever operates all tenants."""

    type = "dspex.worker.list.v1"
    answer = Page[WorkerView]

    limit: Limit = 50
    cursor: Cursor | None = None
