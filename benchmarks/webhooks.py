"""Whether dead webhook endpoints slow executions down: the same load with and without them, in turns.

    python -m benchmarks.webhooks [--rows 400] [--rounds 20] [--dead 20] [--backlog 2000]

It starts a private PostgreSQL and RabbitMQ, and `dspex worker` with its deliverer; all share this machine. Each round
runs executions on the mock adapter in three ways: without callbacks; with callbacks to a receiver that answers; and the
same while a backlog is due for dead endpoints, which do not answer, refuse connections, or answer 500. There are many
short rounds in both orders, so that other load on the machine affects all of them. The exit code is 1 if the last way
has less than 95 % of the rate of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text

import migrations
from deploy.local_servers import PostgresServer, RabbitMQServer
from deploy.processes import free_port
from dspex import ExecuteProgram, uuid7
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.producer import Producer
from dspex.webhooks import new_secret
from store.database.engine import make_engine
from workers.brokers import amqp

TARGET = 0.95
PATIENCE = 300.0
SECRET = "BENCHMARK_WEBHOOK_SECRET"


@dataclass
class Bench:
    """The running system."""

    engine: Engine
    producer: Producer
    program_id: UUID

    def run(self, rows: int, urls: Sequence[str]) -> float:
        """Seconds from the first publish to the last row. The callbacks of the executions use the URLs in turn."""
        callbacks: Sequence[Callback | None] = [Callback(url=url, secret=SECRET) for url in urls] or [None]
        before, started = self.ended(), time.perf_counter()
        self.producer.send_all(
            ExecuteProgram(
                execution_id=uuid7(),
                program_id=self.program_id,
                inputs={"question": str(number)},
                callback=callbacks[number % len(callbacks)],
            )
            for number in range(rows)
        )
        wait(lambda: self.ended() >= before + rows)
        return time.perf_counter() - started

    def ended(self) -> int:
        """How many executions have ended."""
        return self._number("SELECT coalesce(sum(completed), 0) FROM program_counters")

    def pending(self, host: str) -> int:
        """How many deliveries to a host are pending."""
        return self._number("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND place = :at", host)

    def set_dead(self, live: str, *, due: bool) -> None:
        """Make the backlog of dead endpoints due now, or in a day."""
        moment = "now()" if due else "now() + interval '1 day'"
        with self.engine.begin() as connection:
            statement = f"UPDATE webhook_deliveries SET due_at = {moment} WHERE status = 'pending' AND place <> :at"
            connection.execute(text(statement), {"at": f"default {live}"})

    def attempts(self, live: str) -> int:
        """How many attempts were made at dead endpoints."""
        return self._number("SELECT coalesce(sum(attempts), 0) FROM webhook_deliveries WHERE place <> :at", live)

    def _number(self, query: str, host: str = "") -> int:
        with self.engine.connect() as connection:
            parameters = {"at": f"default {host}"} if ":at" in query else {}
            return int(connection.execute(text(query), parameters).scalar_one())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dead", type=int, default=20)
    parser.add_argument("--backlog", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=16)
    given = parser.parse_args()
    with ExitStack() as stack:
        live = stack.enter_context(_receiver(b"HTTP/1.1 204 No Content\r\n\r\n"))
        broken = stack.enter_context(_receiver(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"))
        silent = [stack.enter_context(_silent()) for _ in range(given.dead // 2)]
        refusing = [free_port() for _ in range(given.dead - len(silent) - 1)]
        dead = [*silent, *refusing, broken]
        bench = stack.enter_context(_system([live, *dead], given.threads))
        sys.exit(_measure(bench, given, live, dead))


def _measure(bench: Bench, given: argparse.Namespace, live: int, dead: Sequence[int]) -> int:
    host, url = f"127.0.0.1:{live}", f"http://127.0.0.1:{live}/"
    bench.run(given.rows, [url])  # warm
    bench.run(given.backlog, [f"http://127.0.0.1:{port}/" for port in dead])
    seconds: dict[str, list[float]] = {"no callbacks": [], "live": [], "live, dead beside": []}
    for number in range(given.rounds):
        for name in list(seconds)[:: 1 if number % 2 else -1]:
            bench.set_dead(host, due="dead" in name)
            seconds[name].append(bench.run(given.rows, [] if name.startswith("no") else [url]))
            wait(lambda: not bench.pending(host))
    for name, measured in seconds.items():
        rates = sorted(given.rows / each for each in measured)
        all_ = given.rows * len(measured) / sum(measured)
        print(
            f"{name:20} {all_:5.0f} executions/s in all; median {statistics.median(rates):.0f}, from {rates[0]:.0f} to "
            f"{rates[-1]:.0f}"
        )
    share = sum(seconds["live"]) / sum(seconds["live, dead beside"])
    pairs = statistics.median(a / b for a, b in zip(seconds["live"], seconds["live, dead beside"], strict=True))
    print(f"{len(dead)} dead endpoints, {given.backlog} due for them, {bench.attempts(host)} attempts at them")
    print(f"beside them: {share:.1%} of the baseline (median of the rounds: {pairs:.1%})")
    return 0 if share >= TARGET else 1


def wait(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE:.0f} s")
        time.sleep(0.02)


@contextmanager
def _system(ports: Sequence[int], threads: int) -> Generator[Bench]:
    directory = Path(tempfile.mkdtemp(prefix="dspex-benchmark-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        postgres, rabbitmq = PostgresServer(directory / "postgresql"), RabbitMQServer(directory / "rabbitmq")
        for server in (postgres, rabbitmq):
            stack.callback(server.kill)
            server.start()
        engine = make_engine(postgres.url.replace("postgresql://", "postgresql+psycopg://"))
        stack.callback(engine.dispose)
        migrations.upgrade(engine)
        amqp.check(rabbitmq.url)
        environment = os.environ | {
            "DSPEX_DATABASE_URL": postgres.url,
            "DSPEX_BROKER_URL": rabbitmq.url,
            "DSPEX_LOG_LEVEL": "WARNING",
            "DSPEX_WEBHOOK_HOSTS": ",".join(f"127.0.0.1:{port}" for port in ports),
            "DSPEX_WEBHOOK_TIMEOUT": "5",
            "DSPEX_WEBHOOK_RETRIES": "0" + ",1" * 40,
            SECRET: new_secret(),
        }
        command = [sys.executable, "-m", "workers.cli", "worker", "--threads", str(threads)]
        worker = subprocess.Popen(command, env=environment)
        stack.callback(_end, worker)
        client = stack.enter_context(RemoteClient(rabbitmq.url, source="/benchmark", timeout=120))
        program = client.create_program("benchmark", "question -> answer", adapter_type="mock")
        program_id = client.initialize_program(program.program_id).program_id
        with Producer.connect(rabbitmq.url, source="/benchmark") as producer:
            yield Bench(engine, producer, program_id)


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(60)
    except subprocess.TimeoutExpired:
        worker.kill()


class _Answering(asyncio.Protocol):
    """Answers each request. The end of the head is enough, as bodies contain no empty line."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            if not found or len(rest) < length:
                return
            self._buffer = rest[length:]
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(self.answer)


@contextmanager
def _receiver(answer: bytes) -> Generator[int]:
    """Run a receiver that answers every request alike. Yields its port."""
    loop = asyncio.new_event_loop()
    protocol = type("_AnsweringThis", (_Answering,), {"answer": answer})
    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)


@contextmanager
def _silent() -> Generator[int]:
    """Open a port that accepts connections and never answers. Yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


if __name__ == "__main__":
    main()
