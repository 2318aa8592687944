"""What happened, told by every process that took part: lines of JSON in one file.

A line is written by one call in append mode, so lines of many processes stay whole, and what a process has told is
there when it is killed in the next instant.

| `what`      | who tells                                 | details                                 |
|-------------|-------------------------------------------|-----------------------------------------|
| `confirmed` | the producer, when the broker has it      |                                         |
| `call`      | the adapter, when it is called            | `tenant`, `pid`, `turn`: which call     |
| `returned`  | the adapter, when the call ends           | `tenant`, `pid`, `turn`                 |
| `failed`    | the adapter, when the call fails as asked | `tenant`, `pid`, `turn`                 |
| `killing`   | the adapter that ends its process         | `tenant`, `pid`                         |
| `refused`   | a worker whose finish came too late       | `pid`                                   |
| `failpoint` | a worker that ends itself where it was to | `pid`, `point`                          |
| `threads`   | a worker that was asked for its threads   | `pid`, `alive`, `started`               |
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


class History:
    """The history of one deployment, in a directory. Any number of processes write it at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "history.jsonl"
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def record(self, what: str, **details: Any) -> None:
        """Tell something. `id` is the execution that it is about."""
        line = json.dumps({"what": what} | details, default=str) + "\n"
        os.write(self._descriptor, line.encode())

    def turn(self, run: str) -> int:
        """Count a call of an execution, named as one file is; returns the how manieth it is, over all processes."""
        descriptor = os.open(self.directory / f"{run}.calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, b".")
            return os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)

    def records(self, what: str) -> list[dict[str, Any]]:
        """What was told of a kind, in its order."""
        lines = self._file.read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["what"] == what]

    def count(self, what: str) -> Counter[str]:
        """How often something was told, by execution."""
        return Counter(record["id"] for record in self.records(what))

    def open_gate(self, name: str) -> None:
        """Let the runs end that wait at this gate (the input `gate`)."""
        self.gate(name).touch()

    def gate(self, name: str) -> Path:
        """The file that opens a gate."""
        return self.directory / f"{name}.open"
