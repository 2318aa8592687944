"""A deployment under test: its environment, its database, and the logs of its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

DEADLINE_SECONDS = 60.0


def environment_of(broker_url: str, database_url: str) -> dict[str, str]:
    """The environment of its processes: this one's, with no other setting of DSPex."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    return bare | {"DSPEX_BROKER_URL": broker_url, "DSPEX_DATABASE_URL": database_url}


@dataclass
class Deployment:
    """A running one: its broker's URL, its environment, an engine on its database, a directory with its logs."""

    broker_url: str
    environment: Mapping[str, str] = field(repr=False)
    engine: Engine = field(repr=False)
    directory: Path

    @property
    def log(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-5000:]}" for log in logs)

    def scalar(self, query: str, **parameters: Any) -> Any:
        """One value from the database."""
        with self.engine.connect() as connection:
            return connection.execute(text(query), parameters).scalar()

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows from the database."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.log}")
            time.sleep(0.05)
