"""Shows the progress of a run: continuously on a terminal, elsewhere by a line from time to time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from workers.cli.inputs.reading import Inputs
from workers.cli.output import cell
from workers.cli.summary import Summary

LINE_SECONDS = 30.0
RATE_SECONDS = 30.0
"""The window for the measured rate."""


class Shown:
    """Shows the progress in a summary."""

    def __init__(self, console: Console, summary: Summary, inputs: Inputs) -> None:
        self._console = console
        self._summary = summary
        self._inputs = inputs
        columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("", total=None)
        self._begun = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._begun, 0)])
        self._line = self._begun

    @contextmanager
    def shown(self) -> Generator[None]:
        """Show it until the end of the block."""
        with self._progress:
            yield

    def update(self) -> None:
        """Show the current progress."""
        now = time.monotonic()
        if now - self._samples[-1][0] >= 1.0:
            self._samples.append((now, self._summary.ran))
            while now - self._samples[0][0] > RATE_SECONDS:
                self._samples.popleft()
        if self._console.is_terminal:
            self._progress.update(self._task, description=self.text())
        elif now - self._line >= LINE_SECONDS:
            self._line = now
            self._console.print(cell(self.text()), highlight=False, soft_wrap=True)

    def text(self) -> str:
        """One line: how many of how many, the rate, the remaining time, and the outcomes."""
        summary = self._summary
        done = summary.completed + summary.failed.total() + summary.invalid
        total, estimated = self._inputs.total
        parts = [f"{done:,} of " + ("an unknown number" if total is None else f"{'~' * estimated}{max(total, done):,}")]
        (then, before), now = self._samples[0], time.monotonic()
        rate = (summary.ran - before) / (now - then) if now > then else 0.0
        if rate > 0:
            parts.append(f"{rate:,.1f}/s")
            if total is not None and total > done:
                parts.append(f"{timedelta(seconds=round((total - done) / rate))} left")
        earlier = f" ({summary.earlier:,} run before)" if summary.earlier else ""
        parts.append(f"{summary.completed:,} completed{earlier}, {summary.failed.total() + summary.invalid:,} failed")
        if summary.cost_known:
            parts.append(f"${summary.cost:.4f}")
        return " · ".join(parts)
