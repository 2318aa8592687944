"""Whether those who send little get as much as those who send much, while both wait."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import Fleet, commands, fleet, mock
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, PROCESSES, System

THREADS = 8
LATENCY_MS = 20
TENANTS = "two tenants, one sends 100 times as much"
PROGRAMS = "10 programs of one tenant, one gets 10 times as much"
LAST_STARTS = "SELECT program_id, count(started_at), max(started_at) FROM executions GROUP BY program_id"
ALL_THERE = """
SELECT max(first) FROM (SELECT min(inserted_at) AS first FROM executions GROUP BY program_id) AS each
"""
"""When the last of them had its first row."""
STARTS = """
SELECT program_id, count(*) FROM executions WHERE started_at BETWEEN %(begins)s AND %(ends)s GROUP BY program_id
"""


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Publish all, the many first; count the starts from when each has some until the first has no more."""
    with fleet(stage, system, tenancy=variant == TENANTS) as made:
        few = options.few
        sent = _two_tenants(made, few) if variant == TENANTS else _ten_programs(made, few)
        with made.workers(THREADS, PROCESSES) as workers:
            begins = datetime.now(UTC)

            def one_has_no_more() -> bool:
                found = {row[0]: row[1] for row in made.rows(LAST_STARTS)}
                return any(found.get(program_id, 0) == count for program_id, count in sent.items())

            made.wait(one_has_no_more, "one of them has started all", workers)
        if made.lanes:
            begins = made.rows(ALL_THERE)[0][0]
        last = {row[0]: row[2] for row in made.rows(LAST_STARTS) if row[1] == sent[row[0]]}
        found = dict(made.rows(STARTS, begins=begins, ends=min(last.values())))
        starts = [found.get(program_id, 0) for program_id in sent]
        if not max(starts):
            raise Void("nothing has started")
        return {"share": min(starts) / max(starts), "starts": float(sum(starts))}


def _two_tenants(made: Fleet, few: int) -> dict[UUID, int]:
    with made.client() as client:
        program_id = mock(client, LATENCY_MS)
    sent: dict[UUID, int] = {}
    for tenant, count in (("many", 100 * few), ("one", few)):
        copied = made.copy_program(program_id, tenant)
        made.send(commands([copied], count), tenant)
        sent[copied] = count
    return sent


def _ten_programs(made: Fleet, few: int) -> dict[UUID, int]:
    with made.client() as client:
        ids = [mock(client, LATENCY_MS, f"p {number}") for number in range(10)]
    sent = {program_id: few if number else 10 * few for number, program_id in enumerate(ids)}
    for program_id, count in sent.items():
        made.send(commands([program_id], count))
    return sent


SCENARIO = Scenario(
    "shares",
    "Equal shares",
    f"Two worker processes of {THREADS} threads, jobs of {LATENCY_MS} ms. All is published before they start, the many "
    "first. While each of them waits, the starts of the one that has fewest, to those of the one that has most.",
    (Column("share", "fewest to most", 3), Column("starts", "starts that were counted")),
    (OWN,),
    lambda _: (TENANTS, PROGRAMS),
    measure,
)
