"""Statistics: over all time from the counters, over a window from the rows; both agree."""

from __future__ import annotations

import math
import random
import statistics as exact
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, update

from dspex import Usage, uuid7
from dspex.contract.results import ProgramStatistics
from dspex.errors import NotFound
from store import counters, executions, histogram, statistics
from store.executions import Claimed, Finish, Request
from store.statistics import Statistics
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    ERROR,
    accept,
    cancelled,
    claim_now,
    clock,
    completed,
    failed,
    ready_program,
    request,
    take,
    taken,
)
from tests.pages import ROOT


def run(connection: Connection, program_id: UUID, durations: Sequence[float], *, failing: int = 3) -> None:
    """Executions of these durations; every third fails, and two are cancelled besides."""
    asked = [request(program_id) for _ in durations]
    claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
    ends = [
        replace((failed if number % failing == 0 else completed)(item, claim), duration_ms=duration)
        for number, (item, claim, duration) in enumerate(zip(asked, claims, durations, strict=True))
    ]
    for start in range(0, len(ends), 50):
        assert all(executions.finish(connection, start // 50 % 4, ends[start : start + 50]))
    item = request(program_id)
    executions.finish(connection, 1, [cancelled(item, take(connection, item))])
    item = request(program_id)
    accept(connection, item)
    executions.cancel(connection, item.id, by="ann", shard=2)


DURATIONS = [random.Random(3).lognormvariate(6, 2) for _ in range(400)]


class TestAllTime:
    def test_of_nothing(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        expected = Statistics(program_id, 0, 0, 0, 0, None, None, None, None, 0, 0, 0.0, None)
        assert statistics.all_time(connection, program_id) == expected

    def test_sums_and_shares(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        run(connection, ready_program(connection), [1.0] * 10)
        run(connection, program_id, DURATIONS)
        found = statistics.all_time(connection, program_id)
        assert (found.total, found.successful, found.failed, found.cancelled) == (402, 266, 134, 2)
        assert found.success_rate == pytest.approx(266 / 400)
        assert found.average_duration_ms == pytest.approx(sum(DURATIONS) / 400)
        assert (found.input_tokens, found.output_tokens) == (266 * 10 + 4, 266 * 2)
        assert found.cost == pytest.approx(266 * 0.25)
        assert found.last_executed_at == counters.totals(connection, program_id).last_executed_at
        for q, quantile in ((0.5, found.p50_duration_ms), (0.95, found.p95_duration_ms)):
            assert quantile == pytest.approx(sorted(DURATIONS)[math.floor(q * 399)], rel=0.0875)

    def test_of_how_many_tokens_and_cost_are_known(self, connection: Connection) -> None:
        """What a provider does not say is not known, and what never ran has used nothing. A window says the same."""
        program_id = ready_program(connection)
        since = clock(connection)
        used = [
            Usage(calls=1, input_tokens=10, output_tokens=2, cost=0.25),
            Usage(calls=1, input_tokens=10, output_tokens=2),
            Usage(calls=1, input_tokens=7, cost=0.5),
            Usage(calls=1),
            Usage(),
        ]
        asked = [request(program_id) for _ in used]
        claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
        ends = [
            replace(completed(item, claim), usage=usage) for item, claim, usage in zip(asked, claims, used, strict=True)
        ]
        assert all(executions.finish(connection, 1, ends))
        never = request(program_id)
        accept(connection, never)
        # It used something that is not known, and waits for its next attempt: it is in no sum yet.
        waits = request(program_id)
        claimed = take(connection, waits)
        used_before = Usage(calls=1, input_tokens=500)
        again = executions.Retry(waits.id, claimed.lock_version, 60.0, 1, ERROR, used_before, executions.Carried())
        assert executions.retry(connection, [again]) == [True]
        executions.cancel(connection, never.id, by="ann")
        until = clock(connection) + timedelta(seconds=1)

        def known() -> list[tuple[int, int, int, float, int, int]]:
            return [
                (s.total, s.input_tokens, s.output_tokens, s.cost, s.tokens_known, s.cost_known)
                for s in (
                    statistics.all_time(connection, program_id),
                    statistics.window(connection, program_id, since, until),
                )
            ]

        assert known() == [(6, 27, 4, 0.75, 4, 4)] * 2
        executions.cancel(connection, waits.id, by="ann")
        assert known() == [(7, 527, 4, 0.75, 4, 4)] * 2

    def test_not_found(self, connection: Connection) -> None:
        unknown = uuid7()
        with pytest.raises(NotFound, match=str(unknown)):
            statistics.all_time(connection, unknown)


def edges() -> dict[str, dict[str, str]]:
    """What statistics say at the edges: the columns of the table in docs/programs.md."""
    page = (ROOT / "docs/programs.md").read_text(encoding="utf-8")
    section = page[page.index("## Statistics") :].split("\n## ")[0]
    head, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")
    ]
    return {name: {line[0].strip("`"): line[column] for line in lines} for column, name in enumerate(head) if name}


USED = Usage(calls=1, input_tokens=10, output_tokens=2, cost=0.25)


@pytest.mark.parametrize(
    ("column", "make", "number", "usage"),
    [
        ("none has ended", None, 0, USED),
        ("only failures: 2", failed, 2, USED),
        ("only cancelled, unbegun: 2", None, 2, USED),
        ("1 completed", completed, 1, USED),
        ("1 completed, without a price", completed, 1, Usage(calls=1, input_tokens=10, output_tokens=2)),
    ],
)
def test_the_edges_are_as_the_page_has_them(
    connection: Connection, column: str, make: Callable[[Request, Claimed], Finish] | None, number: int, usage: Usage
) -> None:
    program_id = ready_program(connection)
    since = clock(connection)
    for _ in range(number):
        item = request(program_id)
        if make is None:
            accept(connection, item)
            executions.cancel(connection, item.id, by="ann")
            continue
        end = replace(make(item, take(connection, item)), duration_ms=100.0, usage=usage)
        assert executions.finish(connection, 1, [end])
    whole = statistics.all_time(connection, program_id)
    part = statistics.window(connection, program_id, since, clock(connection) + timedelta(seconds=1))
    expected = edges()[column]
    assert expected.keys() == ProgramStatistics.model_fields.keys() - {"program_id", "name", "since", "until"}
    for found in (whole, part):
        told = ProgramStatistics.model_validate(vars(found)).model_dump(mode="json")
        for name, value in expected.items():
            if name == "last_executed_at":
                assert (told[name] is not None) is (value == "a time" and found is whole)
            elif value == "null":
                assert told[name] is None
            else:
                assert told[name] == pytest.approx(float(value), rel=0.0875 if name.startswith("p") else 1e-9)
                assert type(told[name]) is (float if "." in value else int)


class TestWindow:
    def test_of_nothing(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        now = clock(connection)
        accept(connection, request(program_id))
        later = now + timedelta(hours=1)
        found = statistics.window(connection, program_id, now, later)
        empty = Statistics(program_id, 0, 0, 0, 0, None, None, None, None, 0, 0, 0.0, None, now, later)
        assert found == empty

    @pytest.mark.parametrize("number", [1, 2, 3, 400])
    def test_percentiles_are_exact(self, connection: Connection, number: int) -> None:
        program_id = ready_program(connection)
        since = clock(connection)
        run(connection, program_id, DURATIONS[:number])
        found = statistics.window(connection, program_id, since, clock(connection) + timedelta(seconds=1))
        assert found.average_duration_ms == pytest.approx(sum(DURATIONS[:number]) / number)
        if number == 1:
            expected = DURATIONS[:1] * 2
        else:
            cuts = exact.quantiles(DURATIONS[:number], n=100, method="inclusive")
            expected = [cuts[49], cuts[94]]
        assert [found.p50_duration_ms, found.p95_duration_ms] == pytest.approx(expected)

    def test_of_all_there_is_agrees_with_all_time(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        since = clock(connection)
        run(connection, program_id, DURATIONS)
        until = clock(connection) + timedelta(seconds=1)
        found, whole = (
            statistics.window(connection, program_id, since, until),
            statistics.all_time(connection, program_id),
        )
        assert found.cost == pytest.approx(whole.cost)
        assert found.average_duration_ms == pytest.approx(whole.average_duration_ms)
        assert found.p95_duration_ms == pytest.approx(whole.p95_duration_ms, rel=0.1)
        assert whole == replace(
            found,
            since=None,
            until=None,
            cost=whole.cost,
            average_duration_ms=whole.average_duration_ms,
            p50_duration_ms=whole.p50_duration_ms,
            p95_duration_ms=whole.p95_duration_ms,
            last_executed_at=whole.last_executed_at,
        )

    def test_takes_what_was_inserted_in_it(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        items = [request(program_id) for _ in range(3)]
        for item in items:
            executions.finish(connection, 0, [completed(item, take(connection, item))])
        moments = [clock(connection).replace(microsecond=0) - timedelta(hours=hours) for hours in (3, 2, 1)]
        for item, moment in zip(items, moments, strict=True):
            c = executions_table.c
            connection.execute(update(executions_table).where(c.id == item.id).values(inserted_at=moment))
        assert statistics.window(connection, program_id, moments[0], moments[2]).total == 2
        assert statistics.window(connection, program_id, moments[1], moments[1]).total == 0
        found = statistics.window(connection, program_id, moments[1], moments[1] + timedelta(microseconds=1000))
        assert found.total == 1
        other = datetime.fromisoformat(moments[1].isoformat()).astimezone(timezone(timedelta(hours=5, minutes=45)))
        assert statistics.window(connection, program_id, other, other + timedelta(hours=2)).total == 2

    def test_not_found(self, connection: Connection) -> None:
        unknown, now = uuid7(), clock(connection)
        with pytest.raises(NotFound, match=str(unknown)):
            statistics.window(connection, unknown, now, now)


class TestHistogram:
    @given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=300), st.floats(0, 1))
    def test_a_quantile_is_right_to_its_relative_error(self, durations: list[float], q: float) -> None:
        buckets = Counter(map(histogram.bucket, durations))
        found = histogram.quantile(buckets, q)
        assert found is not None
        true = sorted(durations)[math.floor(q * (len(durations) - 1))]
        assert abs(found - true) <= (histogram.RELATIVE_ERROR + 1e-9) * true
        assert histogram.RELATIVE_ERROR < 0.1

    @pytest.mark.parametrize("duration", [0.0, -1.0, 1e-300, 1e300, math.inf])
    def test_what_is_beyond_is_in_the_first_or_the_last(self, duration: float) -> None:
        assert histogram.bucket(duration) in (histogram.FIRST, histogram.LAST)

    def test_bounds(self) -> None:
        assert [histogram.bucket(value) for value in (1.0, 2.0, 2.0001, 4.0)] == [0, 4, 5, 8]
        assert histogram.quantile({}, 0.5) is None
