"""The register of worker processes. Each writes its own row, as it extends its leases, and takes it away at its end.

A row holds as long as a lease; then its process is taken for dead. Processes of versions before migration 0018 write
none: see `read`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json
from sqlalchemy import Connection, Float, bindparam, delete, distinct, exists, func, literal, select

from dspex.contract.options import Lane
from store.column_types import Json, database_now
from store.database.batch import upsert
from store.gates.rows import WORKER, GateKey
from store.queues.services import Service, read_service
from store.statuses import IS_EXTERNAL, RUNNING
from store.tables import NOW, executions, gates, workers

MOST_SWEPT: Final = 100


_LIVES: Final = workers.c.lease_expires_at >= NOW
_PAUSED: Final = exists(
    select(gates.c.key).where(gates.c.key == literal(GateKey(WORKER).text).concat(workers.c.name), gates.c.paused)
)


class State(StrEnum):
    """What a process does with what waits."""

    WORKING = "working"
    DRAINING = "draining"
    OWN = "own"
    """It runs what was submitted to it, and leaves the rest alone."""


@dataclass(frozen=True)
class Worker:
    """A worker process as it describes itself.

    Attributes:
        serves: the names of what it serves, by kind; a kind that is missing is not restricted.
        places: how many executions it runs at once at most, and `taken`: now.
        started_at, seen_at: by the database's clock; None: not written yet.
        paused: by its name, with `dspex pause --worker`.
    """

    name: str
    host: str
    pid: int
    version: str
    state: State
    serves: Mapping[str, Sequence[str]]
    places: int
    taken: int = 0
    started_at: datetime | None = None
    seen_at: datetime | None = None
    paused: bool = False


@dataclass(frozen=True)
class Fleet:
    """What live processes serve.

    Attributes:
        services: of those that choose from what waits, each once.
        complete: whether no other process is known to live, of a version that does not register.
    """

    services: frozenset[Service]
    complete: bool


def renew(connection: Connection, worker: Worker, *, lease_seconds: float, age: float) -> None:
    """Write the row of this process, which began `age` seconds ago: it lives for another lease."""
    given = {name: getattr(worker, name) for name in ("name", "host", "pid", "version", "state", "places", "taken")}
    given["serves"] = {kind: list(names) for kind, names in worker.serves.items()}
    connection.execute(_renew(upsert(connection)), given | {"lease_seconds": lease_seconds, "age": -age})


@lru_cache(maxsize=2)
def _renew(insert: Any) -> Any:
    began, until = (database_now(bindparam(name, type_=Float)) for name in ("age", "lease_seconds"))
    new = insert(workers).values(started_at=began, seen_at=NOW, lease_expires_at=until)
    changing = ("state", "serves", "places", "taken", "seen_at", "lease_expires_at")
    given = ("name", "host", "pid", "version", "state", "serves", "places", "taken")
    new = new.values({name: bindparam(name, type_=workers.c[name].type) for name in given})
    return new.on_conflict_do_update(
        index_elements=[workers.c.name], set_={name: new.excluded[name] for name in changing}
    )


def leave(connection: Connection, name: str) -> None:
    """Take the row of this process away."""
    connection.execute(delete(workers).where(workers.c.name == name))


def sweep(connection: Connection) -> int:
    """Delete rows of processes that are taken for dead. Any number of callers may do this at once."""
    c = workers.c
    dead = select(c.name).where(c.lease_expires_at < NOW).limit(MOST_SWEPT).with_for_update(skip_locked=True)
    return connection.execute(delete(workers).where(c.name.in_(dead))).rowcount


def anything_dead(connection: Connection) -> bool:
    """Whether there is something to sweep. Locks nothing."""
    dead = exists(select(workers.c.name).where(workers.c.lease_expires_at < NOW))
    return bool(connection.execute(select(dead)).scalar_one())


def page(connection: Connection, after: str | None, limit: int) -> list[Worker]:
    """Live processes by name, up to `limit` behind one."""
    c = workers.c
    live = select(*c, _PAUSED.label("paused")).where(_LIVES, c.name > (after or ""))
    found = connection.execute(live.order_by(c.name).limit(limit))
    names = ("name", "host", "pid", "version", "serves", "places", "taken", "started_at", "seen_at", "paused")
    return [Worker(state=State(row.state), **{name: getattr(row, name) for name in names}) for row in found]


def count_by_lane(connection: Connection) -> dict[Lane, int]:
    """How many live processes choose from each lane; those that are paused do not."""
    c = workers.c
    rows = connection.execute(
        select(c.serves, func.count().label("number"))
        .where(_LIVES, c.state == State.WORKING, ~_PAUSED)
        .group_by(c.serves)
    ).all()
    listed = [(read_service(row.serves).lanes, row.number) for row in rows]
    return {lane: sum(number for lanes, number in listed if not lanes or lane.number in lanes) for lane in Lane}


def read(connection: Connection) -> Fleet:
    """What is served. One that runs its own executions only is taken to serve everything, as some of them may be its.

    A process of a version that does not register is known by what it runs: an execution with a lease, in the name of a
    worker that is not in the register. One that runs nothing has free places, so nothing waits that it serves.
    """
    both = select(served(connection.dialect.name).label("served"), unregistered().label("others"))
    row = connection.execute(both).one()
    return Fleet(services_of(row.served), complete=not row.others)


def served(dialect: str) -> Any:
    """What live processes that are not paused serve, as a scalar subquery; `services_of` reads it."""
    c = workers.c
    listing = func.jsonb_agg if dialect == "postgresql" else func.json_group_array
    listed = listing(distinct(c.serves), type_=Json)
    return select(listed).where(_LIVES, c.state != State.DRAINING, ~_PAUSED).scalar_subquery()


def services_of(found: Sequence[Any] | None) -> frozenset[Service]:
    """Read what `served` has found. SQLite quotes JSON in JSON."""
    return frozenset(read_service(from_json(one) if isinstance(one, str) else one) for one in found or ())


def unregistered() -> Any:
    """The condition that something runs in a live process that is not in the register."""
    c = executions.c
    known = exists(select(workers.c.name).where(workers.c.name == c.worker))
    return exists(select(c.id).where(RUNNING, ~IS_EXTERNAL, c.lease_expires_at >= NOW, ~known))
