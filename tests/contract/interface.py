"""What the tests of the interface share: a worker to ask, and a program that it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

import migrations
from dspex import Configuration, DspexError, ProgramStatus
from dspex.client.interface import Interface
from dspex.contract.results import ExecutionView, ProgramView
from store.database.engine import make_engine
from workers.application.wiring import Application, bootstrap
from workers.process.worker import WorkerProcess
from workers.settings import Settings

ARROW = "question: str, k: int = 3 -> answer: str, score: float"
SLOW = Configuration(parameters={"latency_ms": 60_000})


@contextmanager
def working(settings: Settings) -> Generator[Application]:
    """An application whose worker runs."""
    engine = make_engine(settings.database_url)
    if not migrations.is_newest(engine):
        migrations.upgrade(engine)
    engine.dispose()
    app = bootstrap(settings)
    worker = WorkerProcess(app)
    worker.start()
    try:
        yield app
    finally:
        worker.stop(0)
        app.close()


def code_of(call: Callable[[], object]) -> str:
    """The code of the error that a call raises."""
    with pytest.raises(DspexError) as raised:
        call()
    return raised.value.code


def ready(dspex: Interface, signature: Any = ARROW, **options: Any) -> ProgramView:
    """A program that is ready, on the mock."""
    program = dspex.create_program("a program", signature, adapter_type="mock", **options)
    assert program.status == ProgramStatus.DRAFT
    return dspex.initialize_program(program.program_id)


def in_background(call: Callable[[], ExecutionView]) -> tuple[threading.Thread, list[ExecutionView]]:
    """Make a call in a thread; its answer comes into the list."""
    answers: list[ExecutionView] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    return thread, answers
