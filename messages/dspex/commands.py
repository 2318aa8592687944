"""The commands: what a producer may ask for.

The id of what is created or run is the producer's, so that sending twice is as good as sending once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field, JsonValue, StrictInt

from dspex.configuration import AdapterType, Configuration
from dspex.model import Frozen
from dspex.signature import Signature

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Command(Frozen):
    """Base of the commands. `type` is the CloudEvents type, and the routing key on the exchange of commands."""

    type: ClassVar[str]

    @property
    def subject(self) -> str:
        """The id of the entity that the command is about."""
        raise NotImplementedError


class CreateSignature(Command):
    """Create a signature; `activate: false` leaves it a draft, which programs cannot be initialized with."""

    type = "dspex.signature.create.v1"

    signature_id: UUID
    signature: Signature
    activate: bool = True

    @property
    def subject(self) -> str:
        return str(self.signature_id)


class CreateProgram(Command):
    """Create a program of a signature that exists: a draft, until it is initialized."""

    type = "dspex.program.create.v1"

    program_id: UUID
    signature_id: UUID
    name: Name
    adapter_type: AdapterType
    configuration: Configuration = Configuration()

    @property
    def subject(self) -> str:
        return str(self.program_id)


class InitializeProgram(Command):
    """Have the adapter build a program. `dspex.program.ready.v1` or `dspex.program.error.v1` says what came of it."""

    type = "dspex.program.initialize.v1"

    program_id: UUID

    @property
    def subject(self) -> str:
        return str(self.program_id)


class ExecutionOptions(Frozen):
    """How one execution runs."""

    seed: StrictInt | None = Field(default=None, ge=0, lt=1 << 63)
    """Passed to the adapter; `mock` draws other outputs from another seed."""


class ExecuteProgram(Command):
    """Run a program that is ready. The same id with the same content runs once; with other content it is a conflict."""

    type = "dspex.program.execute.v1"

    execution_id: UUID
    program_id: UUID
    inputs: dict[str, JsonValue]
    options: ExecutionOptions = ExecutionOptions()

    @property
    def subject(self) -> str:
        return str(self.execution_id)


COMMANDS: dict[str, type[Command]] = {
    command.type: command for command in (CreateSignature, CreateProgram, InitializeProgram, ExecuteProgram)
}
