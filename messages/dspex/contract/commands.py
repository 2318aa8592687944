"""The commands: what may be asked for. Each says what its answer is.

The id of what is created or run is the caller's, so that sending twice is as good as sending once. A command that is
sent with a reply queue is answered there (`dspex.reply.v1`); the queries, which change nothing, are in
`dspex.contract.queries`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue, StrictBool, StrictInt, field_validator, model_validator

from dspex.contract.callback import Callback
from dspex.contract.configuration import AdapterType, Configuration, ConfigurationChange
from dspex.contract.options import ExecutionOptions, Metadata
from dspex.contract.queues import EXECUTIONS_QUEUE, PROGRAMS_QUEUE, REQUESTS_QUEUE
from dspex.contract.results import Created, ExecutionView, Nothing, ProgramView, SignatureList, SignatureView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.model import Frozen, Sparse
from dspex.scalars import WHOLE
from dspex.signatures.signature import ModuleName, SemVer, Signature

Name = Annotated[str, Field(min_length=1, max_length=200)]
ModuleReference = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$", max_length=300, examples=["pkg.module:Class"]),
]


IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255)]


SUBJECTS = ("execution_id", "program_id", "signature_id", "rejection_id", "endpoint_id", "delivery_id")
"""What a command may be about, the first one that it has."""


class Command(Sparse):
    """Base of the commands.

    Attributes:
        type: the CloudEvents type, and the routing key on the exchange of commands.
        answer: what it is answered with.
        queue_name: the queue that takes it.
    """

    answer: ClassVar[type[BaseModel]] = Nothing
    type: ClassVar[str]
    queue_name: ClassVar[str] = REQUESTS_QUEUE

    @property
    def subject(self) -> str | None:
        """The id of the entity that the command is about."""
        for name in SUBJECTS:
            if (found := getattr(self, name, None)) is not None:
                return str(found)
        return None


# Signatures


class CreateSignature(Command):
    """Create a signature; `activate: false` leaves it a draft, which programs cannot be initialized with."""

    type = "dspex.signature.create.v1"
    queue_name = PROGRAMS_QUEUE
    answer = SignatureView

    signature_id: UUID
    signature: Signature
    activate: bool = True


class CreateSignatureFromModule(Command):
    """Create drafts of the DSPy signatures that a Python module of the worker's machine defines.

    Only modules under the import prefixes that the operator allows (`DSPEX_MODULES`) are read.
    """

    type = "dspex.signature.create_from_module.v1"
    answer = SignatureList

    module: ModuleReference


class UpdateSignature(Command):
    """Replace the content of a draft."""

    type = "dspex.signature.update.v1"
    answer = SignatureView

    signature_id: UUID
    signature: Signature


class ActivateSignature(Command):
    """draft → active: programs may be initialized with it."""

    type = "dspex.signature.activate.v1"
    answer = SignatureView

    signature_id: UUID


class DeprecateSignature(Command):
    """active → deprecated: the programs that have it go on."""

    type = "dspex.signature.deprecate.v1"
    answer = SignatureView

    signature_id: UUID


class DestroySignature(Command):
    """Delete a signature that no program uses."""

    type = "dspex.signature.destroy.v1"

    signature_id: UUID


# Programs


class CreateProgram(Command):
    """Create a program of a signature that exists: a draft, until it is initialized.

    With a `callback`, the end of each of its executions is pushed there as a webhook, unless the execution has its own.
    """

    type = "dspex.program.create.v1"
    queue_name = PROGRAMS_QUEUE
    answer = ProgramView

    program_id: UUID
    signature_id: UUID
    name: Name
    adapter_type: AdapterType
    configuration: Configuration = Configuration()
    policy: ExecutionPolicy | None = None
    callback: Callback | None = None


class ModuleVersion(Frozen):
    """A signature by its module's dotted name; without a version, the newest that is active."""

    module: ModuleName
    version: SemVer | None = None


class CreateProgramWithSignature(Command):
    """Create a program, and find or create its signature: by id, by module and version, or by its content."""

    type = "dspex.program.create_with_signature.v1"
    queue_name = PROGRAMS_QUEUE
    answer = Created

    program_id: UUID
    name: Name
    signature: UUID | Signature | ModuleVersion
    adapter_type: AdapterType
    configuration: Configuration = Configuration()
    policy: ExecutionPolicy | None = None
    callback: Callback | None = None


class InitializeProgram(Command):
    """Have the adapter build a program. `dspex.program.ready.v1` or `dspex.program.error.v1` says what came of it."""

    type = "dspex.program.initialize.v1"
    queue_name = PROGRAMS_QUEUE
    answer = ProgramView

    program_id: UUID


class UpdateProgram(Command):
    """Change what is named of a program, and nothing else: what is absent stays.

    Of its `configuration`, too: what is absent there stays, and null resets it. An `lm` is changed by its members, the
    rest is replaced as a whole. Where the program is ready, it is built anew and gets a new backend id. `policy` and
    `callback` are of the executions that are claimed from then on; `remove_callback` takes the callback away. With
    `lock_version`, only if nobody has changed it since it was read.
    """

    type = "dspex.program.update.v1"
    queue_name = PROGRAMS_QUEUE
    answer = ProgramView

    program_id: UUID
    configuration: ConfigurationChange | None = None
    name: Name | None = None
    policy: ExecutionPolicy | None = None
    callback: Callback | None = None
    remove_callback: StrictBool | None = None
    lock_version: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None

    @field_validator("configuration", mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        """A whole configuration takes the place of the program's."""
        return ConfigurationChange.to(given) if isinstance(given, Configuration) else given

    @model_validator(mode="after")
    def _one_callback(self) -> UpdateProgram:
        if self.remove_callback and self.callback is not None:
            raise ValueError("give callback or remove_callback, not both")
        return self

    @model_validator(mode="after")
    def _names_something(self) -> UpdateProgram:
        named = (self.configuration, self.name, self.policy, self.callback, self.remove_callback)
        if all(value is None for value in named):
            raise ValueError("give what is to change: configuration, name, policy, callback or remove_callback")
        return self


class ArchiveProgram(Command):
    """Take no new executions; those that run end."""

    type = "dspex.program.archive.v1"
    answer = ProgramView

    program_id: UUID


class DestroyProgram(Command):
    """Delete an archived program. Its executions stay."""

    type = "dspex.program.destroy.v1"

    program_id: UUID


# Executions


class ExecuteProgram(Command):
    """Run a program that is ready. The same id with the same content runs once; with other content it is a conflict.

    So it is with the same `idempotency_key` of a tenant, whatever the ids: the first execution stands for all. Its end
    is pushed to `callback` as a webhook, and to the tenant's endpoints; without one of its own, to the program's.
    `metadata` is kept with it and in all that is told of it. It is no part of what is asked: where the same request
    comes with other metadata, that of the first stays.
    """

    type = "dspex.program.execute.v1"
    queue_name = EXECUTIONS_QUEUE
    answer = ExecutionView

    execution_id: UUID
    program_id: UUID
    inputs: dict[str, JsonValue]
    options: ExecutionOptions = ExecutionOptions()
    idempotency_key: IdempotencyKey | None = None
    callback: Callback | None = None
    metadata: Metadata | None = None


class CancelExecution(Command):
    """Cancel an execution: a pending one at once, a running one as soon as its adapter can stop."""

    type = "dspex.execution.cancel.v1"
    answer = ExecutionView

    execution_id: UUID
