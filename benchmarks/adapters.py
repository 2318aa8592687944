"""The overhead of our adapters over DSPy itself: `python -m benchmarks.adapters`, two minutes, one table.


Everything runs on this machine, against one server in another process. Compare the figures of one run only with each
other. A call is one `Predict` with two inputs and three typed outputs.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import dspy
from rich.console import Console
from rich.table import Table

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.setup import prepare_dspy
from adapters.port import Adapter, AdapterError, ProgramSpec, RunOptions
from adapters.python_port import Limits, PythonPortAdapter
from benchmarks.lm_server import running
from dspex import LM, Configuration, ErrorCode, Signature

THREADS = 64
SIGNATURE = "question: str, context: str -> answer: str, score: float, label: Literal['low', 'high']"
INPUTS = {"question": "Why is the sky blue?", "context": "Light is scattered by air, and blue light the most."}
ROUNDS = 3
MEMORY_CALLS = 20_000
DRIPS = 200
DRIP_TIMEOUT = 0.5

Call = Callable[[], object]


class Bare(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """The same as `SIGNATURE`, as a DSPy class."""

    question: str = dspy.InputField()
    context: str = dspy.InputField()
    answer: str = dspy.OutputField()
    score: float = dspy.OutputField()
    label: Literal["low", "high"] = dspy.OutputField()


def bare(url: str) -> Call:
    """A call of `dspy.Predict`, without our code."""
    lm = dspy.LM("openai/gpt-4o-mini", api_base=url, api_key="none", cache=False, num_retries=0)
    predict = dspy.Predict(Bare)

    def call() -> object:
        with dspy.context(lm=lm):
            return predict(**INPUTS)

    return call


def catalog(url: str) -> LMCatalog:
    """The server as an LM alias."""
    return LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=url)})


def through(adapter: Adapter, timeout: float | None = None) -> Call:
    """A call through an adapter."""
    signature = Signature.parse(SIGNATURE)
    spec = ProgramSpec("any", signature, Configuration(lm=LM(model="local")))
    backend_id = adapter.create_program(spec)
    options = RunOptions("run", timeout=timeout)
    return lambda: adapter.execute_program(backend_id, INPUTS, options)


def per_second(call: Call, calls: int, threads: int = THREADS) -> float:
    """Calls per second from so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: call(), range(threads)))  # starts the threads and opens the connections
        started = time.perf_counter()
        list(pool.map(lambda _: call(), range(calls)))
        return calls / (time.perf_counter() - started)


