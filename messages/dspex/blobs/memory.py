"""Blobs in memory: of this process alone, for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from dspex.blobs.objects import CHUNK_BYTES, Objects, StoredObject


class MemoryObjects(Objects):
    """Objects in memory."""

    name = "memory://"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def write(self, key: str, body: BinaryIO) -> None:
        """See `Objects.write`."""
        content = body.read()
        with self._lock:
            self._objects[key] = content, datetime.now(UTC)

    def read(self, key: str) -> Iterator[bytes]:
        """See `Objects.read`."""
        with self._lock:
            if key not in self._objects:
                raise FileNotFoundError(key)
            content, _ = self._objects[key]
        return (content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES))

    def under(self, prefix: str) -> Iterator[StoredObject]:
        """See `Objects.under`."""
        with self._lock:
            found = [(key, *kept) for key, kept in self._objects.items() if key.startswith(prefix)]
        return (StoredObject(key, len(content), at) for key, content, at in found)

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        with self._lock:
            self._objects.pop(key, None)
