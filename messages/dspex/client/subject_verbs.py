"""The verbs that take what a caller has: a signature, a class, a file, or a program that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from dspex.client import program_lookup
from dspex.client.arguments import arguments_checked
from dspex.client.classes import OwnModule
from dspex.client.deadline import left, within
from dspex.client.execution_verbs import ExecutionVerbs
from dspex.client.losses import tell_losses, with_warnings
from dspex.client.subject import Given, NamedProgram, read_subject
from dspex.contract.callback import Callback
from dspex.contract.commands import CreateProgramWithSignature, InitializeProgram, ModuleVersion
from dspex.contract.configuration import Configuration
from dspex.contract.deployment import Deployment
from dspex.contract.results import Created, ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import ProgramStatus
from dspex.errors import DspexError, InvalidValues, NotFound, Problem, RequestFailed
from dspex.ids import uuid7
from dspex.signatures.signature import Signature

ADAPTER = "python_port"
QUICK_ADAPTER = "mock"


@dataclass(frozen=True)
class _Parts:
    """What a subject says of a program that is to be made of it; None: nothing."""

    signature: UUID | Signature | ModuleVersion
    adapter_type: str | None = None
    configuration: Configuration | None = None
    policy: ExecutionPolicy | None = None
    callback: Callback | None = None
    program_id: UUID | None = None
    name: str | None = None


@arguments_checked
class SubjectVerbs(ExecutionVerbs):
    """The part of the client for what callers have. What may be given: `dspex.client.subject`."""

    def create_program(
        self,
        name: str,
        signature: UUID | ModuleVersion | Given,
        *,
        adapter_type: str | None = None,
        configuration: Configuration | None = None,
        policy: ExecutionPolicy | None = None,
        callback: Callback | None = None,
        program_id: UUID | None = None,
        strict: bool = False,
    ) -> ProgramView:
        """Create a program as a draft, and find or create its signature.

        Args:
            signature: the id of a signature, a module and version, data, the arrow form, or a class derived from
                `dspy.Signature`, also as `package.module:Class`: it is imported here, and not by a worker. A class
                derived from `dspy.Module` also names the module. Of a deployment, its file, or a program (by its id or
                name), the new one has all that is not given otherwise.
            adapter_type: by default that of the deployment or the program, or else `python_port`.
            strict: refuse what would be lost of a class, or of a JSON Schema. Without it, `SignatureWarning`s and
                `warnings` of the view name that.

        Raises:
            InvalidSignature, InvalidValues: what is given cannot be read.
            RequestFailed, NotFound, Conflict: no program, or several, have the name that is given.
        """
        with within(self.timeout):
            try:
                parts = self._parts(signature, configuration)
                if isinstance(parts.signature, Signature):
                    tell_losses(parts.signature, strict=strict)
                return self._create(name, parts, adapter_type, policy, callback, program_id)
            except DspexError as error:
                if not isinstance(signature, UUID) or error.code != NotFound.code:
                    raise
                program = program_lookup.AskedPrograms(self).by_id(signature)
                if program is None:
                    raise
            parts = _parts_of_program(program, configuration)
            return self._create(name, parts, adapter_type, policy, callback, program_id)

    def find_program(self, program: UUID | str) -> ProgramView:
        """The program with this id, or the one with this name that is not archived.

        Raises:
            RequestFailed, NotFound, IllegalTransition, Conflict: there is none, it is archived, or several have the
                name.
        """
        with within(self.timeout):
            return program_lookup.find_program(program_lookup.AskedPrograms(self), program)

    def quick_execute(
        self,
        signature: Given,
        inputs: Mapping[str, Any],
        adapter_type: str | None = None,
        *,
        configuration: Configuration | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        timeout: float | None = None,
        strict: bool = False,
    ) -> dict[str, Any]:
        """Run a signature, a module, a deployment or a program that is there on inputs, and return the outputs.

        A program that is there runs as it is, and is initialized if it was not. Of anything else a program is created.

        Args:
            signature: what to run, as for `create_program`; an id is a program's.
            adapter_type: by default that of the deployment, or else `mock`.
            metadata: for the execution, see `submit_program`.
            traceparent: W3C Trace Context of the caller's span.
            timeout: seconds for the whole call.
            strict: as for `create_program`.

        Raises:
            RequestFailed: the program could not be built; the code says why.
            ExecutionError: the execution failed; the code says why.
        """
        timeout = self.timeout if timeout is None else timeout
        with within(timeout):
            subject = read_subject(signature)
            if isinstance(subject, NamedProgram):
                program = self.find_program(subject.given)
                if adapter_type is not None or configuration is not None:
                    reason = f"program {program.program_id} has its own: update_program changes it"
                    raise InvalidValues([Problem("configuration" if configuration else "adapter_type", reason)])
            else:
                parts = self._parts(subject, configuration)
                if isinstance(parts.signature, Signature):
                    tell_losses(parts.signature, strict=strict)
                adapter_type = adapter_type or parts.adapter_type or QUICK_ADAPTER
                program = self._create(f"quick {parts.name}", parts, adapter_type)
            if program.status != ProgramStatus.READY:
                initialize = InitializeProgram(program_id=program.program_id)
                program = self.call(initialize, ProgramView, traceparent=traceparent, timeout=timeout)
            if program.status != ProgramStatus.READY:
                raise RequestFailed(
                    program.error.code if program.error else "internal",
                    program.error.message if program.error else f"the program is {program.status}",
                )
            handle = self.submit_program(
                program.program_id, inputs, metadata=metadata, traceparent=traceparent, timeout=timeout
            )
            return handle.result(left(timeout))

    def _parts(self, given: UUID | ModuleVersion | Given, configuration: Configuration | None) -> _Parts:
        if isinstance(given, UUID | ModuleVersion):
            return _Parts(given, configuration=configuration)
        match read_subject(given):
            case Signature() as signature:
                return _Parts(signature, configuration=configuration, name=signature.name)
            case OwnModule() as own:
                with_module = _with_module(configuration, own.name)
                return _Parts(own.signature, configuration=with_module, name=own.signature.name)
            case Deployment() as wanted:
                return _Parts(
                    wanted.signature,
                    wanted.adapter_type,
                    configuration or wanted.configuration,
                    wanted.policy,
                    wanted.callback,
                    wanted.program_id,
                    wanted.name,
                )
            case NamedProgram() as named:
                return _parts_of_program(self.find_program(named.given), configuration)

    def _create(
        self,
        name: str,
        parts: _Parts,
        adapter_type: str | None,
        policy: ExecutionPolicy | None = None,
        callback: Callback | None = None,
        program_id: UUID | None = None,
    ) -> ProgramView:
        command = CreateProgramWithSignature(
            program_id=program_id or parts.program_id or uuid7(),
            name=name,
            signature=parts.signature,
            adapter_type=adapter_type or parts.adapter_type or ADAPTER,
            configuration=parts.configuration or Configuration(),
            policy=policy or parts.policy,
            callback=callback or parts.callback,
        )
        return with_warnings(self.call(command, Created).program, parts.signature)


def _parts_of_program(program: ProgramView, configuration: Configuration | None) -> _Parts:
    found = configuration or program.configuration
    return _Parts(program.signature_id, program.adapter_type, found, program.policy, program.callback)


def _with_module(configuration: Configuration | None, name: str) -> Configuration:
    """The configuration with the module of a class that was given."""
    given = configuration or Configuration()
    if "module" in given.model_fields_set and given.module != name:
        reason = f"is '{given.module}', and the class that is given is '{name}': leave one of them out"
        raise InvalidValues([Problem("configuration.module", reason)])
    return Configuration.model_validate(given.model_dump() | {"module": name})
