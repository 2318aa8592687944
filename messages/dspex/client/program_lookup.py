"""Finds the program that an id or a name stands for, by one rule for all that take either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from dspex.client.port import Port
from dspex.contract.queries import GetProgram, ListPrograms
from dspex.contract.results import Page, ProgramView
from dspex.contract.status import ProgramStatus
from dspex.errors import Conflict, DspexError, IllegalTransition, NotFound

MAX_NAMED = 5
"""How many of several programs of one name are named, at most."""


class Programs(Protocol):
    """Where programs are looked up."""

    def by_id(self, program_id: UUID) -> ProgramView | None:
        """The program with this id."""
        ...

    def by_name(self, name: str, *, archived: bool, limit: int) -> Sequence[ProgramView]:
        """The newest programs with this name, of those that are archived or of those that are not."""
        ...


class AskedPrograms:
    """Programs as workers tell of them."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def by_id(self, program_id: UUID) -> ProgramView | None:
        """See `Programs`."""
        try:
            return self._port.call(GetProgram(program_id=program_id), ProgramView)
        except DspexError as error:
            if error.code != NotFound.code:
                raise
            return None

    def by_name(self, name: str, *, archived: bool, limit: int) -> Sequence[ProgramView]:
        """See `Programs`."""
        return self._port.call(ListPrograms(name=name, archived=archived, limit=limit), Page[ProgramView]).items


def program_named(programs: Programs, name: str) -> ProgramView | None:
    """The program that has this name and is not archived; None if there is none.

    Raises:
        Conflict: there are several.
    """
    found = programs.by_name(name, archived=False, limit=MAX_NAMED)
    if len(found) > 1:
        ids = ", ".join(str(program.program_id) for program in found)
        raise Conflict(f"name: several programs have the name '{name}': give the program_id of one ({ids})")
    return found[0] if found else None


def find_program(programs: Programs, given: UUID | str) -> ProgramView:
    """The program with this id, or the one with this name that is not archived.

    Raises:
        NotFound: there is none.
        IllegalTransition: it is archived.
        Conflict: several have the name.
    """
    id_ = given if isinstance(given, UUID) else _id(given)
    program = None if id_ is None else programs.by_id(id_)
    if program is None and isinstance(given, str):
        program = program_named(programs, given) or next(iter(programs.by_name(given, archived=True, limit=1)), None)
    if program is None:
        raise NotFound(f"there is no program '{given}'")
    if program.status == ProgramStatus.ARCHIVED:
        raise IllegalTransition(f"program {program.program_id}, which '{given}' names, is archived")
    return program


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
