"""One measurement of a round: what fails makes its figures void, and the rounds go on."""

from __future__ import annotations

import sys

import pika.exceptions
import psycopg

from benchmarks.harness import tables
from benchmarks.harness.failures import Void
from benchmarks.harness.results import Measurement
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Options, Scenario
from benchmarks.systems import System
from dspex.errors import DspexError


def once(
    scenario: Scenario, stage: Stage, options: Options, system: System, variant: str, number: int, name: str = ""
) -> Measurement:
    """Measure a system, and say on the terminal what was found.

    Args:
        number: of the round, from 1.
        name: what the measurement is kept under, instead of the system's name.
    """
    name = name or system.name
    for log in stage.directory.glob("*.log"):
        log.write_bytes(b"")
    try:
        figures = scenario.measure(stage, options, system, variant)
    except (Void, DspexError, OSError, ValueError, psycopg.Error, pika.exceptions.AMQPError) as error:
        void = f"{type(error).__name__}: {error}"
        print(f"  {scenario.name}, {variant}, {name}: {void}", file=sys.stderr, flush=True)
        return Measurement(variant, name, number, void=void)
    main = scenario.columns[0]
    shown = tables.number(figures[main.key], main.digits)
    print(f"  {scenario.name}, {variant}, round {number}: {name} {shown} {main.title}", flush=True)
    return Measurement(variant, name, number, figures)
