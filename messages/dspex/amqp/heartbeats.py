"""How soon a broker that has gone silent is noticed, on every connection of ours."""

from __future__ import annotations

from typing import Any

from pika import URLParameters

DEFAULT_HEARTBEAT = 30
"""Seconds, where the URL of the broker sets none."""

SHORTEST_HEARTBEAT = 6
"""Seconds; with a shorter one in the URL, silence is noticed as late as with this one."""

_SLACK = 5


def notice_silence(parameters: URLParameters) -> None:
    """Have pika end a connection that has been silent for two heartbeats of the URL, or before.

    pika looks every heartbeat + 5 s whether anything has come since it looked last (1.4.4, `pika/heartbeat.py`), so it
    may take 2 x (heartbeat + 5 s). It is asked for a heartbeat that is 5 s shorter; the client's wish decides. 0 stays
    0: no heartbeats.
    """
    given: Any = parameters.heartbeat  # a number: nobody gives pika the function that it would take, too
    asked: int = DEFAULT_HEARTBEAT if given is None else given
    parameters.heartbeat = max(asked - _SLACK, SHORTEST_HEARTBEAT - _SLACK) if asked else 0
