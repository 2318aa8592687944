"""What a worker process counts, for Prometheus: a registry for each application, a method for each thing that happens.

Counts start at 0 with the process; the database keeps the record. Names: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, start_http_server

from dspex import ErrorCode, ExecutionStatus, errors
from dspex.errors import DspexError, SettingsError

OTHER = "other"
"""The label of a code that is in no list: the number of series is bounded, whatever a plug-in or a message says."""

FAILURES = frozenset(ErrorCode)
REJECTIONS = frozenset(
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DspexError)
)


class Metrics:
    """The counters. The methods are for any thread, and take microseconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._executions = self._counter("executions", "Executions that ended", "status", "error_code")
        self._stale_writes = self._counter("stale_writes", "Results that were discarded: another worker has the row")
        self._retries = self._counter("retries", "Attempts that failed and are to be made again", "error_code")
        self._rescued = self._counter("rescued_executions", "Executions of lost workers, sent again")
        self._rejected = self._counter("rejected_messages", "Messages that were not taken", "error_code")
        self._events = self._counter("events_sent", "Events and replies that the broker has confirmed")
        self._answers_lost = self._counter("answers_lost", "Answers that the broker did not take")
        self._redeliveries = self._counter("redeliveries", "Messages that came again and changed nothing")
        # All series are there from the start: a rate over one that appears with its first count misses that count.
        self._executions.labels(ExecutionStatus.COMPLETED, "")
        for code in FAILURES:
            self._executions.labels(ExecutionStatus.FAILED, code)
            self._retries.labels(code)
        self._server: WSGIServer | None = None
        self.threads: list[threading.Thread] = []
        """The thread that serves, once there is one."""

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, f"{what}.", labels, namespace="dspex", registry=self.registry)

    def execution_ended(self, status: ExecutionStatus, error_code: str | None = None) -> None:
        """An execution reached a terminal row, written here."""
        code = "" if error_code is None else _bounded(error_code, FAILURES)
        self._executions.labels(status, code).inc()

    def stale_write(self, number: int = 1) -> None:
        """A result was discarded: its row had been claimed again, or had ended."""
        self._stale_writes.inc(number)

    def retry(self, error_code: str) -> None:
        """An attempt failed, and the execution is to run again."""
        self._retries.labels(_bounded(error_code, FAILURES)).inc()

    def execution_rescued(self, number: int = 1) -> None:
        """An execution without a worker was published again."""
        self._rescued.inc(number)

    def message_rejected(self, error_code: str) -> None:
        """A message was recorded as rejected."""
        self._rejected.labels(_bounded(error_code, REJECTIONS)).inc()

    def event_sent(self, number: int = 1) -> None:
        """The event of an end, and its answer, went out and were confirmed."""
        self._events.inc(number)

    def answer_lost(self) -> None:
        """An answer was not sent, and will not be."""
        self._answers_lost.inc()

    def redelivery(self) -> None:
        """A message came again: its execution runs, or has ended."""
        self._redeliveries.inc()

    def serve(self, address: str) -> None:
        """Answer scrapes of `host:port` from a thread, until `close`.

        Raises:
            SettingsError: it cannot be listened on.
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
    """Whether metrics can be served there.

    Raises:
        SettingsError: an address is taken, or is none of this machine's.
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
