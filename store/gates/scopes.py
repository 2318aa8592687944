"""Which gates what waits in a queue has to pass: by its lane, tenant, program, LMs and labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from dspex import ErrorCode
from dspex.contract.options import Lane
from store.database.identity import Identity, is_one_of
from store.database.tenancy import ALL
from store.gates.rows import EVERYTHING, LABEL, LANE, LM, PROGRAM, TENANT, GateKey
from store.tables import programs

LANES = tuple(Lane)


class Called(NamedTuple):
    """The LMs that a program's runs may call, by the names that it gives them.

    `falls_back`: after a rate limit it tries another, so it need not wait until a provider takes calls again.
    """

    lms: tuple[str, ...] = ()
    falls_back: bool = False


class Subject(NamedTuple):
    """What waits in a queue, as gates see it."""

    tenant: str
    program_id: UUID
    lane: int
    group_key: str = ""

    @property
    def queue(self) -> dict[str, Any]:
        """The key of the queue, by the columns of its row."""
        return {
            "tenant": self.tenant,
            "program_id": self.program_id,
            "lane": self.lane,
            "group_key": self.group_key,
        }


def keys_of(subject: Subject, lms: Collection[str] = (), labels: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    """The keys of all gates that it would have to pass, if they were there."""
    for tenant in (ALL, subject.tenant):
        yield GateKey(EVERYTHING, "", tenant).text
        yield GateKey(LANE, LANES[subject.lane], tenant).text
        yield GateKey(TENANT, subject.tenant, tenant).text
        yield GateKey(PROGRAM, str(subject.program_id), tenant).text
        for lm in lms:
            yield GateKey(LM, lm, tenant).text
        for name, value in labels:
            yield GateKey(LABEL, f"{name}={value}", tenant).text


_C = programs.c
_NAMING = ("lm", "extraction_lm", "lms", "modules", "fallbacks")
"""The members of a configuration that name LMs."""


def called_by(connection: Connection, which: Collection[Identity], known: dict[str, Called]) -> dict[Identity, Called]:
    """The LMs of programs. One that is gone calls none.

    Args:
        known: by backend id, whose programs never change; new ones are added.
    """
    found = connection.execute(select(_C.id, _C.tenant, _C.backend_id).where(is_one_of(programs, which))).all()
    called = {Identity(row.id, row.tenant): known[row.backend_id] for row in found if row.backend_id in known}
    if rest := [identity for row in found if (identity := Identity(row.id, row.tenant)) not in called]:
        members = [_C.configuration[name].label(name) for name in _NAMING]
        for row in connection.execute(
            select(_C.id, _C.tenant, _C.backend_id, *members).where(is_one_of(programs, rest))
        ):
            told = called[Identity(row.id, row.tenant)] = _read(row)
            if row.backend_id is not None:
                known[row.backend_id] = told
    return called


def _read(row: Any) -> Called:
    fallbacks = row.fallbacks or []
    named = [row.lm, row.extraction_lm, *(row.lms or {}).values()]
    named += [part.get("lm") for part in (row.modules or {}).values()]
    named += [fallback.get("lm") for fallback in fallbacks]
    falls_back = any(ErrorCode.RATE_LIMITED in fallback.get("on", ()) for fallback in fallbacks)
    return Called(tuple(dict.fromkeys(_models(named))), falls_back)


def _models(named: Iterable[Any]) -> Iterator[str]:
    for lm in named:
        if isinstance(lm, Mapping) and isinstance(lm.get("model"), str):
            yield lm["model"]
