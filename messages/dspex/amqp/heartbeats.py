"""Heartbeats: how soon each of our connections notices a broker that has gone silent."""

from __future__ import annotations

from typing import Any

from pika import URLParameters

DEFAULT_HEARTBEAT = 30
"""Seconds, if the URL of the broker sets none."""

SHORTEST_HEARTBEAT = 6
"""Seconds. A shorter heartbeat in the URL does not make silence noticed any sooner than this one."""

_SLACK = 5


def notice_silence(parameters: URLParameters) -> None:
    """Have pika end a connection within two heartbeats (as the URL sets them) of silence.

    pika 1.4.4 checks every heartbeat + 5 s whether anything has come since its last check (`pika/heartbeat.py`), so it
    needs up to 2 x (heartbeat + 5 s). Therefore we ask for a heartbeat that is 5 s shorter; the broker follows the
    client. 0 stays 0: no heartbeats.
    """
    given: Any = parameters.heartbeat  # a number: pika also takes a function, but a URL cannot give one
    asked: int = DEFAULT_HEARTBEAT if given is None else given
    parameters.heartbeat = max(asked - _SLACK, SHORTEST_HEARTBEAT - _SLACK) if asked else 0
