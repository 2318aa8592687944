"""The programs that an adapter has built in this process: bounded, and shared by its threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from adapters.port import ProgramInfo, ProgramNotLoaded, ProgramSpec

Program = TypeVar("Program")

MAX_BYTES = 128 * 1024 * 1024
"""The size of all programs of one adapter, in estimated bytes (`ProgramSpec.size`)."""


class Programs(Generic[Program]):
    """Programs by backend id. Drops the least recently used one above `capacity` or `max_bytes`.

    The newest program is always kept, whatever its size, as it is about to run.
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
        """The program with this id, or None."""
        with self._lock:
            kept = self._programs.get(backend_id)
            if kept is None:
                return None
            self._programs.move_to_end(backend_id)
            return kept.program

    def get(self, backend_id: str) -> Program:
        """The program with this id, for one run, which is counted.

        Raises:
            ProgramNotLoaded: the program was never kept, or was dropped.
        """
        with self._lock:
            kept = self._kept(backend_id)
            self._programs.move_to_end(backend_id)
            kept.runs += 1
            return kept.program

    def put(self, spec: ProgramSpec, program: Program, key: str | None = None) -> None:
        """Keep a program. It replaces one with the same id.

        Args:
            key: used instead of the backend id.
        """
        with self._lock:
            key = key or spec.backend_id
            before = self._pop(key)
            self._programs[key] = _Kept(spec, program, before.runs if before else 0)
            self._bytes += spec.size
            while len(self._programs) > 1 and (len(self._programs) > self._capacity or self._bytes > self._max_bytes):
                self._pop(next(iter(self._programs)))

    def drop(self, backend_id: str) -> Program | None:
        """Drop the program with this id, and return it."""
        with self._lock:
            kept = self._pop(backend_id)
        return None if kept is None else kept.program

    def info(self, backend_id: str) -> ProgramInfo:
        """Information about a program.

        Raises:
            ProgramNotLoaded: the program is not kept.
        """
        with self._lock:
            return self._kept(backend_id).info

    def infos(self) -> list[ProgramInfo]:
        """Information about every program; the most recently used one is last."""
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
