"""What a worker process serves of all that waits: lanes, programs, adapters and environments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, or_, true

from dspex.contract.options import Lane
from store.tables import programs

NO_ENVIRONMENT: Final = "-"
"""Stands for programs that name no environment."""
ANYTHING: Final = "anything"
"""Stands for what waits, where nobody serves."""

_LANES: Final = tuple(Lane)


class Needs(NamedTuple):
    """What an execution needs of a worker: that it serves these. None: of a program that is gone, which all serve."""

    lane: int
    program: UUID
    adapter: str | None
    environment: str | None


NEEDS: Final = Needs._fields


class Service(NamedTuple):
    """What a process serves, of each kind of `Needs`. What is empty restricts nothing."""

    lanes: frozenset[int] = frozenset()
    programs: frozenset[UUID] = frozenset()
    adapters: frozenset[str] = frozenset()
    environments: frozenset[str] = frozenset()

    def takes(self, needs: Needs) -> bool:
        """Whether it serves an execution."""
        return not self.lacks(needs)

    def lacks(self, needs: Needs) -> list[int]:
        """The kinds of what is needed, by their place in `Needs`, of which it serves others."""
        pairs: Iterable[tuple[Collection[Any], Any]] = zip(self, needs, strict=True)
        return [
            kind
            for kind, (served, needed) in enumerate(pairs)
            if served and needed is not None and needed not in served
        ]

    def condition(self, needs: Sequence[Any]) -> ColumnElement[bool]:
        """The same as a condition on the columns of what is needed, see `needed`."""
        pairs: Iterable[tuple[Collection[Any], Any]] = zip(self, needs, strict=True)
        restricted = [or_(column.is_(None), column.in_(sorted(served))) for served, column in pairs if served]
        return and_(true(), *restricted)


def read_service(names: Mapping[str, Sequence[str]]) -> Service:
    """A service from the names of what it serves, by kind, as the register has them."""
    return Service(
        frozenset(lane.number for lane in Lane if lane in names.get("lanes", ())),
        frozenset(map(UUID, names.get("programs", ()))),
        frozenset(names.get("adapters", ())),
        frozenset(names.get("environments", ())),
    )


def needed(lane: Any, program_id: Any) -> tuple[Any, Any, Any, Any]:
    """The columns of what is needed, where `programs` is joined; the last two are NULL if the program is gone."""
    c = programs.c
    environment = case((c.id.is_not(None), func.coalesce(c.configuration["environment"].as_string(), NO_ENVIRONMENT)))
    return lane, program_id, c.adapter_type, environment


def missing(services: Collection[Service], needs: Needs) -> str | None:
    """What none of these serves of an execution: `lane bulk`; None: one of them serves it.

    Where they lack different things, these are told together: `lane bulk with adapter native`.
    """
    if not services:
        return ANYTHING
    lacks = [service.lacks(needs) for service in services]
    if not all(lacks):
        return None
    common = set(lacks[0]).intersection(*lacks)
    kinds = {min(common)} if common else {lack[0] for lack in lacks}
    names = (_LANES[needs.lane], *needs[1:])
    return " with ".join(f"{NEEDS[kind]} {names[kind]}" for kind in sorted(kinds))
