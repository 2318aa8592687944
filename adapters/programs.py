"""The programs that an adapter has built in this process: bounded, shared by its threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from adapters.port import ProgramNotLoaded

Program = TypeVar("Program")


class Programs(Generic[Program]):
    """Programs by backend id. Over `capacity`, the one that was used longest ago is dropped."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, backend_id: str) -> Program | None:
        """The program of this id, if it is kept."""
        with self._lock:
            program = self._programs.get(backend_id)
            if program is not None:
                self._programs.move_to_end(backend_id)
            return program

    def get(self, backend_id: str) -> Program:
        """The program of this id.

        Raises:
            ProgramNotLoaded: it was never put here, or was dropped.
        """
        program = self.find(backend_id)
        if program is None:
            raise ProgramNotLoaded(f"program '{backend_id}' is not loaded in this process: create it")
        return program

    def put(self, backend_id: str, program: Program) -> None:
        """Keep a program, in the place of one with the same id."""
        with self._lock:
            self._programs[backend_id] = program
            self._programs.move_to_end(backend_id)
            while len(self._programs) > self._capacity:
                self._programs.popitem(last=False)

    def clear(self) -> list[Program]:
        """Drop all of them, and return them."""
        with self._lock:
            dropped = list(self._programs.values())
            self._programs.clear()
        return dropped
