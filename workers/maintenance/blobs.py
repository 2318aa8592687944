"""Removes blobs that no execution refers to, once they are old. Any number of processes may do so at the same time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from dspex.blobs import BlobStore, StoredBlob
from dspex.errors import BlobsUnavailable
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
        self._due = time.monotonic() + random.uniform(0, PASS_SECONDS)  # noqa: S311  workers start together

    def run(self) -> None:
        """Look through the store, if it is time to."""
        if time.monotonic() < self._due or self._app.blobs is None:
            return
        self._due = time.monotonic() + AGAIN_SECONDS
        try:
            removed = remove_unused(self._app, self._app.blobs)
        except BlobsUnavailable as error:
            self._app.episodes.tell("Unused blobs are not removed", f"DSPEX_BLOBS: {error.message}")
            return
        self._due = time.monotonic() + PASS_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
        if removed:
            logger.info("%d blobs that nothing referred to were removed.", removed)


def remove_unused(app: Application, store: BlobStore) -> int:
    """Remove every object that is older than `DSPEX_BLOB_DAYS`, unless it is the newest of a blob in use.

    Returns:
        How many were removed.

    Raises:
        BlobsUnavailable, DatabaseUnavailable: it stops there; what was removed before is removed.
    """
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


def _batches(stored: Iterable[StoredBlob]) -> Iterator[list[StoredBlob]]:
    left = iter(stored)
    while some := list(islice(left, BATCH)):
        yield some
