"""Delivers what is due: one thread takes it, and each delivery has a thread while it is sent.

What is due is taken for a while, sent, and settled; a process that dies in between leaves it due again, and it is sent
again under the same id. A place that is down is not asked for while its circuit is open: what waits for it stays where
it is, and is in nobody's way.
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
"""Between two tries, while the database is away."""
LEASE_MARGIN_SECONDS: Final = 10.0
"""What may pass between taking a delivery and settling it, beside the attempt itself."""
PLACES: Final = 100
"""How many places are looked at in one round."""
RELEASE_SECONDS: Final = 5.0
"""How long a stop waits for a database that cannot be reached."""

Taken = tuple[Due, Execution | None]


class Deliverer:
    """Starts and stops the threads; `start` and `stop` are called once each.

    Args:
        runner: makes what sends, when there is something to send: trusting the system's certificates takes a moment.
        threads: deliveries at a time.
        timeout: seconds that an attempt takes at most.
        mine: what it delivers, where it leaves alone what is others'.
        episodes: of the process.
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
        self._announces = mine is None  # else only once it has disabled an endpoint itself
        self._threads = threads
        self._lease_seconds = timeout + LEASE_MARGIN_SECONDS
        self._circuits = circuits or Circuits(suspects=max(1, threads // 2))
        self._episodes = episodes or Episodes()
        self._after = ""  # the place that was served last
        self._in_flight: dict[tuple[UUID, int], webhooks.Delivery] = {}
        self._changed = threading.Condition()
        self._woken = False
        self._idle = 0  # rounds with nothing in flight, after which nothing was either
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)

    @property
    def threads(self) -> Sequence[threading.Thread]:
        """They live until `stop`."""
        return [self._thread]

    def start(self) -> None:
        """Deliver."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Take no more, let what is being sent end for at most `seconds`, and give back the rest."""
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
        """Have what is due sent, as far as it can be now, within so many seconds."""
        with self._changed:
            begun = self._idle
            if not self._in_flight and not self._is_due():
                return
            self._woken = True
            self._changed.notify_all()
            # The round that is under way may have looked before.
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
        """Until a delivery has ended, or a while has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stopping, seconds)
            self._woken = False

    def _round(self) -> bool:
        """Take what is due and start to send it; returns whether there may be more to take at once."""
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
        """The places next in turn for which something is due."""
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            found = webhooks.places(connection, self._after, PLACES)
            if not found and self._after:
                found = webhooks.places(connection, "", PLACES)
        self._after = found[-1] if len(found) == PLACES else ""
        return found

    def _enter(self, places: Sequence[str], room: int) -> dict[str, list[Permit]]:
        """Leave for attempts, by place: shared among the places, as far as each may have them."""
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
            logger.info("Delivery %s was not written down: it will be sent again.", due.delivery.id)
        except Exception as error:  # noqa: BLE001 - it is told
            what, said = "Deliveries cannot be written down: they will be sent again", f"delivery {due.delivery.id}"
            self._episodes.tell(what, said, level=logging.ERROR, error=error)
        finally:
            with self._changed:
                del self._in_flight[_key(due)]
                self._woken = True
                self._changed.notify_all()

    def _tell(self, settled: Settled, held: bool) -> None:
        """What each came to is in the table of attempts."""
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
    """What is taken once: a delivery may be taken again here, where it took too long to settle."""
    return due.delivery.id, due.delivery.lock_version
