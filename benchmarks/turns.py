"""An earlier version and this one in turns: any scenario of `make bench`.

    python -m benchmarks.turns --before ../dspex-before --scenario drain --scenario end_to_end --rounds 5

`--before` is a checkout of the earlier version (`git worktree add --detach`). This Python runs both, on the same
private servers, each round beginning with the other one; a figure of the table is a median, and a ratio is the median
of the ratios of each round. Nothing is written.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import results, tables
from benchmarks.harness.processes import ROOT
from benchmarks.harness.results import Measured
from benchmarks.harness.rounds import once
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Options, Scenario, add_sizes, sizes
from benchmarks.harness.servers import servers
from benchmarks.scenarios import SCENARIOS
from benchmarks.systems import OWN, SYSTEMS
from deploy.local_servers import ServerError

BEFORE, NOW = "before", "now"


def main() -> int:
    """Measure, and print. The exit code is 1 if a figure is void."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, for an orderly end
    given = _arguments()
    options = sizes(given)
    trees = ({BEFORE: given.before.resolve()} if given.before else {}) | {NOW: ROOT}
    voids = 0
    try:
        with servers() as started, tempfile.TemporaryDirectory(prefix="dspex-bench-logs-") as logs:
            stage = Stage(started, Path(logs), given.limit)
            for name in given.scenario:
                measured = _in_turns(SCENARIOS[name], stage, options, trees, given.variant)
                print("\n".join(["", *compared(SCENARIOS[name], measured, list(trees)), ""]), flush=True)
                voids += len(measured.voids())
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if voids else 0


def _in_turns(
    scenario: Scenario, stage: Stage, options: Options, trees: dict[str, Path], variants: list[str] | None
) -> Measured:
    measured = Measured("", results.machine(), options)
    for number in range(options.rounds):
        names = list(trees)[:: -1 if number % 2 else 1]
        for variant in scenario.variants(options):
            for name in names if not variants or variant in variants else ():
                at = replace(stage, tree=trees[name])
                measured.runs.append(once(scenario, at, options, SYSTEMS[OWN], variant, number + 1, name))
    return measured


def compared(scenario: Scenario, measured: Measured, names: list[str]) -> list[str]:
    """The medians of each version by variant and figure, and the ratio of the last version to the first."""
    head = [scenario.title, *names, *(["now / before", "in each round"] if len(names) > 1 else [])]
    rows = []
    for variant in dict.fromkeys(run.variant for run in measured.runs):
        for column in scenario.columns:
            medians = [measured.spread(variant, name, column.key) for name in names]
            cells = [tables.number(median.median if median else None, column.digits) for median in medians]
            if len(names) > 1:
                ratios = measured.ratios(variant, names[-1], names[0], column.key)
                cells += [
                    tables.number(measured.ratio(variant, names[-1], names[0], column.key), 3),
                    " ".join(f"{ratio:.2f}" for ratio in ratios),
                ]
            rows.append([f"{variant}: {column.title}", *cells])
    return tables.table(head, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = [name for name, scenario in SCENARIOS.items() if OWN in scenario.systems]
    parser.add_argument("--before", type=Path, metavar="TREE", help="without it, this version alone")
    parser.add_argument("--scenario", action="append", choices=own, required=True, help="again for several")
    parser.add_argument("--variant", action="append", metavar="NAME", help="only this one; again for several")
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="how long one run may take")
    add_sizes(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
