"""Programs: create, initialize in two steps around the adapter's work, find."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select, update

from dspex import Configuration, ErrorDetail, ProgramStatus, Signature, SignatureStatus
from dspex.errors import Conflict, IllegalTransition, NotFound
from store import signatures
from store.batch import upsert
from store.tables import NOW, programs
from store.types import storable


@dataclass(frozen=True)
class Program:
    """A program as it is kept, with its signature."""

    id: UUID
    name: str
    signature_id: UUID
    signature: Signature
    adapter_type: str
    configuration: Configuration
    status: ProgramStatus
    backend_id: str | None
    error: ErrorDetail | None
    lock_version: int


def create(
    connection: Connection,
    program_id: UUID,
    *,
    name: str,
    signature_id: UUID,
    adapter_type: str,
    configuration: Configuration,
) -> Program:
    """Keep a program, as a draft. The same id with the same content again changes nothing.

    Raises:
        NotFound: there is no such signature.
        Conflict: the id belongs to another program.
    """
    signatures.get(connection, signature_id)
    connection.execute(
        upsert(connection)(programs)
        .values(
            id=program_id,
            name=name,
            signature_id=signature_id,
            adapter_type=adapter_type,
            configuration=configuration.model_dump(mode="json"),
            status=ProgramStatus.DRAFT,
            inserted_at=NOW,
            updated_at=NOW,
        )
        .on_conflict_do_nothing(index_elements=[programs.c.id])
    )
    program = get(connection, program_id)
    asked = (name, signature_id, adapter_type, configuration)
    if (program.name, program.signature_id, program.adapter_type, program.configuration) != asked:
        raise Conflict(f"program_id: {program_id} belongs to another program")
    return program


def get(connection: Connection, program_id: UUID) -> Program:
    """The program of this id.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(programs).where(programs.c.id == program_id)).one_or_none()
    if row is None:
        raise NotFound(f"program_id: there is no program {program_id}")
    return Program(
        id=row.id,
        name=row.name,
        signature_id=row.signature_id,
        signature=signatures.get(connection, row.signature_id).signature,
        adapter_type=row.adapter_type,
        configuration=Configuration(**row.configuration),
        status=ProgramStatus(row.status),
        backend_id=row.backend_id,
        error=ErrorDetail(code=row.error_code, message=row.error_message) if row.error_code else None,
        lock_version=row.lock_version,
    )


def begin_initialize(connection: Connection, program_id: UUID) -> Program:
    """The first step: initializing. Taken over where another worker is at it: that one's second step is fenced.

    Returns:
        The program; if it is `ready` already, there is nothing to do.

    Raises:
        NotFound: there is no such program.
        IllegalTransition: it is archived, or its signature is a draft.
    """
    c = programs.c
    program = get(connection, program_id)
    if program.status == ProgramStatus.READY:
        return program
    if signatures.get(connection, program.signature_id).status == SignatureStatus.DRAFT:
        raise IllegalTransition(
            f"program {program_id} cannot be initialized: its signature is a draft, activate it first"
        )
    begun = connection.execute(
        update(programs)
        .where(c.id == program_id, c.status.in_((ProgramStatus.DRAFT, ProgramStatus.ERROR, ProgramStatus.INITIALIZING)))
        .values(status=ProgramStatus.INITIALIZING, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    program = get(connection, program_id)
    if begun is None and program.status != ProgramStatus.READY:
        raise IllegalTransition(f"program {program_id} cannot be initialized: it is {program.status}")
    return program


def end_initialize(connection: Connection, begun: Program, result: str | ErrorDetail) -> Program | None:
    """The second step: ready with its backend id, or error with the reason.

    Args:
        begun: the program as the first step returned it.

    Returns:
        The program, or None where another worker has taken over.
    """
    c = programs.c
    failed = result if isinstance(result, ErrorDetail) else None
    changed = connection.execute(
        update(programs)
        .where(c.id == begun.id, c.lock_version == begun.lock_version, c.status == ProgramStatus.INITIALIZING)
        .values(
            status=ProgramStatus.ERROR if failed else ProgramStatus.READY,
            backend_id=None if failed else result,
            error_code=failed.code if failed else None,
            error_message=storable(failed.message) if failed else None,
            lock_version=c.lock_version + 1,
            updated_at=NOW,
        )
        .returning(c.id)
    ).one_or_none()
    return get(connection, begun.id) if changed is not None else None


def archive(connection: Connection, program_id: UUID) -> Program:
    """Archive a program: it takes no new executions.

    Raises:
        NotFound: there is no such program.
        IllegalTransition: it is initializing, or archived already.
    """
    c = programs.c
    allowed = (ProgramStatus.DRAFT, ProgramStatus.READY, ProgramStatus.ERROR)
    changed = connection.execute(
        update(programs)
        .where(c.id == program_id, c.status.in_(allowed))
        .values(status=ProgramStatus.ARCHIVED, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    program = get(connection, program_id)
    if changed is None:
        raise IllegalTransition(f"program {program_id} cannot be archived: it is {program.status}")
    return program
