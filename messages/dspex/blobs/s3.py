"""Blobs in S3, or in what is compatible with it: `pip install dspex[s3]`.

Credentials are not a part of the address. `obstore` finds them as other tools for S3 do: `AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY`, a web identity, or the machine's own role.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from dspex.blobs.objects import CHUNK_BYTES, Objects, StoredObject
from dspex.errors import BlobsUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Config

CONNECT_SECONDS: Final = 5
REQUEST_SECONDS: Final = 120
"""For one request, with the body of one part."""
RETRIES: Final = 2
RETRY_SECONDS: Final = 20
PART_BYTES: Final = 8 * 1024 * 1024
PARTS_AT_ONCE: Final = 2

_REASONS = re.compile(
    r"<Code>(\w{1,60})</Code>|(connection refused|connection reset|dns error|timed out|certificate|NoSuchBucket|"
    "169.254.169.254)",
    re.IGNORECASE,
)
"""What may be quoted of an error. The rest may have addresses and parts of signatures in it."""


def s3_objects(bucket: str, prefix: str, *, endpoint: str | None, region: str | None, name: str) -> Objects:
    """Objects of a bucket. Nothing connects yet.

    Args:
        prefix: of all keys; without slashes at its ends, or empty.
        endpoint: the address of a server that is compatible with S3; None: AWS.
        name: for people.

    Raises:
        BlobsUnavailable: `obstore` is not installed, or takes these values for wrong.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise BlobsUnavailable("blobs in S3 need obstore: pip install 'dspex[s3]'") from None
    config: S3Config = {}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    try:
        store = S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )
    except BaseError as error:
        raise _unavailable(name, error) from None
    return ObstoreObjects(store, name)


class ObstoreObjects(Objects):
    """Objects of a store of `obstore`."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.name = name
        self._store = store

    def write(self, key: str, body: BinaryIO) -> None:
        """See `Objects.write`. More than one part is a multipart upload, which is complete or not there."""
        import obstore

        with self._explained():
            obstore.put(self._store, key, body, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def read(self, key: str) -> Iterator[bytes]:
        """See `Objects.read`."""
        import obstore

        with self._explained(may_be_missing=True):
            stream = obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES)
        return self._chunks(stream)

    def _chunks(self, stream: Any) -> Iterator[bytes]:
        with self._explained(may_be_missing=True):
            for chunk in stream:
                yield bytes(chunk)

    def under(self, prefix: str) -> Iterator[StoredObject]:
        """See `Objects.under`."""
        import obstore

        with self._explained():
            for some in obstore.list(self._store, prefix=prefix or None, chunk_size=1000):
                for found in some:
                    yield StoredObject(found["path"], found["size"], found["last_modified"])

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        import obstore

        with self._explained(missing_is_fine=True):
            obstore.delete(self._store, key)

    @contextmanager
    def _explained(self, *, may_be_missing: bool = False, missing_is_fine: bool = False) -> Generator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:  # obstore raises this one
            is_object = "NoSuchBucket" not in str(error)
            if is_object and missing_is_fine:
                return
            if is_object and may_be_missing:
                raise FileNotFoundError("no such object") from None
            raise _unavailable(self.name, error) from None
        except (BaseError, OSError) as error:
            raise _unavailable(self.name, error) from None


def _unavailable(name: str, error: BaseException) -> BlobsUnavailable:
    kind = type(error).__name__.removesuffix("Error")
    found = _REASONS.search(str(error))
    reason = f"{kind}, {found[1] or found[2]}" if found else kind
    return BlobsUnavailable(
        f"blobs in {name}: {reason}. Check that it can be reached, that the bucket is there, and the credentials "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a role)"
    )
