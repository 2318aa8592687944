"""Stores measurements as JSON. A run replaces those of its scenarios, and keeps the others."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.scenario import Figures, Options
from benchmarks.harness.statistics import Spread, spread

DIRECTORY = Path(__file__).resolve().parent.parent / "results"
FILE = "results.json"


@dataclass(frozen=True)
class Measurement:
    """One run of one system. `void` says why its figures are meaningless, if they are."""

    variant: str
    system: str
    round: int
    figures: Figures = field(default_factory=dict)
    void: str | None = None


@dataclass
class Measured:
    """A scenario's runs."""

    date: str
    machine: str
    options: Options
    runs: list[Measurement] = field(default_factory=list)

    def values(self, variant: str, system: str, key: str) -> list[float]:
        """A figure of all valid runs, in the order of the rounds."""
        return [run.figures[key] for run in self._of(variant, system) if key in run.figures]

    def spread(self, variant: str, system: str, key: str) -> Spread | None:
        """The median, the least and the greatest of a figure; None if every run is void."""
        values = self.values(variant, system, key)
        return spread(values) if values else None

    def ratio(self, variant: str, system: str, to: str, key: str) -> float | None:
        """The median, over the rounds, of the ratio of two systems' figures."""
        found = self.ratios(variant, system, to, key)
        return spread(found).median if found else None

    def ratios(self, variant: str, system: str, to: str, key: str) -> list[float]:
        """The ratio of two systems' figures in each round that has both."""
        theirs = {run.round: run.figures[key] for run in self._of(variant, to) if key in run.figures}
        return [
            run.figures[key] / theirs[run.round]
            for run in self._of(variant, system)
            if key in run.figures and theirs.get(run.round)
        ]

    def voids(self) -> list[Measurement]:
        """The runs that are void."""
        return [run for run in self.runs if run.void is not None]

    def _of(self, variant: str, system: str) -> list[Measurement]:
        return [run for run in self.runs if (run.variant, run.system) == (variant, system)]


def load(directory: Path) -> dict[str, Measured]:
    """Read the stored measurements, by scenario."""
    path = directory / FILE
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: Measured(
            found["date"],
            found["machine"],
            Options(**found["options"]),
            [Measurement(**run) for run in found["runs"]],
        )
        for name, found in kept.items()
    }


def save(directory: Path, measured: dict[str, Measured]) -> None:
    """Store measurements."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(one) for name, one in measured.items()}, indent=1)
    (directory / FILE).write_text(text + "\n")


def machine() -> str:
    """Describe this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"
