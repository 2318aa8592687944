"""The blob store: stores and reads bodies by digest, over any storage of objects.

A blob is one or more objects `<tenant>/<two digits>/<digest>/<stamp>.<media=type>`, each with the whole body. Storing
again what was stored within the last hour adds no object; later it adds one. So whoever has just stored a blob has it
for as long as the removal lets new objects be, less that hour, whatever is removed meanwhile: `remove` names an old
object, and takes no other.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from uuid import UUID

from dspex.blobs.objects import CHUNK_BYTES, Objects, StoredObject
from dspex.blobs.reference import OCTETS, Blob, checked_digest, checked_media_type
from dspex.errors import BlobCorrupt, BlobsUnavailable, BlobTooLarge, InvalidBlob, NotFound

MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest blob by default, in bytes."""
STORED_AGAIN_AFTER: Final = timedelta(hours=1)
"""How old the newest object of a blob is at least when the same body is stored once more."""
IN_MEMORY_BYTES: Final = 1024 * 1024
"""A stream up to this size is kept in memory until it is stored; a larger one in a temporary file."""

_MARKS: Final = ".owners/"
_MARK = re.compile(r"[0-9a-f]{32}\Z")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_PART = "([a-z0-9][a-z0-9.+_-]{0,62})"
_KEY = re.compile(rf"([A-Za-z0-9][A-Za-z0-9_-]*)/[0-9a-f]{{2}}/([0-9a-f]{{64}})/[0-9a-f]{{32}}\.{_PART}={_PART}\Z")


class StoredBlob(NamedTuple):
    """One object of a blob."""

    tenant: str
    blob: Blob
    at: datetime
    key: str


