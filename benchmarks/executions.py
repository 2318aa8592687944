"""How many executions a second, and how long one alone: on the mock adapter, so that DSPex is what is measured.

    python -m benchmarks.executions [--rows 10000] [--programs 20]

Embedded by default. With DSPEX_DATABASE_URL and DSPEX_BROKER_URL set, and workers running, it is their throughput, with
this process as the one producer; then the servers, the workers and the producer share the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import text

from dspex import ExecuteProgram, uuid7
from dspex.interface import Interface
from dspex.producer import Producer
from workers.application import Application, bootstrap
from workers.local import LocalClient
from workers.process import WorkerProcess
from workers.schema import require_schema
from workers.settings import load_settings

ARROW = "question: str, k: int = 3 -> answer: str, score: float"
ALONE = 200


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--programs", type=int, default=20)
    given = parser.parse_args()
    with _application() as app:
        client = LocalClient(app)
        programs = [_program(client, number) for number in range(given.programs)]
        _many(app, programs, 500)  # warm
        seconds = _many(app, programs, given.rows)
        print(f"{given.rows} executions of {given.programs} programs: {given.rows / seconds:.0f}/s")
        times = sorted(_alone(app, programs[0]) for _ in range(ALONE))
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"one alone, publish to row: p50 {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")


@contextmanager
def _application() -> Generator[Application]:
    app = bootstrap(load_settings(log_level="WARNING"))
    require_schema(app.engine)
    worker = WorkerProcess(app) if app.settings.embedded else None
    if worker is not None:
        worker.start()
    yield app
    if worker is not None:
        worker.stop(10)
    app.close()


def _program(client: Interface, number: int) -> UUID:
    program = client.create_program(f"benchmark {number}", ARROW, adapter_type="mock")
    return client.initialize_program(program.program_id).program_id


def _many(app: Application, programs: Sequence[UUID], rows: int) -> float:
    """Seconds from the first publish to the last row."""
    producer = Producer(app.publisher, source="/benchmark")
    first = uuid7()
    before = _ended(app)
    started = time.perf_counter()
    producer.send_all(
        ExecuteProgram(
            execution_id=uuid7(), program_id=programs[n % len(programs)], inputs={"question": f"{first} {n}"}
        )
        for n in range(rows)
    )
    while _ended(app) < before + rows:
        time.sleep(0.02)
    return time.perf_counter() - started


def _alone(app: Application, program_id: UUID) -> float:
    execution_id = uuid7()
    producer = Producer(app.publisher, source="/benchmark")
    started = time.perf_counter()
    producer.send(ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": "?"}))
    while not _is_completed(app, execution_id):
        time.sleep(0.0005)
    return time.perf_counter() - started


def _ended(app: Application) -> int:
    with app.read("default") as connection:
        return int(connection.execute(text("SELECT coalesce(sum(completed), 0) FROM program_counters")).scalar_one())


def _is_completed(app: Application, execution_id: UUID) -> bool:
    name = execution_id.hex if app.engine.dialect.name == "sqlite" else str(execution_id)
    query = text("SELECT status FROM executions WHERE id = :id")
    with app.read("default") as connection:
        return connection.execute(query, {"id": name}).scalar() == "completed"


if __name__ == "__main__":
    main()
