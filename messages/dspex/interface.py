"""The code interface: every verb, the same in a process that has the database and over the broker.

    with RemoteClient("amqp://...", source="/orders") as dspex:        # dspex.client
    with LocalClient(application) as dspex:                             # workers.local
        program = dspex.create_program("qa", "question -> answer", adapter_type="mock")
        dspex.initialize_program(program.program_id)
        execution = dspex.execute_program(program.program_id, {"question": "..."})

The verbs are written here once, on `call`: a command goes in, its answer comes out.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from dspex.callbacks import Callback
from dspex.commands import (
    ActivateSignature,
    ArchiveProgram,
    CancelExecution,
    Command,
    CreateProgramWithSignature,
    CreateSignature,
    CreateSignatureFromModule,
    DeprecateSignature,
    DestroyProgram,
    DestroySignature,
    ExecuteProgram,
    InitializeProgram,
    ModuleVersion,
    UpdateProgram,
    UpdateSignature,
)
from dspex.compatibility import Compatibility
from dspex.configuration import Configuration
from dspex.errors import RequestFailed
from dspex.ids import uuid7
from dspex.options import ExecutionOptions
from dspex.policy import ExecutionPolicy
from dspex.queries import (
    CompareSignatures,
    GetExecution,
    GetProgram,
    GetProgramStatistics,
    GetProgramStats,
    GetSignature,
    ListExecutions,
    ListPrograms,
    ListSignatures,
    ValidateModule,
)
from dspex.results import (
    Answer,
    Created,
    ExecutionView,
    Page,
    ProgramStatistics,
    ProgramStats,
    ProgramView,
    SignatureList,
    SignatureView,
)
from dspex.signature import Signature
from dspex.status import ExecutionStatus, ProgramStatus, SignatureStatus
from dspex.webhook_interface import WebhookInterface

View = TypeVar("View", bound=BaseModel)

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for an answer."""


