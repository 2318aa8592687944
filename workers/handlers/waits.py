"""What a message waits for, without a thread: it is put aside in the queue of work, unsettled, and handled again."""

from __future__ import annotations

import math
import time
from typing import Final, NoReturn

from dspex.backoff import doubled, spread
from dspex.contract.commands import CreateProgram, InitializeProgram
from dspex.errors import DatabaseUnavailable, PublishError
from dspex.lru import Lru
from workers.brokers.settlement import PutAside, Requeue, aside, handled

FOLLOWERS: Final = frozenset({CreateProgram.type, InitializeProgram.type})
"""Commands that are sent right after the one that makes what they refer to."""
DEPENDENCY_SECONDS: Final = 5.0
"""How long such a command waits for the one before it, which another thread or worker may still be at."""
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.5
FIRST_BLIP, LAST_BLIP = 0.1, 2.0
"""Until a message is tried again that the database could not serve: less than a command waits for the one before it."""


class _Database:
    """What messages of this process have met. `missed_at`: when the database last did not do its part."""

    missed_at = -math.inf


_database = _Database()


class _InVain:
    """How many messages of a tenant waited lately for what never came: one that sends many such is not waited for."""

    SECONDS = 60.0
    _counts: Lru[str | None, tuple[int, float]] = Lru(1_000)

    def count(self, tenant: str | None) -> int:
        """Of a tenant, or of all, where it is None."""
        count, since = self._counts.get(tenant) or (0, 0.0)
        return count if time.monotonic() < since + self.SECONDS else 0

    def add(self, tenant: str) -> None:
        """One more. Two threads may count one for two: the number need not be exact."""
        for key in (tenant, None):
            self._counts.put(key, (self.count(key) + 1, time.monotonic()), 1)


_in_vain = _InVain()

MAX_TRIES: Final = 8
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
"""How often a message is handled whose answer or event the broker does not take, with growing pauses: two minutes."""


def wait_for_dependency(command_type: str, tenant: str, most: int, share: int) -> None:
    """Give the command before this one a moment: commands that are sent one after the other are handled side by side.

    Args:
        tenant: whose it is.
        most: how many messages may wait so, once as many have waited in vain: they take room from those that the broker
            would deliver. Until then each may, for a batch of commands may all come before the one they refer to.
        share: how many of one tenant, so that its wait for what never comes does not take the others' room.

    Raises:
        PutAside: it is to be handled again. Returns where it has waited long enough, or there is no room.
    """
    delivery, now = handled(), time.monotonic()
    if delivery is None or command_type not in FOLLOWERS:
        return
    # The one before may wait for the database, and what waits for that takes the room.
    without_database = now < _database.missed_at + DEPENDENCY_SECONDS
    if not without_database:
        waiting = aside()
        if len(waiting) >= most and _in_vain.count(None) >= most:
            return
        if sum(other.tenant == tenant for other in waiting) >= share and _in_vain.count(tenant) >= share:
            return
    left = max(delivery.first_tried, _database.missed_at) + DEPENDENCY_SECONDS - now
    pause = doubled(_FIRST_LOOK, _LAST_LOOK, delivery.tries - 1)
    if pause < left:
        delivery.tenant = tenant
        raise PutAside(pause)
    _in_vain.add(tenant)


def wait_for_broker(error: PublishError) -> None:
    """Give the broker time, where it does not take what a message is answered with, or tells.

    Raises:
        PutAside: it is to be handled again. Returns where that was done often enough.
    """
    delivery = handled()
    if delivery is not None and delivery.tries < MAX_TRIES:
        raise PutAside(doubled(FIRST_PAUSE, LAST_PAUSE, delivery.tries - 1), error.message)


def wait_for_database(error: DatabaseUnavailable) -> NoReturn:
    """Have the message handled again: later with each try.

    Raises:
        PutAside: always; Requeue where it is in nobody's hands here.
    """
    delivery = handled()
    if delivery is None:
        raise Requeue(str(error)) from None
    pause = spread(doubled(FIRST_BLIP, LAST_BLIP, delivery.tries - 1))
    _database.missed_at = time.monotonic()
    raise PutAside(pause, str(error)) from None
