"""Programs as this process has them: read once, built by their adapter, kept by backend id."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from adapters.fallback import LoadedProgram
from adapters.lm import LMCatalog
from adapters.port import AdapterError, ProgramSpec
from adapters.programs import Programs
from adapters.registry import AdapterRegistry
from dspex import Configuration, ErrorCode
from store.programs import Program

MAX_PROGRAMS = 512

WITHOUT_LM = "mock"
"""The adapter that calls no LM, whatever its programs name."""


def spec_of(program: Program) -> ProgramSpec:
    """What an adapter builds a program from."""
    return ProgramSpec(program.adapter_type, program.signature, program.configuration, program.tenant)


class ProgramCache:
    """Reads a program once, when it is first run here. A backend id is a digest: what it names never changes.

    Args:
        find: reads a program; it waits while the database cannot be reached.
        catalog: says which LMs a tenant's programs may name. A tenant never gets what was built for another: the same
            program may be one that it must not build.
    """

    def __init__(self, find: Callable[[UUID, str], Program], adapters: AdapterRegistry, catalog: LMCatalog) -> None:
        self._find = find
        self._adapters = adapters
        self._catalog = catalog
        self._loaded: Programs[LoadedProgram] = Programs(MAX_PROGRAMS)

    def check(self, tenant: str, adapter_type: str, configuration: Configuration) -> None:
        """Whether a tenant's program may name its adapters and its LMs, those of its fallbacks too, when it comes in.

        The adapters are those of this process: where a fleet's workers differ, the one that is asked decides.

        Raises:
            AdapterError: there is no such adapter here, or it may not name the LM; the text begins with the field.
        """
        self._check_adapter("adapter_type", adapter_type)
        tries = [("lm", adapter_type, configuration.lm)]
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
                raise AdapterError(error.code, f"configuration.{where}.{error.message}") from None

    def _check_adapter(self, field: str, name: str) -> None:
        names = self._adapters.names()
        if name not in names:
            advice = "install the distribution that offers it on the workers, or name another"
            raise AdapterError(ErrorCode.PERMANENT, f"{field}: '{name}' is not one of {', '.join(names)}: {advice}")

    def build(self, spec: ProgramSpec) -> LoadedProgram:
        """Have its adapter build a program, and those of its fallbacks, and keep it.

        Raises:
            AdapterError: it cannot be built.
        """
        loaded = LoadedProgram(spec, self._adapters.get)
        self._loaded.put(spec, loaded, _key(spec.tenant, spec.backend_id))
        return loaded

    def load(self, program_id: UUID, backend_id: str, tenant: str, begin: Callable[[], None]) -> LoadedProgram:
        """The program that an execution was claimed for.

        Args:
            begin: called when the program has been read, before it is built.

        Raises:
            AdapterError: it cannot be built here.
            ChangedProgram: it is another by now.
            UnknownHere: it was built by others, and cannot be here.
        """
        loaded = self._loaded.find(_key(tenant, backend_id))
        if loaded is not None:
            begin()
            return loaded
        program = self._find(program_id, tenant)
        begin()
        spec = spec_of(program)
        if spec.backend_id == backend_id:
            try:
                return self.build(spec)
            except AdapterError as error:
                # It was built once, or it would not be ready: what is missing is missing here.
                if error.code in (ErrorCode.PERMANENT, ErrorCode.AUTH):
                    raise UnknownHere(error.code, f"{error.message}; the execution is given back") from None
                raise
        if program.backend_id != backend_id:
            raise ChangedProgram(ErrorCode.TRANSIENT, f"program {program_id} was changed after the claim")
        raise AdapterError(
            ErrorCode.TRANSIENT,
            f"program {program_id} was built as {backend_id} by another version of DSPex: initialize it again",
        )


def _key(tenant: str | None, backend_id: str) -> str:
    return f"{tenant}/{backend_id}"


class UnknownHere(AdapterError):
    """A program that others have built, and this process cannot: it lacks an alias, a secret, a module, an adapter."""


class ChangedProgram(AdapterError):
    """A program was changed between the claim of an execution and its start: the next claim has it as it is."""
