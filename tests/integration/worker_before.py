"""What workers of an earlier migration do to PostgreSQL, by the SQL that they sent (`sql_before/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

SHARD = 1
_SQL = Path(__file__).parent / "sql_before"


class WorkerBefore:
    """A worker of a migration."""

    def __init__(self, revision: str) -> None:
        script = (_SQL / f"{revision}.sql").read_text(encoding="utf-8")
        _, *named = script.split("\n-- ")
        self._statements = dict(part.split("\n", 1) for part in named)

    def claim(self, connection: Connection, program_id: UUID) -> UUID:
        """Take a new execution."""
        execution_id = uuid4()
        request = {
            "id": execution_id.hex,
            "program_id": program_id.hex,
            "inputs": {"question": "é"},
            "options": {},
            "request_digest": "0" * 64,
            "source": "/old",
            "tenant": "default",
        }
        [row] = self._run(connection, "claim", request, worker="old", lease_seconds=30.0)
        assert (row.id, row.attempt, row.lock_version, row.backend_id) == (execution_id, 1, 1, "backend")
        return execution_id

    def finish(self, connection: Connection, program_id: UUID, execution_id: UUID, *, good: bool) -> None:
        """End it, count it, and add its event, where its version does."""
        end = {
            "id": execution_id.hex,
            "tenant": "default",
            "lock_version": 1,
            "status": "completed" if good else "failed",
            "outputs": {"answer": "b"} if good else None,
            "error": None if good else {"code": "timeout", "message": "no", "problems": []},
            "error_code": None if good else "timeout",
            "usage": {"calls": 1, "input_tokens": 7, "output_tokens": 3, "cost": 0.5},
            "input_tokens": 7,
            "output_tokens": 3,
            "cost": 0.5,
            "duration_ms": 100.0,
        }
        [row] = self._run(connection, "finish", end, due_in=30.0)
        assert (row.id, row.lock_version, row.status) == (execution_id, 2, end["status"])
        key = {"program_id": program_id.hex, "shard": SHARD, "tenant": "default"}
        counts = {"completed": int(good), "failed": int(not good), "cancelled": 0, "duration_ms": 100.0}
        counts |= {"tokens_known": 1, "cost_known": 1, "executed": True}
        used = {"input_tokens": 7, "output_tokens": 3, "cost": 0.5}
        duration = key | {"bucket": 27, "runs": 1}
        given = {"executed": True, "durations": json.dumps([duration])}
        tries = (self._run(connection, "count", key | counts | used, **given) for _ in range(5))
        assert [row.program_id for row in next(filter(None, tries))] == [program_id]
        if "durations" in self._statements:
            self._run(connection, "durations", duration)
        if "add" in self._statements and "callbacks" not in self._statements["finish"]:
            self.add(connection, execution_id, 2, 30.0)

    def tell(self, connection: Connection, execution_id: UUID) -> None:
        """The broker has confirmed its event."""
        if "sent" in self._statements:
            self.sent(connection, execution_id, 2)

    def add(self, connection: Connection, execution_id: UUID, lock_version: int, due_in: float) -> None:
        """Add the event of an end."""
        self._run(connection, "add", self._entry(execution_id, lock_version) | {"tenant": "default"}, due_in=due_in)

    def sent(self, connection: Connection, execution_id: UUID, lock_version: int) -> None:
        """Delete the event of an end."""
        self._run(connection, "sent", self._entry(execution_id, lock_version) | {"tenant": "default"})

    def due(self, connection: Connection, again_in: float) -> list[UUID]:
        """Take ten events that are due."""
        return [row.execution_id for row in self._run(connection, "due", {}, again_in=again_in)]

    @staticmethod
    def _entry(execution_id: UUID, lock_version: int) -> dict[str, Any]:
        return {"execution_id": execution_id.hex, "lock_version": lock_version}

    def _run(self, connection: Connection, name: str, record: dict[str, Any], **parameters: Any) -> list[Any]:
        result = connection.execute(text(self._statements[name]), parameters | {"records": json.dumps([record])})
        return list(result.all()) if result.returns_rows else []
