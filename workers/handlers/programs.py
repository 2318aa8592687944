"""The handlers for programs."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection

from adapters.port import AdapterError, NotHere, ProgramSpec
from dspex import Configuration, ErrorCode, ErrorDetail, ProgramError, ProgramReady, ProgramStatus, Signature
from dspex.contract.commands import (
    ArchiveProgram,
    Command,
    CreateProgram,
    CreateProgramWithSignature,
    DestroyProgram,
    InitializeProgram,
    ModuleVersion,
    RestoreProgram,
    UpdateProgram,
)
from dspex.contract.configuration import ConfigurationChange
from dspex.contract.events import Event
from dspex.contract.queries import GetProgram, GetProgramPrompt, GetProgramStatistics, GetProgramStats, ListPrograms
from dspex.contract.results import Created, Nothing, Page, ProgramPrompt, ProgramStatistics, ProgramStats, ProgramView
from dspex.contract.status import SignatureStatus
from dspex.errors import InvalidValues, NotFound
from dspex.model import problems
from dspex.signatures.compatibility import check_compatible, compare
from dspex.text import storable
from store import programs, signatures, statistics
from store.programs import Program
from store.signatures import SignatureRow
from workers.application.state_versions import other_versions
from workers.application.wiring import Application
from workers.brokers.settlement import PutAside, Requeue
from workers.brokers.work_queue import CHANGES
from workers.execution.blobs import whole_inputs
from workers.handlers.registry import handles
from workers.handlers.waits import wait_for_another_worker
from workers.outbound.error_details import internal
from workers.outbound.serializers import page_of, program_view, signature_view
from workers.security.authorization import ADMINS, EVERY_ROLE, MAKERS, OPERATORS, told_of
from workers.security.request import Received


@handles(CreateProgram, roles=MAKERS, priority=CHANGES)
def create_program(app: Application, received: Received[CreateProgram]) -> ProgramView:
    """Create a program as a draft."""
    command, tenant = received.command, received.tenant
    _check(app, received, command.adapter_type, command.configuration)
    app.callbacks.check(tenant, command.callback)
    configuration = command.configuration
    if configuration.state is not None:
        with app.read(tenant) as connection:
            signature = signatures.get(connection, command.signature_id, tenant=tenant).signature
        configuration = _bound(app, configuration, signature)
    row = app.write(
        lambda connection: programs.create(
            connection,
            command.program_id,
            name=command.name,
            signature_id=command.signature_id,
            adapter_type=command.adapter_type,
            configuration=configuration,
            policy=command.policy,
            callback=command.callback,
            tenant=tenant,
        )
    )
    return program_view(row)


@handles(CreateProgramWithSignature, roles=MAKERS, priority=CHANGES)
def create_with_signature(app: Application, received: Received[CreateProgramWithSignature]) -> Created:
    """Create a program, and find or create its signature in the same transaction."""
    command, tenant = received.command, received.tenant
    _check(app, received, command.adapter_type, command.configuration)
    app.callbacks.check(tenant, command.callback)

    def create(connection: Connection) -> Created:
        signature = _signature(connection, command.signature, tenant)
        program = programs.create(
            connection,
            command.program_id,
            name=command.name,
            signature_id=signature.id,
            adapter_type=command.adapter_type,
            configuration=_bound(app, command.configuration, signature.signature),
            policy=command.policy,
            callback=command.callback,
            tenant=tenant,
        )
        given = command.signature
        return Created(program=program_view(program, given=given), signature=signature_view(signature, given))

    return app.write(create)


def _signature(connection: Connection, wanted: UUID | Signature | ModuleVersion, tenant: str) -> SignatureRow:
    match wanted:
        case UUID():
            return signatures.get(connection, wanted, tenant=tenant)
        case ModuleVersion(version=None):
            active = (row for row in signatures.versions(connection, wanted.module, tenant=tenant))
            found = next((row for row in active if row.status == SignatureStatus.ACTIVE), None)
            if found is None:
                raise NotFound(f"signature: module '{wanted.module}' has no active version")
            return found
        case ModuleVersion():
            return signatures.find(connection, wanted.module, wanted.version or "", tenant=tenant)
        case Signature():
            return signatures.find_or_create(connection, wanted, tenant=tenant)


def _check(app: Application, received: Received[Command], adapter_type: str, configuration: Configuration) -> None:
    """See `ProgramCache.check`. A denied secret leaves an audit line."""
    try:
        app.programs.check(received.tenant, adapter_type, configuration)
    except AdapterError as error:
        if error.code == ErrorCode.AUTH:
            told_of(received.principal, received.command, error)
        raise


def _bound(app: Application, configuration: Configuration, signature: Signature) -> Configuration:
    """The configuration with its state bound to the signature. Logs other versions than those it was saved with."""
    here = configuration.environment is None  # another has versions of its own
    saved_with = configuration.state.metadata if here and configuration.state else None
    if saved_with and (other := other_versions(saved_with)):
        app.episodes.tell("States were saved with other versions, and prompts may differ", other)
    return configuration.bound_to(signature)


@handles(InitializeProgram, roles=MAKERS, priority=CHANGES)
def initialize_program(app: Application, received: Received[InitializeProgram]) -> ProgramView:
    """Have the adapter build a program: ready with its backend id, or error with the reason.

    A ready program is built again if the code of its module has changed since, or the form of backend ids.
    """
    program_id, tenant = received.command.program_id, received.tenant
    program = app.write(lambda connection: programs.begin_initialize(connection, program_id, tenant=tenant))
    if program.status == ProgramStatus.READY:
        program = _renewed(app, program)
    else:
        result = _build(app, program)
        begun = program
        ended = app.write(lambda connection: programs.end_initialize(connection, begun, result))
        if ended is None:
            app.episodes.tell("Programs are being initialized by other workers", program_id, level=logging.INFO)
            return program_view(program)
        program = ended
    app.emit(_event_of(program), tenant, received.context)
    return program_view(program)


def _renewed(app: Application, program: Program) -> Program:
    with _here_or_elsewhere(app, program):
        spec = app.programs.spec_of(program)
        if spec.backend_id == program.backend_id:
            return program
        backend_id = app.programs.build(spec).spec.backend_id
    return app.write(
        lambda connection: programs.update(
            connection,
            program.id,
            configuration=program.configuration,
            backend_id=backend_id,
            lock_version=program.lock_version,
            tenant=program.tenant,
        )
    )


def _build(app: Application, program: Program) -> str | ErrorDetail:
    try:
        with _here_or_elsewhere(app, program):
            return app.programs.build(app.programs.spec_of(program)).spec.backend_id
    except (PutAside, Requeue):
        raise
    except AdapterError as error:
        return ErrorDetail(code=error.code, message=storable(error.message))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is told
        app.episodes.tell(
            f"Programs cannot be built, unexpectedly ({type(error).__name__})",
            f"program {program.id}",
            level=logging.ERROR,
            error=error,
        )
        return internal(error)


@contextmanager
def _here_or_elsewhere(app: Application, program: Program) -> Generator[None]:
    """Give the command to another worker if this one lacks something.

    Raises:
        NotHere: no other worker seems to have it.
    """
    try:
        yield
    except NotHere as error:
        if not app.settings.embedded:
            app.episodes.tell(f"Program {program.id} cannot be built here", error.message)
            wait_for_another_worker(program.tenant)
            raise NotHere(f"{error.message}; nor has any other worker taken it", error.code) from None
        raise


def _event_of(program: Program) -> Event:
    if program.status == ProgramStatus.READY:
        return ProgramReady(program_id=program.id, name=program.name, backend_id=program.backend_id or "")
    reason = program.error or ErrorDetail(code=ErrorCode.INTERNAL, message="no reason was kept")
    return ProgramError(program_id=program.id, name=program.name, error=reason)


@handles(UpdateProgram, roles=MAKERS, priority=CHANGES)
def update_program(app: Application, received: Received[UpdateProgram]) -> ProgramView:
    """Change the given parts. A ready program is first built with its new configuration, so that it stays ready.

    Raises:
        AdapterError: the new configuration cannot be built. Nothing was changed.
        InvalidValues: the new configuration is invalid.
        BreakingChange: the new signature breaks callers of the old one.
    """
    command, tenant = received.command, received.tenant
    app.callbacks.check(tenant, command.callback)
    with app.read(tenant) as connection:
        before = programs.get(connection, command.program_id, tenant=tenant)
        wanted = command.signature
        # Data is found or created with the change itself, so that a change that is refused leaves no signature behind.
        found = None if wanted is None or isinstance(wanted, Signature) else _signature(connection, wanted, tenant)
    signature = wanted if isinstance(wanted, Signature) else None if found is None else found.signature
    if signature is not None and not command.allow_breaking:
        check_compatible(compare(before.signature, signature), before.id)
    configuration = _bound(app, _changed(before, command.configuration), signature or before.signature)
    backend_id = before.backend_id
    adapter_type = command.adapter_type or before.adapter_type
    is_built_again = any(part is not None for part in (command.configuration, command.signature, command.adapter_type))
    if is_built_again:
        with _here_or_elsewhere(app, before):
            _check(app, received, adapter_type, configuration)
        if before.status == ProgramStatus.READY:
            spec = ProgramSpec(adapter_type, signature or before.signature, configuration, tenant)
            with _here_or_elsewhere(app, before):
                backend_id = app.programs.build(app.programs.with_code(spec)).spec.backend_id

    def change(connection: Connection) -> Program:
        new = signatures.find_or_create(connection, signature, tenant=tenant) if signature and not found else found
        return programs.update(
            connection,
            command.program_id,
            configuration=configuration,
            signature_id=None if new is None else new.id,
            adapter_type=adapter_type,
            name=command.name,
            policy=command.policy,
            callback=command.callback,
            remove_callback=bool(command.remove_callback),
            backend_id=backend_id,
            lock_version=command.lock_version or before.lock_version,
            tenant=tenant,
        )

    row = app.write(change)
    if is_built_again and row.status == ProgramStatus.READY:
        app.emit(_event_of(row), tenant, received.context)
    return program_view(row, given=wanted)


def _changed(program: Program, change: ConfigurationChange | None) -> Configuration:
    try:
        return program.configuration if change is None else change.of(program.configuration)
    except ValidationError as error:
        raise InvalidValues(problems(error, ["configuration"])) from None


@handles(ArchiveProgram, roles=OPERATORS)
def archive_program(app: Application, received: Received[ArchiveProgram]) -> ProgramView:
    """Archive a program: it takes no new executions."""
    program_id, tenant = received.command.program_id, received.tenant
    return program_view(app.write(lambda connection: programs.archive(connection, program_id, tenant=tenant)))


@handles(RestoreProgram, roles=OPERATORS, priority=CHANGES)
def restore_program(app: Application, received: Received[RestoreProgram]) -> ProgramView:
    """Take a program out of the archive. One that was ready is built first, if its code has changed.

    Raises:
        AdapterError: it cannot be built, or may not be. Nothing was changed.
    """
    tenant = received.tenant
    with app.read(tenant) as connection:
        program = programs.get(connection, received.command.program_id, tenant=tenant)
    backend_id = None
    if program.status == ProgramStatus.ARCHIVED and program.backend_id is not None:
        with _here_or_elsewhere(app, program):
            _check(app, received, program.adapter_type, program.configuration)
            spec = app.programs.spec_of(program)
            if spec.backend_id != program.backend_id:
                backend_id = app.programs.build(spec).spec.backend_id
    row = app.write(lambda connection: programs.restore(connection, program, backend_id=backend_id, tenant=tenant))
    if row.status == ProgramStatus.READY:
        app.emit(_event_of(row), tenant, received.context)
    return program_view(row)


@handles(DestroyProgram, roles=ADMINS)
def destroy_program(app: Application, received: Received[DestroyProgram]) -> Nothing:
    """Delete an archived program."""
    program_id, tenant = received.command.program_id, received.tenant
    app.write(lambda connection: programs.destroy(connection, program_id, tenant=tenant))
    return Nothing()


@handles(GetProgram, roles=EVERY_ROLE)
def get_program(app: Application, received: Received[GetProgram]) -> ProgramView:
    """Read one program, with the code of its own module."""
    with app.read(received.tenant) as connection:
        program = programs.get(connection, received.command.program_id, tenant=received.tenant)
    return program_view(program, app.programs.code_of(program))


@handles(ListPrograms, roles=EVERY_ROLE)
def list_programs(app: Application, received: Received[ListPrograms]) -> Page[ProgramView]:
    """Read a page of programs."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = programs.page(
            connection,
            name=asked.name,
            status=asked.status,
            archived=asked.archived,
            signature_id=asked.signature_id,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, program_view, Page[ProgramView])


