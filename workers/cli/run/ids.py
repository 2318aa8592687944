"""The ids of a run's executions, derived from the program, the inputs, and the number of equal inputs before.

So lines may be added anywhere in the file.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from dspex import ExecutionStatus
from dspex.ids import digest
from store.executions import Result

Look = Callable[[Sequence[UUID]], Sequence[Result]]
"""Finds the executions of these that have ended."""


MAX_IN_MEMORY = 100_000


class Occurrences:
    """Counts how often each content came. The first `MAX_IN_MEMORY` contents are in memory, the others on disk."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._database = sqlite3.connect("", isolation_level=None)  # a temporary file without a name
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (content BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def count(self, content: str) -> int:
        """Count one more. Returns how often the content has come, including this time."""
        key = bytes.fromhex(content)
        if key in self._first or len(self._first) < MAX_IN_MEMORY:
            self._first[key] = self._first.get(key, 0) + 1
            return self._first[key]
        ((number,),) = self._database.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number", (key,)
        )
        return int(number)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()


class Ids:
    """Derives the ids of rows' executions.

    Args:
        retry_failed: give failed executions a new id, derived from the old one.
    """

    def __init__(self, program_id: UUID, look: Look, *, retry_failed: bool) -> None:
        self._program_id = program_id
        self._look = look
        self._retry_failed = retry_failed
        self._occurrences = Occurrences()

    def of(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[UUID], dict[UUID, Result]]:
        """The ids for rows of inputs, in order, and the results of those that have ended."""
        ids = [self._first(inputs) for inputs in rows]
        found = {result.id: result for result in self._look(ids)}
        if not self._retry_failed:
            return ids, found
        asked, attempt = [place for place, id_ in enumerate(ids) if _failed(found.get(id_))], 2
        while asked:
            for place in asked:
                ids[place] = uuid.uuid5(ids[place], f"retry {attempt}")
            found |= {result.id: result for result in self._look([ids[place] for place in asked])}
            asked, attempt = [place for place in asked if _failed(found.get(ids[place]))], attempt + 1
        return ids, found

    def close(self) -> None:
        """Release its resources."""
        self._occurrences.close()

    def _first(self, inputs: Mapping[str, Any]) -> UUID:
        content = digest(inputs)
        return uuid.uuid5(self._program_id, f"{content}/{self._occurrences.count(content)}")


def _failed(result: Result | None) -> bool:
    return result is not None and result.status == ExecutionStatus.FAILED
