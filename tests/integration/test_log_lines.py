"""No log line shows inputs, outputs or secrets, whatever goes wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from adapters.port import Outcome
from deploy.processes import wait_until
from dspex import ExecutionStatus, uuid7
from tests.canary import CANARY, watched
from tests.unit.system import System
from workers.settings import Settings


@pytest.fixture
def system(migrated_database_url: str, caplog: pytest.LogCaptureFixture) -> Iterator[System]:
    caplog.set_level(logging.DEBUG)
    system = System(Settings(database_url=migrated_database_url, broker_url="memory://", threads=4))
    system.start()
    yield system
    system.stop()


@contextmanager
def constrained(system: System, table: str, condition: str) -> Generator[None]:
    """PostgreSQL refuses rows of a table, and its DETAIL shows them whole."""
    with system.app.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT canary CHECK ({condition}) NOT VALID")
    yield
    with system.app.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT canary")


def test_the_watch_hears_a_line() -> None:
    def leak() -> None:
        with watched():
            logging.getLogger("a").warning("%s", CANARY)

    # The suite's own watch is around this test: it may not hear it.
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        with pytest.raises(AssertionError, match="a log line shows data"):
            leak()
    finally:
        root.handlers = before


@pytest.mark.parametrize("refused", ["inputs", "outputs"])
def test_rows_that_the_database_refuses(system: System, refused: str, caplog: pytest.LogCaptureFixture) -> None:
    program_id = system.program(adapter="scripted")
    system.scripted.run = lambda inputs: Outcome({"answer": inputs["question"]})
    execution_id = uuid7()
    with constrained(system, "executions", f"{refused} IS NULL OR {refused}::text NOT LIKE '%%{CANARY}%%'"):
        system.execute(program_id, execution_id, question=CANARY)
        assert wait_until(lambda: "CheckViolation" in caplog.text or bool(system.rejected()), 30)
        if refused == "outputs":
            assert system.ended(execution_id).status == ExecutionStatus.FAILED


def test_inputs_that_do_not_fit(system: System) -> None:
    program_id = system.program("question: str, n: int -> answer", adapter="scripted")
    execution_id = uuid7()
    system.execute(program_id, execution_id, question=CANARY, n=CANARY)
    assert system.ended(execution_id).status == ExecutionStatus.FAILED


def test_other_libraries_log_no_details() -> None:
    code = """
import logging
from workers.telemetry import logs
logs.configure("DEBUG")
for name in ("openai", "httpcore", "LiteLLM", "dspy", "sqlalchemy", "dramatiq", "pika"):
    logging.getLogger(name).debug("canary-7d1f0c")
logging.getLogger("workers.execution.admission").debug("ours")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stderr
    assert CANARY not in said
    assert "ours" in said
