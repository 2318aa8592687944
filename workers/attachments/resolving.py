"""Puts the bodies of images, audio and files in the place of the addresses and blobs that name them.

That is done for every attempt, before the run, while no transaction is open. Adapters get data URLs, so that they fetch
nothing themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from adapters.port import AdapterError, NotHere
from dspex import ErrorCode, Signature
from dspex.blobs import BlobStore
from dspex.errors import InvalidInput, Problem
from dspex.signatures import media
from dspex.signatures.attachments import mapped
from workers.attachments.hosts import Hosts
from workers.attachments.store_errors import store_errors
from workers.telemetry.episodes import Episodes

if TYPE_CHECKING:
    from workers.attachments.fetching import Fetcher


class Attachments:
    """Brings the bodies of a process's executions. Thread-safe; connects to nothing before it is asked.

    Args:
        hosts: the hosts that may be fetched from (`Hosts`).
        blobs: the blob store; None: there is none here.
        max_bytes: the most that is fetched and read for one execution.
        timeout: the seconds that one execution's fetching may take.
    """

    def __init__(
        self,
        hosts: Collection[str],
        blobs: BlobStore | None,
        *,
        max_bytes: int,
        timeout: float,
        episodes: Episodes | None = None,
    ) -> None:
        self._hosts = Hosts(hosts, episodes=episodes)
        self._blobs = blobs
        self.episodes = episodes
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._fetcher: Fetcher | None = None
        self._making = threading.Lock()

    def resolve(
        self, signature: Signature, inputs: Mapping[str, Any], tenant: str, seconds_left: float
    ) -> dict[str, Any]:
        """The inputs with data URLs in place of addresses and blobs. Inputs that are valid stay so.

        Raises:
            InvalidInput: one of them may not be fetched, is not there, or is not what its field takes.
            AdapterError: `transient`: the host, or the store, does not answer now; `permanent`: a body in the store is
                another.
            NotHere: this worker has no blob store.
        """
        one = _Execution(self, tenant, min(self._timeout, seconds_left))
        return mapped(signature.attachments, signature.attachments_of_turns, inputs, one.resolved)

    def close(self) -> None:
        """Close all connections."""
        with self._making:
            fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            fetcher.close()

    @property
    def max_bytes(self) -> int:
        """The most that is fetched and read for one execution."""
        return self._max_bytes

    @property
    def blobs(self) -> BlobStore | None:
        """The blob store."""
        return self._blobs

    def fetcher(self) -> Fetcher:
        """What fetches, made at the first use: its libraries take time to import."""
        with self._making:
            if self._fetcher is None:
                from workers.attachments.fetching import Fetcher

                self._fetcher = Fetcher(self._hosts)
            return self._fetcher


class _Execution:
    """The bodies of one execution: each is brought once, and they share a limit and a deadline."""

    def __init__(self, attachments: Attachments, tenant: str, seconds: float) -> None:
        self._of = attachments
        self._tenant = tenant
        self._until = time.monotonic() + seconds
        self._left = attachments.max_bytes
        self._known: dict[tuple[media.Kind, str], str] = {}

    def resolved(self, path: str, kind: media.Kind, value: str) -> str:
        """The data URL of a value."""
        if value.startswith("data:"):
            return value
        key = kind, value
        if key not in self._known:
            digest = media.blob_of(value)
            media_type, body = self._fetched(path, value) if digest is None else self._stored(path, digest)
            self._left -= len(body)
            try:
                self._known[key] = media.data_url(kind, media.told(kind, media_type, body), body)
            except ValueError as error:
                raise InvalidInput([Problem(path, str(error))]) from None
        return self._known[key]

    def _fetched(self, path: str, url: str) -> tuple[str, bytes]:
        from workers.attachments.fetching import NotFetched

        try:
            return self._of.fetcher().fetch(url, self._left, max(self._until - time.monotonic(), 0.0))
        except NotFetched as error:
            if error.passing:
                raise AdapterError(ErrorCode.TRANSIENT, f"{path}: cannot be fetched: {error}") from None
            raise InvalidInput([Problem(path, f"cannot be fetched: {error}")]) from None

    def _stored(self, path: str, digest: str) -> tuple[str, bytes]:
        store = self._of.blobs
        if store is None:
            raise NotHere(f"{path}: in the blob store, and this worker has none: set DSPEX_BLOBS")
        with store_errors(path, self._of.episodes):
            blob, body = store.read(digest, tenant=self._tenant, max_bytes=self._left)
        return blob.media_type, body
