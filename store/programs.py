"""Programs: create, initialize in two steps around the adapter's work, update, archive, restore, destroy, find."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, case, delete, func, null, select
from sqlalchemy import update as update_rows

from dspex import Configuration, ErrorDetail, ProgramStatus, Signature, SignatureStatus
from dspex.contract.callback import Callback
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.ids import DEFAULT_TENANT
from dspex.text import storable
from store.database import pages
from store.database.batch import upsert
from store.database.pages import DEFAULT_LIMIT, Page
from store.executions.rows import callback_of, kept_callback
from store.executions.statements import OPEN
from store.queues import archived
from store.signatures import CONTENT, signature_of
from store.tables import NOW, executions, program_counters, programs, signatures


@dataclass(frozen=True)
class Program:
    """A stored program, with its signature and its counters."""

    id: UUID
    name: str
    signature_id: UUID
    signature: Signature
    adapter_type: str
    configuration: Configuration
    policy: ExecutionPolicy
    callback: Callback | None
    status: ProgramStatus
    backend_id: str | None
    error: ErrorDetail | None
    lock_version: int
    tenant: str
    inserted_at: datetime
    updated_at: datetime
    execution_count: int
    """How many executions have ended."""
    last_executed_at: datetime | None


def create(
    connection: Connection,
    program_id: UUID,
    *,
    name: str,
    signature_id: UUID,
    adapter_type: str,
    configuration: Configuration,
    policy: ExecutionPolicy | None = None,
    callback: Callback | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Program:
    """Insert a program as a draft. The same id with the same content again changes nothing.

    Raises:
        NotFound: there is no such signature.
        Conflict: the id belongs to another program.
    """
    _lock_signature(connection, signature_id, tenant)
    connection.execute(
        upsert(connection)(programs)
        .values(
            id=program_id,
            name=name,
            signature_id=signature_id,
            adapter_type=adapter_type,
            configuration=configuration.model_dump(mode="json"),
            policy=_kept(policy),
            callback=kept_callback(callback),
            status=ProgramStatus.DRAFT,
            tenant=tenant,
            inserted_at=NOW,
            updated_at=NOW,
        )
        .on_conflict_do_nothing()
    )
    program = _find(connection, program_id, tenant)
    asked = (name, signature_id, adapter_type, configuration, policy or ExecutionPolicy(), callback)
    if program is None or _content(program) != asked:
        raise Conflict(f"program_id: {program_id} belongs to another program")
    return program


def _lock_signature(connection: Connection, signature_id: UUID, tenant: str) -> SignatureStatus:
    """Take the same lock as the foreign key's, so that the signature is not destroyed before this commits."""
    c = signatures.c
    kept = select(c.status).where(c.id == signature_id, c.tenant == tenant).with_for_update(read=True, key_share=True)
    status = connection.execute(kept).scalar_one_or_none()
    if status is None:
        raise NotFound(f"signature_id: there is no signature {signature_id}")
    return SignatureStatus(status)


def _content(program: Program) -> tuple[object, ...]:
    p = program
    return p.name, p.signature_id, p.adapter_type, p.configuration, p.policy, p.callback


def _kept(policy: ExecutionPolicy | None) -> dict[str, Any] | None:
    """The members that differ from the defaults, so that a changed default applies to old programs, too."""
    return policy.model_dump(mode="json", exclude_defaults=True) or None if policy else None


