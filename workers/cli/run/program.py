"""The program of a run: created and initialized by messages, unless an earlier run did."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from adapters.port import AdapterError
from dspex import CreateProgram, CreateSignature, InitializeProgram, ProgramStatus, Signature
from dspex.amqp.publication import command_publication
from dspex.amqp.topology import PROGRAMS_QUEUE
from dspex.contract.commands import Command
from dspex.contract.envelope import wrap
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import NotFound
from dspex.ids import DEFAULT_TENANT, digest
from dspex.signatures.names import GENERIC, with_name
from store import programs, rejections
from store.programs import Program
from store.rejections import Rejection
from workers.application.lm_catalog import make_catalog
from workers.cli.run.options import RunFailed, options_checked
from workers.cli.run.reading import reading
from workers.cli.run.subject import Subject
from workers.security.principals import as_it_came
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.application.wiring import Application

NAMESPACE = UUID("0d8f4f5a-33f7-5b7b-9a40-7c2b1f6f2e11")
SOURCE = "/dspex/run"
POLL_SECONDS = 0.02
PROGRAM_SECONDS = 120.0
CALL_LMS = frozenset({"native", "python_port"})


class RunProgram:
    """The program of a run: one that is there, or one of its own, whose id is derived from its content.

    Attributes:
        namespace: the ids of executions are derived from it. It is another one when the program has been changed.

    Raises:
        SettingsError: an option is invalid.
    """

    def __init__(self, subject: Subject, tenant: str) -> None:
        spec = subject.spec
        self._spec = spec
        self._tenant = tenant
        self._commands: tuple[Command, ...]
        if subject.program is not None:
            self.id = subject.program.id
            self.namespace = uuid.uuid5(self.id, subject.program.backend_id or spec.backend_id)
            self._commands = (InitializeProgram(program_id=self.id),)
            return
        signature = spec.signature.model_copy(update={"module": None})
        # Each tenant has its own id, even for the same signature.
        namespace = NAMESPACE if tenant == DEFAULT_TENANT else uuid.uuid5(NAMESPACE, tenant)
        content_id = uuid.uuid5(namespace, digest(_without_derived_name(signature)))
        told = signature.description
        signature_id = content_id if told is None else uuid.uuid5(content_id, told)
        # The policy is part of what a program is, and so of its id; the usual one has none.
        policy = subject.policy if subject.policy != ExecutionPolicy() else None
        content = spec.backend_id if policy is None else f"{spec.backend_id}/{digest(policy.model_dump(mode='json'))}"
        self.id = self.namespace = uuid.uuid5(content_id, content)
        with options_checked():
            self._commands = (
                CreateSignature(signature_id=signature_id, signature=signature),
                CreateProgram(
                    program_id=self.id,
                    signature_id=signature_id,
                    name=signature.name,
                    adapter_type=spec.adapter_type,
                    configuration=spec.configuration,
                    policy=policy,
                ),
                InitializeProgram(program_id=self.id),
            )

    def was_ready(self, engine: Engine) -> bool:
        """Whether the program is ready from an earlier run."""
        before = self._before(engine)
        return before is not None and before.status == ProgramStatus.READY

    def check_lm(self, settings: Settings) -> None:
        """Check that its LM can be called here, before anything else: an alias or a key may be missing.

        Raises:
            RunFailed: the LM cannot be called.
        """
        lm = self._spec.configuration.lm
        if lm is not None and self._spec.adapter_type in CALL_LMS:
            try:
                make_catalog(settings).resolve(lm, self._tenant)
            except AdapterError as error:
                raise RunFailed(f"the program cannot be built: {error.message}") from None

    def prepare(self, app: Application, *, runs_here: bool) -> None:
        """Make sure that the program exists and is ready.

        Args:
            runs_here: whether this process runs it, and so must be able to build it.

        Raises:
            RunFailed: the adapter cannot build it, or no worker answers.
        """
        before = self._before(app.engine)
        if runs_here:
            # First, as it may be ready only because another process had the alias or the key.
            try:
                app.programs.build(replace(self._spec, tenant=self._tenant))
            except AdapterError as error:
                raise RunFailed(f"the program cannot be built: {error.message}") from None
        # One that is there may have been renamed since.
        commands = self._commands if before is None else self._commands[-1:]
        sent = [id_ for command in commands for id_ in _send(app, command, self._tenant)]
        _wait_for(app, self.id, self._tenant, sent, before.lock_version if before else 0)

    def _before(self, engine: Engine) -> Program | None:
        with reading(engine, self._tenant) as connection:
            return _find(connection, self.id, self._tenant)


def _without_derived_name(signature: Signature) -> dict[str, Any]:
    """What ids are made of: a derived name as it was before names were, so that what ran then does not run again."""
    data = signature.model_dump(mode="json", exclude={"description"})
    return data | {"name": GENERIC} if data == with_name(data | {"name": GENERIC}) else data


def _send(app: Application, command: Command, tenant: str) -> tuple[UUID, UUID]:
    """Send a command. Returns the ids that its rejection would have, with and without its tenant."""
    envelope = wrap(command, source=SOURCE, tenant=tenant)
    body = envelope.encode()
    app.publisher.publish(command_publication(envelope, body))
    one, other = (
        Rejection(PROGRAMS_QUEUE, "", "", came, len(came), tenant=tenant).id
        for came in (body, as_it_came(body, tenant))
    )
    return one, other


def _wait_for(app: Application, program_id: UUID, tenant: str, sent: Sequence[UUID], version_before: int) -> None:
    deadline = time.monotonic() + PROGRAM_SECONDS
    while time.monotonic() < deadline:
        with reading(app.engine, tenant) as connection:
            program = _find(connection, program_id, tenant)
            refused = rejections.find(connection, sent, tenant=tenant)
        if refused:
            raise RunFailed(f"the program was rejected: {refused[0].error_message}")
        if program is not None and program.status == ProgramStatus.READY:
            return
        # An error of an earlier run is not the answer to this one.
        if program is not None and program.error is not None and program.lock_version > version_before + 1:
            raise RunFailed(f"the program cannot be built: {program.error.message}")
        time.sleep(POLL_SECONDS)
    raise RunFailed(f"the program was not initialized in {PROGRAM_SECONDS:.0f} s: see the workers' logs")


def _find(connection: Connection, program_id: UUID, tenant: str) -> Program | None:
    try:
        return programs.get(connection, program_id, tenant=tenant)
    except NotFound:
        return None
