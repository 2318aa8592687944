"""What the claim of an execution came to."""

from __future__ import annotations

from store.database.identity import Identity
from store.executions import Claim, Claimed, Request, Running, Waiting
from workers.application.wiring import Application
from workers.execution.attempt import Attempt


class Taken:
    """An execution, and what its claim came to.

    Attributes:
        attempt: where it is this process's to run.
    """

    def __init__(self, app: Application, request: Request, claim: Claim) -> None:
        self.request = request
        self.claim = claim
        self.attempt: Attempt | None = None
        if app.own is not None and isinstance(claim, Claimed | Running | Waiting):
            # Whoever sends a message to this process asks it to run that.
            app.own.add([Identity(claim.id, request.tenant)])
        if isinstance(claim, Claimed):
            self.attempt = Attempt(app, request, claim)
            app.in_flight.begin(self.attempt)  # from here on its lease is renewed
