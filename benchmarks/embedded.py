"""DSPex in one process, without a server: `python -m benchmarks.embedded`, with the settings of the environment.

Prints JSON: executions per second for many that are published at once, and the milliseconds of a single one, from its
publish until its row has ended. The row is polled every half millisecond.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from benchmarks.harness.statistics import percentile
from dspex import ExecuteProgram, uuid7
from dspex.producer import Producer
from workers.application.wiring import Application, bootstrap
from workers.local import LocalClient
from workers.persistence.schema import require_schema
from workers.process.worker import WorkerProcess
from workers.settings import load_settings

SIGNATURE = "question: str, k: int = 3 -> answer: str, score: float"
PROGRAMS = 20
WARM_UP = 500
ALONE = 200
DEADLINE_SECONDS = 300.0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    given = parser.parse_args()
    app = bootstrap(load_settings(log_level="WARNING"))
    require_schema(app.engine)
    worker = WorkerProcess(app)
    worker.start()
    try:
        programs = _programs(app)
        _many(app, programs, WARM_UP)
        cpu = _cpu_seconds()
        seconds = _many(app, programs, given.rows)
        cpu = _cpu_seconds() - cpu
        alone = [_alone(app, programs[0]) for _ in range(ALONE)]
    finally:
        worker.stop(10)
        app.close()
    figures = {"rate": given.rows / seconds, "cpu": cpu / given.rows * 1000}
    print(json.dumps(figures | {"p50": percentile(alone, 50), "p99": percentile(alone, 99)}))


def _programs(app: Application) -> list[UUID]:
    client = LocalClient(app)
    created = [client.create_program(f"p {n}", SIGNATURE, adapter_type="mock") for n in range(PROGRAMS)]
    return [client.initialize_program(program.program_id).program_id for program in created]


def _many(app: Application, programs: Sequence[UUID], rows: int) -> float:
    """Seconds from the first publish to the last counted row."""
    before = _counted(app)
    started = time.monotonic()
    Producer(app.publisher, source="/benchmark").send_all(
        ExecuteProgram(
            execution_id=uuid7(), program_id=programs[n % len(programs)], inputs={"question": f"why {n}?", "k": n}
        )
        for n in range(rows)
    )
    while _counted(app) < before + rows:
        if time.monotonic() > started + DEADLINE_SECONDS:
            raise TimeoutError(f"{_counted(app) - before} of {rows} executions have ended")
        time.sleep(0.02)
    return time.monotonic() - started


def _alone(app: Application, program_id: UUID) -> float:
    """Milliseconds."""
    command = ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={"question": "why?", "k": 1})
    started = time.perf_counter()
    Producer(app.publisher, source="/benchmark").send(command)
    query = text("SELECT status FROM executions WHERE id = :id")
    while True:
        with app.read("default") as connection:
            if connection.execute(query, {"id": command.execution_id.hex}).scalar() == "completed":
                return (time.perf_counter() - started) * 1000
        if time.perf_counter() > started + DEADLINE_SECONDS:
            raise TimeoutError(f"execution {command.execution_id} has not ended")
        time.sleep(0.0005)


def _counted(app: Application) -> int:
    with app.read("default") as connection:
        return int(connection.execute(text("SELECT coalesce(sum(completed), 0) FROM program_counters")).scalar_one())


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
