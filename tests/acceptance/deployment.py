"""DSPex as it is deployed: RabbitMQ, PostgreSQL, `dspex migrate`, and `dspex worker` with two processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from store.database.engine import make_engine
from tests import preloaded
from tests.canary import CANARY
from tests.deployment import Deployment, environment_of

DSPEX = (sys.executable, "-m", "workers.cli")


@contextmanager
def deployed(
    broker_url: str, database_url: str, directory: Path, *, processes: int = 2, **settings: str
) -> Generator[Deployment]:
    """Start one, with these settings too (`DSPEX_...`), and drain it at the end."""
    environment = environment_of(broker_url, database_url) | settings
    for command in ("migrate", "declare"):
        preloaded.run([command], Path.cwd(), environment, "", 60).check_returncode()
    arguments = ["worker", "--processes", str(processes), "--threads", "16"]
    worker = preloaded.start(arguments, environment, directory / "worker.log")
    engine = make_engine(database_url)
    running = Deployment(broker_url, environment, engine, directory)
    try:
        yield running
    finally:
        engine.dispose()
        worker.send_signal(signal.SIGTERM)
        try:
            code = worker.wait(60)
        finally:
            worker.kill()
    assert code == 0, running.log
    assert CANARY not in (directory / "worker.log").read_text(errors="replace")
