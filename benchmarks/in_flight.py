"""Many LM calls in flight in one process: `python -m benchmarks.in_flight --of worker --calls 1000`.

Prints JSON: the calls a second as a share of the ideal (all at once / the LM's latency), CPU milliseconds of this
process for each call, and its private memory in MB. `worker` is a whole worker with the settings of the environment;
`native` is the adapter alone in threads; `bare_threads` and `bare_asyncio` are `dspy.Predict` without our code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import dspy
from pydantic import JsonValue

from adapters.native import NativeAdapter
from adapters.native.setup import prepare_dspy
from benchmarks.adapters import INPUTS, SIGNATURE, Bare, Call, bare, catalog, private_mb, through
from benchmarks.lm_server import running
from dspex import LM, Configuration, ExecuteProgram, uuid7
from dspex.producer import Producer
from workers.application.wiring import bootstrap
from workers.cli.begin import collect_seldom
from workers.local import LocalClient
from workers.persistence.schema import require_schema
from workers.process.switching import switch_seldom
from workers.process.worker import WorkerProcess
from workers.settings import load_settings

WARM = 2
"""The calls of each thread before the measurement: the first ones come all at once."""

PATIENCE = 3
"""How many times as long as ideal a measurement may take: what is slower ends with the calls that it has made."""

Done = Callable[[], int]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=SUBJECTS, default="worker")
    parser.add_argument("--calls", type=int, default=1000, help="in flight")
    parser.add_argument("--latency", type=float, default=5.0, metavar="SECONDS", help="of the LM")
    parser.add_argument("--window", type=int, default=4, help="the calls of each thread that are measured")
    given = parser.parse_args()
    prepare_dspy()
    subject = SUBJECTS[given.of]
    with running() as url, subject(f"{url}/{given.latency * 1000:.0f}/v1", given.calls, given.window) as done:
        _wait(done, given.calls * WARM, given.latency * WARM * PATIENCE)
        before, cpu, began = done(), time.process_time(), time.monotonic()
        _wait(done, before + given.calls * given.window, given.latency * given.window * PATIENCE)
        calls, cpu, seconds = done() - before, time.process_time() - cpu, time.monotonic() - began
        share = calls / seconds / (given.calls / given.latency)
        print(json.dumps({"share": share, "cpu": cpu / max(1, calls) * 1000, "memory": private_mb()}), flush=True)


def _wait(done: Done, calls: int, seconds: float) -> None:
    """Wait for so many calls, but no longer than so many seconds."""
    ends = time.monotonic() + seconds
    while done() < calls and time.monotonic() < ends:
        time.sleep(0.02)


@contextmanager
def worker(address: str, calls: int, window: int) -> Generator[Done]:
    """A worker of this process with a full queue."""
    alias = {"local": {"model": "openai/gpt-4o-mini", "api_base": address}}
    app = bootstrap(load_settings(log_level="WARNING", threads=calls, lms=alias))
    require_schema(app.engine)
    collect_seldom()
    switch_seldom(calls)
    process = WorkerProcess(app)
    process.start()
    client = LocalClient(app)
    configuration = Configuration(lm=LM(model="local"))
    made = client.create_program("p", SIGNATURE, adapter_type="native", configuration=configuration)
    program_id = client.initialize_program(made.program_id).program_id
    Producer(app.publisher, source="/benchmark").send_all(
        ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs=dict[str, JsonValue](INPUTS))
        for _ in range(calls * (WARM + window + 2))
    )

    adapter = app.adapters.get("native")
    try:
        yield lambda: adapter.stats().runs
    finally:
        process.stop(0)
        app.close()


@contextmanager
def _threads(call: Call, calls: int) -> Generator[Done]:
    """So many threads that call again and again."""
    ends, done = threading.Event(), deque[None]()

    def repeat() -> None:
        while not ends.is_set():
            call()
            done.append(None)

    with ThreadPoolExecutor(calls) as pool:
        for _ in range(calls):
            pool.submit(repeat)
        try:
            yield lambda: len(done)
        finally:
            ends.set()


@contextmanager
def native(address: str, calls: int, window: int) -> Generator[Done]:  # noqa: ARG001
    """Our adapter."""
    adapter = NativeAdapter(catalog(address))
    with _threads(through(adapter), calls) as done:
        yield done
    adapter.close()


@contextmanager
def bare_threads(address: str, calls: int, window: int) -> Generator[Done]:  # noqa: ARG001
    """DSPy in threads."""
    with _threads(bare(address), calls) as done:
        yield done


@contextmanager
def bare_asyncio(address: str, calls: int, window: int) -> Generator[Done]:  # noqa: ARG001
    """DSPy's `acall` in one event loop, in a thread of its own."""
    lm = dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="none", cache=False, num_retries=0)
    predict, ends, done = dspy.Predict(Bare), threading.Event(), deque[None]()

    async def repeat() -> None:
        while not ends.is_set():
            with dspy.context(lm=lm):
                await predict.acall(**INPUTS)
            done.append(None)

    async def all_of_them() -> None:
        await asyncio.gather(*(repeat() for _ in range(calls)))

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()))
    thread.start()
    try:
        yield lambda: len(done)
    finally:
        ends.set()
        thread.join()


SUBJECTS = {subject.__name__: subject for subject in (worker, native, bare_threads, bare_asyncio)}

if __name__ == "__main__":
    main()
