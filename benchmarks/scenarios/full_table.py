"""Whether a large table makes executions slower."""

from __future__ import annotations

import psycopg

from benchmarks.harness.runs import Stage, cpu_per_thousand
from benchmarks.harness.scenario import CPU_OF_WORK, Column, Figures, Options, Scenario
from benchmarks.harness.statistics import middle_rate
from benchmarks.systems import OWN, System

EMPTY, FULL = "empty tables", "a full table"
DATABASE = "bench_full"
STEP = 500_000

ROWS = """
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, backend_id, attempt, worker, outputs,
    error, usage, duration_ms, started_at, finished_at, status, lock_version, inserted_at, updated_at, timeline,
    error_code, input_tokens, output_tokens, cost)
SELECT gen_random_uuid(), program.id, jsonb_build_object('question', repeat(md5(n::text), 4), 'k', n %% 7),
    '{"seed": null}', md5(n::text) || md5(n::text), '/benchmark', program.backend_id, 1, 'worker-' || n %% 8,
    CASE WHEN good THEN jsonb_build_object('answer', repeat(md5(n::text), 4), 'score', 0.5) END,
    CASE WHEN NOT good THEN '{"code": "timeout", "message": "no", "problems": []}'::jsonb END,
    '{"calls": 1, "input_tokens": 500, "output_tokens": 80, "cost": 0.001}', exp(6 + 1.2 * random()), at, at,
    CASE WHEN good THEN 'completed' ELSE 'failed' END, 2, at, at, jsonb_build_array(
        jsonb_build_object('status', 'running', 'at', at, 'attempt', 1, 'by', 'worker-' || n %% 8),
        jsonb_build_object('status', CASE WHEN good THEN 'completed' ELSE 'failed' END, 'at', at, 'attempt', 1,
            'by', 'worker-' || n %% 8)),
    CASE WHEN NOT good THEN 'timeout' END, 500, 80, 0.001
FROM (
    SELECT n, n %% 25 > 0 AS good, now() - interval '1 year' + n * interval '3 seconds' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
) AS made
JOIN (SELECT id, backend_id, row_number() OVER () - 1 AS number FROM programs) AS program
    ON program.number = made.n %% (SELECT count(*) FROM programs)
"""


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """A drain; the full table stays from round to round."""
    jobs = options.jobs
    if variant == FULL:
        _keep_full(stage, options, system)
    with stage.run(system, kept=DATABASE if variant == FULL else "") as run:
        run.publish(jobs)
        run.start_workers()
        usages = run.follow(jobs, jobs // 20, jobs * 19 // 20)
        run.verify()
        return {"rate": middle_rate(run.progress, jobs), **cpu_per_thousand(*usages)}


def _keep_full(stage: Stage, options: Options, system: System) -> None:
    """Fill a database, if there is none yet."""
    if stage.servers.has(DATABASE):
        return
    with stage.run(system):
        pass  # prepared
    stage.servers.rename("bench", DATABASE)
    with psycopg.connect(stage.servers.database_url(DATABASE), autocommit=True) as connection:
        for first in range(0, options.rows, STEP):
            last = min(first + STEP, options.rows) - 1
            connection.execute(ROWS, {"first": first, "last": last})
        connection.execute("VACUUM (ANALYZE) executions")


SCENARIO = Scenario(
    "full_table",
    "Executions already in the table",
    "The drain of 100 programs, with empty tables and with a table of executions of a year, 4 % of them failed.",
    (Column("rate", "jobs/s"), *CPU_OF_WORK),
    (OWN,),
    lambda _: (EMPTY, FULL),
    measure,
)
