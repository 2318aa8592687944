"""The commands, each with the type of its answer.

The caller chooses the id of the entity that a command creates or runs, so that sending it twice has no further effect.
If the message names a reply queue, the answer goes there (`dspex.reply.v1`). The queries, which change nothing, are in
`dspex.contract.queries`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from dspex.blobs.values import references_of
from dspex.contract.callback import Callback
from dspex.contract.configuration import AdapterType, Configuration, ConfigurationChange
from dspex.contract.options import ExecutionOptions, Metadata
from dspex.contract.queues import EXECUTIONS_QUEUE, PROGRAMS_QUEUE, REQUESTS_QUEUE
from dspex.contract.results import Created, ExecutionView, Nothing, ProgramView, SignatureList, SignatureView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import InvalidBlob, InvalidSignature
from dspex.model import Frozen, Sparse
from dspex.scalars import WHOLE
from dspex.signatures.signature import ModuleName, SemVer, Signature, in_our_form

Name = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str, Field(max_length=20_000)]
ModuleReference = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$", max_length=300, examples=["pkg.module:Class"]),
]


IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255)]


SUBJECTS = ("execution_id", "program_id", "signature_id", "rejection_id", "endpoint_id", "delivery_id")
"""Fields that name a command's subject; the first that it has counts."""


class Command(Sparse):
    """Base of the commands.

    Attributes:
        type: the CloudEvents type, and the routing key on the exchange of commands.
        answer: the model of its answer.
        queue_name: the queue that receives it.
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


class GivesSignature(Command):
    """Base of those with a signature, whose types may be any JSON Schema (`dspex.signatures.as_it_comes`).

    What is lost of it is in the answer, as `warnings`; with `strict` it is refused.
    """

    strict: StrictBool | None = None

    @field_validator("signature", mode="wrap", check_fields=False)
    @classmethod
    def _as_it_comes(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            data, lost = in_our_form(value)
            found = read(data)
            if lost and isinstance(found, Signature):
                found.losing(lost)
            if lost and info.data.get("strict"):
                raise InvalidSignature(lost)
        except InvalidSignature as error:
            raise ValueError(error.message) from None
        return found


# Signatures


class CreateSignature(GivesSignature):
    """Create a signature. With `activate: false` it stays a draft, with which no program can be initialized."""

    type = "dspex.signature.create.v1"
    queue_name = PROGRAMS_QUEUE
    answer = SignatureView

    signature_id: UUID
    signature: Signature
    activate: bool = True


class CreateSignatureFromModule(Command):
    """Create drafts of the DSPy signatures that a Python module on the worker's machine defines.

    Only modules under the import prefixes that the operator allows (`DSPEX_MODULES`) are read. `name` is instead of
    the class's, and `description` is for people: both for one signature; `version` instead of 1.0.0.
    """

    type = "dspex.signature.create_from_module.v1"
    answer = SignatureList

    module: ModuleReference
    name: Name | None = None
    description: Description | None = None
    version: SemVer | None = None
    strict: StrictBool | None = None


class UpdateSignature(GivesSignature):
    """Replace the content of a draft. Of one that is active, only the description may differ."""

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
    """active → deprecated: programs that use it continue to work."""

    type = "dspex.signature.deprecate.v1"
    answer = SignatureView

    signature_id: UUID


class DestroySignature(Command):
    """Delete a signature that no program uses."""

    type = "dspex.signature.destroy.v1"

    signature_id: UUID


# Programs


class CreateProgram(Command):
    """Create a program with an existing signature. It is a draft until it is initialized.

    `callback` receives the end of each of its executions, unless the execution has a callback of its own.
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
    """A signature by the dotted name of its module; without a version, the newest active one."""

    module: ModuleName
    version: SemVer | None = None


class CreateProgramWithSignature(GivesSignature):
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
    """Have the adapter build a program. The event `dspex.program.ready.v1` or `dspex.program.error.v1` follows."""

    type = "dspex.program.initialize.v1"
    queue_name = PROGRAMS_QUEUE
    answer = ProgramView

    program_id: UUID


class UpdateProgram(GivesSignature):
    """Change the given parts of a program. Absent members stay as they are.

    The same goes inside of `configuration`, where null resets a member. The members of `lm` change one by one; any
    other member is replaced as a whole. With another configuration, adapter or signature, a ready program is built
    again, and gets a new backend id; if it cannot be built, nothing changes. `policy` and
    `callback` apply to executions that are claimed from then on; `remove_callback` removes the callback. With
    `lock_version`, the change is made only if the program still has this version.

    A new `signature` (an id, a module and version, or data, which is found or created) applies to executions that are
    claimed from then on. One that breaks callers of the old signature is refused, unless `allow_breaking` is given.
    """

    type = "dspex.program.update.v1"
    queue_name = PROGRAMS_QUEUE
    answer = ProgramView

    program_id: UUID
    configuration: ConfigurationChange | None = None
    signature: UUID | Signature | ModuleVersion | None = None
    allow_breaking: StrictBool | None = None
    adapter_type: AdapterType | None = None
    name: Name | None = None
    policy: ExecutionPolicy | None = None
    callback: Callback | None = None
    remove_callback: StrictBool | None = None
    lock_version: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None

    @field_validator("configuration", mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        """Turn a whole configuration into the change that replaces the program's."""
        return ConfigurationChange.to(given) if isinstance(given, Configuration) else given

    @model_validator(mode="after")
    def _one_callback(self) -> UpdateProgram:
        if self.remove_callback and self.callback is not None:
            raise ValueError("give callback or remove_callback, not both")
        return self

    @model_validator(mode="after")
    def _names_something(self) -> UpdateProgram:
        names = ("configuration", "signature", "adapter_type", "name", "policy", "callback", "remove_callback")
        if all(getattr(self, name) is None for name in names):
            raise ValueError(f"give what is to change: {', '.join(names[:-1])} or {names[-1]}")
        return self


class ArchiveProgram(Command):
    """Archive a program: it takes no new executions, and those that run go on to their end.

    Those that wait fail at once, with `program_archived`.
    """

    type = "dspex.program.archive.v1"
    answer = ProgramView

    program_id: UUID


class RestoreProgram(Command):
    """Take a program out of the archive: it is a draft, ready or in error, as before.

    One that was ready is built again if the code of its module has changed since. If it cannot be built, it stays
    archived.
    """

    type = "dspex.program.restore.v1"
    answer = ProgramView

    program_id: UUID


class DestroyProgram(Command):
    """Delete an archived program. Its executions stay."""

    type = "dspex.program.destroy.v1"

    program_id: UUID


# Executions


class ExecuteProgram(Command):
    """Run a program that is ready. The same id with the same content runs once; with other content it is a conflict.

    An `idempotency_key` works alike within a tenant, even if the ids differ: all requests with one key are the first
    execution. Its end is sent as a webhook to `callback`, or else to the program's callback, and to the tenant's
    endpoints. `metadata` is stored, and copied to views, events and webhooks. It is not compared: if the same request
    comes again with other metadata, the first one's stays.
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

    @field_validator("inputs")
    @classmethod
    def _blobs(cls, inputs: dict[str, Any]) -> dict[str, Any]:
        try:
            references_of(inputs)
        except InvalidBlob as error:
            raise ValueError(error.message) from None
        return inputs


class CancelExecution(Command):
    """Cancel an execution: a pending one at once, a running one as soon as its adapter can stop."""

    type = "dspex.execution.cancel.v1"
    answer = ExecutionView

    execution_id: UUID
