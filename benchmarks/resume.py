"""How long `dspex run` takes if everything has run before: an earlier version and this one in turns.

    python -m benchmarks.resume --rows 50000 --before ../dspex-before

`--before` is a checkout of the earlier version (`git worktree add --detach`). This Python runs both, each on its own
database that it has filled. The figures are medians of wall clock and CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIGNATURE = "question: str, k: int -> answer: str, score: float"
HERE = Path(__file__).parents[1]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    trees = {"before": given.before.resolve()} if given.before else {}
    trees["now"] = HERE
    with tempfile.TemporaryDirectory(prefix="dspex-resume-") as folder:
        rows = Path(folder) / "rows.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for number in range(given.rows):
                question = f"what is the answer to question number {number}, and why?"
                file.write(json.dumps({"question": question, "k": number % 7}) + "\n")
        for name, tree in trees.items():
            seconds, cpu = run(name, tree, rows)
            print(f"{name:8}{given.rows} rows run in {seconds:.1f} s, {cpu:.1f} s of CPU", flush=True)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
        for _ in range(given.rounds):
            for name, tree in trees.items():
                taken[name].append(run(name, tree, rows))
        medians = {name: [statistics.median(one[which] for one in taken[name]) for which in (0, 1)] for name in trees}
    for name, (seconds, cpu) in medians.items():
        print(f"{name:8}nothing to do: {seconds:.2f} s, {cpu:.2f} s of CPU")
    if given.before:
        ratios = [medians["now"][which] / medians["before"][which] for which in (0, 1)]
        print(f"now / before: {ratios[0]:.3f} of the time, {ratios[1]:.3f} of the CPU")


def run(name: str, tree: Path, rows: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU, of one command."""
    folder = rows.parent
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DSPEX_")}
    environment = bare | {
        "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "messages"))),
        "DSPEX_DATABASE_URL": f"sqlite:///{folder / name}.db",
    }
    command = [sys.executable, "-m", "workers.cli", "run", SIGNATURE]
    command += ["--inputs", str(rows), "--output", str(folder / f"{name}.out")]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


if __name__ == "__main__":
    main()
