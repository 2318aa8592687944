"""Waits of messages without a thread: a message is put aside in the work queue, unsettled, and handled again."""

from __future__ import annotations

import math
import time
from typing import Final, NoReturn

from dspex.backoff import doubled, spread
from dspex.contract.commands import CreateProgram, InitializeProgram
from dspex.errors import DatabaseUnavailable, PublishError
from dspex.lru import Lru
from workers.brokers.delivery import Delivery
from workers.brokers.settlement import PutAside, Requeue, aside, handled
from workers.settings import Settings

FOLLOWERS: Final = frozenset({CreateProgram.type, InitializeProgram.type})
"""Commands that senders give right after the command that creates the entity they refer to."""
DEPENDENCY_SECONDS: Final = 5.0
"""How long such a command waits for the previous one, which another thread or worker may still be carrying out."""
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.5
FIRST_BLIP, LAST_BLIP = 0.1, 2.0
"""Seconds until a message is handled again after a database error; shorter than `DEPENDENCY_SECONDS`."""


class _Database:
    """The state of the database as messages have seen it. `missed_at`: when it last failed."""

    missed_at = -math.inf


_database = _Database()


class _InVain:
    """Counts a tenant's recent messages that waited in vain. If there are many, its further ones do not wait."""

    SECONDS = 60.0
    _counts: Lru[str | None, tuple[int, float]] = Lru(1_000)

    def count(self, tenant: str | None) -> int:
        """The number for a tenant; None: for all."""
        count, since = self._counts.get(tenant) or (0, 0.0)
        return count if time.monotonic() < since + self.SECONDS else 0

    def add(self, tenant: str) -> None:
        """Count one more. Not exact, as two threads may count as one."""
        for key in (tenant, None):
            self._counts.put(key, (self.count(key) + 1, time.monotonic()), 1)


_in_vain = _InVain()


class _Looks:
    """How often this process could not carry out a command of late."""

    SECONDS = 30.0
    _counts: Lru[tuple[str, str], tuple[int, float]] = Lru(1_000)

    def another(self, command: tuple[str, str]) -> int:
        """Count one more look at a command, and return their number."""
        count, since = self._counts.get(command) or (0, 0.0)
        now = time.monotonic()
        count, since = (count, since) if now < since + self.SECONDS else (0, now)
        self._counts.put(command, (count + 1, since), 1)
        return count + 1

    def forget(self, command: tuple[str, str]) -> None:
        """Begin to count anew."""
        self._counts.put(command, (0, 0.0), 1)


_looks = _Looks()

LOOKS: Final = 6
"""How often a process looks at a command that only another worker can carry out, in some two seconds."""
_FIRST_LOOK_AGAIN, _LAST_LOOK_AGAIN = 0.1, 1.0
ASIDE: Final = 64
"""How many messages may be put aside before such a command goes back without a pause."""

MAX_TRIES: Final = 8
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
"""Seconds between attempts of a message whose answer or event the broker does not take; two minutes in all."""


def wait_for_dependency(command_type: str, tenant: str, most: int, share: int) -> None:
    """Wait a moment for the previous command, as commands that are sent in sequence are handled concurrently.

    Returns if the message has waited long enough, or if too many wait.

    Args:
        tenant: the tenant of the command.
        most: how many messages may wait once as many have waited in vain, as they take room from those that the broker
    would deliver. Before that, any number may wait, as a whole batch may come before the command it refers to.
        share: how many messages of one tenant may wait, so that it cannot take the room of others.

    Raises:
        PutAside: the message must be handled again.
    """
    delivery = handled()
    if delivery is None or command_type not in FOLLOWERS:
        return
    pause = _pause(delivery, DEPENDENCY_SECONDS, tenant, most, share)
    if pause is not None:
        raise PutAside(pause)


