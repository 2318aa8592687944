"""Row 27: whoever dies in the middle, the counters say what the rows say."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from dspex import ExecutionStatus
from store import counters, executions
from tests.faults import counter_writers
from tests.faults.deployment import FaultDeployment
from tests.faults.verdict import Verdict

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

WRITERS = 16


def test_many_writers_that_are_killed(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Half of the writers go on to their end; the others are killed, and others come in their place."""
    number, kills, rng = sized(400, 10_000), sized(16, 200), random.Random(27)
    processes = multiprocessing.get_context("forkserver")
    url = deployment.engine.url.render_as_string(hide_password=False)

    def writer(shard: int) -> BaseProcess:
        arguments = (url, deployment.program_id, shard, number)
        process = processes.Process(target=counter_writers.write, args=arguments, daemon=True)
        process.start()
        return process

    writers = [writer(shard) for shard in range(WRITERS)]
    for kill in range(kills):
        before = deployment.scalar("SELECT count(*) FROM executions")
        some = before + rng.randrange(10, 200)
        deployment.wait(lambda some=some: deployment.scalar("SELECT count(*) FROM executions") > some, "some")  # type: ignore[misc]
        shard = kill % (WRITERS // 2)
        writers[shard].kill()
        writers[shard].join(30)
        writers[shard] = writer(shard)
    for process in writers:
        process.join(300)
    assert [process.exitcode for process in writers] == [0] * WRITERS
    with deployment.engine.connect() as connection:
        rows = executions.count(connection, deployment.program_id, most=10_000_000).by_status
        totals = counters.totals(connection, deployment.program_id)
        durations = sum(counters.durations(connection, deployment.program_id).values())
        tokens = connection.exec_driver_sql("SELECT sum(input_tokens), sum(output_tokens) FROM executions").one()
    ended = {status: number for status, number in rows.items() if status.terminal}
    assert {status: getattr(totals, status) for status in ended} == ended
    assert (totals.input_tokens, totals.output_tokens) == tokens
    assert durations == ended[ExecutionStatus.COMPLETED] + ended[ExecutionStatus.FAILED]
    assert totals.executions > WRITERS * number // 2
    verdict = Verdict(jobs=totals.executions)
    passed(27, f"{WRITERS} writers of counters, kills", kills, verdict, f"SUM = COUNT = {totals.executions}")
