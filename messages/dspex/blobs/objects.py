"""The port under the blob store: a storage of objects by key. `folder`, `memory` and `s3` implement it.

Keys are made by `dspex.blobs.store` alone, of validated parts: letters, digits and `/ . + _ - =`. No key is written
twice.

- `write` is atomic and durable: afterwards the object is there, whole; if it fails or is killed, none is.
- `read` streams, and raises `FileNotFoundError` where there is no such object.
- `under` is lazy, and tells the time of storing by the clock of the storage.
- `delete` of what is not there is no error.
- Everything else that goes wrong is `BlobsUnavailable`, with a reason that has no secret in it.
- Thread-safe.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO, Final, NamedTuple

CHUNK_BYTES: Final = 1024 * 1024
"""How much of a body is read at once."""


class StoredObject(NamedTuple):
    """An object: its key, its size in bytes, and when it was stored."""

    key: str
    size: int
    at: datetime


class Objects(abc.ABC):
    """Objects by key. The obligations are at the top of this module.

    Attributes:
        name: the storage for people: an address without secrets.
    """

    name: str

    @abc.abstractmethod
    def write(self, key: str, body: BinaryIO) -> None:
        """Store what a file has, from its position on."""

    @abc.abstractmethod
    def read(self, key: str) -> Iterator[bytes]:
        """The parts of an object."""

    @abc.abstractmethod
    def under(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose keys begin with a prefix, which is empty or ends with a slash."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object."""

    def tidy(self, before: datetime) -> None:  # noqa: B027  most leave nothing
        """Remove what writes that were killed before this time have left."""