FETCH_SECONDS = 5.0
"""How long a query may fetch the images, audio and files of its inputs. A thread waits for it."""


@handles(GetProgramPrompt, roles=MAKERS, priority=CHANGES)
def get_prompt(app: Application, received: Received[GetProgramPrompt]) -> ProgramPrompt:
    """Show what the first LM call would send. The program's status does not matter."""
    asked = received.command
    with app.read(received.tenant) as connection:
        program = programs.get(connection, asked.program_id, tenant=received.tenant)
    with _here_or_elsewhere(app, program):
        given = whole_inputs(app, asked.inputs, program.signature, received.tenant)
        inputs = program.signature.validate_inputs(given)
        loaded = app.programs.build(app.programs.spec_of(program))
        if program.signature.attachments:
            inputs = app.attachments.resolve(program.signature, inputs, received.tenant, FETCH_SECONDS)
        prompt = loaded.first_prompt(inputs)
    return ProgramPrompt(
        program_id=program.id, backend_id=loaded.spec.backend_id, model=prompt.model, messages=prompt.messages
    )


@handles(GetProgramStats, roles=EVERY_ROLE)
def get_stats(app: Application, received: Received[GetProgramStats]) -> ProgramStats:
    """Read a program and the main figures of its executions."""
    with app.read(received.tenant) as connection:
        program = programs.get(connection, received.command.program_id, tenant=received.tenant)
    return ProgramStats(
        program_id=program.id,
        name=program.name,
        status=program.status,
        execution_count=program.execution_count,
        last_executed_at=program.last_executed_at,
        adapter_type=program.adapter_type,
        backend_id=program.backend_id,
    )


@handles(GetProgramStatistics, roles=EVERY_ROLE)
def get_statistics(app: Application, received: Received[GetProgramStatistics]) -> ProgramStatistics:
    """Read statistics: of all time from the counters, or of a window from the rows."""
    asked, tenant = received.command, received.tenant
    with app.read(tenant) as connection:
        if asked.since is None and asked.until is None:
            found = statistics.all_time(connection, asked.program_id, tenant=tenant)
        else:
            since = asked.since or datetime.min.replace(tzinfo=UTC)
            until = asked.until or datetime.max.replace(tzinfo=UTC)
            found = statistics.window(connection, asked.program_id, since, until, tenant=tenant)
    return ProgramStatistics.model_validate(vars(found))
