"""DSPex as it is deployed: RabbitMQ, PostgreSQL, `dspex migrate`, and `dspex worker` with two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from store.engine import make_engine

DSPEX = (sys.executable, "-m", "workers.cli")
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Deployment:
    """A running one: its broker's URL, its environment, and an engine on its database."""

    broker_url: str
    environment: Mapping[str, str]
    engine: Engine
    log: Path

    def scalar(self, query: str, **parameters: Any) -> Any:
        """One value from the database."""
        with self.engine.connect() as connection:
            return connection.execute(text(query), parameters).scalar()

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows from the database."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {DEADLINE_SECONDS:.0f} s\n{self.log.read_text()[-5000:]}")
            time.sleep(0.05)


@contextmanager
def deployed(broker_url: str, database_url: str, directory: Path, *, processes: int = 2) -> Generator[Deployment]:
    """Start one, and drain it at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    environment |= {"DSPEX_BROKER_URL": broker_url, "DSPEX_DATABASE_URL": database_url}
    for command in ("migrate", "declare"):
        subprocess.run([*DSPEX, command], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60)
    log = directory / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*DSPEX, "worker", "--processes", str(processes), "--threads", "16"], env=environment, stderr=output
        )
    engine = make_engine(database_url)
    try:
        yield Deployment(broker_url, environment, engine, log)
    finally:
        engine.dispose()
        worker.send_signal(signal.SIGTERM)
        try:
            code = worker.wait(timeout=60)
        finally:
            worker.kill()
    assert code == 0, log.read_text()[-5000:]
