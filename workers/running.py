"""What the threads of this process are running now: whose leases it renews, and what it can be asked to stop."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from adapters.fallback import LoadedProgram
from store.executions import Claimed


class RunningExecutions:
    """By claim: the same execution may be here twice, where it was rescued from one thread and claimed by another."""

    def __init__(self) -> None:
        self._programs: dict[Claimed, LoadedProgram | None] = {}
        self._cancelled: set[Claimed] = set()

    def __bool__(self) -> bool:
        return bool(self._programs)

    @property
    def ids(self) -> set[UUID]:
        """The executions."""
        return {claimed.id for claimed in list(self._programs)}

    def begin(self, claimed: Claimed, program: LoadedProgram | None = None) -> None:
        """An execution was claimed, or is handed to its adapter."""
        self._programs[claimed] = program

    def end(self, claimed: Claimed) -> None:
        """It has ended."""
        self._programs.pop(claimed, None)
        self._cancelled.discard(claimed)

    def cancel(self, ids: Collection[UUID]) -> None:
        """Tell the adapters to stop these. Of what they cannot stop, the result is discarded when it comes."""
        for claimed, program in list(self._programs.items()):
            if claimed.id in ids and claimed not in self._cancelled:
                self._cancelled.add(claimed)
                if program is not None:
                    program.cancel(str(claimed.id))

    def is_cancelled(self, claimed: Claimed) -> bool:
        """Whether it was asked to stop."""
        return claimed in self._cancelled
