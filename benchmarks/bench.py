"""Compares DSPex with its alternatives: `make bench`, or a part of it.

    python -m benchmarks.bench --quick                               everything, small: does it work?
    python -m benchmarks.bench --scenario drain --system own --system taskiq_asyncpg --jobs 2000

It starts private servers and workers on loopback, and stops them at the end. It writes tables, JSON and a plot to
benchmarks/results; scenarios that are not measured keep their last figures.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import plot, results, tables
from benchmarks.harness.results import Measured
from benchmarks.harness.rounds import once
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Options, Scenario, add_sizes, sizes
from benchmarks.harness.servers import servers
from benchmarks.harness.targets import targets
from benchmarks.scenarios import SCENARIOS, drain, end_to_end
from benchmarks.systems import OWN, SYSTEMS
from deploy.local_servers import ServerError


def main() -> int:
    """Measure, print and write."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, for an orderly end
    given = _arguments()
    options = sizes(given)
    chosen = given.system or list(SYSTEMS)
    kept = results.load(given.output)
    began = time.monotonic()
    try:
        with servers() as started, tempfile.TemporaryDirectory(prefix="dspex-bench-logs-") as logs:
            stage = Stage(started, Path(logs), given.limit)
            for name in given.scenario or SCENARIOS:
                kept[name] = _measure(SCENARIOS[name], stage, options, chosen)
                results.save(given.output, kept)
                print("\n".join(tables.section(SCENARIOS[name], kept[name])), flush=True)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what was measured so far is written.", file=sys.stderr)
        return 130
    finally:
        _write(given.output, kept)
    print(f"\n{(time.monotonic() - began) / 60:.0f} minutes; {given.output}/README.md")
    return 1 if any(measured.voids() for measured in kept.values()) else 0


def _measure(scenario: Scenario, stage: Stage, options: Options, chosen: list[str]) -> Measured:
    """All rounds: every system in turn, each round starting with another one."""
    measured = Measured(datetime.now(UTC).date().isoformat(), results.machine(), options)
    systems = [name for name in scenario.systems if name in chosen]
    for number in range(options.rounds):
        turn = number % max(1, len(systems))
        for variant in scenario.variants(options):
            for name in systems[turn:] + systems[:turn]:
                measured.runs.append(once(scenario, stage, options, SYSTEMS[name], variant, number + 1))
    return measured


def _write(output: Path, measured: dict[str, Measured]) -> None:
    if not measured:
        return
    goals = targets(measured)
    output.mkdir(parents=True, exist_ok=True)
    (output / "README.md").write_text(tables.report(SCENARIOS, measured, goals))
    plot.throughput(_charts(measured), SYSTEMS[OWN].title, output / "throughput.svg")
    print("\n" + "\n".join(tables.targets_table(goals)))


def _charts(measured: dict[str, Measured]) -> dict[str, dict[str, float]]:
    charts: dict[str, dict[str, float]] = {}
    for title, name, variant in (
        ("Drain, 100 programs: jobs/s", "drain", drain.SPREAD),
        ("Drain, one hot program: jobs/s", "drain", drain.HOT),
        ("End to end from one producer: jobs/s", "end_to_end", end_to_end.SPREAD),
    ):
        if name in measured:
            found = {system: measured[name].spread(variant, system.name, "rate") for system in SYSTEMS.values()}
            charts[title] = {system.title: values.median for system, values in found.items() if values}
    return charts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="again for several; all by default")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="again for several; all by default")
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="how long one run may take")
    parser.add_argument("--output", type=Path, default=results.DIRECTORY)
    add_sizes(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
