"""Where the CPU of one execution goes: `make profile`, two minutes; writes a table and a figure to benchmarks/results.

Workers drain a queue. What each kind of thread of one of them uses is read from /proc, without a profiler; then py-spy
looks at the thread that holds the interpreter's lock, and divides each kind's share by the folder of the code that it
runs. What runs without the lock (system calls, and the C code of drivers) is divided like what runs with it. py-spy
needs the right to trace: root, or `kernel.yama.ptrace_scope` 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import plot, results
from benchmarks.harness.failures import Void
from benchmarks.harness.process_tree import TICKS, Processes
from benchmarks.harness.runs import Run, Stage, cpu_per_thousand
from benchmarks.harness.servers import servers
from benchmarks.harness.stacks import Stacks, kind_of, read_stacks
from benchmarks.systems import OWN, PROCESSES, SYSTEMS

RATE = 250
SECONDS = 15
TOP = 20
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@dataclass
class Profile:
    """What was found, in CPU milliseconds of one execution.

    Attributes:
        by_thread: of the workers' user and system time, by kind of thread.
        cpu: CPU seconds for 1,000 executions, by part.
        writes: claims and finishes in a commit.
    """

    rate: float
    cpu: dict[str, float]
    writes: float
    by_thread: dict[str, tuple[float, float]]
    stacks: Stacks = field(default_factory=Stacks)

    def weight(self, kind: str) -> float:
        """Milliseconds of one execution for each sample of a kind of thread."""
        samples = self.stacks.samples[kind]
        return sum(self.by_thread.get(kind, (0.0, 0.0))) / samples if samples else 0.0

    def weighed(self, counts: dict[str, Counter[str]]) -> Counter[str]:
        """Counts by kind of thread, as milliseconds of one execution over all of them."""
        total: Counter[str] = Counter()
        for kind, counter in counts.items():
            for name, samples in counter.items():
                total[name] += samples * self.weight(kind)  # type: ignore[assignment]  # a Counter of floats
        return total


def thread_seconds(pid: int) -> dict[int, tuple[float, float]]:
    """User and system seconds of each thread of a process."""
    found = {}
    for thread in os.scandir(f"/proc/{pid}/task"):
        with suppress(OSError):  # it has ended
            fields = Path(thread.path, "stat").read_text().rpartition(")")[2].split()
            found[int(thread.name)] = (int(fields[11]) / TICKS, int(fields[12]) / TICKS)
    return found


def spy(*arguments: str, seconds: float = 0) -> str:
    """Run py-spy. Raises Void where it cannot."""
    command = [str(Path(sys.executable).parent / "py-spy"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise Void(f"py-spy: {done.stderr.strip()[-500:]}")
    return done.stdout


def kinds_of_threads(pid: int) -> dict[int, str]:
    """The kind of each thread of a process, by what is on its stack."""
    threads = json.loads(spy("dump", "--pid", str(pid), "--json"))
    return {t["os_thread_id"]: kind_of(frame["name"] for frame in t["frames"]) for t in threads}


def busiest(run: Run) -> int:
    """The worker process that has used most."""
    assert run.workers
    processes = Processes()
    return max(processes.tree(run.workers.pids) - set(run.workers.pids), key=lambda pid: processes.cpu_seconds([pid]))


def measure(run: Run, jobs: int, directory: Path) -> Profile:
    """Half of the jobs without the profiler, then the others with it."""
    run.start_workers()
    run.follow(jobs // 20)
    pid = busiest(run)
    kinds = kinds_of_threads(pid)
    commits, began, threads = _commits(run), run.usage(), thread_seconds(pid)
    seen = len(run.progress)
    ended = run.follow(jobs // 2, jobs // 2)[0]
    done = ended.done - began.done
    used = _by_kind(kinds, threads, thread_seconds(pid), done)
    rate = done / (run.progress[-1].at - run.progress[seen].at)
    writes = 2 * done / max(1, _commits(run) - commits)
    output = directory / "stacks.txt"
    sampled = min(SECONDS, 0.4 * jobs / rate)
    record = ["record", "--gil", "--pid", str(pid), "--rate", str(RATE), "--duration", str(round(sampled) or 1)]
    spy(*record, "--format", "raw", "--output", str(output), seconds=sampled)
    stacks = read_stacks(output.read_text().splitlines())
    return Profile(rate, cpu_per_thousand(began, ended), writes, used, stacks)


def _commits(run: Run) -> int:
    found = run.connection.execute(COMMITS).fetchone()
    return found[0] if found else 0


def _by_kind(
    kinds: dict[int, str],
    before: dict[int, tuple[float, float]],
    after: dict[int, tuple[float, float]],
    done: int,
) -> dict[str, tuple[float, float]]:
    """Milliseconds of one execution, all processes taken to be alike."""
    total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for thread, seconds in after.items():
        for index in (0, 1):
            used = seconds[index] - before.get(thread, (0.0, 0.0))[index]
            total[kinds.get(thread, kind_of(()))][index] += used * PROCESSES * 1000 / done
    return {kind: (user, system) for kind, (user, system) in total.items()}


def text_of(profile: Profile) -> str:
    """The tables, in Markdown."""
    worker = profile.cpu["cpu worker"]
    parts = ", ".join(f"{name.removeprefix('cpu ')} {value:.2f}" for name, value in profile.cpu.items())
    lines = [
        "# Where the CPU of one execution goes",
        "",
        f"{results.machine()}. {profile.rate:.0f} executions a second, {profile.writes:.1f} writes in a commit.",
        f"CPU milliseconds of one execution: {parts}. Remade by `make profile`.",
        "",
        "![by folder](profile.svg)",
    ]
    threads = sorted(profile.by_thread.items(), key=lambda item: -sum(item[1]))
    shown = [(kind, *seconds, sum(seconds)) for kind, seconds in threads if sum(seconds) >= worker / 200]
    lines += ["", "| threads of the workers | user ms | system ms | ms |", "|---|---|---|---|"]
    lines += [f"| {kind} | {user:.3f} | {system:.3f} | {both:.3f} |" for kind, user, system, both in shown]
    for title, counts in (
        ("folder", profile.stacks.folders),
        ("function, itself", profile.stacks.functions),
        ("function of ours, with what it calls", profile.stacks.callers),
    ):
        found = profile.weighed(counts).most_common(TOP)
        lines += ["", f"| {title} | ms | share |", "|---|---|---|"]
        lines += [f"| {_name(name)} | {ms:.3f} | {ms / worker:.1%} |" for name, ms in found]
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return name if " " not in name else f"`{name}`"


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60_000)
    parser.add_argument("--hot", action="store_true", help="of one program, not of 100")
    parser.add_argument("--output", type=Path, default=results.DIRECTORY)
    given = parser.parse_args()
    with servers() as started, tempfile.TemporaryDirectory() as directory:
        stage = Stage(started, Path(directory), 600)
        with stage.run(SYSTEMS[OWN]) as run:
            run.publish(given.jobs, hot=given.hot)
            profile = measure(run, given.jobs, Path(directory))
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "profile.md").write_text(text_of(profile))
    plot.profile(profile.weighed(profile.stacks.folders), given.output / "profile.svg")
    print(text_of(profile))


if __name__ == "__main__":
    main()
