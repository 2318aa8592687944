"""The report, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.harness.results import Measured
from benchmarks.harness.scenario import Column, Scenario
from benchmarks.harness.target import Target
from benchmarks.systems import OWN, SYSTEMS

Row = Sequence[str]

INTRODUCTION = """\
Written by `make bench`. Every server, producer and worker runs on the same machine, so figures of one table may be
compared with each other and not with those of another machine. Each system does the same durable job: read the program,
run a mock, an execution row that goes from running to completed, an exact counter of the program, and a result that the
caller can get. Runs are interleaved; each is checked: as many rows and as much counted as was published, or it is void.
Ours does more in it: typed validation of inputs and outputs, a lease and a fence, a timeline, statistics, and an event
with a confirm."""


def table(head: Row, rows: Iterable[Row]) -> list[str]:
    """A table; every column but the first is of numbers."""
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, ruler, *rows)]


def number(value: float | None, digits: int = 0) -> str:
    """A figure, or nothing where there is none."""
    return "" if value is None else f"{value:,.{digits}f}"


def report(scenarios: Mapping[str, Scenario], measured: Mapping[str, Measured], goals: Sequence[Target]) -> str:
    """Everything that was measured."""
    lines = [
        "# Benchmarks",
        "",
        INTRODUCTION,
        "",
        "![jobs a second](throughput.svg)",
        "",
        "## Targets",
        "",
        *targets_table(goals),
    ]
    for name, scenario in scenarios.items():
        if name in measured:
            lines += ["", *section(scenario, measured[name])]
    lines += ["", "## What each was given", ""]
    lines += [f"- **{system.title}**: {system.given}." for system in SYSTEMS.values()]
    return "\n".join(lines) + "\n"


def targets_table(goals: Sequence[Target]) -> list[str]:
    """What was to be reached, and what was."""
    head = ("target", "wanted", "measured", "")
    return table(
        head,
        (
            (
                goal.text,
                f"{'≥' if goal.least else '≤'} {goal.wanted:,g}",
                number(goal.found, 0 if goal.wanted >= 100 else 2),
                "unknown" if goal.found is None else "met" if goal.met else "missed",
            )
            for goal in goals
        ),
    )


def section(scenario: Scenario, measured: Measured) -> list[str]:
    """One scenario."""
    rounds = max((run.round for run in measured.runs), default=0)
    lines = [f"## {scenario.title}", "", scenario.text, ""]
    lines += [f"{measured.date}, {measured.machine}; {rounds} round{'s' * (rounds > 1)}; {_sizes(measured)}."]
    for variant in dict.fromkeys(run.variant for run in measured.runs):
        lines += ["", f"**{variant}**", "", *_table(scenario, measured, variant)]
    for run in measured.voids():
        reason = " ".join((run.void or "").split())[:300]
        lines += ["", f"Void: {SYSTEMS[run.system].title}, {run.variant}, round {run.round}: {reason}"]
    return lines


def _sizes(measured: Measured) -> str:
    options = measured.options
    return f"{options.jobs:,} jobs"


def _table(scenario: Scenario, measured: Measured, variant: str) -> list[str]:
    main, *others = scenario.columns
    systems = [name for name in SYSTEMS if any((r.variant, r.system) == (variant, name) for r in measured.runs)]
    compared = len(systems) > 1
    head = ["", f"{main.title}: median", "min", "max", *(["to ours"] if compared else []), *(c.title for c in others)]
    return table(head, (_row(measured, variant, name, main, others, compared=compared) for name in systems))


def _row(
    measured: Measured, variant: str, name: str, main: Column, others: Sequence[Column], *, compared: bool
) -> list[str]:
    found = measured.spread(variant, name, main.key)
    title = f"**{SYSTEMS[name].title}**" if name == OWN else SYSTEMS[name].title
    cells = [title, *((number(value, main.digits) for value in found) if found else ("void", "", ""))]
    if compared:
        cells.append(number(measured.ratio(variant, name, OWN, main.key), 2))
    for column in others:
        values = measured.spread(variant, name, column.key)
        cells.append(number(values.median if values else None, column.digits))
    return cells
