"""Reads CPU seconds and memory (PSS) of process trees from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    parent: int
    seconds: float


class Processes:
    """All processes of the machine at one moment."""

    def __init__(self) -> None:
        self._found: dict[int, _Process] = {}
        self._children: dict[int, list[int]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError):  # it has ended
                    self._add(int(entry.name), Path(entry.path, "stat").read_text(errors="replace"))

    def _add(self, pid: int, stat: str) -> None:
        # The name, in parentheses, may contain anything; the fields after it are plain.
        fields = stat.rpartition(")")[2].split()
        # Its own time and that of its children that have ended, in user and kernel mode.
        seconds = sum(map(int, fields[11:15])) / TICKS
        self._found[pid] = _Process(int(fields[1]), seconds)
        self._children.setdefault(int(fields[1]), []).append(pid)

    def tree(self, roots: Iterable[int]) -> set[int]:
        """These processes and all below them."""
        found, left = set[int](), list(roots)
        while left:
            pid = left.pop()
            if pid in self._found and pid not in found:
                found.add(pid)
                left += self._children.get(pid, [])
        return found

    def cpu_seconds(self, roots: Iterable[int]) -> float:
        """CPU seconds that these trees have used since their start."""
        return sum(self._found[pid].seconds for pid in self.tree(roots))


def memory_mb(roots: Iterable[int]) -> float:
    """The memory of these trees in MB. A page that processes share is divided among them (PSS)."""
    kilobytes = 0
    for pid in Processes().tree(roots):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024
