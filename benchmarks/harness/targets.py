"""The targets: ratios of figures of one run, or figures that any machine should reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.harness import queue_targets
from benchmarks.harness.results import Measured
from benchmarks.harness.target import Target, median
from benchmarks.scenarios import backlog, drain, end_to_end, full_table, in_flight
from benchmarks.systems import FLOOR, HAND_WRITTEN, OWN, PROCESSES, SYSTEMS


def targets(all_measured: Mapping[str, Measured]) -> list[Target]:
    """The targets of the scenarios that were measured."""
    found: list[Target] = []
    for name, of in (
        ("drain", _drain),
        ("end_to_end", _end_to_end),
        ("publish", _publish),
        ("latency", _latency),
        ("waiting", _waiting),
        ("in_flight", _in_flight),
        ("full_table", _full_table),
        ("backlog", _backlog),
        ("embedded", _embedded),
        *queue_targets.OF_SCENARIOS.items(),
    ):
        if name in all_measured:
            found += of(all_measured[name])
    return found


def _over(measured: Measured, variant: str, others: Iterable[str], key: str = "rate") -> tuple[float | None, str]:
    """The ratio of our figure to the best of the others, and the name of that system."""
    ratios = {name: measured.ratio(variant, OWN, name, key) for name in others}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not known:
        return None, "?"
    best = min(known, key=lambda name: known[name])
    return known[best], SYSTEMS[best].title


def _peers() -> list[str]:
    return [system.name for system in SYSTEMS.values() if system.peer and system.durable]


def _drain(measured: Measured) -> Iterable[Target]:
    for variant in (drain.SPREAD, drain.HOT):
        ratio, best = _over(measured, variant, _peers())
        yield Target(f"Drain, {variant}, to the fastest durable peer ({best})", 2.5, ratio)
    yield Target("Drain, one hot program, to the ORM", 20, _over(measured, drain.HOT, ["dramatiq_orm"])[0])
    for variant in (drain.SPREAD, drain.HOT):
        ratio, _ = _over(measured, variant, [FLOOR])
        yield Target(f"Drain, {variant}, to the floor without a database", 0.65, ratio)


def _end_to_end(measured: Measured) -> Iterable[Target]:
    ratio, best = _over(measured, end_to_end.SPREAD, _peers())
    yield Target(f"End to end, to the fastest durable peer ({best})", 4, ratio)


def _publish(measured: Measured) -> Iterable[Target]:
    yield Target("Publish with confirms, messages/s", 8000, median(measured, "1 kB", "rate"))


def _latency(measured: Measured) -> Iterable[Target]:
    variant = "one in flight"
    ratio = measured.ratio(variant, OWN, HAND_WRITTEN, "p50")
    yield Target("Latency p50, to Dramatiq with psycopg by hand", 1.5, ratio, least=False)
    p50, p99 = (median(measured, variant, key) for key in ("p50", "p99"))
    yield Target("Latency p99, to p50", 3, p99 / p50 if p99 and p50 else None, least=False)


def _waiting(measured: Measured) -> Iterable[Target]:
    memory: dict[int, float] = {}
    for variant in dict.fromkeys(run.variant for run in measured.runs):
        concurrency = int(variant.split()[0])
        yield Target(f"I/O-bound, {variant}: share of the ideal", 0.95, median(measured, variant, "share"))
        if (used := median(measured, variant, "memory")) is not None:
            memory[concurrency] = used
    if len(memory) > 1:
        low, high = min(memory), max(memory)
        each = (memory[high] - memory[low]) / (PROCESSES * (high - low))
        yield Target("I/O-bound, MB for each more at once", 0.3, each, least=False)


def _in_flight(measured: Measured) -> Iterable[Target]:
    for variant, wanted in ((in_flight.MANY, 0.92), (in_flight.MOST, 0.85)):
        yield Target(f"LM calls in flight, {variant}: share of the ideal", wanted, median(measured, variant, "share"))
    few, many = (median(measured, variant, "cpu") for variant in (in_flight.FEW, in_flight.MANY))
    ratio = many / few if few and many else None
    yield Target(f"LM calls in flight, CPU of a call, {in_flight.MANY}, to {in_flight.FEW}", 1.5, ratio, least=False)
    memory = median(measured, in_flight.MANY, "memory")
    yield Target(f"LM calls in flight, {in_flight.MANY}: memory MB", 300, memory, least=False)


def _full_table(measured: Measured) -> Iterable[Target]:
    empty, full = (median(measured, variant, "rate") for variant in (full_table.EMPTY, full_table.FULL))
    text = f"Drain with {measured.options.rows:,} executions in the table, to empty tables"
    yield Target(text, 0.9, full / empty if full and empty else None)


def _backlog(measured: Measured) -> Iterable[Target]:
    (empty, small), (full, large) = (
        (median(measured, variant, "p99"), median(measured, variant, "memory"))
        for variant in (backlog.EMPTY, backlog.FULL)
    )
    size = f"{measured.options.backlog:,}"
    yield Target(
        f"Publish p99 behind {size}, to an empty queue", 2, full / empty if full and empty else None, least=False
    )
    more = large - small if large and small else None
    yield Target(f"Memory of the workers with {size} waiting: MB more", 50, more, least=False)


def _embedded(measured: Measured) -> Iterable[Target]:
    yield Target("Embedded, executions/s", 1500, median(measured, "SQLite", "rate"))
