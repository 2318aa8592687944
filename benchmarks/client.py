"""The costs of the client: import, size, publishes per second, and the time from publish to result.


    python -m benchmarks.client [--rows 5000]

Needs DSPEX_DATABASE_URL and DSPEX_BROKER_URL, and running workers; uses the mock adapter. Servers, workers and client
share the machine. Without a broker, it measures only import and size.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import UUID

import pika

from dspex import ExecuteProgram, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.url import amqp_parameters
from dspex.client.remote import RemoteClient
from workers.settings import load_settings

SOURCE = "/benchmark"
ALONE = 300
IN_FLIGHT = 100
TEXT = "x" * 625
"""Makes the message 1 kB."""
IMPORTS = 7


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    rows = parser.parse_args().rows
    print(
        f"import dspex.client: {_imported('dspex.client'):.0f} ms; pydantic alone {_imported('pydantic.main'):.0f} ms"
    )
    print(f"installed: {_installed() / 1e6:.2f} MB, and its dependencies")
    settings = load_settings()
    if settings.embedded:
        print("DSPEX_BROKER_URL is not set: no broker, no more to measure")
        return
    _published(settings.broker_url, 4 * rows)
    with RemoteClient(settings.broker_url, source=SOURCE) as client:
        program = client.create_program("benchmark", "question -> answer", adapter_type="mock")
        program_id = client.initialize_program(program.program_id).program_id
        list(client.map(program_id, _rows(500)))  # warm
        _print("1 in flight", _timed(client, program_id, ALONE, in_flight=1))
        started = time.perf_counter()
        times = _timed(client, program_id, rows, in_flight=IN_FLIGHT)
        _print(f"{IN_FLIGHT} in flight", times)
        print(f"{rows} executions by map: {rows / (time.perf_counter() - started):.0f}/s")


def _imported(module: str) -> float:
    """The median of milliseconds that a new interpreter takes for an import, without its own start."""
    code = f"import time; begun = time.perf_counter(); import {module}; print(time.perf_counter() - begun)"
    run = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(run)) for _ in range(IMPORTS)) * 1000


def _installed() -> int:
    """Bytes of the distribution installed by pip."""
    messages = Path(__file__).parents[1] / "messages"
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*install, "--no-compile", "--target", folder, str(messages)], check=True)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _published(url: str, rows: int) -> None:
    """Confirmed publishes per second of one client, with commands of 1 kB, to a durable queue without a consumer."""
    queue = f"dspex-benchmark-{uuid7()}"
    with pika.BlockingConnection(amqp_parameters(url)) as connection:
        connection.channel().queue_declare(queue, durable=True)
    publisher = AmqpPublisher(url)

    def send(count: int) -> None:
        sent: deque[Future[None]] = deque()
        for _ in range(count):
            command = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"question": TEXT})
            envelope = wrap(command, source=SOURCE)
            sent.append(
                publisher.submit(Publication(envelope.encode(), exchange="", routing_key=queue, message_id=envelope.id))
            )
            while sent and sent[0].done():
                sent.popleft().result()
        for future in sent:
            future.result()

    try:
        send(1000)  # warm
        started = time.perf_counter()
        send(rows)
        print(f"{rows} confirmed commands of 1 kB: {rows / (time.perf_counter() - started):.0f}/s")
    finally:
        publisher.close()
        with pika.BlockingConnection(amqp_parameters(url)) as connection:
            connection.channel().queue_delete(queue)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    batch = uuid7()
    return ({"question": f"{batch} {number}"} for number in range(count))


def _timed(client: RemoteClient, program_id: UUID, count: int, *, in_flight: int) -> list[float]:
    """For each, the seconds from before the publish to after the result."""
    begun: dict[str, float] = {}

    def rows() -> Iterator[dict[str, Any]]:
        for row in _rows(count):
            begun[row["question"]] = time.perf_counter()
            yield row

    times: list[float] = []
    for handle in client.map(program_id, rows(), in_flight=in_flight, ordered=False):
        handle.result()
        times.append(time.perf_counter() - begun[handle.inputs["question"]])
    return times


def _print(what: str, times: list[float]) -> None:
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"publish to result, {what}: p50 {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")


if __name__ == "__main__":
    main()
