"""The verbs of deployments: what one would change, and to carry it out."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from dspex.client.arguments import arguments_checked
from dspex.client.deadline import left, within
from dspex.client.deployment_file import as_deployment, read_deployment
from dspex.client.losses import tell_losses, with_warnings
from dspex.client.port import Port
from dspex.client.program_lookup import AskedPrograms, program_named
from dspex.contract.commands import CreateProgramWithSignature, InitializeProgram, UpdateProgram
from dspex.contract.configuration import Configuration
from dspex.contract.deployment import Deployment, Difference, Plan, differences
from dspex.contract.queries import GetProgram, GetSignature
from dspex.contract.results import Created, ProgramView, SignatureView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import ProgramStatus
from dspex.errors import IllegalTransition, RequestFailed
from dspex.ids import uuid7
from dspex.signatures.compatibility import check_compatible, compare
from dspex.signatures.signature import Signature

NAMESPACE = UUID("6a7d6a5e-6d0c-5f0e-9c65-0d6f6f0b8a51")
LOOK_SECONDS = 0.2

Given = Deployment | Mapping[str, Any] | Path | str


@arguments_checked
class DeploymentVerbs(Port):
    """The part of the client for deployments."""

    def plan_deployment(self, deployment: Deployment | Mapping[str, Any] | Path | str, *, strict: bool = False) -> Plan:
        """What `deploy` would change. Changes nothing.

        Args:
            deployment: the program as it is to be, or the path of its file (TOML or JSON).
            strict: refuse what would be lost of a signature; see `create_signature`.

        Raises:
            InvalidValues: the file cannot be read, or a member is wrong.
            Conflict: several programs have its name, and it names no `program_id`.
            IllegalTransition: its program is archived.
        """
        wanted = _read(deployment)
        tell_losses(wanted.signature, strict=strict)
        with within(self.timeout):
            program = self._deployed(wanted)
            if program is None:
                return Plan(program_id=self._new_id(wanted), program=None, differences=_from_nothing(wanted))
            if program.status == ProgramStatus.ARCHIVED:
                raise IllegalTransition(
                    f"program {program.program_id} cannot be deployed: it is archived; give another program_id"
                )
            signature = self.call(GetSignature(signature_id=program.signature_id), SignatureView).signature
        return Plan(
            program_id=program.program_id,
            program=program,
            differences=(*differences(_members(program), _members(wanted)), *_described(signature, wanted.signature)),
            signature=None if signature.digest == wanted.signature.digest else compare(signature, wanted.signature),
            initialize=program.status != ProgramStatus.READY,
        )

    def deploy(
        self,
        deployment: Deployment | Mapping[str, Any] | Path | str,
        *,
        plan: Plan | None = None,
        allow_breaking: bool = False,
        timeout: float | None = None,
        strict: bool = False,
    ) -> ProgramView:
        """Create the program of a deployment, or change what differs in it, and wait until it is ready.

        If nothing differs but the code of its module on the workers, the program is built again, with that.

        Args:
            deployment: see `plan_deployment`.
            plan: what was planned before; if the program was changed since, nothing is done. None: plan now.
            allow_breaking: take a signature that callers of the old one do not fit, too.
            timeout: seconds for the whole call.
            strict: see `plan_deployment`.

        Raises:
            InvalidValues, Conflict, IllegalTransition: see `plan_deployment`; also, something else initializes it.
            BreakingChange, RequestFailed: the new signature breaks callers of the old one.
            RequestFailed: the program cannot be built. One that was ready stays as it was.
        """
        wanted = _read(deployment)
        if strict:
            wanted.signature.check_whole()
        with within(self.timeout if timeout is None else timeout):
            planned = plan or self.plan_deployment(wanted, strict=strict)
            if planned.signature is not None and not allow_breaking:
                check_compatible(planned.signature, planned.program_id)
            before = planned.program
            program = self._make(wanted, planned) if before is None else self._change(wanted, planned, before)
            # A ready one too, where nothing differs: its module's code may be other than the one it was built with.
            if program.status != ProgramStatus.READY or program == before:
                command = InitializeProgram(program_id=program.program_id)
                program = self._built(self.call(command, ProgramView, timeout=left(math.inf)))
        if program.status != ProgramStatus.READY:
            code, said = (program.error.code, program.error.message) if program.error else ("internal", program.status)
            raise RequestFailed(code, f"program {program.program_id} cannot be built: {said}")
        return with_warnings(program, wanted.signature)

    def _make(self, wanted: Deployment, planned: Plan) -> ProgramView:
        command = CreateProgramWithSignature(
            program_id=planned.program_id,
            name=wanted.name,
            signature=wanted.signature,
            adapter_type=wanted.adapter_type,
            configuration=wanted.configuration,
            policy=wanted.policy,
            callback=wanted.callback,
        )
        return self.call(command, Created).program

    def _change(self, wanted: Deployment, planned: Plan, program: ProgramView) -> ProgramView:
        changed = {difference.member.partition(".")[0] for difference in planned.differences}
        if not (changed or planned.signature):
            return program
        command = UpdateProgram(
            program_id=program.program_id,
            # A whole configuration; without a change in it, the program is not built again.
            configuration=wanted.configuration if changed & Configuration.model_fields.keys() else None,  # type: ignore[arg-type]
            signature=wanted.signature if planned.signature is not None or "signature" in changed else None,
            allow_breaking=True if planned.breaking else None,
            adapter_type=wanted.adapter_type if "adapter_type" in changed else None,
            name=wanted.name if "name" in changed else None,
            policy=wanted.policy if "policy" in changed else None,
            callback=wanted.callback if "callback" in changed else None,
            remove_callback=True if "callback" in changed and wanted.callback is None else None,
            lock_version=program.lock_version,
        )
        return self.call(command, ProgramView, timeout=left(math.inf))

    def _built(self, program: ProgramView) -> ProgramView:
        """Wait until it is no longer being initialized: by another deployment, if not by ours."""
        while program.status == ProgramStatus.INITIALIZING and left(math.inf) > 0:
            time.sleep(LOOK_SECONDS)
            program = self.call(GetProgram(program_id=program.program_id), ProgramView)
        return program

    def _deployed(self, wanted: Deployment) -> ProgramView | None:
        programs = AskedPrograms(self)
        if wanted.program_id is not None:
            return programs.by_id(wanted.program_id)
        return program_named(programs, wanted.name)

    def _new_id(self, wanted: Deployment) -> UUID:
        """The id of a new program. It follows from the name, so that two that deploy at once make one program."""
        if wanted.program_id is not None:
            return wanted.program_id
        derived = uuid.uuid5(NAMESPACE, wanted.name)
        return derived if AskedPrograms(self).by_id(derived) is None else uuid7()


def _read(given: Given) -> Deployment:
    match given:
        case Deployment():
            return given
        case Mapping():
            return as_deployment(given, Path())
        case _:
            return read_deployment(Path(given))


def _members(of: Deployment | ProgramView) -> dict[str, Any]:
    """What is compared, as JSON."""
    # As the program keeps it.
    configuration = of.configuration.bound_to(of.signature) if isinstance(of, Deployment) else of.configuration
    return {
        "name": of.name,
        "adapter_type": of.adapter_type,
        **configuration.model_dump(mode="json", exclude_none=True),
        "policy": ExecutionPolicy().model_dump(mode="json") | of.policy.model_dump(mode="json"),
        "callback": None if of.callback is None else of.callback.model_dump(mode="json"),
    }


def _described(before: Signature, after: Signature) -> tuple[Difference, ...]:
    """The description of the signature, if another is given. It is not a part of what `compare` compares."""
    if after.description in (None, before.description):
        return ()
    return (Difference(member="signature.description", before=before.description, after=after.description),)


def _from_nothing(wanted: Deployment) -> tuple[Difference, ...]:
    usual = ExecutionPolicy().model_dump(mode="json")
    members = _members(wanted)
    policy = {name: value for name, value in members.pop("policy").items() if value != usual.get(name)}
    return tuple(Difference(member=name, after=value) for name, value in {**members, "policy": policy}.items() if value)
