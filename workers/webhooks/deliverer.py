"""The deliverer: one thread takes due deliveries, and each is sent in a thread of its own.

Deliveries are taken for a limited time, sent, and settled. If the process dies in between, they become due again, and
are sent again under the same id. While the circuit of a place is open, its deliveries are not taken, so they do not
delay others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dspex.backoff import doubled
from dspex.errors import PublishError
from store import executions, webhooks
from store.database.engine import READ_ONLY
from store.database.failures import describe, passing
from store.executions import Execution
from store.webhooks import Due, Settled
from workers.persistence.group_commit import Writer, WriterClosed
from workers.telemetry.episodes import Episodes
from workers.webhooks.circuit import Busy, Circuits, Permit
from workers.webhooks.notices import Notices

if TYPE_CHECKING:
    from workers.webhooks.delivery import DeliveryRunner

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 30.0
"""The longest pause between attempts while the database is unavailable, in seconds."""
LEASE_MARGIN_SECONDS: Final = 10.0
"""Seconds between taking and settling a delivery, in addition to the attempt itself."""
PLACES: Final = 100
"""How many places one round handles."""
RELEASE_SECONDS: Final = 5.0
"""How long a stop waits for an unreachable database, in seconds."""

Taken = tuple[Due, Execution | None]


class Deliverer:
    """Delivers webhooks. `start` and `stop` may each be called once.

    Args:
        runner: makes the sender at the first delivery, as loading the system's certificates takes a moment.
        threads: concurrent deliveries.
        timeout: the timeout of an attempt, in seconds.
        mine: returns the selection of its deliveries; None: it delivers all.
        episodes: the episodes of the process.
    """

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        notices: Notices,
        runner: Callable[[], DeliveryRunner],
        *,
        threads: int,
        timeout: float,
        circuits: Circuits | None = None,
        mine: Callable[[], webhooks.Mine] | None = None,
        episodes: Episodes | None = None,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._notices = notices
        self._make_runner = runner
        self._runner: DeliveryRunner | None = None
        self._mine: Callable[[], webhooks.Mine | None] = mine or (lambda: None)
        self._announces = mine is None  # otherwise only after it has disabled an endpoint itself
        self._threads = threads
        self._lease_seconds = timeout + LEASE_MARGIN_SECONDS
        self._circuits = circuits or Circuits(suspects=max(1, threads // 2))
        self._episodes = episodes or Episodes()
        self._after = ""  # the place served last
        self._in_flight: dict[tuple[UUID, int], webhooks.Delivery] = {}
        self._changed = threading.Condition()
        self._woken = False
        self._idle = 0  # consecutive rounds without deliveries in flight, before and after
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)

    @property
    def threads(self) -> Sequence[threading.Thread]:
        """The threads that live until `stop`."""
        return [self._thread]

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Take no more deliveries, wait up to `seconds` for those in progress, and give the rest back."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=max(1.0, seconds))
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight, max(0.0, deadline - time.monotonic()))
            left = list(self._in_flight.values())
        if left:
            self._give_back(left, seconds)
        if self._runner is not None:
            self._runner.close()

    def finish(self, seconds: float) -> None:
        """Wait up to so many seconds until all due deliveries that can be sent now are sent."""
        with self._changed:
            begun = self._idle
            if not self._in_flight and not self._is_due():
                return
            self._woken = True
            self._changed.notify_all()
            # The current round may have looked before a delivery was due.
            self._changed.wait_for(lambda: self._idle >= begun + 2 or not self._thread.is_alive(), seconds)

    def _is_due(self) -> bool:
        try:
            return self._anything_due()
        except SQLAlchemyError:
            return False

    def _give_back(self, left: list[webhooks.Delivery], seconds: float) -> None:
        try:
            self._writer.call(self._release, left, RELEASE_SECONDS)
        except (TimeoutError, WriterClosed):
            logger.warning("%d deliveries did not end in %.0f s: they are due again in a while.", len(left), seconds)
        else:
            logger.warning("%d deliveries did not end in %.0f s and are given back.", len(left), seconds)

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            more = False
            try:
                more = self._round()
                failures = 0
            except WriterClosed:
                return
            except Exception as error:
                failures += 1
                if not isinstance(error, PublishError) and not passing(error):
                    logger.exception("The deliverer failed; it goes on.")
                elif failures == 1:
                    logger.warning("The deliverer waits for a server: %s", describe(error))
            with self._changed:
                if not more and not self._in_flight:
                    self._idle += 1
                    self._changed.notify_all()
            if not more:
                self._rest(doubled(POLL_SECONDS, MAX_PAUSE_SECONDS, failures))

    def _rest(self, seconds: float) -> None:
        """Wait until a delivery has ended, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stopping, seconds)
            self._woken = False

    def _round(self) -> bool:
        """Take due deliveries and start to send them. Returns whether there may be more at once."""
        self._episodes.go_on()
        if self._announces:
            self._notices.send()
        with self._changed:
            room = self._threads - len(self._in_flight)
        if not room or not self._anything_due():
            return False
        found = self._places()
        permits = self._enter(found, room)
        taken = self._take(permits) if permits else []
        return bool(taken) or len(found) == PLACES

    def _anything_due(self) -> bool:
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            return webhooks.anything_due(connection, self._mine())

    def _places(self) -> list[str]:
        """The next places in turn with due deliveries."""
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            found = webhooks.places(connection, self._after, PLACES)
            if not found and self._after:
                found = webhooks.places(connection, "", PLACES)
        self._after = found[-1] if len(found) == PLACES else ""
        return found

    def _enter(self, places: Sequence[str], room: int) -> dict[str, list[Permit]]:
        """Permits for attempts by place, shared among the places within their limits."""
        permits: dict[str, list[Permit]] = {}
        share = max(1, room // max(1, len(places)))
        for place in places:
            for _ in range(min(share, room)):
                permit = self._circuits.enter(place)
                if isinstance(permit, Busy):
                    break
                permits.setdefault(place, []).append(permit)
                room -= 1
            if not room:
                self._after = place
                break
        return permits

    def _take(self, permits: Mapping[str, list[Permit]]) -> list[Taken]:
        wanted = {place: len(given) for place, given in permits.items()}
        taken: list[Taken] = []
        try:
            taken = self._writer.call(self._take_each, wanted)
            for due, execution in taken:
                self._start(due, execution, permits[due.delivery.place].pop())
        finally:
            for unused in (permit for given in permits.values() for permit in given):
                self._circuits.leave(unused)
        return taken

    def _start(self, due: Due, execution: Execution | None, permit: Permit) -> None:
        if self._runner is None:
            self._runner = self._make_runner()
        with self._changed:
            self._in_flight[_key(due)] = due.delivery
        arguments = (self._runner, due, execution, permit)
        threading.Thread(target=self._deliver, args=arguments, name="delivery", daemon=True).start()

    def _deliver(self, runner: DeliveryRunner, due: Due, execution: Execution | None, permit: Permit) -> None:
        try:
            with permit:
                settled, attempt = runner.deliver(due, execution)
                if attempt is not None:
                    permit.settle(attempt)
            self._tell(settled, self._writer.call(self._settle, settled))
        except WriterClosed:
            logger.info("The result of delivery %s was not written: it will be sent again.", due.delivery.id)
        except Exception as error:  # noqa: BLE001 - it is told
            what, said = (
                "Results of deliveries cannot be written: they will be sent again",
                f"delivery {due.delivery.id}",
            )
            self._episodes.tell(what, said, level=logging.ERROR, error=error)
        finally:
            with self._changed:
                del self._in_flight[_key(due)]
                self._woken = True
                self._changed.notify_all()

    def _tell(self, settled: Settled, held: bool) -> None:
        """Log the result as an episode. The table of attempts has each."""
        delivery, tell = settled.due.delivery, self._episodes.tell
        if not held:
            said = f"delivery {delivery.id}"
            tell("Attempts to deliver do not count, since something changed meanwhile", said, level=logging.INFO)
        elif settled.disable:
            self._announces = True
            tell("Endpoints are disabled", f"{delivery.endpoint_id} at {delivery.host}: {settled.disable}")
        elif settled.reason:
            said = f"delivery {delivery.id}: {settled.reason}; {settled.status}"
            tell(f"Deliveries to {delivery.host} fail", said, level=logging.INFO)

    # As the writer's operations

    def _take_each(self, connection: Connection, wanted: Sequence[Mapping[str, int]]) -> list[list[Taken]]:
        return [self._take_all(connection, places) for places in wanted]

    def _take_all(self, connection: Connection, places: Mapping[str, int]) -> list[Taken]:
        taken = webhooks.take(connection, places, self._lease_seconds, self._mine())
        ended = executions.of_all_tenants(connection, {due.delivery.execution for due in taken})
        found = {execution.identity: execution for execution in ended}
        return [(due, found.get(due.delivery.execution)) for due in taken]

    def _settle(self, connection: Connection, settled: Sequence[Settled]) -> list[bool]:
        return webhooks.settle(connection, settled)

    def _release(self, connection: Connection, left: Sequence[Sequence[webhooks.Delivery]]) -> list[int]:
        return [webhooks.release(connection, deliveries) for deliveries in left]


def _key(due: Due) -> tuple[UUID, int]:
    """The identity of a taking: a delivery may be taken again here if settling took too long."""
    return due.delivery.id, due.delivery.lock_version
