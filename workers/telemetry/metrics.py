"""The Prometheus metrics of a worker process: one registry per application, one method per counted event.

Counters start at 0 with the process; the database keeps the record. Names:
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, start_http_server

from dspex import ErrorCode, ExecutionStatus, errors
from dspex.contract.options import Lane
from dspex.errors import DspexError, SettingsError

OTHER = "other"
"""The label for a code that is not in the list, so that no plug-in or message can add series."""

FAILURES = frozenset(ErrorCode)
_STATES: Final[Mapping[bool, ExecutionStatus]] = {True: ExecutionStatus.RUNNING, False: ExecutionStatus.PENDING}
REJECTIONS = frozenset(
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DspexError)
)


class Metrics:
    """The counters. The methods are thread-safe and take microseconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._executions = self._counter("executions", "Executions that ended", "status", "error_code")
        self._stale_writes = self._counter("stale_writes", "Results that were discarded: another worker has the row")
        self._retries = self._counter("retries", "Attempts that failed and are to be made again", "error_code")
        self._rescued = self._counter("rescued_executions", "Executions of lost workers, which wait again")
        self._rejected = self._counter("rejected_messages", "Messages that were not taken", "error_code")
        self._events = self._counter("events_sent", "Events and replies that the broker has confirmed")
        self._answers_lost = self._counter("answers_lost", "Answers that the broker did not take")
        self._redeliveries = self._counter("redeliveries", "Messages that came again and changed nothing")
        self._accepted = self._counter("executions_accepted", "Executions that came as messages, now rows", "state")
        self._accepted_as = {running: self._accepted.labels(state) for running, state in _STATES.items()}
        self._chosen = self._counter("executions_chosen", "Executions that were taken from what waits")
        self._modules = Gauge(
            "module_info",
            "Modules of one's own that programs can run here, as 1.",
            ("name", "distribution", "digest"),
            namespace="dspex",
            registry=self.registry,
        )
        self._waiting = self._by_lane("waiting_executions", "Executions that wait, in the whole fleet")
        self._oldest = self._by_lane("oldest_waiting_seconds", "For how long the oldest might have run")
        self._workers = self._by_lane("workers", "Live worker processes that serve it, in the whole fleet")
        self._unserved = self._by_lane("unserved_programs", "Programs of which something waits in vain")
        self._serves = Gauge(
            "serves_info",
            "What this worker runs, where that is not everything, as 1.",
            ("kind", "name"),
            namespace="dspex",
            registry=self.registry,
        )
        # Create all series now: a rate misses the first count of a series that appears with it.
        self._executions.labels(ExecutionStatus.COMPLETED, "")
        for code in FAILURES:
            self._executions.labels(ExecutionStatus.FAILED, code)
            self._retries.labels(code)
        self._server: WSGIServer | None = None
        self.threads: list[threading.Thread] = []
        """The serving thread, once it is started."""

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, f"{what}.", labels, namespace="dspex", registry=self.registry)

    def _by_lane(self, name: str, what: str) -> Gauge:
        gauge = Gauge(name, f"{what}.", ("lane",), namespace="dspex", registry=self.registry)
        for lane in Lane:
            gauge.labels(lane)
        return gauge

    def backlog(self, lane: Lane, waiting: int, oldest_seconds: float) -> None:
        """So many executions wait in a lane, and the oldest might have run for so long."""
        self._waiting.labels(lane).set(waiting)
        self._oldest.labels(lane).set(oldest_seconds)

    def fleet(self, lane: Lane, workers: int, unserved: int) -> None:
        """So many live processes serve a lane, and nobody serves what waits in it of so many programs."""
        self._workers.labels(lane).set(workers)
        self._unserved.labels(lane).set(unserved)

    def accepted(self, *, running: bool) -> None:
        """An execution was written down for its message: running here at once, or pending."""
        self._accepted_as[running].inc()

    def chosen(self, number: int) -> None:
        """So many executions were taken from what waits, to run here."""
        self._chosen.inc(number)

    def execution_ended(self, status: ExecutionStatus, error_code: str | None = None) -> None:
        """This process has written the end of an execution."""
        code = "" if error_code is None else _bounded(error_code, FAILURES)
        self._executions.labels(status, code).inc()

    def stale_write(self, number: int = 1) -> None:
        """A result was discarded, as the execution had been claimed again or had ended."""
        self._stale_writes.inc(number)

    def retry(self, error_code: str) -> None:
        """An attempt failed, and another follows."""
        self._retries.labels(_bounded(error_code, FAILURES)).inc()

    def execution_rescued(self, number: int = 1) -> None:
        """An execution of a lost worker waits again."""
        self._rescued.inc(number)

    def message_rejected(self, error_code: str) -> None:
        """A message was recorded as rejected."""
        self._rejected.labels(_bounded(error_code, REJECTIONS)).inc()

    def event_sent(self, number: int = 1) -> None:
        """The event of an end, and its answer, were confirmed."""
        self._events.inc(number)

    def answer_lost(self) -> None:
        """An answer was not sent, and will not be sent again."""
        self._answers_lost.inc()

    def redelivery(self) -> None:
        """A message came again for an execution that runs or has ended."""
        self._redeliveries.inc()

    def module(self, name: str, distribution: str, digest: str) -> None:
        """This process can run a module of one's own: one of those that the operator offers, by its code."""
        self._modules.labels(name, distribution, digest).set(1)

    def serves(self, kind: str, name: str) -> None:
        """This process runs only what is of this lane, program, adapter or environment, or of others of the kind."""
        self._serves.labels(kind, name).set(1)

    def serve(self, address: str) -> None:
        """Serve metrics at `host:port` in a thread, until `close`.

        Raises:
            SettingsError: the address cannot be used.
        """
        host, port = _split(address)
        with _listening(address):
            self._server, thread = start_http_server(port, host, self.registry)
        thread.name = "metrics"
        self.threads.append(thread)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def require_free(addresses: Iterable[str]) -> None:
    """Check that metrics can be served at these addresses.

    Raises:
        SettingsError: an address is in use, or does not belong to this machine.
    """
    for address in addresses:
        host, port = _split(address)
        with _listening(address):
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def _listening(address: str) -> Generator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:  # a port above 65535 overflows
        reason = getattr(error, "strerror", None) or "ports end at 65535"
        raise SettingsError(
            f"DSPEX_METRICS_ADDRESS: cannot listen on {address} ({reason}): use another address; process n of several "
            "takes the port + n"
        ) from None


def _bounded(code: str, known: frozenset[str]) -> str:
    return code if code in known else OTHER
