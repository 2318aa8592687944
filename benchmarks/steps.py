"""Where the time of one execution goes, one in flight: `python -m benchmarks.steps`, half a minute; prints a table.

A client asks, waits for the answer, and asks again. Client and worker note when they reach each step (they are wrapped
from outside, by `benchmarks.harness.stamps`); the table has the median time from each step to the next. The notes
themselves take about a microsecond each. One worker process, so that its threads are the only ones that wake.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.harness.processes import ROOT, environment
from benchmarks.harness.servers import Servers, servers
from benchmarks.harness.stamps import Stamp, Stamps, Step, read
from benchmarks.harness.statistics import percentile
from benchmarks.systems import OWN, SYSTEMS

DATABASE = "steps"
WARM_UP = 100


def of_client() -> list[Step]:
    """The steps of a client."""
    from pika.adapters.utils.io_services_utils import _AsyncTransportBase

    from dspex.amqp.connection import TolerantConnection
    from dspex.amqp.link import Link
    from dspex.amqp.replies import Replies

    publisher, replies = "dspex-publisher", "dspex-replies"
    return [
        Step("client: the command is encoded", Link, "submit"),
        Step("client: its publisher is awake", Link, "_drain", only=publisher),
        Step("client: the command is on the socket", _AsyncTransportBase, "_produce", left=True, only=publisher),
        Step("client: the answer is read", TolerantConnection, "_on_data_available", only=replies),
        Step("client: the answer has its waiter", Replies, "_take"),
        Step("client: the answer is decoded", Replies, "_take", left=True),
    ]


def of_worker() -> list[Step]:
    """The steps of a worker."""
    from pika.adapters.utils.io_services_utils import _AsyncTransportBase

    from dspex.amqp.connection import TolerantConnection
    from dspex.amqp.link import Link
    from workers.brokers.work_queue import WorkQueue
    from workers.execution import completion
    from workers.execution.admission import Intake
    from workers.execution.attempt import Attempt
    from workers.execution.event_publisher import Announcement
    from workers.handlers import actors
    from workers.persistence.group_commit import Writer
    from workers.persistence.operations import Writes

    consumer, publisher = "consumer-dspex.executions", "dspex-publisher"
    claimer, writer = "c", "w"  # claims are written by the claimer or the consumer; ends by the writer or a worker
    return [
        Step("worker: the command is read", TolerantConnection, "_on_data_available", only=consumer),
        Step("worker: the command is decoded", Intake, "put"),
        Step("worker: the claim is submitted", Writer, "submit", only=consumer),
        Step("claim: its transaction begins", Writer, "_transaction", only=claimer),
        Step("claim: BEGIN is done", Writes, "claim"),
        Step("claim: the statement is done", Writes, "claim", left=True),
        Step("claim: COMMIT is done", Writer, "_transaction", left=True, only=claimer),
        Step("worker: a thread is called", WorkQueue, "put", only=claimer),
        Step("worker: the thread is awake", actors, "_handle"),
        Step("worker: the program begins", Attempt, "run"),
        Step("worker: the program has run", Attempt, "run", left=True),
        Step("worker: its event is to be encoded", completion, "prepared"),
        Step("worker: the end is submitted", Writer, "submit", only="worker-"),
        Step("end: its transaction begins", Writer, "_transaction", only=writer),
        Step("end: BEGIN is done", Writes, "finish"),
        Step("end: the statement is done", Writes, "finish", left=True),
        Step("end: COMMIT is done", Writer, "_transaction", left=True, only=writer),
        Step("end: its answer is to be encoded", Announcement, "send"),
        Step("end: the answer is submitted", Link, "submit"),
        Step("worker: its publisher is awake", Link, "_drain", only=publisher),
        Step("worker: the answer is on the socket", _AsyncTransportBase, "_produce", left=True, only=publisher),
    ]


BEGAN, ENDED = "client: asks", "client: has the outputs"


def work(path: Path) -> int:
    """Be the worker. Its stamps go to a file at its end."""
    from workers.cli.worker import run_worker

    stamps = Stamps()
    stamps.put(of_worker())
    code = run_worker(None, processes=1, threads=SYSTEMS[OWN].concurrency)
    stamps.write(path)
    return code


def ask(path: Path, times: int) -> int:
    """Be the client."""
    stamps = Stamps()
    stamps.put(of_client())
    from benchmarks.peers import own
    from benchmarks.peers.job import make_jobs

    with own.asking() as question:
        for job in make_jobs(WARM_UP + times):
            stamps.note(BEGAN)
            if not question(job):
                raise RuntimeError("no outputs")
            stamps.note(ENDED)
    stamps.write(path)
    return 0


def measure(started: Servers, directory: Path, times: int) -> list[list[Stamp]]:
    """The stamps of each execution, in order."""
    started.empty(DATABASE, SYSTEMS[OWN].queues)
    around = environment(started.environment(DATABASE))
    run = [sys.executable, "-m", "benchmarks.steps"]
    prepare = "from benchmarks.peers import own; own.prepare()"
    subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=around, check=True)
    worked, asked = directory / "worker.json", directory / "client.json"
    worker = subprocess.Popen([*run, "--work", str(worked)], cwd=ROOT, env=around)
    try:
        subprocess.run([*run, "--ask", str(asked), "--times", str(times)], cwd=ROOT, env=around, check=True)
    finally:
        worker.terminate()
        worker.wait(60)
    return by_execution(read(asked), read(worked))[WARM_UP:]


def by_execution(client: Sequence[Stamp], worker: Sequence[Stamp]) -> list[list[Stamp]]:
    """Divide the stamps where the client asks. What comes after its answer belongs to none."""
    found: list[list[Stamp]] = []
    ended = True
    for stamp in sorted([*client, *worker]):
        if stamp.step == BEGAN:
            found.append([])
            ended = False
        if not ended:
            found[-1].append(stamp)
        ended = ended or stamp.step == ENDED
    return found


def steps_of(stamps: Sequence[Stamp], names: Sequence[str]) -> dict[str, float]:
    """How long each step took, in milliseconds: from the latest one before it. Only the first of each name counts, and
    only if it is not before one that comes earlier in `names`.
    """
    took: dict[str, float] = {}
    last = stamps[0].at
    at = 0
    for name in names:
        place = next((i for i in range(at, len(stamps)) if stamps[i].step == name), None)
        if place is not None:
            took[name] = (stamps[place].at - last) * 1000
            last, at = stamps[place].at, place
    return took


def table(executions: Sequence[Sequence[Stamp]]) -> str:
    """The table, in Markdown."""
    client = [step.name for step in of_client()]
    names = [BEGAN, *client[:3], *(step.name for step in of_worker()), *client[3:], ENDED]
    times: dict[str, list[float]] = defaultdict(list)
    for stamps in executions:
        for name, took in steps_of(stamps, names).items():
            times[name].append(took)
    whole = [(stamps[-1].at - stamps[0].at) * 1000 for stamps in executions]
    lines = ["| step | ms: median | p90 | reached at, by the medians |", "|---|---:|---:|---:|"]
    reached = 0.0
    for name in names[1:]:
        if name in times:
            reached += median(times[name])
            lines.append(f"| {name} | {median(times[name]):.3f} | {percentile(times[name], 90):.3f} | {reached:.2f} |")
    lines.append(f"| **all of it** | {median(whole):.2f} | {percentile(whole, 90):.2f} | |")
    return "\n".join(lines)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=500, help="how many executions")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work(given.work)
    if given.ask:
        return ask(given.ask, given.times)
    with servers() as started, tempfile.TemporaryDirectory(prefix="dspex-steps-") as directory:
        print(table(measure(started, Path(directory), given.times)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
