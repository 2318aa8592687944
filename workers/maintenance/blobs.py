"""Removes blobs that no execution refers to, once they are old. Any number of processes may do so at the same time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from dspex.blobs import BlobStore, StoredBlob
from dspex.errors import BlobsUnavailable, NotTheOwner
from dspex.ids import uuid7
from store import blob_owners
from store.database.tenancy import ALL
from store.executions import blobs
from workers.application.wiring import Application

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""How many objects are looked up by one statement."""
PASS_SECONDS: Final = 6 * 3600.0
"""How often a process looks through the store, give or take a half."""
AGAIN_SECONDS: Final = 600.0
"""How soon it looks again after a failure."""


class UnusedBlobs:
    """The removal in a worker process. It only reads the database: `docs/decisions/0034-blobs.md` says why it may."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._marked = False
        self._due = time.monotonic() + random.uniform(0, PASS_SECONDS)  # noqa: S311  workers start together

    def run(self) -> None:
        """Leave the mark, once. Look through the store, if it is time to."""
        store, now = self._app.blobs, time.monotonic()
        if store is None or (self._marked and now < self._due):
            return
        try:
            if not self._marked:
                leave_mark(self._app, store)
                self._marked = True
            if now < self._due:
                return
            self._due = now + AGAIN_SECONDS
            removed = remove_unused(self._app, store)
        except NotTheOwner as error:
            logger.warning("%s", error.message)
            removed = 0
        except BlobsUnavailable as error:
            self._app.episodes.tell("Unused blobs are not removed", f"DSPEX_BLOBS: {error.message}")
            return
        self._due = now + PASS_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
        if removed:
            logger.info("%d blobs that nothing referred to were removed.", removed)


def remove_unused(app: Application, store: BlobStore, *, adopt: bool = False) -> int:
    """Remove every object that is older than `DSPEX_BLOB_DAYS`, unless it is the newest of a blob in use.

    Args:
        adopt: the other databases that removed here are gone: this one takes their place.

    Returns:
        How many were removed.

    Raises:
        NotTheOwner: another database's workers remove here, too; nothing was removed.
        BlobsUnavailable, DatabaseUnavailable: it stops there; what was removed before is removed.
    """
    others = leave_mark(app, store)
    if others and not adopt:
        raise NotTheOwner(
            f"DSPEX_BLOBS: {store.name} is another database's, too: nothing is removed. Give each database a folder "
            "or prefix of its own. If the other is gone: dspex blob prune --adopt"
        )
    for mark in others:
        app.writer.call(app.writes.own_blobs, mark)
    before = datetime.now(UTC) - timedelta(days=app.settings.blob_days)
    removed = 0
    for some in _batches(store.stored()):
        old = [stored for stored in some if stored.at < before]
        if not old:
            continue
        with app.read(ALL) as connection:
            used = blobs.referred(connection, {(stored.blob.digest, stored.tenant) for stored in old})
        newest: dict[tuple[str, str], str] = {}
        for stored in some:
            blob = stored.blob.digest, stored.tenant
            newest[blob] = max(newest.get(blob, ""), stored.key)
        for stored in old:
            blob = stored.blob.digest, stored.tenant
            if blob not in used or newest[blob] != stored.key:
                store.remove(stored)
                removed += 1
    store.tidy(before)
    return removed


def leave_mark(app: Application, store: BlobStore) -> set[UUID]:
    """Leave a mark of this database in the store, unless there is one.

    Returns:
        The marks of other databases.

    Raises:
        BlobsUnavailable, DatabaseUnavailable: the store, or the database, cannot be reached.
    """
    found, own = _marks(app, store)
    if found.isdisjoint(own):
        mark = uuid7()
        app.writer.call(app.writes.own_blobs, mark)
        store.mark(mark)
        found, own = _marks(app, store)
    return found - own


def _marks(app: Application, store: BlobStore) -> tuple[set[UUID], set[UUID]]:
    """The marks in the store, and this database's. Each is in the database first, so none of ours looks foreign."""
    found = store.marks()
    with app.read(ALL) as connection:
        return found, blob_owners.marks(connection)


def _batches(stored: Iterable[StoredBlob]) -> Iterator[list[StoredBlob]]:
    left = iter(stored)
    while some := list(islice(left, BATCH)):
        yield some
