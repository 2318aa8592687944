"""A concurrency limit and a circuit breaker per endpoint, so that a dead endpoint does not block others.

closed → open after several failures in a row → half-open after a pause, for one attempt → closed if that succeeds, or
open again for twice as long. Endpoints whose last attempt failed share a part of the threads, so that a hundred
endpoints that have just died do not take the threads of the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from workers.webhooks.attempt import Attempt, Outcome

MAX_ENDPOINTS: Final = 10_000
"""How many endpoints are remembered. Beyond that, the least recently used one is forgotten."""
BUSY_SECONDS: Final = 1.0


class Busy(NamedTuple):
    """No attempt is possible now. Give the delivery back; this spends no attempt.

    Attributes:
        retry_in: seconds after which to ask again.
    """

    reason: str
    retry_in: float


@dataclass
class _Endpoint:
    in_flight: int = 0
    failures: int = 0  # consecutive
    pause: float = 0.0  # the last pause, in seconds
    open_until: float | None = None  # None: closed
    probing: bool = False


class Permit:
    """A permit for one attempt, returned at the end of `with`. `settle` reports the result."""

    def __init__(self, circuits: Circuits, key: str, endpoint: _Endpoint, *, suspect: bool, probe: bool) -> None:
        self._circuits = circuits
        self.key = key
        self.endpoint = endpoint
        self.suspect = suspect
        self.probe = probe
        self.attempt: Attempt | None = None

    def settle(self, attempt: Attempt) -> None:
        """Report the result. Without a call, the attempt does not count."""
        self.attempt = attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._circuits.leave(self)


class Circuits:
    """Limits and circuit breakers by endpoint. Thread-safe; never blocks.

    Args:
        concurrency: concurrent attempts to one endpoint.
        suspects: concurrent attempts to all endpoints whose last attempt failed; fewer than the sending threads.
        failures: consecutive failures that open a circuit.
        pause, max_pause: seconds that a circuit stays open the first time, and at most.
        clock: returns monotonic time in seconds.
    """

    def __init__(
        self,
        *,
        concurrency: int = 4,
        suspects: int = 8,
        failures: int = 5,
        pause: float = 30.0,
        max_pause: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._concurrency = concurrency
        self._suspects = suspects
        self._failures = failures
        self._pause = pause
        self._max_pause = max_pause
        self._clock = clock
        self._lock = threading.Lock()
        self._endpoints: dict[str, _Endpoint] = {}  # the most recently used one is last
        self._suspects_in_flight = 0

    def enter(self, key: str) -> Permit | Busy:
        """Ask for a permit for an attempt.

        Args:
            key: the tenant and `host:port` of the endpoint, so that tenants do not affect each other.
        """
        with self._lock:
            endpoint = self._endpoints.pop(key, None) or _Endpoint()
            self._endpoints[key] = endpoint
            busy = self._busy(endpoint)
            if busy is not None:
                return busy
            suspect, probe = endpoint.failures > 0, endpoint.open_until is not None
            endpoint.in_flight += 1
            endpoint.probing = probe
            self._suspects_in_flight += suspect
            self._forget()
            return Permit(self, key, endpoint, suspect=suspect, probe=probe)

    def _busy(self, endpoint: _Endpoint) -> Busy | None:
        if endpoint.open_until is not None:
            left = endpoint.open_until - self._clock()
            if left > 0:
                return Busy("it has failed several times in a row", left)
            if endpoint.probing:
                return Busy("one attempt at a time until it answers", BUSY_SECONDS)
        if endpoint.in_flight >= self._concurrency:
            return Busy("as many attempts as it may have are on their way", BUSY_SECONDS)
        if endpoint.failures and self._suspects_in_flight >= self._suspects:
            return Busy("other endpoints that fail are tried first", BUSY_SECONDS)
        return None

    def leave(self, permit: Permit) -> None:
        """Return a permit; `with` does it."""
        endpoint, attempt = permit.endpoint, permit.attempt
        with self._lock:
            endpoint.in_flight -= 1
            self._suspects_in_flight -= permit.suspect
            if permit.probe:
                endpoint.probing = False
            match attempt.outcome if attempt else None:
                case Outcome.DELIVERED | Outcome.GONE:
                    endpoint.failures, endpoint.pause, endpoint.open_until = 0, 0.0, None
                case Outcome.FAILED | Outcome.THROTTLED:
                    self._fail(endpoint, permit.probe, attempt.retry_after if attempt else None)
                case Outcome.REFUSED | None:  # nothing was sent, so the endpoint is not at fault
                    pass
            if not endpoint.in_flight and not endpoint.failures and self._endpoints.get(permit.key) is endpoint:
                del self._endpoints[permit.key]

    def _fail(self, endpoint: _Endpoint, probe: bool, retry_after: float | None) -> None:
        endpoint.failures += 1
        if endpoint.open_until is not None and not probe:
            return  # the attempt began before the circuit opened
        if probe or endpoint.failures >= self._failures:
            endpoint.pause = min(max(2 * endpoint.pause, self._pause), self._max_pause)
        pause = max(endpoint.pause, min(retry_after or 0.0, self._max_pause))
        if pause:
            endpoint.open_until = self._clock() + pause

    def _forget(self) -> None:
        if len(self._endpoints) > MAX_ENDPOINTS:
            oldest = next((key for key, endpoint in self._endpoints.items() if not endpoint.in_flight), None)
            if oldest is not None:
                del self._endpoints[oldest]
