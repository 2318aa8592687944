"""How fast what waits in the database is chosen, run and ended."""

from __future__ import annotations

import time
from uuid import UUID

from sqlalchemy import Engine, text

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import Fleet, commands, fleet, mock, per_thousand, some_day
from benchmarks.harness.runs import COUNTED, Stage
from benchmarks.harness.scenario import CPU_OF_WORK, Column, Figures, Options, Scenario
from benchmarks.harness.statistics import Progress, middle_rate, percentile
from benchmarks.systems import OWN, PROCESSES, System
from store import gates
from store.database.engine import Plans, make_engine
from store.executions import Lease
from store.executions.choosing import choose
from store.gates import GateKey, KnownGates
from store.queues.turns import Turns

THREADS = 64
PLACES = 8
CHOICES, WARM_UP = 300, 100
BY = "/benchmark"
ALL = GateKey("everything", "")
PROGRAMS, TENANTS = 10_000, 1_000
STEP = 100_000
FEW = "{:,} wait"
WIDE = "{:,} wait, of 10,000 programs of 1,000 tenants"
HELD = f"{WIDE}, 99 % of which are paused"

COLUMNS = """
SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position),
    string_agg(CASE column_name WHEN 'id' THEN 'gen_random_uuid()' WHEN 'program_id' THEN 'p.id'
        WHEN 'tenant' THEN 'p.tenant' WHEN 'inserted_at' THEN 'now()'
        WHEN 'run_at' THEN 'now() - (n || '' ms'')::interval'
        WHEN 'not_before' THEN 'NULL' WHEN 'options' THEN '''{}''' ELSE 'e.' || quote_ident(column_name) END,
        ', ' ORDER BY ordinal_position)
FROM information_schema.columns WHERE table_name = 'executions' AND table_schema = current_schema()
"""
MORE_SIGNATURES = """
INSERT INTO signatures SELECT (jsonb_populate_record(s, jsonb_build_object('tenant', 'tenant-' || n))).*
FROM signatures AS s, generate_series(1, %(tenants)s::int) AS n
"""
MORE_PROGRAMS = """
INSERT INTO programs SELECT (jsonb_populate_record(p, jsonb_build_object('id', gen_random_uuid(), 'name', 'p ' || n,
    'tenant', 'tenant-' || 1 + n %% %(tenants)s::int))).*
FROM programs AS p, generate_series(1, %(programs)s::int) AS n
"""
QUEUES = """
INSERT INTO queues (tenant, program_id, lane, group_key, holder, inserted_at)
SELECT DISTINCT tenant, program_id, lane, group_key, '', now() FROM executions WHERE status = 'pending'
ON CONFLICT (tenant, program_id, lane, group_key) DO UPDATE SET holder = ''
"""
GIVE_BACK = text("""
UPDATE executions SET status = 'pending', attempt = 0, lease_expires_at = NULL, due_at = now() + interval '1000 years'
WHERE id = ANY (:ids)
""")


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Make the rows, choose some, and put them back; then let workers run, and follow the first of them."""
    waiting = int(variant.split()[0].replace(",", ""))
    with fleet(stage, system) as made:
        engine = make_engine(made.database_url)
        with made.client() as client:
            program_id = mock(client)
            wait_in_rows(made, program_id, waiting, wide="programs" in variant)
        jobs = min(options.jobs, waiting)
        if "paused" in variant:
            jobs = min(jobs, waiting // 100)
            _pause_tenants(engine)
        took = _choices(engine)
        with engine.begin() as connection:  # until the workers have started
            gates.pause(connection, ALL, by=BY)
        with made.workers(THREADS, PROCESSES) as workers:
            progress, before = [Progress.now(0)], made.cpu(workers)
            with engine.begin() as connection:
                gates.resume(connection, ALL, by=BY)

            def enough() -> bool:
                progress.append(Progress.now(int(made.number(COUNTED))))
                return progress[-1].done >= jobs

            made.wait(enough, f"the first {jobs} of {waiting} are done", workers)
            cpu = per_thousand(before, made.cpu(workers), progress[-1].done - progress[0].done)
            choice = {"p50": percentile(took, 50), "p95": percentile(took, 95)}
            return {"rate": middle_rate(progress, jobs), **choice, **cpu}


def _pause_tenants(engine: Engine) -> None:
    """Pause all but ten."""
    with engine.begin() as connection:
        for number in range(10, TENANTS):
            gates.pause(connection, GateKey("tenant", f"tenant-{number + 1}"), by=BY)


def _choices(engine: Engine) -> list[float]:
    """Milliseconds of each of some choices in turn. What they take is given back, and what a gate holds stays so."""
    turns, known, plans, took = Turns(), KnownGates(), Plans(), list[float]()
    with engine.connect() as connection:
        for _ in range(CHOICES):
            with connection.begin():
                plans.renew(connection)
                known.refresh(connection)
                began = time.perf_counter()
                choice = choose(connection, Lease(BY, 30), PLACES, turns, alone_at=3, known=known)
                took.append((time.perf_counter() - began) * 1000)
                connection.execute(GIVE_BACK, {"ids": [one.request.id for one in choice.chosen]})
    return took[WARM_UP:]


def wait_in_rows(made: Fleet, program_id: UUID, count: int, *, wide: bool = False) -> None:
    """Make so many rows that wait, as copies of one that a worker has accepted.

    Args:
        wide: of many programs and tenants, instead of this program alone.
    """
    if not made.lanes:
        raise Void("this version has no queue in the database")
    made.send(commands([program_id], 1, not_before=some_day()))
    made.wait(lambda: made.number("SELECT count(*) FROM executions") == 1, "one row waits")
    connection = made.connection
    if wide:
        connection.execute(MORE_SIGNATURES, {"tenants": TENANTS})
        connection.execute(MORE_PROGRAMS, {"tenants": TENANTS, "programs": PROGRAMS})
    names, values = made.rows(COLUMNS)[0]
    source = "(SELECT *, row_number() OVER () - 1 AS number, count(*) OVER () AS count FROM programs) AS p"
    for first in range(0, count, STEP):
        last = min(first + STEP, count) - 1
        statement = (
            f"INSERT INTO executions ({names}) SELECT {values} FROM generate_series({first}, {last}) AS n "
            f"JOIN {source} ON p.number = n % p.count "
            "CROSS JOIN LATERAL (SELECT * FROM executions WHERE NOT options = '{}') AS e"
        )
        connection.execute(statement.encode())
    connection.execute("DELETE FROM executions WHERE NOT options = '{}'")
    connection.execute(QUEUES)
    connection.execute("VACUUM (ANALYZE) executions, queues, programs")


SCENARIO = Scenario(
    "choose",
    "Chosen from a backlog in the database",
    f"The rows are made by SQL. How long a choice of {PLACES} takes, while nothing else runs there; then two worker "
    "processes run what waits: jobs a second between 5 % and 95 % of the first ones. Of many programs, each "
    "process loads each once.",
    (Column("p50", "choice p50 ms", 1), Column("p95", "choice p95 ms", 1), Column("rate", "jobs/s"), *CPU_OF_WORK),
    (OWN,),
    lambda options: (
        FEW.format(options.jobs),
        FEW.format(options.backlog),
        WIDE.format(options.backlog),
        HELD.format(options.backlog),
    ),
    measure,
)