def get(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Program:
    """The program with this id.

    Raises:
        NotFound: there is no such program.
    """
    program = _find(connection, program_id, tenant)
    if program is None:
        raise NotFound(f"program_id: there is no program {program_id}")
    return program


def page(
    connection: Connection,
    *,
    name: str | None = None,
    status: ProgramStatus | None = None,
    archived: bool | None = None,
    signature_id: UUID | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[Program]:
    """Programs that match all given conditions, newest first.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    c = programs.c
    given = {c.name: name, c.status: status, c.signature_id: signature_id}
    conditions = [column == value for column, value in given.items() if value is not None]
    if archived is not None:
        conditions.append(c.status == ProgramStatus.ARCHIVED if archived else c.status != ProgramStatus.ARCHIVED)
    statement = _select().where(c.tenant == tenant, *conditions)
    return pages.read(connection, statement, programs, _row, cursor=cursor, limit=limit, complete=_with_counts)


def begin_initialize(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Program:
    """The first step: mark the program as initializing. If another worker does it, take over and fence its second step.

    Returns:
        The program. If it is already `ready`, there is nothing to do.

    Raises:
        NotFound: there is no such program.
        IllegalTransition: it is archived, or its signature is a draft.
    """
    c = programs.c
    program = get(connection, program_id, tenant=tenant)
    if program.status == ProgramStatus.READY:
        return program
    s = signatures.c
    of_signature = select(s.status).where(s.id == program.signature_id, s.tenant == tenant)
    if connection.execute(of_signature).scalar_one() == SignatureStatus.DRAFT:
        raise IllegalTransition(
            f"program {program_id} cannot be initialized: its signature is a draft, activate it first"
        )
    begun = connection.execute(
        update_rows(programs)
        .where(
            c.id == program_id,
            c.tenant == tenant,
            c.status.in_((ProgramStatus.DRAFT, ProgramStatus.ERROR, ProgramStatus.INITIALIZING)),
        )
        .values(status=ProgramStatus.INITIALIZING, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    program = get(connection, program_id, tenant=tenant)
    if begun is None and program.status != ProgramStatus.READY:
        raise IllegalTransition(f"program {program_id} cannot be initialized: it is {program.status}")
    return program


def end_initialize(connection: Connection, begun: Program, result: str | ErrorDetail) -> Program | None:
    """The second step: mark the program as ready with its backend id, or as error with the reason.

    Args:
        begun: the program that the first step returned.

    Returns:
        The program, or None if another worker has taken over.
    """
    c = programs.c
    failed = result if isinstance(result, ErrorDetail) else None
    changed = connection.execute(
        update_rows(programs)
        .where(
            c.id == begun.id,
            c.tenant == begun.tenant,
            c.lock_version == begun.lock_version,
            c.status == ProgramStatus.INITIALIZING,
        )
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
    return get(connection, begun.id, tenant=begun.tenant) if changed is not None else None


def update(
    connection: Connection,
    program_id: UUID,
    *,
    configuration: Configuration,
    signature_id: UUID | None = None,
    adapter_type: str | None = None,
    name: str | None = None,
    policy: ExecutionPolicy | None = None,
    callback: Callback | None = None,
    remove_callback: bool = False,
    backend_id: str | None = None,
    lock_version: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Program:
    """Change a program. Running executions keep the configuration with which they were claimed.

    Args:
        signature_id, adapter_type: the new ones, for executions claimed from now on; None: no change.
        name: the new name; None: no change.
        policy: the new retry policy, for executions claimed from now on; None: no change.
        callback: the new callback, for executions claimed from now on; None: no change.
        backend_id: the backend id of the new configuration. Required for a ready program, ignored for any other.
        lock_version: the version on which the change is based; None: the current one.

    Raises:
        NotFound: there is no such program or signature.
        Conflict: the program was changed meanwhile.
        IllegalTransition: the program is initializing or archived, or it is ready, and `backend_id` is missing or the
            signature is a draft.
    """
    c = programs.c
    is_draft = signature_id is not None and _lock_signature(connection, signature_id, tenant) == SignatureStatus.DRAFT
    can_be_ready = backend_id is not None and not is_draft
    allowed = [ProgramStatus.DRAFT, ProgramStatus.ERROR] + ([ProgramStatus.READY] if can_be_ready else [])
    changed = connection.execute(
        update_rows(programs)
        .where(
            c.id == program_id,
            c.tenant == tenant,
            c.status.in_(allowed),
            c.lock_version == (c.lock_version if lock_version is None else lock_version),
        )
        .values(
            configuration=configuration.model_dump(mode="json"),
            signature_id=c.signature_id if signature_id is None else signature_id,
            adapter_type=c.adapter_type if adapter_type is None else adapter_type,
            name=c.name if name is None else name,
            policy=c.policy if policy is None else _kept(policy),
            callback=c.callback if callback is None and not remove_callback else kept_callback(callback),
            backend_id=case((c.status == ProgramStatus.READY, backend_id), else_=null()),
            lock_version=c.lock_version + 1,
            updated_at=NOW,
        )
        .returning(c.id)
    ).one_or_none()
    program = get(connection, program_id, tenant=tenant)
    if changed is not None:
        return program
    if lock_version not in (None, program.lock_version):
        raise Conflict(f"program {program_id} has been changed: it is at lock_version {program.lock_version}")
    reason = ""
    if program.status == ProgramStatus.READY:
        missing = "a signature that is active" if is_draft else "the backend id of its new configuration"
        reason = f", and needs {missing}"
    raise IllegalTransition(f"program {program_id} cannot be updated: it is {program.status}{reason}")


def archive(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Program:
    """Archive a program: it takes no new executions, running ones go on to their end, and what waits ends at once.

    The latter is done in batches by any worker (`store.executions.archived.end_waiting`): here, its queues are held.

    Raises:
        NotFound: there is no such program.
        IllegalTransition: the program is initializing or already archived.
    """
    c = programs.c
    allowed = (ProgramStatus.DRAFT, ProgramStatus.READY, ProgramStatus.ERROR)
    changed = connection.execute(
        update_rows(programs)
        .where(c.id == program_id, c.tenant == tenant, c.status.in_(allowed))
        .values(status=ProgramStatus.ARCHIVED, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    program = get(connection, program_id, tenant=tenant)
    if changed is None:
        raise IllegalTransition(f"program {program_id} cannot be archived: it is {program.status}")
    archived.hold(connection, program_id, tenant)
    return program


def restore(
    connection: Connection, read: Program, *, backend_id: str | None = None, tenant: str = DEFAULT_TENANT
) -> Program:
    """Take a program out of the archive: it has the status that it had before.

    Args:
        read: the program as it was read; it is restored only if it has not changed since.
        backend_id: the new one, if it was ready, and was built again; None: it stays.

    Raises:
        NotFound: there is no such program.
        Conflict: the program was changed meanwhile.
        IllegalTransition: it is not archived.
    """
    c = programs.c
    # A draft has neither, and one with an error has no backend id: see `end_initialize` and `update`.
    before = case(
        (c.backend_id.is_not(null()), ProgramStatus.READY),
        (c.error_code.is_not(null()), ProgramStatus.ERROR),
        else_=ProgramStatus.DRAFT,
    )
    changed = connection.execute(
        update_rows(programs)
        .where(
            c.id == read.id,
            c.tenant == tenant,
            c.status == ProgramStatus.ARCHIVED,
            c.lock_version == read.lock_version,
        )
        .values(
            status=before,
            backend_id=case((c.backend_id.is_not(null()), func.coalesce(backend_id, c.backend_id)), else_=null()),
            lock_version=c.lock_version + 1,
            updated_at=NOW,
        )
        .returning(c.id)
    ).one_or_none()
    program = get(connection, read.id, tenant=tenant)
    if changed is not None:
        archived.release(connection, program.id, tenant)
        return program
    if program.status == ProgramStatus.ARCHIVED:
        raise Conflict(f"program {program.id} has been changed: it is at lock_version {program.lock_version}")
    raise IllegalTransition(f"program {program.id} cannot be restored: it is {program.status}")


def destroy(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> None:
    """Delete a program. Its executions and counters stay, as the record of work and cost.

    It must be archived, so that no worker claims an execution of it at the same moment. A program that was never ready
    and never executed (draft or error) may be deleted directly. If an execution is claimed nevertheless, it fails, and
    its row stays.

    Raises:
        NotFound: there is no such program.
        IllegalTransition: the program is not archived, or some of its executions have not ended.
    """
    c, e = programs.c, executions.c
    locked = select(c.status).where(c.id == program_id, c.tenant == tenant).with_for_update()
    status = connection.execute(locked).scalar_one_or_none()
    if status is None:
        raise NotFound(f"program_id: there is no program {program_id}")
    of_program = (e.tenant == tenant, e.program_id == program_id)
    opened = connection.execute(select(func.count()).where(*of_program, OPEN)).scalar_one()
    if opened:
        raise IllegalTransition(f"program {program_id} cannot be destroyed: {opened} of its executions have not ended")
    unused = status in (ProgramStatus.DRAFT, ProgramStatus.ERROR)
    if unused:
        unused = connection.execute(select(e.id).where(*of_program).limit(1)).one_or_none() is None
    if status != ProgramStatus.ARCHIVED and not unused:
        raise IllegalTransition(f"program {program_id} cannot be destroyed: it is {status}, archive it first")
    connection.execute(delete(programs).where(c.id == program_id, c.tenant == tenant))


def _find(connection: Connection, program_id: UUID, tenant: str) -> Program | None:
    c = programs.c
    found = _select().where(c.id == program_id, c.tenant == tenant)
    row = connection.execute(_with_counts(found)).one_or_none()
    return None if row is None else _row(row)


def _select() -> Select[Any]:
    of_signature = [signatures.c[name].label(f"signature_{name}") for name in (*CONTENT, "digest")]
    p, s = programs.c, signatures.c
    return select(programs, *of_signature).join_from(
        programs, signatures, (s.id == p.signature_id) & (s.tenant == p.tenant)
    )


def _with_counts(found: Select[Any]) -> Select[Any]:
    """Add the counters to a statement that finds programs, in one statement for any number of them."""
    k, program = program_counters.c, found.cte("program")
    counts = (
        select(
            k.program_id,
            k.tenant,
            func.sum(k.completed + k.failed + k.cancelled).label("execution_count"),
            func.max(k.last_executed_at).label("last_executed_at"),
        )
        .where(k.program_id.in_(select(program.c.id)))
        .group_by(k.program_id, k.tenant)
        .subquery("counts")
    )
    return (
        select(program, func.coalesce(counts.c.execution_count, 0).label("execution_count"), counts.c.last_executed_at)
        .join_from(
            program, counts, (counts.c.program_id == program.c.id) & (counts.c.tenant == program.c.tenant), isouter=True
        )
        .order_by(program.c.inserted_at.desc(), program.c.id.desc())
    )


def _row(row: Any) -> Program:
    return Program(
        id=row.id,
        name=row.name,
        signature_id=row.signature_id,
        signature=signature_of(row, "signature_"),
        adapter_type=row.adapter_type,
        configuration=Configuration(**row.configuration),
        policy=ExecutionPolicy(**(row.policy or {})),
        callback=callback_of(row.callback),
        status=ProgramStatus(row.status),
        backend_id=row.backend_id,
        error=ErrorDetail(code=row.error_code, message=row.error_message) if row.error_code else None,
        lock_version=row.lock_version,
        tenant=row.tenant,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
        execution_count=int(row.execution_count),
        last_executed_at=row.last_executed_at,
    )
