"""A scenario: a name, its columns, and a function that measures one system once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from benchmarks.harness.runs import Stage
from benchmarks.systems import System

Figures = dict[str, float]


@dataclass(frozen=True)
class Options:
    """The sizes of the measurements."""

    rounds: int = 3
    jobs: int = 10_000
    """Jobs of a drain, and of an end-to-end run."""
    warm_up: int = 500
    asks: int = 500
    """Jobs that are asked for, one in flight."""
    waiting_seconds: float = 10
    """How long an I/O-bound run is watched."""
    published: int = 20_000
    backlog: int = 1_000_000
    rows: int = 10_000_000
    """Executions in the full table."""
    embedded: int = 10_000
    in_flight_seconds: float = 5
    """How long the LM takes whose calls are in flight."""
    accepted: int = 100_000
    bulk: int = 100_000
    """Executions of a backlog that is not urgent."""
    urgent: int = 200
    few: int = 500
    """What each of those sends that sends little."""
    limited: int = 10_000
    limit_seconds: float = 180
    """How long the tokens of an LM are counted."""
    refused: int = 5_000
    """Executions that wait for an LM that refuses."""
    refused_seconds: float = 300
    cancels: int = 10_000

    @classmethod
    def quick(cls) -> Options:
        """Small sizes to try it out; the figures are meaningless."""
        return cls(
            rounds=1,
            jobs=500,
            warm_up=100,
            asks=50,
            waiting_seconds=2,
            published=1_000,
            backlog=20_000,
            rows=50_000,
            embedded=500,
            in_flight_seconds=1,
            accepted=2_000,
            bulk=2_000,
            urgent=40,
            few=40,
            limited=200,
            limit_seconds=15,
            refused=300,
            refused_seconds=5,
            cancels=200,
        )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """An argument for each size, and `--quick`."""
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to try it out")
    for option in fields(Options):
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=type(option.default), metavar="N")


def sizes(given: argparse.Namespace) -> Options:
    """The sizes that these arguments ask for."""
    chosen = {option.name: getattr(given, option.name) for option in fields(Options)}
    options = Options.quick() if given.quick else Options()
    return replace(options, **{name: value for name, value in chosen.items() if value is not None})


@dataclass(frozen=True)
class Column:
    """A figure in the table: its key, its title, and how many digits after the point."""

    key: str
    title: str
    digits: int = 0


CPU_COLUMNS = tuple(
    Column(f"cpu {part}", f"CPU s per 1,000: {part}", 2) for part in ("worker", "PostgreSQL", "RabbitMQ", "producer")
)


CPU_OF_WORK = CPU_COLUMNS[:-1]
"""Without the producer, where it has done its work before."""


@dataclass(frozen=True)
class Scenario:
    """One thing to measure.

    Attributes:
        text: a description of the measurement and its figures.
        columns: the columns. The first is compared, with its median, least and greatest.
        systems: the systems to measure.
        variants: variants of the measurement, each with a table. Their names may contain numbers of `Options`.
        measure: measures one system once. Raises Void.
        lower_is_better: whether lower figures in the first column are better.
    """

    name: str
    title: str
    text: str
    columns: tuple[Column, ...]
    systems: tuple[str, ...]
    variants: Callable[[Options], tuple[str, ...]]
    measure: Callable[[Stage, Options, System, str], Figures]
    lower_is_better: bool = False
