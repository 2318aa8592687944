"""The signatures of programs that a client has asked for, so that inputs are checked before they are sent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from uuid import UUID

from dspex.deadline import left
from dspex.errors import DspexError, NoAnswer, PublishError
from dspex.results import SignatureView
from dspex.signature import Signature
from dspex.status import SignatureStatus

MAX_PROGRAMS = 1024


class KnownSignatures:
    """Each is fetched once, also where many threads ask for it at a time. Thread-safe.

    A program keeps its signature, whatever becomes of its configuration, and only a draft's content can change: until
    it is active, and so before any program of it can run, it is asked for each time.

    Args:
        fetch: asks for the signature of a program.
    """

    def __init__(self, fetch: Callable[[UUID], SignatureView]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._known: dict[UUID, Future[Signature]] = {}

    def of(self, program_id: UUID) -> Signature:
        """The signature of a program.

        Raises:
            NoAnswer: another thread asks for it, and has no answer within the time of this one.
            DspexError: it cannot be fetched; the next call tries again.
        """
        while True:
            with self._lock:
                unknown = program_id not in self._known
                signature = self._known.setdefault(program_id, Future())
                if len(self._known) > MAX_PROGRAMS:
                    self._known.pop(next(iter(self._known)))
            if unknown:
                return self._ask(program_id, signature)
            found = self._wait(program_id, signature)
            if found is not None:
                return found

    def _ask(self, program_id: UUID, signature: Future[Signature]) -> Signature:
        try:
            view = self._fetch(program_id)
        except BaseException as error:
            self._forget(program_id, signature)
            # The time of who asked was over, or it was interrupted: whoever waits with it asks for itself.
            final = isinstance(error, DspexError) and not isinstance(error, NoAnswer | PublishError)
            signature.set_exception(error if final else _GaveUp())
            raise
        if view.status == SignatureStatus.DRAFT:
            self._forget(program_id, signature)
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

    def _forget(self, program_id: UUID, signature: Future[Signature]) -> None:
        with self._lock:
            if self._known.get(program_id) is signature:
                del self._known[program_id]


class _GaveUp(Exception):
    """Who has asked has no answer, and that says nothing."""
