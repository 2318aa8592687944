"""What a run runs: a signature, a class of a module, a deployment's file, or a program that is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine

from adapters.port import ProgramSpec
from dspex import Configuration, Signature
from dspex.client.classes import OwnModule
from dspex.client.program_lookup import find_program
from dspex.client.subject import NamedProgram, read_subject
from dspex.contract.deployment import Deployment
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import Conflict, IllegalTransition, NotFound, SettingsError
from store import programs
from store.programs import Program
from workers.application.state_versions import other_versions
from workers.cli.run.options import RunOptions
from workers.cli.run.reading import reading
from workers.handlers.signature_modules import import_named
from workers.outbound.serializers import program_view

_OPTIONS = {"adapter_type": "adapter", "lm": "model", "extra_outputs": "extra-output"}
"""The options of members that have another name."""


@dataclass(frozen=True)
class Subject:
    """What a run runs.

    Attributes:
        policy: the retry policy of a program of the run's own.
        program: the program that is there, if it is one.
        said: what is to be told, in lines.
    """

    spec: ProgramSpec
    policy: ExecutionPolicy | None = None
    program: Program | None = None
    said: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        """The signature of the rows."""
        return self.spec.signature


def read_given(options: RunOptions) -> Subject | NamedProgram:
    """What is given: as what is run, or as the id or the name of a program.

    Raises:
        InvalidSignature, InvalidModule, InvalidValues, SettingsError: it cannot be read.
    """
    found = read_subject(options.signature, changes=options.members, import_class=import_named)
    if options.strict and not isinstance(found, NamedProgram):
        (found if isinstance(found, Signature) else found.signature).check_whole()
    match found:
        case Deployment() as wanted:
            return _subject(wanted.adapter_type, wanted.signature, wanted.configuration, wanted.policy)
        case OwnModule() as own:
            if options.module not in (None, own.name):
                raise SettingsError(f"--module: SIGNATURE is the module {own.name} itself: leave one of them out")
            given = options.configuration.model_dump() | {"module": own.name}
            return _subject(options.adapter, own.signature, Configuration.model_validate(given))
        case NamedProgram() as named:
            return named
        case Signature() as signature:
            return _subject(options.adapter, signature, options.configuration)


def _subject(
    adapter_type: str, signature: Signature, configuration: Configuration, policy: ExecutionPolicy | None = None
) -> Subject:
    here = configuration.environment is None  # another has versions of its own
    saved_with = configuration.state.metadata if here and configuration.state else None
    other = saved_with and other_versions(saved_with)
    versions = (f"{other}: prompts may differ",) if other else ()
    return Subject(
        ProgramSpec(adapter_type, signature, configuration.bound_to(signature)),
        policy,
        said=(*(f"warning: {line}" for line in signature.warnings), *versions),
    )


def find_subject(engine: Engine, options: RunOptions, tenant: str) -> Subject:
    """The program with this id or name.

    Raises:
        SettingsError: there is none, there are several of the name, or options are given that a program has itself.
    """
    given = options.signature
    with reading(engine, tenant) as connection:
        try:
            found = find_program(_StoredPrograms(connection, tenant), given)
            program = programs.get(connection, found.program_id, tenant=tenant)
        except NotFound:
            text = f"'{given}' is no file and no program; write a signature as 'question -> answer'"
            raise SettingsError(f"SIGNATURE: {text}") from None
        except (Conflict, IllegalTransition) as error:
            raise SettingsError(f"SIGNATURE: {error.message}") from None
    if options.members:
        names = ", ".join(f"--{_OPTIONS.get(name, name)}" for name in options.members)
        raise SettingsError(f"{names}: program {program.id} has its own; `dspex program update` changes it")
    spec = ProgramSpec(program.adapter_type, program.signature, program.configuration, program.tenant)
    return Subject(spec, program=program)


class _StoredPrograms:
    """Programs as the database has them. See `dspex.client.program_lookup.Programs`."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    def by_id(self, program_id: UUID) -> ProgramView | None:
        with suppress(NotFound):
            return program_view(programs.get(self._connection, program_id, tenant=self._tenant))
        return None

    def by_name(self, name: str, *, archived: bool, limit: int) -> Sequence[ProgramView]:
        page = programs.page(self._connection, name=name, archived=archived, limit=limit, tenant=self._tenant)
        return [program_view(program) for program in page.items]
