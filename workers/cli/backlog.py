"""`dspex queue`: the backlog as a table."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dspex.contract.backlog import Backlog, BacklogView, By
from workers.cli.output import cell, say

_HEADS = {By.LANE: ("lane",), By.TENANT: ("tenant",), By.PROGRAM: ("tenant", "program", "name")}


def show_backlog(view: BacklogView) -> None:
    """Print a table, with a line for all of it below."""
    heads = _HEADS[view.by]
    table = Table(box=SIMPLE_HEAD)
    for head in (*heads, "waiting", "running", "oldest", "in/min", "out/min", "expected wait", "held by"):
        table.add_column(head, no_wrap=True, justify="left" if head in (*heads, "held by") else "right")
    now = datetime.now(UTC)
    for row in view.items:
        table.add_row(*(cell(text) for text in (*_names(row, view.by), *_figures(row, now))))
    table.add_section()
    table.add_row(*(cell(text) for text in ("all", *("" for _ in heads[1:]), *_figures(view.total, now))))
    # Lines may be wider than the terminal, so that ids can be copied.
    Console(width=max(Console().width, 220), soft_wrap=True).print(table)
    if view.total.unserved:
        say(
            f"No live worker serves {', '.join(view.total.unserved)}: start one that does, or it waits on. "
            "`dspex workers` shows those that live."
        )
    if view.next_cursor:
        say(f"More: --cursor {view.next_cursor}", err=True)


def _names(row: Backlog, by: By) -> tuple[str, ...]:
    match by:
        case By.LANE:
            return (str(row.lane),)
        case By.TENANT:
            return (str(row.tenant),)
        case By.PROGRAM:
            return str(row.tenant), str(row.program_id), row.name or "(gone)"


def _figures(row: Backlog, now: datetime) -> tuple[str, ...]:
    return (
        str(row.waiting),
        str(row.running),
        _age(row.oldest_at, now),
        f"{row.came_per_minute:.0f}",
        f"{row.went_per_minute:.0f}",
        "not known" if row.expected_seconds is None else span(row.expected_seconds),
        _held(row),
    )


def _held(row: Backlog) -> str:
    told = [f"{holder.scope}{' (paused)' if holder.paused else ''}" for holder in row.held_by]
    told += [f"no worker for {what}" for what in row.unserved]
    return ", ".join(told) or "-"


def _age(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "-"
    seconds = (now - at).total_seconds()
    return span(seconds) if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A length of time for people, in two units at most: `2 h 5 min`."""
    whole = round(seconds)
    for unit, size, smaller, step in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