def room(settings: Settings) -> tuple[int, int]:
    """How many messages may wait for others, and how many of one tenant: see `wait_for_dependency`."""
    # The rest of the prefetched messages is for other commands.
    most = max(1, settings.prefetch_count * 3 // 4)
    return most, most // 2 if settings.tenancy else most


class Overtaking:
    """The wait of a command that may have overtaken the `execute` it is about: there is no such execution, yet.

    A message waits aside, without a thread, and is handled again. A caller in this process waits in its own thread.

    Args:
        seconds: how long a message waits.
        direct_seconds: how long another caller does.
    """

    def __init__(self, settings: Settings, tenant: str, seconds: float, direct_seconds: float) -> None:
        self._delivery = handled()
        self._room = room(settings)
        self._tenant = tenant
        self._seconds = seconds
        self._until = time.monotonic() + direct_seconds
        self._looks = 0

    @property
    def has_waited(self) -> bool:
        """Whether the execution has been looked for before."""
        return self._looks > 0 or (self._delivery is not None and self._delivery.tries > 1)

    def pause(self) -> float | None:
        """How many seconds to wait now; None: it has waited long enough, or too many wait."""
        if self._delivery is not None:
            return _pause(self._delivery, self._seconds, self._tenant, *self._room)
        pause = doubled(_FIRST_LOOK, _LAST_LOOK, self._looks)
        return pause if time.monotonic() + pause < self._until else None

    def wait(self, pause: float) -> None:
        """Wait, and then look again.

        Raises:
            PutAside: the message must be handled again.
        """
        if self._delivery is not None:
            raise PutAside(pause)
        self._looks += 1
        time.sleep(pause)


def _pause(delivery: Delivery, seconds: float, tenant: str, most: int, share: int) -> float | None:
    """How long a message waits until it is handled again; None: it does not."""
    now = time.monotonic()
    # After a database error, the previous command may itself be waiting, and take the room.
    without_database = now < _database.missed_at + DEPENDENCY_SECONDS
    if not without_database:
        waiting = aside()
        if len(waiting) >= most and _in_vain.count(None) >= most:
            return None
        if sum(other.tenant == tenant for other in waiting) >= share and _in_vain.count(tenant) >= share:
            return None
    left = max(delivery.first_tried, _database.missed_at) + seconds - now
    pause = doubled(_FIRST_LOOK, _LAST_LOOK, delivery.tries - 1)
    if pause < left:
        delivery.tenant = tenant
        return pause
    _in_vain.add(tenant)
    return None


def wait_for_another_worker(tenant: str) -> None:
    """Give a command back to its queue, as another worker may have what this one lacks for its program.

    Returns outside of an actor, and if this process has looked at the command often enough: whoever else has it would
    have taken the command by now, as RabbitMQ gives it to the consumers in turn.

    Raises:
        PutAside: the command must be handled again, and then goes back to its queue.
        Requeue: it goes back at once.
    """
    delivery = handled()
    if delivery is None:
        return
    command = (tenant, delivery.message_id)
    if delivery.tries > 1:
        raise Requeue("it has paused here")
    looks = _looks.another(command)
    if looks >= LOOKS:
        _looks.forget(command)
        return
    if looks > 1 and len(aside()) < ASIDE:
        raise PutAside(doubled(_FIRST_LOOK_AGAIN, _LAST_LOOK_AGAIN, looks - 2))
    raise Requeue("another worker may have it")


def wait_for_broker(error: PublishError) -> None:
    """Wait for the broker, which did not take the answer or the event of a message.

    Returns after enough attempts.

    Raises:
        PutAside: the message must be handled again.
    """
    delivery = handled()
    if delivery is not None and delivery.tries < MAX_TRIES:
        raise PutAside(doubled(FIRST_PAUSE, LAST_PAUSE, delivery.tries - 1), error.message)


def wait_for_database(error: DatabaseUnavailable) -> NoReturn:
    """Handle the message again later, with growing pauses.

    Raises:
        PutAside: always, inside of an actor.
        Requeue: always, elsewhere.
    """
    delivery = handled()
    if delivery is None:
        raise Requeue(str(error)) from None
    pause = spread(doubled(FIRST_BLIP, LAST_BLIP, delivery.tries - 1))
    _database.missed_at = time.monotonic()
    raise PutAside(pause, str(error)) from None
