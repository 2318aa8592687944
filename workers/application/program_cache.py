"""The programs in this process: read once, built by their adapters, and cached by backend id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pydantic

from adapters.fallback import LoadedProgram, check_environment
from adapters.lm import LMCatalog
from adapters.own_modules import OwnModules
from adapters.port import AdapterError, ModuleCode, NotHere, ProgramSpec
from adapters.programs import Programs
from adapters.registry import AdapterRegistry
from dspex import LM, Configuration, ErrorCode
from dspex.model import problems
from store.programs import Program

MAX_PROGRAMS = 512

_GIVEN_BACK = "the execution is given back, for a worker that has it"

MAX_NAMED = 5
"""How many members that are not known here are named."""

WITHOUT_LM = "mock"
"""The adapter that calls no LM."""


class ProgramCache:
    """Reads a program once, when it first runs here. A backend id is a digest, so its program never changes.

    Args:
        find: reads a program; waits while the database is unreachable.
        catalog: decides which LMs a tenant's programs may use. Built programs are not shared between tenants, as one
            may not be allowed to build the other's.
        modules: the modules of one's own that programs may name here.
    """

    def __init__(
        self,
        find: Callable[[UUID, str], Program],
        adapters: AdapterRegistry,
        catalog: LMCatalog,
        modules: OwnModules | None = None,
    ) -> None:
        self._find = find
        self.modules = modules or OwnModules()
        self._adapters = adapters
        self._catalog = catalog
        self._loaded: Programs[LoadedProgram] = Programs(MAX_PROGRAMS)

    def check(self, tenant: str, adapter_type: str, configuration: Configuration) -> None:
        """Check that a tenant's program may use its adapters and LMs, including those of its fallbacks.

        It checks the adapters of this process. If the workers of a fleet differ, the worker that gets the command
        decides.

        Raises:
            NotHere: there is no such adapter here, or no such alias.
            AdapterError: the LM is not allowed, or an adapter runs in no environment. The text begins with the field.
        """
        self._check_adapter("adapter_type", adapter_type)
        try:
            check_environment(adapter_type, configuration)
        except AdapterError as error:
            raise error.under("configuration.") from None
        tries: list[tuple[str, str, LM | None]] = [
            (field, adapter_type, lm) for field, lm in configuration.named_lms.items()
        ]
        for number, given in enumerate(configuration.fallbacks):
            if given.adapter_type is not None:
                self._check_adapter(f"configuration.fallbacks.{number}.adapter_type", given.adapter_type)
            tries.append((f"fallbacks.{number}.lm", given.adapter_type or adapter_type, given.lm or configuration.lm))
        for where, adapter, lm in tries:
            if lm is None or adapter == WITHOUT_LM:
                continue
            try:
                self._catalog.check(lm, tenant)
            except AdapterError as error:
                raise error.under(f"configuration.{where}.") from None

    def _check_adapter(self, field: str, name: str) -> None:
        names = self._adapters.names()
        if name not in names:
            advice = "install the distribution that offers it on the workers, or name another"
            raise NotHere(f"{field}: '{name}' is not one of {', '.join(names)}: {advice}")

    def spec_of(self, program: Program) -> ProgramSpec:
        """The specification from which an adapter builds a program.

        Raises:
            NotHere: its module is one of one's own, and not known here.
            AdapterError: there are several of this name, or it is too large.
        """
        return self.with_code(
            ProgramSpec(program.adapter_type, program.signature, program.configuration, program.tenant)
        )

    def with_code(self, spec: ProgramSpec) -> ProgramSpec:
        """The specification with the code that its module has in this process. Raises as `spec_of`."""
        configuration = spec.configuration
        return replace(spec, code=self.modules.find(configuration.module, configuration.environment))

    def code_of(self, program: Program) -> tuple[ModuleCode, bool] | None:
        """The code of a program's own module, and whether the program was built with it; None: not known here.

        Starts no environment: the code of what runs in one is known where the program was built.
        """
        built = program.backend_id and self._loaded.find(_key(program.tenant, program.backend_id))
        if built:
            return None if built.spec.code is None else (built.spec.code, True)
        if program.configuration.environment is not None:
            return None
        try:
            spec = self.spec_of(program)
        except AdapterError:
            return None
        return None if spec.code is None else (spec.code, spec.backend_id == program.backend_id)

    def build(self, spec: ProgramSpec) -> LoadedProgram:
        """Build a program and its fallbacks by their adapters, and cache it.

        Raises:
            AdapterError: the program cannot be built.
        """
        loaded = LoadedProgram(spec, self._adapters.get)
        self._loaded.put(spec, loaded, _key(spec.tenant, spec.backend_id))
        return loaded

    def load(self, program_id: UUID, backend_id: str, tenant: str, begin: Callable[[], None]) -> LoadedProgram:
        """The program that an execution was claimed for.

        Args:
            begin: called after the program was read, before it is built.

        Raises:
            AdapterError: the program cannot be built here.
            ChangedProgram: the program was changed meanwhile.
            NotHere: other workers have built the program, but this one cannot.
        """
        loaded = self._loaded.find(_key(tenant, backend_id))
        if loaded is not None:
            begin()
            return loaded
        try:
            program = self._find(program_id, tenant)
        except pydantic.ValidationError as error:
            # The version that wrote it knows members that this one does not: without them, it would be another program.
            unknown = ", ".join(found.field for found in problems(error)[:MAX_NAMED])
            text = f"configuration: a later version of DSPex wrote it ({unknown}): replace this worker"
            raise NotHere(f"{text}; {_GIVEN_BACK}") from None
        begin()
        if program.backend_id != backend_id:
            raise ChangedProgram(ErrorCode.TRANSIENT, f"program {program_id} was changed after the claim")
        try:
            spec = self.spec_of(program)
            if spec.backend_id == backend_id:
                return self.build(spec)
        except AdapterError as error:
            # The program is ready, so another worker has built it: something is missing here.
            if error.code in (ErrorCode.PERMANENT, ErrorCode.AUTH):
                raise NotHere(f"{error.message}; {_GIVEN_BACK}", error.code) from None
            raise
        if spec.code is not None:
            here = f"{spec.code.distribution or spec.code.reference}, {spec.code.digest[:12]}"
            name = spec.configuration.module
            text = f"module: the program was built with other code of '{name}' than is here ({here})"
            raise NotHere(f"{text}; {_GIVEN_BACK}: initialize the program to run it on the code of today")
        raise AdapterError(
            ErrorCode.TRANSIENT,
            f"program {program_id} was built as {backend_id} by another version of DSPex: initialize it again",
        )


def _key(tenant: str | None, backend_id: str) -> str:
    return f"{tenant}/{backend_id}"


class ChangedProgram(AdapterError):
    """The program was changed between the claim of an execution and its start. The next claim gets the new one."""
