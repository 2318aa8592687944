"""The costs of lists, statistics and the hot path of the store with a million executions in PostgreSQL.


    python -m benchmarks.store postgresql+psycopg://user@host:port/postgres

It creates a database on that server, and a role that owns nothing, so that row-level security applies. It fills the
database, checks that every plan finds executions by an index, measures, and drops both; the user needs the privileges
for that. The exit code is 1 if a plan reads the whole table or a target is missed.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics as numbers
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL

import migrations
from dspex import Configuration, ExecutionOptions, ExecutionStatus, Signature, Usage, uuid7
from store import counters, executions, histogram, programs, signatures, statistics
from store.counters import Counts
from store.database.engine import make_engine
from store.database.identity import Identity
from store.executions import Claimed, Finish, Lease, Request

PROGRAMS = 100
TENANTS = 5
DAYS = 4
BUSY_SHARE = 0.4
"""The share of one busy program in the last day's executions, between all the others."""

FILL = """
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, backend_id, attempt, worker,
    lease_expires_at, outputs, error, usage, duration_ms, started_at, finished_at, status, lock_version, inserted_at,
    updated_at, tenant, timeline, error_code, input_tokens, output_tokens, cost)
SELECT gen_random_uuid(), program.id, jsonb_build_object('question', repeat(md5(random()::text), 8), 'k', n % 7),
    '{"seed": null}', md5(n::text) || md5(n::text), '/benchmark', 'backend', 1, 'worker-' || n % 8,
    CASE WHEN status IN ('pending', 'running') THEN now() + interval '1 hour' END,
    CASE status WHEN 'completed' THEN
        jsonb_build_object('answer', repeat(md5(random()::text), 8), 'score', random()) END,
    CASE status WHEN 'failed' THEN jsonb_build_object('code', code, 'message', 'no', 'problems', '[]'::jsonb) END,
    '{"calls": 1, "input_tokens": 500, "output_tokens": 80, "cost": 0.001}', exp(6 + 1.2 * random()), at, at, status,
    2, at, at, program.tenant, jsonb_build_array(
        jsonb_build_object('status', 'running', 'at', at, 'attempt', 1, 'by', 'worker-' || n % 8),
        jsonb_build_object('status', status, 'at', at, 'attempt', 1, 'by', 'worker-' || n % 8)),
    CASE status WHEN 'failed' THEN code END, 500, 80, 0.001
FROM (
    SELECT n, CAST(:began AS timestamptz) + n * CAST(:step AS interval) AS at, random() AS chosen, random() AS luck,
        (ARRAY['timeout', 'rate_limited', 'parse_failure', 'auth'])[1 + floor(4 * random() ^ 3)] AS code
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
) AS rows
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN n >= CAST(:newest AS integer) THEN (ARRAY['pending', 'running'])[1 + n % 2]
        WHEN luck < 0.96 THEN 'completed' WHEN luck < 0.995 THEN 'failed' ELSE 'cancelled'
    END AS status
) AS ended
JOIN benchmark_programs AS program ON program.number = CASE
    WHEN n >= CAST(:last_day AS integer) AND chosen < CAST(:busy AS double precision) THEN 0
    ELSE 1 + floor(random_of(n) * CAST(:others AS integer)) END
"""


@dataclass
class Data:
    """The data that was created."""

    engine: Engine
    program_ids: list[uuid.UUID]
    busy: uuid.UUID
    day: tuple[datetime, datetime]


@contextmanager
def database(url: URL) -> Generator[tuple[URL, URL]]:
    """Create a database, with URLs for its owner and for a role that owns nothing. Drops both at the end."""
    name = f"dspex_benchmark_{uuid.uuid4().hex[:12]}"
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        connection.execute(text(f"CREATE ROLE {name} LOGIN"))
    try:
        yield url.set(database=name), url.set(database=name, username=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text(f"DROP ROLE {name}"))
        admin.dispose()


