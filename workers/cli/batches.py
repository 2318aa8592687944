"""Asks for many things in batches, and says how far it is, so that Ctrl-C loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

from dspex.contract.results import Affected
from workers.cli.output import say

AT_ONCE = 1000
"""How many things one command changes."""
TERMINAL_SECONDS, LINE_SECONDS = 2.0, 30.0
"""How often it says on a terminal, and elsewhere, how far it is."""


def in_batches(ask: Callable[..., Affected], filters: Mapping[str, Any], done: str) -> Affected:
    """Ask for all that match a filter.

    Args:
        ask: a verb that takes the filters, `limit` and `cursor`.
        done: what happens to them, for the progress: "cancelled".

    Raises:
        KeyboardInterrupt: it was stopped, and has said how many were done. A batch that had begun may be done, too.
    """
    count, refused, cursor, said = 0, 0, None, monotonic()
    pause = TERMINAL_SECONDS if sys.stderr.isatty() else LINE_SECONDS
    try:
        while True:
            answer = ask(**filters, limit=AT_ONCE, cursor=cursor)
            count, refused, cursor = count + answer.count, refused + answer.refused, answer.next_cursor
            if cursor is None:
                return Affected(count=count, refused=refused)
            if monotonic() - said >= pause:
                said = monotonic()
                say(f"{count:,} {done} so far", err=True)
    except KeyboardInterrupt:
        say(f"Stopped: {count:,} {done} so far; the same command again goes on.", err=True)
        raise


def in_parts(ask: Callable[..., Affected], ids: Sequence[UUID], size: int) -> Affected:
    """Ask for all with these ids, so many in a command."""
    answers = [ask(ids[start : start + size]) for start in range(0, len(ids), size)]
    return Affected(count=sum(a.count for a in answers), refused=sum(a.refused for a in answers))


def counted(count: int, kind: str) -> str:
    """A number of things: "1 execution", "2,000 executions"."""
    return f"{count:,} {kind}{'' if count == 1 else 's'}"
