"""The job that every system runs, and the settings that the harness passes in the environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dspex import uuid7

DATABASE_URL = os.environ.get("BENCH_DATABASE_URL", "")
"""`postgresql://…`"""
BROKER_URL = os.environ.get("BENCH_BROKER_URL", "")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
LATENCY_SECONDS = float(os.environ.get("BENCH_LATENCY_MS", "0")) / 1000
"""How long a job waits, as its work."""
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "8"))
"""Jobs that one worker process runs at once."""
RESULTS = os.environ.get("BENCH_RESULTS") == "1"
"""Whether a caller waits for the result of each job, instead of reading the row later."""

PROGRAMS = 100
SIGNATURE = "question: str, k: int = 3 -> answer: str, score: float"
PROGRAM_IDS = tuple(uuid.uuid5(uuid.NAMESPACE_URL, f"program {number}") for number in range(PROGRAMS))
QUESTION = "why is the sky blue, and why is it red at night?"
OUTPUTS = {"answer": "light is scattered by air, and blue light the most", "score": 0.5}


@dataclass(frozen=True)
class Job:
    """One execution of a program."""

    execution_id: uuid.UUID
    program_id: uuid.UUID
    inputs: dict[str, Any]

    @property
    def message(self) -> dict[str, Any]:
        """The job as JSON."""
        return {"execution_id": str(self.execution_id), "program_id": str(self.program_id), "inputs": self.inputs}


Ask = Callable[[Job], Any]


def make_jobs(count: int, *, hot: bool = False, size: int = 0) -> Iterator[Job]:
    """Make new jobs for all programs in turn or, if `hot`, for one, with inputs of about `size` bytes."""
    question = QUESTION.ljust(size, "?")
    for number in range(count):
        program_id = PROGRAM_IDS[0 if hot else number % PROGRAMS]
        yield Job(uuid7(), program_id, {"question": f"{question} {number}", "k": number})
