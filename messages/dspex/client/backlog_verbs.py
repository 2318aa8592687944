"""The verbs that read the backlog, and who works on it, as a part of the code interface (`dspex.client.interface`)."""

from __future__ import annotations

from uuid import UUID

from dspex.client.arguments import arguments_checked
from dspex.client.port import Port
from dspex.contract.backlog import BacklogView, By, GetBacklog
from dspex.contract.options import Lane
from dspex.contract.results import Page
from dspex.contract.workers import ListWorkers, WorkerView


@arguments_checked
class BacklogVerbs(Port):
    """The part of the client for what waits, and for the workers."""

    def get_backlog(
        self,
        by: By | str = By.LANE,
        *,
        program_id: UUID | None = None,
        lane: Lane | str | None = None,
        all_tenants: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> BacklogView:
        """How much waits and runs, since when, how fast it moves, and what holds it.

        Args:
            by: `lane`, `tenant` or `program`: what the items are of.
            program_id, lane: only of these.
            all_tenants: of all tenants, for who may operate the fleet.
        """
        query = GetBacklog(
            by=by,  # type: ignore[arg-type]  # the model reads it or refuses it
            program_id=program_id,
            lane=lane,  # type: ignore[arg-type]
            all_tenants=all_tenants,
            limit=limit,
            cursor=cursor,
        )
        return self.call(query, BacklogView)

    def list_workers(self, *, limit: int = 50, cursor: str | None = None) -> Page[WorkerView]:
        """A page of the live worker processes: what each serves, how many places it has, and since when it runs."""
        return self.call(ListWorkers(limit=limit, cursor=cursor), Page[WorkerView])
