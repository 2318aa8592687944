"""Calls the handler of a command, after authorization."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dspex.errors import Denied
from workers.application.wiring import Application
from workers.handlers import backlog as backlog
from workers.handlers import cancels as cancels
from workers.handlers import dead_letters as dead_letters
from workers.handlers import executions as executions
from workers.handlers import external as external
from workers.handlers import gates as gates
from workers.handlers import programs as programs
from workers.handlers import signatures as signatures
from workers.handlers import webhooks as webhooks
from workers.handlers.registry import REGISTRY
from workers.security.authorization import authorize, told_of
from workers.security.request import Received


def dispatch(app: Application, received: Received[Any]) -> BaseModel | None:
    """Carry out a command for its principal. Returns the answer, or None if it comes later.

    Raises:
        Denied: no role of the principal allows it, or it names something that the principal may not use. There is an
    audit line.
        DspexError: the command failed; the code says why.
    """
    authorize(received.principal, received.command)
    try:
        return REGISTRY[received.command.type].handler(app, received)
    except Denied as denied:
        told_of(received.principal, received.command, denied)
        raise