class Interface(WebhookInterface):
    """The verbs. Every one raises `RequestFailed` (or another `DspexError` in process) with the reason and its code."""

    @abc.abstractmethod
    def call(self, command: Command, answer: type[View], *, timeout: float | None = None) -> View:
        """Have a command carried out, and return its answer.

        Args:
            timeout: seconds to wait for the answer.

        Raises:
            NoAnswer: none came in time.
            DspexError: it was refused; the code says why.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free what it holds. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Signatures

    def create_signature(
        self, signature: Signature | str | Mapping[str, Any], *, activate: bool = True, signature_id: UUID | None = None
    ) -> SignatureView:
        """Create a signature from data or from the arrow form."""
        parsed = signature if isinstance(signature, Signature) else Signature.parse(signature)
        command = CreateSignature(signature_id=signature_id or uuid7(), signature=parsed, activate=activate)
        return self.call(command, SignatureView)

    def create_signature_from_module(self, module: str) -> tuple[SignatureView, ...]:
        """Create drafts of the DSPy signatures in `package.module` or `package.module:Class` on the worker."""
        return self.call(CreateSignatureFromModule(module=module), SignatureList).signatures

    def validate_module(self, module: str) -> bool:
        """Whether a module can be read and holds DSPy signatures."""
        return self.call(ValidateModule(module=module), Answer).value

    def update_signature(self, signature_id: UUID, signature: Signature | str | Mapping[str, Any]) -> SignatureView:
        """Replace the content of a draft."""
        parsed = signature if isinstance(signature, Signature) else Signature.parse(signature)
        return self.call(UpdateSignature(signature_id=signature_id, signature=parsed), SignatureView)

    def activate_signature(self, signature_id: UUID) -> SignatureView:
        """draft → active."""
        return self.call(ActivateSignature(signature_id=signature_id), SignatureView)

    def deprecate_signature(self, signature_id: UUID) -> SignatureView:
        """active → deprecated."""
        return self.call(DeprecateSignature(signature_id=signature_id), SignatureView)

    def destroy_signature(self, signature_id: UUID) -> None:
        """Delete a signature that no program uses."""
        command = DestroySignature(signature_id=signature_id)
        self.call(command, command.answer)

    def get_signature(self, signature_id: UUID) -> SignatureView:
        """One signature."""
        return self.call(GetSignature(signature_id=signature_id), SignatureView)

    def list_signatures(self, **filters: Any) -> Page[SignatureView]:
        """A page of signatures; the filters are the fields of `dspex.queries.ListSignatures`."""
        return self.call(ListSignatures(**filters), Page[SignatureView])

    def list_active_signatures(self) -> Iterator[SignatureView]:
        """Every active signature, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = self.list_signatures(status=SignatureStatus.ACTIVE, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def compare_signatures(self, old_id: UUID, new_id: UUID) -> Compatibility:
        """What changed from one signature to another, and whether callers of the old one still work."""
        return self.call(CompareSignatures(old_id=old_id, new_id=new_id), Compatibility)

    # Programs

    def create_program(
        self,
        name: str,
        signature: UUID | Signature | ModuleVersion | str | Mapping[str, Any],
        *,
        adapter_type: str = "python_port",
        configuration: Configuration | None = None,
        policy: ExecutionPolicy | None = None,
        callback: Callback | None = None,
        program_id: UUID | None = None,
    ) -> ProgramView:
        """Create a program, and find or create its signature (an id, a module and version, data, or the arrow form)."""
        found = Signature.parse(signature) if isinstance(signature, str | Mapping) else signature
        command = CreateProgramWithSignature(
            program_id=program_id or uuid7(),
            name=name,
            signature=found,
            adapter_type=adapter_type,
            configuration=configuration or Configuration(),
            policy=policy,
            callback=callback,
        )
        return self.call(command, Created).program

    def initialize_program(self, program_id: UUID, *, timeout: float | None = None) -> ProgramView:
        """Have the adapter build a program; the answer is `ready`, or `error` with the reason."""
        return self.call(InitializeProgram(program_id=program_id), ProgramView, timeout=timeout)

    def update_program(
        self,
        program_id: UUID,
        configuration: Configuration,
        *,
        policy: ExecutionPolicy | None = None,
        callback: Callback | None = None,
        remove_callback: bool = False,
        lock_version: int | None = None,
    ) -> ProgramView:
        """Change the configuration; a ready program is built anew. A policy or callback that is not given stays."""
        command = UpdateProgram(
            program_id=program_id,
            configuration=configuration,
            policy=policy,
            callback=callback,
            remove_callback=remove_callback or None,
            lock_version=lock_version,
        )
        return self.call(command, ProgramView)

    def archive_program(self, program_id: UUID) -> ProgramView:
        """Take no new executions."""
        return self.call(ArchiveProgram(program_id=program_id), ProgramView)

    def destroy_program(self, program_id: UUID) -> None:
        """Delete an archived program."""
        command = DestroyProgram(program_id=program_id)
        self.call(command, command.answer)

    def get_program(self, program_id: UUID) -> ProgramView:
        """One program."""
        return self.call(GetProgram(program_id=program_id), ProgramView)

    def list_programs(self, **filters: Any) -> Page[ProgramView]:
        """A page of programs; the filters are the fields of `dspex.queries.ListPrograms`."""
        return self.call(ListPrograms(**filters), Page[ProgramView])

    def get_stats(self, program_id: UUID) -> ProgramStats:
        """What a program is and has done, in short."""
        return self.call(GetProgramStats(program_id=program_id), ProgramStats)

    def get_program_statistics(
        self, program_id: UUID, *, since: datetime | None = None, until: datetime | None = None
    ) -> ProgramStatistics:
        """Figures over a program's executions: of all time, or of a window."""
        query = GetProgramStatistics(program_id=program_id, since=since, until=until)
        return self.call(query, ProgramStatistics)

    # Executions

    def execute_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        timeout: float | None = None,
    ) -> ExecutionView:
        """Run a program, and wait until the execution has ended. A failed one is returned, not raised.

        With the id or the idempotency key of an execution that is there already, nothing runs twice: it is waited for.
        """
        command = ExecuteProgram(
            execution_id=execution_id or uuid7(),
            program_id=program_id,
            inputs=dict(inputs),
            options=options or ExecutionOptions(),
            idempotency_key=idempotency_key,
            callback=callback,
        )
        return self.call(command, ExecutionView, timeout=timeout)

    def quick_execute(
        self,
        signature: Signature | str | Mapping[str, Any],
        inputs: Mapping[str, Any],
        adapter_type: str = "mock",
        *,
        configuration: Configuration | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Signature and inputs in, outputs out: creates or finds what it needs on the way.

        Raises:
            RequestFailed: the program cannot be built, or the execution failed; the code says why.
        """
        parsed = signature if isinstance(signature, Signature) else Signature.parse(signature)
        program = self.create_program(
            f"quick {parsed.name}", parsed, adapter_type=adapter_type, configuration=configuration
        )
        program = self.initialize_program(program.program_id, timeout=timeout)
        if program.status != ProgramStatus.READY:
            raise RequestFailed(
                program.error.code if program.error else "internal",
                program.error.message if program.error else f"the program is {program.status}",
            )
        execution = self.execute_program(program.program_id, inputs, timeout=timeout)
        if execution.status != ExecutionStatus.COMPLETED or execution.outputs is None:
            raise RequestFailed(
                execution.error.code if execution.error else execution.status,
                execution.error.message if execution.error else f"the execution is {execution.status}",
            )
        return execution.outputs

    def cancel_execution(self, execution_id: UUID) -> ExecutionView:
        """Cancel an execution: a pending one at once, a running one as soon as its adapter can stop."""
        return self.call(CancelExecution(execution_id=execution_id), ExecutionView)

    def get_execution(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> ExecutionView:
        """One execution, by its id or by its idempotency key."""
        query = GetExecution(execution_id=execution_id, idempotency_key=idempotency_key)
        return self.call(query, ExecutionView)

    def list_executions(self, **filters: Any) -> Page[ExecutionView]:
        """A page of executions; the filters are the fields of `dspex.queries.ListExecutions`."""
        return self.call(ListExecutions(**filters), Page[ExecutionView])

    def recent_executions(self, limit: int = 50) -> tuple[ExecutionView, ...]:
        """The newest executions."""
        return self.list_executions(limit=limit).items