class BlobStore:
    """Blobs of all tenants. Its promises are at the top of `dspex.blobs`. Thread-safe.

    Args:
        objects: the storage.
        max_bytes: the largest body that is stored.
    """

    def __init__(self, objects: Objects, *, max_bytes: int = MAX_BYTES) -> None:
        self._objects = objects
        self.max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The store for people: an address without secrets."""
        return self._objects.name

    def put(self, source: bytes | Path | BinaryIO, *, tenant: str, media_type: str = OCTETS) -> Blob:
        """Store a body. The same body is one blob, however often it is stored.

        Args:
            source: the body, the path of a file, or a file that is read to its end.

        Raises:
            BlobTooLarge: it has more than `max_bytes`. At most that much of it was read.
            InvalidBlob: the media type or the tenant is none.
            BlobsUnavailable: the store cannot be reached or written to. Store it again later.
        """
        checked_media_type(media_type)
        prefix = _prefix(tenant)
        with ExitStack() as stack:
            body = stack.enter_context(_opened(source))
            if not isinstance(source, bytes):
                body = stack.enter_context(self._spooled(body))
            digest, size = self._measured(body)
            blob = Blob(digest=digest, size=size, media_type=media_type)
            newest = self._newest(tenant, digest)
            if newest is None or newest.blob != blob or datetime.now(UTC) - newest.at > STORED_AGAIN_AFTER:
                body.seek(0)
                end = media_type.replace("/", "=")
                self._objects.write(f"{prefix}{_path(digest)}{_stamp()}.{end}", body)
        return blob

    def find(self, digest: str, *, tenant: str) -> Blob:
        """A blob, without its body. Its media type is what was said when it was stored last.

        Raises:
            InvalidBlob: the digest is malformed.
            NotFound: the tenant has no such blob.
            BlobsUnavailable: the store cannot be reached.
        """
        return self._require(digest, tenant).blob

    def open(self, digest: str, *, tenant: str) -> Iterator[bytes]:
        """The parts of a body. The last is followed by an error if the body is not that of the digest.

        Raises:
            InvalidBlob, NotFound, BlobsUnavailable: as for `find`; from the first part on.
            BlobCorrupt: the body in the store is another: do not use what was read.
        """
        yield from self._parts(self._require(digest, tenant))

    def get(self, digest: str, *, tenant: str, max_bytes: int | None = None) -> bytes:
        """A body as a whole, verified. Arguments and errors are those of `read`."""
        return self.read(digest, tenant=tenant, max_bytes=max_bytes)[1]

    def read(self, digest: str, *, tenant: str, max_bytes: int | None = None) -> tuple[Blob, bytes]:
        """A blob, and its body as a whole, verified.

        Args:
            max_bytes: refuse a larger one before it is read; by default as the store's.

        Raises:
            BlobTooLarge: it has more than `max_bytes`.
            InvalidBlob, NotFound, BlobCorrupt, BlobsUnavailable: as for `open`.
        """
        limit = self.max_bytes if max_bytes is None else max_bytes
        stored = self._require(digest, tenant)
        if stored.blob.size > limit:
            raise BlobTooLarge(f"blob {digest} has {stored.blob.size} bytes; at most {limit} are allowed here")
        return stored.blob, b"".join(self._parts(stored))

    def _require(self, digest: str, tenant: str) -> StoredBlob:
        newest = self._newest(tenant, checked_digest(digest))
        if newest is None:
            raise _not_found(digest)
        return newest

    def _parts(self, stored: StoredBlob) -> Iterator[bytes]:
        try:
            parts = self._objects.read(stored.key)
        except FileNotFoundError:  # it was removed just now; a newer one may be there
            newest = self._require(stored.blob.digest, stored.tenant)
            if newest == stored:
                raise _not_found(stored.blob.digest) from None
            yield from self._parts(newest)
        else:
            yield from _verified(parts, stored.blob)

    def stored(self, tenant: str | None = None) -> Iterator[StoredBlob]:
        """Every object of a tenant's blobs, or of all. What else is in the storage is passed over.

        Raises:
            BlobsUnavailable: the store cannot be reached.
        """
        for found in self._objects.under("" if tenant is None else _prefix(tenant)):
            stored = _stored(found)
            if stored is not None:
                yield stored

    def remove(self, stored: StoredBlob) -> None:
        """Remove one object of a blob. Those that were stored before or after it stay.

        Raises:
            BlobsUnavailable: the store cannot be reached.
        """
        self._objects.delete(stored.key)

    def marks(self) -> set[UUID]:
        """The marks of the databases whose workers remove here what nothing refers to.

        Raises:
            BlobsUnavailable: the store cannot be reached.
        """
        names = (found.key.removeprefix(_MARKS) for found in self._objects.under(_MARKS))
        return {UUID(hex=name) for name in names if _MARK.match(name)}

    def mark(self, owner: UUID) -> None:
        """Leave a mark here.

        Raises:
            BlobsUnavailable: the store cannot be reached or written to.
        """
        self._objects.write(f"{_MARKS}{owner.hex}", io.BytesIO(b"dspex"))

    def tidy(self, before: datetime) -> None:
        """Remove what processes have left that were killed before this time while they stored something."""
        self._objects.tidy(before)

    def check(self) -> None:
        """Check that the store can be read and written to.

        Raises:
            BlobsUnavailable: it cannot; the text says why.
        """
        key = f".check/{_stamp()}"
        self._objects.write(key, io.BytesIO(b"dspex"))
        try:
            content = b"".join(self._objects.read(key))
        except FileNotFoundError:
            content = b""
        self._objects.delete(key)
        if content != b"dspex":
            raise BlobsUnavailable(f"blobs in {self.name}: what was stored is not read back")

    def _newest(self, tenant: str, digest: str) -> StoredBlob | None:
        found = map(_stored, self._objects.under(f"{_prefix(tenant)}{_path(digest)}"))
        return max((stored for stored in found if stored is not None), key=lambda stored: stored.key, default=None)

    def _spooled(self, source: BinaryIO) -> BinaryIO:
        spool = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  the caller closes it
        size = 0
        try:
            while chunk := source.read(CHUNK_BYTES):
                size += len(chunk)
                self._check_size(size)
                spool.write(chunk)
            spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return spool  # type: ignore[return-value]  # it has what a BinaryIO has

    def _measured(self, body: BinaryIO) -> tuple[str, int]:
        hashed, size = hashlib.sha256(), 0
        while chunk := body.read(CHUNK_BYTES):
            size += len(chunk)
            self._check_size(size)
            hashed.update(chunk)
        return f"sha256:{hashed.hexdigest()}", size

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise BlobTooLarge(f"the body has more than {self.max_bytes} bytes, which is the cap of blobs")


@contextmanager
def _opened(source: bytes | Path | BinaryIO) -> Generator[BinaryIO]:
    """A file of the source. The caller's own file stays open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            raise InvalidBlob(f"{source}: {error.strerror or type(error).__name__}") from None
        with file:
            yield file
    else:
        yield source


def _not_found(digest: str) -> NotFound:
    return NotFound(f"there is no blob {digest}: upload it, again if it is long ago")


def _prefix(tenant: str) -> str:
    if not _TENANT.match(tenant):
        raise InvalidBlob(f"{tenant[:100]!r} cannot be a tenant with blobs: use letters, digits, '_' or '-'")
    return f"{tenant}/"


def _stamp() -> str:
    """A name that sorts by time, and that nobody else has."""
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


def _path(digest: str) -> str:
    hexadecimal = digest.removeprefix("sha256:")
    return f"{hexadecimal[:2]}/{hexadecimal}/"


def _stored(found: StoredObject) -> StoredBlob | None:
    key = _KEY.match(found.key)
    if key is None:
        return None
    tenant, hexadecimal, kind, subtype = key.groups()
    blob = Blob(digest=f"sha256:{hexadecimal}", size=found.size, media_type=f"{kind}/{subtype}")
    return StoredBlob(tenant, blob, found.at, found.key)


def _verified(parts: Iterator[bytes], blob: Blob) -> Iterator[bytes]:
    hashed, size = hashlib.sha256(), 0
    for part in parts:
        hashed.update(part)
        size += len(part)
        if size > blob.size:
            break
        yield part
    if size != blob.size or f"sha256:{hashed.hexdigest()}" != blob.digest:
        raise BlobCorrupt(f"the body of blob {blob.digest} in the store is another: upload it again")
