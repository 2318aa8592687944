"""A cache of programs' signatures, by which a client checks inputs before it sends them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from uuid import UUID

from dspex.client.deadline import left
from dspex.contract.results import SignatureView
from dspex.contract.status import SignatureStatus
from dspex.errors import DspexError, NoAnswer, PublishError
from dspex.lru import Lru
from dspex.signatures.signature import Signature

RENEW_SECONDS = 30.0
"""How old a signature may be when inputs do not fit it, in seconds."""
MAX_BYTES = 64 * 1024 * 1024
"""The size of all cached signatures, in estimated bytes (`Signature.size`)."""


class SignatureCache:
    """Fetches each signature once, even if many threads ask for it at the same time. Thread-safe.

    Only a draft signature can change its content, so a draft is not cached. A program may get another signature, which
    is seldom: the old one is used until inputs do not fit it.

    Args:
        fetch: sends the query for the signature of a program.
    """

    def __init__(self, fetch: Callable[[UUID], SignatureView]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._asked: dict[UUID, Future[Signature]] = {}
        self._kept: Lru[UUID, _Kept] = Lru(MAX_BYTES)

    def of(self, program_id: UUID, *, max_age: float = math.inf) -> Signature:
        """The signature of a program.

        Args:
            max_age: fetch it again if it was fetched more than this many seconds ago.

        Raises:
            NoAnswer: another thread is fetching it, and got no answer within this thread's timeout.
            DspexError: it could not be fetched; the next call tries again.
        """
        while True:
            with self._lock:
                kept = self._kept.get(program_id)
                if kept is not None and time.monotonic() - kept.fetched_at <= max_age:
                    return kept.signature
                first = program_id not in self._asked
                signature = self._asked.setdefault(program_id, Future())
            if first:
                return self._ask(program_id, signature)
            found = self._wait(program_id, signature)
            if found is not None:
                return found

    def _ask(self, program_id: UUID, signature: Future[Signature]) -> Signature:
        try:
            view = self._fetch(program_id)
        except BaseException as error:
            self._end(program_id)
            # After a timeout or an interrupt of this thread, the other threads fetch for themselves.
            final = isinstance(error, DspexError) and not isinstance(error, NoAnswer | PublishError)
            signature.set_exception(error if final else _GaveUp())
            raise
        self._end(program_id, view)
        signature.set_result(view.signature)
        return view.signature

    @staticmethod
    def _wait(program_id: UUID, signature: Future[Signature]) -> Signature | None:
        """The signature that another thread fetches; None if that thread has given up."""
        try:
            return signature.result(None if (seconds := left(math.inf)) == math.inf else seconds)
        except FutureTimeout:
            raise NoAnswer(f"the signature of program {program_id}: no answer in time; is a worker running?") from None
        except _GaveUp:
            return None

    def _end(self, program_id: UUID, view: SignatureView | None = None) -> None:
        with self._lock:
            del self._asked[program_id]
            if view is not None and view.status != SignatureStatus.DRAFT:
                kept = _Kept(view.signature, time.monotonic())
                self._kept.put(program_id, kept, view.signature.size)


@dataclass(frozen=True)
class _Kept:
    signature: Signature
    fetched_at: float


class _GaveUp(Exception):
    """The thread that fetched has no answer, but another may get one."""
