"""The signatures of programs that a client has asked for, so that inputs are checked before they are sent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from uuid import UUID

from dspex.client.deadline import left
from dspex.contract.results import SignatureView
from dspex.contract.status import SignatureStatus
from dspex.errors import DspexError, NoAnswer, PublishError
from dspex.lru import Lru
from dspex.signatures.signature import Signature

MAX_BYTES = 64 * 1024 * 1024
"""What the signatures that are kept may take, estimated (`Signature.size`)."""


class SignatureCache:
    """Each is fetched once, also where many threads ask for it at a time. Thread-safe.

    A program keeps its signature, whatever becomes of its configuration, and only a draft's content can change: until
    it is active, and so before any program of it can run, it is asked for each time.

    Args:
        fetch: asks for the signature of a program.
    """

    def __init__(self, fetch: Callable[[UUID], SignatureView]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._asked: dict[UUID, Future[Signature]] = {}
        self._known: Lru[UUID, Signature] = Lru(MAX_BYTES)

    def of(self, program_id: UUID) -> Signature:
        """The signature of a program.

        Raises:
            NoAnswer: another thread asks for it, and has no answer within the time of this one.
            DspexError: it cannot be fetched; the next call tries again.
        """
        while True:
            with self._lock:
                known = self._known.get(program_id)
                if known is not None:
                    return known
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
            # The time of who asked was over, or it was interrupted: whoever waits with it asks for itself.
            final = isinstance(error, DspexError) and not isinstance(error, NoAnswer | PublishError)
            signature.set_exception(error if final else _GaveUp())
            raise
        self._end(program_id, view)
        signature.set_result(view.signature)
        return view.signature

    @staticmethod
    def _wait(program_id: UUID, signature: Future[Signature]) -> Signature | None:
        """What another thread was answered; None where it has given up."""
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
                self._known.put(program_id, view.signature, view.signature.size)


class _GaveUp(Exception):
    """Who has asked has no answer, and that says nothing."""
