"""The summary of a run: counted as results arrive, shown as a table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from dspex import ExecutionStatus
from dspex.errors import Problem
from store import histogram
from store.executions import Result
from workers.cli.output import cell, of_known

SHOWN_PROBLEMS = 20


class Program(NamedTuple):
    """The program that ran."""

    id: str
    adapter: str
    module: str
    model: str | None


@dataclass
class Summary:
    """Counts of a run."""

    program: Program | None = None
    completed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    earlier: int = 0
    invalid: int = 0
    durations: Counter[int] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    tokens_known: int = 0
    cost_known: int = 0
    counted: int = 0
    compared: int = 0
    equal: int = 0

    @property
    def ran(self) -> int:
        """How many executions this run has run."""
        return self.completed + self.failed.total() - self.earlier

    @property
    def any(self) -> bool:
        """Whether there is any result."""
        return bool(self.completed or self.failed or self.invalid)

    def add(self, result: Result) -> None:
        """Count an ended execution."""
        if result.status == ExecutionStatus.COMPLETED:
            self.completed += 1
        else:
            self.failed[result.error["code"] if result.error else "unknown"] += 1
        if result.duration_ms is not None:
            self.durations[histogram.bucket(result.duration_ms)] += 1
        self.counted += 1
        usage = result.usage or {}
        taken, given, cost = usage.get("input_tokens"), usage.get("output_tokens"), usage.get("cost")
        if cost is None and not usage.get("calls"):
            cost = 0.0
        if taken is not None and given is not None:
            self.tokens_known += 1
            self.input_tokens += taken
            self.output_tokens += given
        if cost is not None:
            self.cost_known += 1
            self.cost += cost

    def compare(self, expected: Any, actual: Any) -> None:
        """Compare an output with the expected one, and count it."""
        self.compared += 1
        self.equal += expected == actual

    @property
    def clean(self) -> bool:
        """Whether every row completed."""
        return not self.failed and not self.invalid

    def show(self, console: Console, title: str) -> None:
        """Print the table."""
        table = Table(title=cell(title), title_justify="left", show_header=False, min_width=40)
        table.add_column(style="bold")
        table.add_column(justify="right")
        if self.program is not None:
            table.add_row("program", cell(self.program.id))
            table.add_row(
                "adapter", "mock: no LM was called" if self.program.adapter == "mock" else cell(self.program.adapter)
            )
            table.add_row("module", cell(self.program.module))
            table.add_row("model", cell(self.program.model or "none"))
        table.add_row("completed", str(self.completed))
        table.add_row("failed", str(self.failed.total()), style="red" if self.failed else None)
        for code, number in self.failed.most_common():
            table.add_row(cell(f"  {code}"), str(number))
        if self.invalid:
            table.add_row("lines that do not fit", str(self.invalid), style="red")
        if self.earlier:
            table.add_row("of these, run before", str(self.earlier))
        if self.durations:
            p50, p95 = (_duration(histogram.quantile(self.durations, q)) for q in (0.5, 0.95))
            table.add_row("duration p50 / p95", f"{p50} / {p95}")
        tokens = f"{self.input_tokens:,} / {self.output_tokens:,}"
        table.add_row("tokens in / out", of_known(tokens, self.tokens_known, self.counted))
        if self.cost_known:
            table.add_row("cost", of_known(f"${self.cost:.4f}", self.cost_known, self.counted))
        if self.compared:
            table.add_row("as expected", f"{self.equal} of {self.compared} ({self.equal / self.compared:.1%})")
        console.print(table)


def show_problems(console: Console, line: int, problems: Sequence[Problem]) -> None:
    """Print why a line was not run."""
    for problem in problems:
        console.print(cell(f"line {line}: {problem}"), style="red", highlight=False, soft_wrap=True)


def _duration(milliseconds: float | None) -> str:
    value = milliseconds or 0.0
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.2f} s"