def fill(owner: Engine, service: Engine, rows: int) -> Data:
    """Migrate, and insert executions of the last days, in the order of time."""
    migrations.upgrade(owner)
    ids = list[uuid.UUID]()
    with owner.begin() as connection:
        connection.execute(text("CREATE TABLE benchmark_programs (number integer PRIMARY KEY, id uuid, tenant text)"))
        connection.execute(
            text(
                "CREATE FUNCTION random_of(n bigint) RETURNS double precision LANGUAGE sql IMMUTABLE AS "
                "$$ SELECT (hashint8(n) & 1048575) / 1048576.0 $$"
            )
        )
        for number in range(PROGRAMS + 1):
            tenant = tenant_of(number)
            ids.append(make_program(connection, tenant))
            connection.execute(
                text("INSERT INTO benchmark_programs VALUES (:number, :id, :tenant)"),
                {"number": number, "id": ids[-1], "tenant": tenant},
            )
    until = datetime.now(UTC)
    began = until - timedelta(days=DAYS)
    per_day = rows // DAYS
    for first in range(0, rows, 100_000):
        with owner.begin() as connection:
            connection.execute(
                text(FILL),
                {
                    "began": began,
                    "step": timedelta(days=1) / per_day,
                    "first": first,
                    "last": min(first + 100_000, rows) - 1,
                    "last_day": rows - per_day,
                    "newest": rows - 500,
                    "busy": BUSY_SHARE,
                    "others": PROGRAMS,
                },
            )
    counts = Counts(cancelled=5, completed=15_000, failed=200, duration_ms=6e6, cost=15.0)
    spread = {histogram.bucket(1.3**number): 100 + number for number in range(60)}
    with owner.begin() as connection:
        for shard in range(counters.SHARDS):
            some = {
                Identity(id_, tenant_of(number)): replace(counts, durations=spread) for number, id_ in enumerate(ids)
            }
            counters.increment(connection, shard, some)
        role = service.url.username
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    return Data(
        service, [i for n, i in enumerate(ids) if tenant_of(n) == "default"], ids[0], (until - timedelta(1), until)
    )


def tenant_of(number: int) -> str:
    return "default" if number % TENANTS < TENANTS - 1 else f"tenant-{number % 7}"


def make_program(connection: Connection, tenant: str) -> uuid.UUID:
    """A program that is ready, with a signature of its own."""
    signature = signatures.create(
        connection, uuid7(), Signature.parse("question, k: int -> answer, score: float"), activate=True, tenant=tenant
    )
    created = programs.create(
        connection,
        uuid7(),
        name="benchmark",
        signature_id=signature.id,
        adapter_type="mock",
        configuration=Configuration(),
        tenant=tenant,
    )
    begun = programs.begin_initialize(connection, created.id, tenant=tenant)
    programs.end_initialize(connection, begun, "backend")
    return created.id


@dataclass(frozen=True)
class Query:
    """A query to measure. `run` returns how many rows it found."""

    name: str
    target_ms: float
    run: Callable[[Connection], object]
    times: int = 200


def queries(data: Data) -> list[Query]:
    """All lists and statistics, with changing parameters."""
    chosen = random.Random(1)

    def program() -> uuid.UUID:
        return chosen.choice(data.program_ids)

    def moment() -> datetime:
        return data.day[1] - timedelta(seconds=chosen.uniform(3600, (DAYS - 0.2) * 86_400))

    def page(connection: Connection, **given: Any) -> int:
        return len(executions.page(connection, **given).items)

    def deep(connection: Connection) -> int:
        first = executions.page(connection, until=moment(), limit=1)
        return page(connection, cursor=first.next_cursor)

    failed, completed, running = ExecutionStatus.FAILED, ExecutionStatus.COMPLETED, ExecutionStatus.RUNNING
    codes = ("timeout", "rate_limited", "parse_failure", "auth")
    return [
        Query("executions, newest", 10, lambda c: page(c)),
        Query("executions, two pages somewhere", 20, deep),
        Query("executions of a program", 10, lambda c: page(c, program_id=program())),
        Query("executions in a time", 10, lambda c: page(c, since=(m := moment()), until=m + timedelta(minutes=1))),
        Query("executions, completed", 10, lambda c: page(c, status=completed, until=moment())),
        Query("executions, failed", 10, lambda c: page(c, status=failed, until=moment())),
        Query("executions, failed, of a program", 10, lambda c: page(c, status=failed, program_id=program())),
        Query(
            "executions, cancelled, of a program",
            10,
            lambda c: page(c, status=ExecutionStatus.CANCELLED, program_id=program()),
        ),
        Query("executions, an error code", 10, lambda c: page(c, error_code=chosen.choice(codes), until=moment())),
        Query(
            "executions, an error code, of a program", 10, lambda c: page(c, error_code="auth", program_id=program())
        ),
        Query("executions, an error code that is not there", 10, lambda c: page(c, error_code="billing")),
        Query("executions, running", 10, lambda c: page(c, status=running)),
        Query("executions, running, of a program", 10, lambda c: page(c, status=running, program_id=program())),
        Query("signatures", 10, lambda c: len(signatures.page(c).items)),
        Query("programs, with counts", 10, lambda c: len(programs.page(c).items)),
        Query("program, with counts", 5, lambda c: programs.get(c, program())),
        Query("statistics, all time", 5, lambda c: statistics.all_time(c, program())),
        Query(
            "statistics, a day of 100,000",
            150,
            lambda c: statistics.window(c, data.busy, *data.day),
            times=30,
        ),
        Query(
            "statistics, an hour",
            10,
            lambda c: statistics.window(
                c, data.busy, (m := data.day[1] - timedelta(hours=chosen.randint(2, 20))), m + timedelta(hours=1)
            ),
        ),
    ]


