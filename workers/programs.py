"""Programs as this process has them: read once, built by their adapter, kept by backend id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from adapters.port import Adapter, AdapterError, Outcome, ProgramNotLoaded, ProgramSpec, RunOptions
from adapters.programs import Programs
from adapters.registry import AdapterRegistry
from dspex import ErrorCode, Signature
from store.programs import Program

MAX_PROGRAMS = 512


def spec_of(program: Program) -> ProgramSpec:
    """What an adapter builds a program from."""
    return ProgramSpec(program.adapter_type, program.signature, program.configuration)


@dataclass(frozen=True)
class LoadedProgram:
    """A program that can run in this process."""

    spec: ProgramSpec
    adapter: Adapter

    @property
    def signature(self) -> Signature:
        """The program's signature."""
        return self.spec.signature

    def execute(self, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Run it once, on inputs that its signature has validated.

        Raises:
            AdapterError: the run failed.
        """
        try:
            return self.adapter.execute_program(self.spec.backend_id, inputs, options)
        except ProgramNotLoaded:
            self.adapter.create_program(self.spec)
            return self.adapter.execute_program(self.spec.backend_id, inputs, options)


class ProgramCache:
    """Reads a program once, when it is first run here. A backend id is a digest: what it names never changes.

    Args:
        find: reads a program; it waits while the database cannot be reached.
    """

    def __init__(self, find: Callable[[UUID], Program], adapters: AdapterRegistry) -> None:
        self._find = find
        self._adapters = adapters
        self._loaded: Programs[LoadedProgram] = Programs(MAX_PROGRAMS)

    def build(self, spec: ProgramSpec) -> LoadedProgram:
        """Have the adapter build a program, and keep it.

        Raises:
            AdapterError: it cannot be built.
        """
        adapter = self._adapters.get(spec.adapter_type)
        adapter.create_program(spec)
        loaded = LoadedProgram(spec, adapter)
        self._loaded.put(spec, loaded)
        return loaded

    def load(self, program_id: UUID, backend_id: str) -> LoadedProgram:
        """The program that an execution was claimed for.

        Raises:
            AdapterError: it cannot be built here.
        """
        loaded = self._loaded.find(backend_id)
        if loaded is not None:
            return loaded
        spec = spec_of(self._find(program_id))
        if spec.backend_id != backend_id:
            raise AdapterError(ErrorCode.TRANSIENT, f"program {program_id} was changed after the claim: try again")
        return self.build(spec)
