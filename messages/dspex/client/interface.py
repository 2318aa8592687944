"""The code interface: the same verbs in a process with database access and over the broker.

    with RemoteClient("amqp://...", source="/orders") as dspex:        # dspex.client
    with LocalClient(application) as dspex:                             # workers.local
        program = dspex.create_program("qa", "question -> answer", adapter_type="mock")
        dspex.initialize_program(program.program_id)
        execution = dspex.execute_program(program.program_id, {"question": "..."})

The verbs are written once, here and in `subject_verbs`, `execution_verbs`, `external_verbs`, `webhook_verbs`,
`gate_verbs` and `deployment_verbs`. They use two methods of `dspex.client.port`: `call` sends a command and returns its
answer; `start` submits an execution and returns a `Pending` to wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from dspex.blobs.values import placed
from dspex.client.arguments import arguments_checked
from dspex.client.backlog_verbs import BacklogVerbs
from dspex.client.deployment_verbs import DeploymentVerbs
from dspex.client.external_verbs import ExternalVerbs
from dspex.client.gate_verbs import GateVerbs
from dspex.client.losses import tell_losses, with_warnings
from dspex.client.subject import read_signature
from dspex.client.subject_verbs import SubjectVerbs
from dspex.client.webhook_verbs import WebhookVerbs
from dspex.contract.callback import Callback
from dspex.contract.commands import (
    ActivateSignature,
    ArchiveProgram,
    CreateSignature,
    CreateSignatureFromModule,
    DeprecateSignature,
    DestroyProgram,
    DestroySignature,
    InitializeProgram,
    ModuleVersion,
    RestoreProgram,
    UpdateProgram,
    UpdateSignature,
)
from dspex.contract.configuration import Configuration
from dspex.contract.dead_letters import DiscardExecutions, DiscardMessages, ReplayExecutions, ReplayMessages
from dspex.contract.queries import (
    CompareSignatures,
    GetProgram,
    GetProgramPrompt,
    GetProgramStatistics,
    GetProgramStats,
    GetRejectedMessage,
    GetSignature,
    GetSignatureSchema,
    ListPrograms,
    ListRejectedMessages,
    ListSignatures,
    ValidateModule,
)
from dspex.contract.results import (
    Affected,
    Answer,
    ExecutionView,
    Page,
    ProgramPrompt,
    ProgramStatistics,
    ProgramStats,
    ProgramView,
    RejectedMessageView,
    SignatureList,
    SignatureSchema,
    SignatureView,
)
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import DeadLetterStatus, ExecutionStatus, SignatureStatus
from dspex.ids import uuid7
from dspex.signatures.compatibility import Compatibility
from dspex.signatures.dspy_values import plain_values
from dspex.signatures.signature import Signature


@arguments_checked
class Interface(SubjectVerbs, ExternalVerbs, WebhookVerbs, BacklogVerbs, GateVerbs, DeploymentVerbs):
    """The verbs. Each raises `RequestFailed` (in process, another `DspexError`) with the reason and its code.

    A wrong argument raises `InvalidValues`, which names it; nothing is sent then.
    """

    # Signatures

    def create_signature(
        self,
        signature: Signature | str | Mapping[str, Any] | type,
        *,
        activate: bool = True,
        signature_id: UUID | None = None,
        strict: bool = False,
    ) -> SignatureView:
        """Create a signature from data, the arrow form, or a class (also as `package.module:Class`, imported here).

        The types of data may be any JSON Schema. What is lost of it, or of a class, is told by `SignatureWarning`s, and
        is in `warnings` of the view.

        Args:
            strict: refuse what would be lost.

        Raises:
            InvalidSignature: it cannot be read; with `strict`, also: something would be lost. It names each.
        """
        found = tell_losses(read_signature(signature), strict=strict)
        command = CreateSignature(signature_id=signature_id or uuid7(), signature=found, activate=activate)
        return with_warnings(self.call(command, SignatureView), found)

    def create_signature_from_module(
        self,
        module: str,
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        strict: bool = False,
    ) -> tuple[SignatureView, ...]:
        """Create drafts of the DSPy signatures in `package.module` or `package.module:Class` on the worker.

        Args:
            name: instead of the class's name; for one signature.
            description: for people; for one signature.
            version: instead of 1.0.0.
            strict: refuse classes of which something would be lost. Without it, `warnings` of the views name that.
        """
        command = CreateSignatureFromModule(
            module=module, name=name, description=description, version=version, strict=strict or None
        )
        return self.call(command, SignatureList).signatures

    def validate_module(self, module: str) -> bool:
        """Whether a module can be read and contains DSPy signatures."""
        return self.call(ValidateModule(module=module), Answer).value

    def update_signature(
        self, signature_id: UUID, signature: Signature | str | Mapping[str, Any] | type, *, strict: bool = False
    ) -> SignatureView:
        """Replace the content of a draft, given as for `create_signature`. Of others only the description may differ.

        Args:
            strict: as for `create_signature`.

        Raises:
            IllegalTransition, RequestFailed: it is no draft, and something else differs.
        """
        found = tell_losses(read_signature(signature), strict=strict)
        view = self.call(UpdateSignature(signature_id=signature_id, signature=found), SignatureView)
        return with_warnings(view, found)

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

    def get_signature_schema(self, signature_id: UUID | None = None, *, name: str | None = None) -> SignatureSchema:
        """The JSON Schemas of a signature's inputs and outputs: by its id, or of the newest active one of a name."""
        return self.call(GetSignatureSchema(signature_id=signature_id, name=name), SignatureSchema)

    def list_signatures(self, /, **filters: Any) -> Page[SignatureView]:
        """A page of signatures; the filters are the fields of `dspex.contract.queries.ListSignatures`."""
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

    def initialize_program(
        self, program_id: UUID, *, traceparent: str | None = None, timeout: float | None = None
    ) -> ProgramView:
        """Have the adapter build a program. The program in the answer is `ready`, or `error` with the reason."""
        command = InitializeProgram(program_id=program_id)
        return self.call(command, ProgramView, timeout=timeout, traceparent=traceparent)

    def update_program(
        self,
        program_id: UUID,
        configuration: Configuration | Mapping[str, Any] | None = None,
        *,
        signature: UUID | ModuleVersion | Signature | str | Mapping[str, Any] | type | None = None,
        allow_breaking: bool = False,
        adapter_type: str | None = None,
        name: str | None = None,
        policy: ExecutionPolicy | None = None,
        callback: Callback | None = None,
        remove_callback: bool = False,
        lock_version: int | None = None,
        traceparent: str | None = None,
        strict: bool = False,
    ) -> ProgramView:
        """Change the given parts of a program. If its configuration changes, it is built again.

        Args:
            configuration: a `Configuration` replaces the program's. A mapping changes only the members that it names,
                such as `{"lm": {"model": "openai/gpt-4o-mini"}, "state": None}`; None resets a member.
            signature: an id, a module and version, or as for `create_signature`; for executions that are claimed from
                then on.
            allow_breaking: take a signature that callers of the old one do not fit, too.
            strict: as for `create_signature`.

        Raises:
            BreakingChange, RequestFailed: the new signature breaks callers of the old one.
        """
        found = signature if isinstance(signature, UUID | ModuleVersion | None) else read_signature(signature)
        if isinstance(found, Signature):
            tell_losses(found, strict=strict)
        command = UpdateProgram(
            program_id=program_id,
            configuration=configuration,  # type: ignore[arg-type]  # read or refused by the model
            signature=found,
            allow_breaking=allow_breaking or None,
            adapter_type=adapter_type,
            name=name,
            policy=policy,
            callback=callback,
            remove_callback=remove_callback or None,
            lock_version=lock_version,
        )
        return with_warnings(self.call(command, ProgramView, traceparent=traceparent), found)

    def archive_program(self, program_id: UUID) -> ProgramView:
        """Archive a program: it takes no new executions, and those that wait fail with `program_archived`."""
        return self.call(ArchiveProgram(program_id=program_id), ProgramView)

    def restore_program(self, program_id: UUID, *, timeout: float | None = None) -> ProgramView:
        """Take a program out of the archive: it is what it was before, and takes executions if it was ready.

        Raises:
            RequestFailed, AdapterError: it cannot be built any more; the code says why. It stays archived.
            RequestFailed, IllegalTransition: it is not archived.
        """
        return self.call(RestoreProgram(program_id=program_id), ProgramView, timeout=timeout)

    def destroy_program(self, program_id: UUID) -> None:
        """Delete an archived program."""
        command = DestroyProgram(program_id=program_id)
        self.call(command, command.answer)

    def get_program(self, program_id: UUID) -> ProgramView:
        """One program."""
        return self.call(GetProgram(program_id=program_id), ProgramView)

    def list_programs(self, /, **filters: Any) -> Page[ProgramView]:
        """A page of programs; the filters are the fields of `dspex.contract.queries.ListPrograms`."""
        return self.call(ListPrograms(**filters), Page[ProgramView])

    def get_program_prompt(self, program_id: UUID, inputs: Mapping[str, Any]) -> ProgramPrompt:
        """What a program would send to its LM for these inputs: the messages of its first call, which is not made."""
        return self.call(GetProgramPrompt(program_id=program_id, inputs=placed(plain_values(inputs))), ProgramPrompt)

    def get_stats(self, program_id: UUID) -> ProgramStats:
        """A program and the main figures of its executions."""
        return self.call(GetProgramStats(program_id=program_id), ProgramStats)

    def get_program_statistics(
        self, program_id: UUID, *, since: datetime | None = None, until: datetime | None = None
    ) -> ProgramStatistics:
        """Statistics of a program's executions, of all time or of a window of time."""
        query = GetProgramStatistics(program_id=program_id, since=since, until=until)
        return self.call(query, ProgramStatistics)

    # Dead letters

    def list_dead_executions(self, /, **filters: Any) -> Page[ExecutionView]:
        """A page of the executions that failed and were not discarded; the filters are those of `list_executions`."""
        given: dict[str, Any] = {"discarded": False} | filters
        return self.list_executions(status=ExecutionStatus.FAILED, **given)

    def replay_executions(
        self, /, execution_ids: Iterable[UUID] | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> Affected:
        """Run failed executions again: those with these ids, or all that match the filters; without either, all.

        The filters are the other fields of `dspex.contract.dead_letters.ReplayExecutions`. Does not wait for their
        ends.
        """
        command = ReplayExecutions(execution_ids=_ids(execution_ids), **filters)
        return self.call(command, Affected, traceparent=traceparent)

    def discard_executions(
        self, /, execution_ids: Iterable[UUID] | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> Affected:
        """Mark failed executions as no longer dead letters; selected like those of `replay_executions`."""
        command = DiscardExecutions(execution_ids=_ids(execution_ids), **filters)
        return self.call(command, Affected, traceparent=traceparent)

    def get_rejected_message(self, rejection_id: UUID) -> RejectedMessageView:
        """One rejected message, with its body."""
        return self.call(GetRejectedMessage(rejection_id=rejection_id), RejectedMessageView)

    def list_rejected_messages(self, /, **filters: Any) -> Page[RejectedMessageView]:
        """A page of rejected messages; the filters are the fields of `dspex.contract.queries.ListRejectedMessages`."""
        return self.call(ListRejectedMessages(**filters), Page[RejectedMessageView])

    def list_dead_messages(self, /, **filters: Any) -> Page[RejectedMessageView]:
        """A page of the rejected messages that were neither replayed nor discarded."""
        return self.list_rejected_messages(status=DeadLetterStatus.DEAD, **filters)

    def replay_messages(
        self, /, rejection_ids: Iterable[UUID] | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> Affected:
        """Send rejected messages again: those with these ids, or all that match the filters; without either, all.

        The filters are the other fields of `dspex.contract.dead_letters.ReplayMessages`.

        Raises:
            DspexError: a message that was named cannot be sent: its body was cut, it is no command, or the caller may
                not give that command. The others were sent; the text says how many.
        """
        command = ReplayMessages(rejection_ids=_ids(rejection_ids), **filters)
        return self.call(command, Affected, traceparent=traceparent)

    def discard_messages(
        self, /, rejection_ids: Iterable[UUID] | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> Affected:
        """Mark rejected messages as no longer dead letters; selected like those of `replay_messages`."""
        command = DiscardMessages(rejection_ids=_ids(rejection_ids), **filters)
        return self.call(command, Affected, traceparent=traceparent)


def _ids(given: Iterable[UUID] | None) -> tuple[UUID, ...] | None:
    return None if given is None else tuple(given)
