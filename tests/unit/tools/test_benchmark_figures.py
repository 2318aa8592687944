"""The arithmetic and the tables of the benchmarks. What is measured is not tested here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness import results, tables
from benchmarks.harness.results import Measured, Measurement
from benchmarks.harness.scenario import Options
from benchmarks.harness.stacks import LIBRARY, read_stacks
from benchmarks.harness.stamps import Stamp, Stamps, Step
from benchmarks.harness.statistics import Progress, middle_rate, percentile, reached, spread
from benchmarks.harness.target import Target
from benchmarks.harness.targets import targets
from benchmarks.scenarios import SCENARIOS, drain
from benchmarks.steps import BEGAN, ENDED, by_execution, steps_of
from benchmarks.systems import FLOOR, OWN, SYSTEMS
from benchmarks.turns import compared


def test_the_median_is_between_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == value


def test_a_moment_is_found_between_two_observations() -> None:
    progress = [Progress(10.0, 0), Progress(11.0, 50), Progress(12.0, 50), Progress(13.0, 100)]
    assert [reached(progress, done) for done in (0, 25, 50, 75, 100)] == [10.0, 10.5, 11.0, 12.5, 13.0]


def test_what_was_never_done_has_no_moment() -> None:
    with pytest.raises(ValueError, match="101 were never done"):
        reached([Progress(10.0, 0), Progress(11.0, 100)], 101)


def test_the_rate_leaves_out_the_start_and_the_stragglers() -> None:
    progress = [Progress(0.0, 0), Progress(100.0, 50), Progress(109.0, 950), Progress(200.0, 1000)]
    assert middle_rate(progress, 1000) == pytest.approx(100.0)


def test_stacks_are_divided_by_folder_and_by_kind_of_thread() -> None:
    loop = "Thread._bootstrap (threading.py:1002);Writer._run (workers/persistence/group_commit.py:90)"
    stacks = read_stacks(
        [
            f"{loop};finish (store/executions/transitions.py:120);Cursor.execute (psycopg/cursor.py:97) 3",
            f"{loop};Condition.wait (threading.py:331) 1",
            "WorkerThread.run (dramatiq/worker.py:500);poll (pika/adapters/select_connection.py:5) 2",
            "",
        ]
    )
    assert stacks.samples == {"writer": 4, "actors": 2}
    assert stacks.folders == {"writer": {"psycopg": 3, LIBRARY: 1}, "actors": {"pika": 2}}
    assert stacks.functions["writer"]["Cursor.execute (psycopg/cursor.py)"] == 3
    assert stacks.callers["writer"]["Writer._run (workers/persistence/group_commit.py)"] == 4


def measured() -> Measured:
    """Two rounds of a drain: the ORM's second one is void."""
    rates = {OWN: (1000.0, 3000.0), FLOOR: (2000.0, 4000.0), "dramatiq_orm": (100.0, None)}
    runs = [
        Measurement(variant, system, number, {"rate": rate} if rate else {}, None if rate else "9 rows of 10 jobs")
        for variant in (drain.SPREAD, drain.HOT)
        for system, of_system in rates.items()
        for number, rate in enumerate(of_system, 1)
    ]
    return Measured("2026-11-25", "a machine", Options(), runs)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    assert measured().ratio(drain.SPREAD, FLOOR, OWN, "rate") == pytest.approx((2 + 4 / 3) / 2)
    assert measured().ratio(drain.SPREAD, "dramatiq_orm", OWN, "rate") == pytest.approx(0.1)
    assert measured().ratio(drain.SPREAD, "celery_redis", OWN, "rate") is None


def test_versions_in_turns_are_compared_round_by_round() -> None:
    runs = [
        Measurement(drain.SPREAD, name, number, {"rate": rate})
        for name, rates in {"before": (1000.0, 3000.0), "now": (1100.0, 2400.0)}.items()
        for number, rate in enumerate(rates, 1)
    ]
    table = compared(SCENARIOS["drain"], Measured("2026-11-30", "a machine", Options(), runs), ["before", "now"])
    assert "| 100 programs: jobs/s | 2,000 | 1,750 | 0.950 | 1.10 0.80 |" in table


def test_targets_are_compared_with_the_fastest_peer_that_was_measured() -> None:
    found = {goal.text: goal for goal in targets({"drain": measured()})}
    orm = found[f"Drain, {drain.SPREAD}, to the fastest durable peer ({SYSTEMS['dramatiq_orm'].title})"]
    assert (orm.found, orm.met) == (10.0, True)
    floor = found[f"Drain, {drain.SPREAD}, to the floor without a database"]
    assert (floor.found, floor.met) == (0.625, False)


def test_figures_of_the_queue_are_compared_with_what_is_wanted() -> None:
    variants = SCENARIOS["lanes"].variants(Options())
    delays = {variants[0]: 10.0, variants[1]: 25.0}
    runs = [Measurement(variant, OWN, 1, {"p95": p95}) for variant, p95 in delays.items()]
    (goal,) = targets({"lanes": Measured("2026-11-30", "a machine", Options(), runs)})
    assert (goal.text, goal.wanted, goal.found, goal.met) == (
        "Start delay p95 of urgent ones behind 100,000 of bulk, to an empty system",
        3,
        2.5,
        True,
    )


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("more", 2, 2.0), True),
        (Target("more", 2, 1.9), False),
        (Target("less", 2, 2.0, least=False), True),
        (Target("less", 2, 2.1, least=False), False),
        (Target("unknown", 2, None), False),
    ],
)
def test_a_target_is_met_or_missed(target: Target, met: bool) -> None:
    assert target.met is met


def test_the_table_shows_every_system_and_says_what_is_void() -> None:
    text = "\n".join(tables.section(SCENARIOS["drain"], measured()))
    assert "| **DSPex** | 2,000 | 1,000 | 3,000 | 1.00 |" in text
    assert "| Dramatiq + ORM, version_id_col | 100 | 100 | 100 | 0.10 |" in text
    assert "Void: Dramatiq + ORM, version_id_col, one hot program, round 2: 9 rows of 10 jobs" in text


def test_the_report_says_what_each_was_given() -> None:
    text = tables.report(SCENARIOS, {"drain": measured()}, targets({"drain": measured()}))
    assert all(system.given in text for system in SYSTEMS.values())


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    results.save(tmp_path, {"drain": measured()})
    assert results.load(tmp_path) == {"drain": measured()}


def test_the_steps_of_an_execution_are_those_between_its_question_and_its_answer() -> None:
    client = [Stamp(1.0, BEGAN, "m"), Stamp(1.5, ENDED, "m"), Stamp(2.0, BEGAN, "m"), Stamp(2.75, ENDED, "m")]
    worker = [Stamp(at, "ack", "c") for at in (1.25, 1.75, 2.5)]
    found = by_execution(client, worker)
    assert [[stamp.at for stamp in stamps] for stamps in found] == [[1.0, 1.25, 1.5], [2.0, 2.5, 2.75]]
    assert steps_of(found[1], [BEGAN, "ack", "never", ENDED]) == {BEGAN: 0.0, "ack": 500.0, ENDED: 250.0}


def test_a_function_is_stamped_where_it_is_entered_and_left_by_a_thread_of_this_name() -> None:
    class Worker:
        def run(self) -> str:
            return "ran"

    stamps = Stamps()
    stamps.put(
        [
            Step("begins", Worker, "run"),
            Step("has run", Worker, "run", left=True),
            Step("elsewhere", Worker, "run", only="other-"),
        ]
    )
    assert Worker().run() == "ran"
    assert [stamp.step for stamp in stamps.noted] == ["begins", "has run"]