def explained(connection: Connection, query: Query) -> tuple[set[str], bool, float]:
    """The indexes in a query's plans, whether a plan reads all executions, and the server's milliseconds."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    query.run(connection)
    event.remove(connection, "before_cursor_execute", note)
    plans = "\n".join(
        line
        for statement, parameters in sent
        for line in connection.exec_driver_sql(f"EXPLAIN ANALYZE {statement}", parameters).scalars()
    )
    used = set(re.findall(r"(?:using|Scan on) (?=ix_|pk_)(\w+)", plans))
    server = sum(map(float, re.findall(r"Execution Time: ([\d.]+) ms", plans)))
    return used, "Seq Scan on executions" in plans, server


def measure(connection: Connection, query: Query) -> list[float]:
    for _ in range(3):
        query.run(connection)
    durations = []
    for _ in range(query.times):
        began = time.perf_counter()
        query.run(connection)
        durations.append((time.perf_counter() - began) * 1000)
    return durations


def hot_path(data: Data, batches: int, size: int) -> tuple[float, float]:
    """Claim and finish batches of new executions, with a commit each. Returns milliseconds per batch."""
    lease, options, chosen = Lease("benchmark", 60), ExecutionOptions(), random.Random(2)
    claims, finishes = [], []
    for number in range(batches):
        requests = [
            Request(uuid7(), chosen.choice(data.program_ids), {"question": "why? " * 60, "k": 3}, options, "/benchmark")
            for _ in range(size)
        ]
        began = time.perf_counter()
        with data.engine.begin() as connection:
            claimed = executions.claim(connection, lease, requests, now=[True] * size)
        claims.append((time.perf_counter() - began) * 1000)
        usage = Usage(calls=1, input_tokens=500, output_tokens=80, cost=0.001)
        ends = [
            Finish(r.id, r.program_id, 1, chosen.lognormvariate(6, 1), usage, {"answer": "because " * 30, "score": 0.5})
            for r, c in zip(requests, claimed, strict=True)
            if isinstance(c, Claimed)
        ]
        began = time.perf_counter()
        with data.engine.begin() as connection:
            done = executions.finish(connection, number % 4, ends)
        finishes.append((time.perf_counter() - began) * 1000)
        if done != [True] * size:
            raise RuntimeError("an execution did not end")
    return numbers.median(claims), numbers.median(finishes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of a PostgreSQL whose user may make databases and roles")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=200, help="of 50 executions, through the hot path")
    arguments = parser.parse_args()
    missed = 0
    with database(make_url(arguments.url)) as (owner_url, service_url):
        owner, service = make_engine(owner_url), make_engine(service_url, tenant="default")
        try:
            began = time.perf_counter()
            data = fill(owner, service, arguments.rows)
            print(f"{arguments.rows:,} executions made in {time.perf_counter() - began:.0f} s")
            print(f"{'':44} {'server':>8} {'p50 ms':>8} {'p95 ms':>8} {'target':>7}  indexes")
            with service.connect() as connection:
                for query in queries(data):
                    used, whole, server = explained(connection, query)
                    durations = measure(connection, query)
                    p50, p95 = numbers.median(durations), sorted(durations)[int(len(durations) * 0.95)]
                    over = p95 > query.target_ms
                    missed += over or whole
                    names = ", ".join(sorted(used)) + (" READS ALL EXECUTIONS" if whole else "")
                    mark = "!" if over else " "
                    figures = f"{server:8.2f} {p50:8.2f} {p95:8.2f} {query.target_ms:7.0f}{mark}"
                    print(f"{query.name:44} {figures} {names}")
            claim, finish = hot_path(data, arguments.batches, 50)
            print(f"claim a batch of 50: {claim:.2f} ms; finish: {finish:.2f} ms; {(claim + finish) * 20:.0f} µs a row")
        finally:
            owner.dispose()
            service.dispose()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