def cpu_ms(call: Call, calls: int) -> float:
    """CPU milliseconds of this process per call, from one thread."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls * 1000


def interleaved(measure: Callable[[Call], float], first: Call, second: Call) -> tuple[float, float, float]:
    """The medians of two calls measured in turn, and the median of the ratios second to first of each turn."""
    pairs = [(measure(first), measure(second)) for _ in range(ROUNDS)]
    ratios = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratios


def overshoots(call: Call) -> list[float]:
    """By how many milliseconds runs exceed their timeout, if the server never ends its answer."""

    def one(_: int) -> float:
        started = time.perf_counter()
        try:
            call()
        except AdapterError as error:
            if error.code is not ErrorCode.TIMEOUT:
                raise
        return (time.perf_counter() - started - DRIP_TIMEOUT) * 1000

    with ThreadPoolExecutor(16) as pool:
        return sorted(pool.map(one, range(DRIPS)))


def private_mb(pid: int | str = "self") -> float:
    """The private memory of a process in MB: Private of `smaps_rollup`, proc(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def descendants(pid: int) -> list[int]:
    """The processes below one, in any depth."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it has ended
        parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found


@contextmanager
def in_flight(call: Call, threads: int = THREADS) -> Generator[None]:
    """Keep so many calls in flight inside the block."""
    ends = threading.Event()

    def repeat() -> None:
        while not ends.is_set():
            call()

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(repeat)
        time.sleep(3)
        try:
            yield
        finally:
            ends.set()


def memory_of_threads(adapter: Adapter) -> float:
    """MB of this process per concurrent run."""
    call = through(adapter)
    call()
    gc.collect()
    before = private_mb()
    with in_flight(call):
        return (private_mb() - before) / THREADS


def memory_of_children(adapter: Adapter) -> float:
    """MB of the children, and of this process for them, per concurrent run."""
    call = through(adapter)
    call()
    gc.collect()
    before, known = private_mb(), set(descendants(os.getpid()))
    with in_flight(call):
        children = [pid for pid in descendants(os.getpid()) if pid not in known]
        return (private_mb() - before + sum(map(private_mb, children))) / THREADS


def growth(url: str) -> list[tuple[int, float]]:
    """MB of a process after so many calls; the calls before the first figure are the warm-up."""
    prepare_dspy()
    call = through(NativeAdapter(catalog(url)))
    figures = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(), range(1_000)))
        for done in range(0, MEMORY_CALLS + 1, MEMORY_CALLS // 4):
            list(pool.map(lambda _: call(), range(MEMORY_CALLS // 4 if done else 0)))
            gc.collect()
            figures.append((done, private_mb()))
    return figures


def main() -> None:
    """Measure, and print the table."""
    prepare_dspy()
    table = Table("what", "figure", "target", title=f"{THREADS} threads, {os.cpu_count()} cores")
    began = time.monotonic()
    with running() as url:
        _speed(table, url)
        _children(table, url)
        _memory(table, url)
    Console(width=120).print(table, f"{time.monotonic() - began:.0f} s")


def _speed(table: Table, url: str) -> None:
    for latency, calls in ((0, 1_000), (200, 640)):
        address = f"{url}/{latency}/v1"
        adapter = NativeAdapter(catalog(address))
        ours, theirs = through(adapter), bare(address)

        def measure(call: Call, calls: int = calls) -> float:
            return per_second(call, calls)

        bare_rate, native_rate, ratio = interleaved(measure, theirs, ours)
        target = "≥ 0.9" if latency else ""
        table.add_row(f"bare dspy.Predict, {latency} ms: calls/s", f"{bare_rate:.0f}")
        table.add_row(f"native, {latency} ms: calls/s", f"{native_rate:.0f}")
        table.add_row(f"native to bare, {latency} ms", f"{ratio:.2f}", target)
        if not latency:
            bare_ms, native_ms, _ = interleaved(lambda call: cpu_ms(call, 300), theirs, ours)
            table.add_row("CPU of a call, bare: ms", f"{bare_ms:.2f}")
            table.add_row("CPU of a call, native: ms", f"{native_ms:.2f}")
            table.add_row("CPU added: ms", f"{native_ms - bare_ms:+.2f}", "≤ 0.3")
        adapter.close()


def _children(table: Table, url: str) -> None:
    address = f"{url}/200/v1"
    port = PythonPortAdapter(catalog(address), limits=Limits(max_children=THREADS))
    native = NativeAdapter(catalog(address))
    native_rate, port_rate, ratio = interleaved(lambda call: per_second(call, 640), through(native), through(port))
    table.add_row("native, 200 ms: calls/s", f"{native_rate:.0f}")
    table.add_row("python_port, 200 ms: calls/s", f"{port_rate:.0f}")
    table.add_row("python_port to native, 200 ms", f"{ratio:.2f}", "≥ 0.8")
    port.close()
    native.close()
    dripping = PythonPortAdapter(catalog(f"{url}/drip/v1"), limits=Limits(max_children=16))
    late = overshoots(through(dripping, DRIP_TIMEOUT))
    table.add_row(f"overshoot of a {DRIP_TIMEOUT} s timeout, p50: ms", f"{late[len(late) // 2]:.0f}")
    table.add_row(f"overshoot of a {DRIP_TIMEOUT} s timeout, p99: ms", f"{late[len(late) * 99 // 100]:.0f}", "< 100")
    dripping.close()


def _memory(table: Table, url: str) -> None:
    address = f"{url}/200/v1"
    native = NativeAdapter(catalog(address))
    table.add_row("memory of a run under way, native: MB", f"{memory_of_threads(native):.2f}")
    native.close()
    port = PythonPortAdapter(catalog(address), limits=Limits(max_children=THREADS))
    table.add_row("memory of a run under way, python_port: MB", f"{memory_of_children(port):.1f}")
    port.close()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        figures = alone.submit(growth, f"{url}/0/v1").result()
    for calls, megabytes in figures:
        table.add_row(f"memory after {calls:,} calls, native: MB", f"{megabytes:.1f}")


if __name__ == "__main__":
    main()
