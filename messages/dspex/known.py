"""The signatures of programs that a client has asked for, so that inputs are checked before they are sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from uuid import UUID

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
            DspexError: it cannot be fetched; the next call tries again.
        """
        with self._lock:
            unknown = program_id not in self._known
            signature = self._known.setdefault(program_id, Future())
            if len(self._known) > MAX_PROGRAMS:
                self._known.pop(next(iter(self._known)))
        if unknown:
            self._ask(program_id, signature)
        return signature.result()

    def _ask(self, program_id: UUID, signature: Future[Signature]) -> None:
        try:
            view = self._fetch(program_id)
        except BaseException as error:
            self._forget(program_id)
            signature.set_exception(error)
            raise
        if view.status == SignatureStatus.DRAFT:
            self._forget(program_id)
        signature.set_result(view.signature)

    def _forget(self, program_id: UUID) -> None:
        with self._lock:
            self._known.pop(program_id, None)
