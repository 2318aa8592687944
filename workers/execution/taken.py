"""The result of claiming an execution."""

from __future__ import annotations

from store.database.identity import Identity
from store.executions import Claim, Claimed, Request, Running, ToRunAlone, Waiting
from workers.application.wiring import Application
from workers.execution.attempt import Attempt


class Taken:
    """An execution, and the result of its claim.

    Attributes:
        attempt: the attempt to run, if this process has claimed it.
    """

    def __init__(self, app: Application, request: Request, claim: Claim) -> None:
        self.request = request
        self.claim = claim
        self.attempt: Attempt | None = None
        if app.own is not None and isinstance(claim, Claimed | ToRunAlone | Running | Waiting):
            # A message that comes to this process makes the execution its own.
            app.own.add([Identity(claim.id, request.tenant)])
        if isinstance(claim, Claimed):
            self.attempt = Attempt(app, request, claim)
            app.in_flight.begin(self.attempt)  # from here on, the heartbeat renews its lease
