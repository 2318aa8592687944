"""The targets of the queue: what is accepted, chosen, limited and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from benchmarks.harness.results import Measured
from benchmarks.harness.target import Target, median
from benchmarks.scenarios import lanes, limits, shares


def _variants(measured: Measured) -> list[str]:
    return list(dict.fromkeys(run.variant for run in measured.runs))


def _ratio(measured: Measured, variant: str, to: str, key: str) -> float | None:
    above, below = median(measured, variant, key), median(measured, to, key)
    return above / below if above is not None and below else None


def _accept(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        yield Target("Accepted while nothing is free, rows/s", 10_000, median(measured, variant, "rate"))
        more = median(measured, variant, "more")
        yield Target("Accepted while nothing is free: MB more", 50, more, least=False)


def _choose(measured: Measured) -> Iterable[Target]:
    few, *others = _variants(measured)
    for variant in others:
        yield Target(f"Drain while {variant}, to {few.split()[0]}", 0.95, _ratio(measured, variant, few, "rate"))


def _lanes(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        if variant != lanes.EMPTY:
            ratio = _ratio(measured, variant, lanes.EMPTY, "p95")
            yield Target(f"Start delay p95 of urgent ones {variant}, to {lanes.EMPTY}", 3, ratio, least=False)


def _shares(measured: Measured) -> Iterable[Target]:
    for variant in (shares.TENANTS, shares.PROGRAMS):
        yield Target(f"Shares, {variant}: fewest to most", 0.95, median(measured, variant, "share"))


def _joins(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        yield Target("A worker that joins, 2 s later: share of its threads", 1, median(measured, variant, "share"))
        kept = median(measured, variant, "kept")
        yield Target("A worker that joins: jobs that the first keeps back", 0, kept, least=False)


def _wakes(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        yield Target("An idle worker is woken, p95 ms", 5, median(measured, variant, "p95"), least=False)


def _limits(measured: Measured) -> Iterable[Target]:
    for variant in (limits.STEADY, limits.KILLED):
        most = median(measured, variant, "most")
        yield Target(f"Limit of {variant}: at once, at most", limits.IN_FLIGHT, most, least=False)
        yield Target(f"Limit of {variant}: share of the slots", 0.95, median(measured, variant, "share"))
    for wanted, least in ((0.95, True), (1.05, False)):
        yield Target(f"Limit of {limits.TOKENS}: used", wanted, median(measured, limits.TOKENS, "share"), least=least)


def _refusals(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        for key, text, wanted in (
            ("calls", "calls a second", 1),
            ("attempts", "attempts at most", 1),
            ("failed", "failed", 0),
            ("logged", "log lines", 100),
            ("back", "seconds until the rate is back", 10),
        ):
            yield Target(f"{variant}: {text}", wanted, median(measured, variant, key), least=False)


def _cancels(measured: Measured) -> Iterable[Target]:
    for variant in _variants(measured):
        wrong = median(measured, variant, "wrong")
        yield Target(f"Cancels, {variant}: told cancelled, and ran", 0, wrong, least=False)


OF_SCENARIOS: Mapping[str, Callable[[Measured], Iterable[Target]]] = {
    "accept": _accept,
    "choose": _choose,
    "lanes": _lanes,
    "shares": _shares,
    "joins": _joins,
    "wakes": _wakes,
    "limits": _limits,
    "refusals": _refusals,
    "cancels": _cancels,
}
