"""The programs that an adapter has built in this process: bounded, shared by its threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from adapters.port import ProgramInfo, ProgramNotLoaded, ProgramSpec

Program = TypeVar("Program")

MAX_BYTES = 128 * 1024 * 1024
"""What the programs of one adapter may take, estimated (`ProgramSpec.size`)."""


class Programs(Generic[Program]):
    """Programs by backend id. Over `capacity` or `max_bytes`, the one that was used longest ago is dropped.

    The one that was put last is kept, however large it is: it is about to run.
    """

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._bytes = 0
        self._programs: OrderedDict[str, _Kept[Program]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def find(self, backend_id: str) -> Program | None:
        """The program of this id, if it is kept."""
        with self._lock:
            kept = self._programs.get(backend_id)
            if kept is None:
                return None
            self._programs.move_to_end(backend_id)
            return kept.program

    def get(self, backend_id: str) -> Program:
        """The program of this id, to run it once: it is counted.

        Raises:
            ProgramNotLoaded: it was never put here, or was dropped.
        """
        with self._lock:
            kept = self._kept(backend_id)
            self._programs.move_to_end(backend_id)
            kept.runs += 1
            return kept.program

    def put(self, spec: ProgramSpec, program: Program, key: str | None = None) -> None:
        """Keep a program, in the place of one with the same id.

        Args:
            key: to find it by in the place of its backend id.
        """
        with self._lock:
            key = key or spec.backend_id
            before = self._pop(key)
            self._programs[key] = _Kept(spec, program, before.runs if before else 0)
            self._bytes += spec.size
            while len(self._programs) > 1 and (len(self._programs) > self._capacity or self._bytes > self._max_bytes):
                self._pop(next(iter(self._programs)))

    def drop(self, backend_id: str) -> Program | None:
        """Keep the program of this id no longer, and return it."""
        with self._lock:
            kept = self._pop(backend_id)
        return None if kept is None else kept.program

    def info(self, backend_id: str) -> ProgramInfo:
        """What is known of a program.

        Raises:
            ProgramNotLoaded: it is not kept.
        """
        with self._lock:
            return self._kept(backend_id).info

    def infos(self) -> list[ProgramInfo]:
        """What is known of every program, the one that was used last at the end."""
        with self._lock:
            return [kept.info for kept in self._programs.values()]

    def clear(self) -> list[Program]:
        """Drop all of them, and return them."""
        with self._lock:
            dropped = [kept.program for kept in self._programs.values()]
            self._programs.clear()
            self._bytes = 0
        return dropped

    def _pop(self, backend_id: str) -> _Kept[Program] | None:
        kept = self._programs.pop(backend_id, None)
        if kept is not None:
            self._bytes -= kept.spec.size
        return kept

    def _kept(self, backend_id: str) -> _Kept[Program]:
        kept = self._programs.get(backend_id)
        if kept is None:
            raise ProgramNotLoaded(f"program '{backend_id}' is not loaded in this process: create it")
        return kept


class _Kept(Generic[Program]):
    def __init__(self, spec: ProgramSpec, program: Program, runs: int) -> None:
        self.spec = spec
        self.program = program
        self.runs = runs

    @property
    def info(self) -> ProgramInfo:
        configuration = self.spec.configuration
        model = None if configuration.lm is None else configuration.lm.model
        return ProgramInfo(self.spec.backend_id, configuration.module, model, self.runs)
