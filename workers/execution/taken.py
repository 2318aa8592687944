"""The result of claiming an execution, and the items by which it comes to a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dramatiq import Message

from dspex import ExecuteProgram
from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.contract.options import Lane
from store.database.identity import Identity
from store.executions import Claim, Claimed, Request, Running, ToRunAlone, Waiting
from workers.application.wiring import Application
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.work_queue import EXECUTIONS, URGENT
from workers.execution.attempt import Attempt
from workers.execution.places import Place
from workers.security.request import Received

RUN: Final = "run"
"""The actor that runs what was claimed. No message from outside can name it: those name commands."""


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


class _Nowhere:
    """The source of what runs: its row and its lease have replaced the message."""

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Nothing is left to settle."""


_NOWHERE = _Nowhere()


class ToRun:
    """A claimed execution, or one that is to run alone, as an item of the work queue. It holds a place."""

    def __init__(self, taken: Taken, place: Place) -> None:
        self.taken = taken
        self.place = place
        self.priority = URGENT if taken.request.options.lane is Lane.HIGH else EXECUTIONS
        name = str(taken.request.id)
        self.message = Delivery(
            Message[Any](EXECUTIONS_QUEUE, RUN, (), {"item": self}, {}, message_id=name, message_timestamp=0),
            _NOWHERE,
            0,
        )
        self.message.held = place


@dataclass(frozen=True)
class Refused:
    """What is known of an execution whose message is left to its handler; see `Delivery.held`."""

    received: Received[ExecuteProgram]
    request: Request
    claim: Claim

    def leave(self) -> None:
        """It holds nothing."""
