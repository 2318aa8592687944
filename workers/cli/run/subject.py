"""What a run runs: a signature, a class of a module, a deployment's file, or a program that is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection, Engine

from adapters.port import ProgramSpec
from dspex import Configuration, Signature
from dspex.client.deployment_file import CLASS, read_deployment
from dspex.client.program_lookup import find_program
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import Conflict, IllegalTransition, InvalidModule, NotFound, SettingsError
from store import programs
from store.programs import Program
from workers.application.state_versions import other_versions
from workers.cli.run.options import RunOptions, load_signature
from workers.cli.run.reading import reading
from workers.handlers.signature_modules import read_signatures
from workers.outbound.serializers import program_view

_FILES = (".json", ".toml")
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


def is_program(given: str) -> bool:
    """Whether this can only be the id or the name of a program."""
    return not ("->" in given or given.endswith(_FILES) or CLASS.fullmatch(given) or Path(given).exists())


def read_subject(options: RunOptions) -> Subject:
    """What is given as a text or as a file.

    Raises:
        InvalidSignature, InvalidModule, InvalidValues, SettingsError: it cannot be read.
    """
    given = options.signature
    if given.endswith(".toml"):
        deployment = read_deployment(Path(given), options.members, read_class=read_class)
        return _subject(deployment.adapter_type, deployment.signature, deployment.configuration, deployment.policy)
    signature = read_class(given) if CLASS.fullmatch(given) else load_signature(given)
    return _subject(options.adapter, signature, options.configuration)


def _subject(
    adapter_type: str, signature: Signature, configuration: Configuration, policy: ExecutionPolicy | None = None
) -> Subject:
    here = configuration.environment is None  # another has versions of its own
    saved_with = configuration.state.metadata if here and configuration.state else None
    other = saved_with and other_versions(saved_with)
    return Subject(
        ProgramSpec(adapter_type, signature, configuration.bound_to(signature)),
        policy,
        said=(f"{other}: prompts may differ",) if other else (),
    )


def read_class(reference: str) -> Signature:
    """The signature of `package.module:Class`. An operator's command may import any module on this machine.

    Raises:
        InvalidModule, InvalidSignature: the class cannot be read.
    """
    found = read_signatures(reference, allowed_prefixes=None)
    if len(found) != 1:
        raise InvalidModule(f"signature: {reference} has several signatures: {', '.join(s.name for s in found)}")
    return found[0]


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
