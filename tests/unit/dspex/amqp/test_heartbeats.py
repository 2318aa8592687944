"""Silence of the broker is noticed within two heartbeats of the URL: pika looks every (its heartbeat + 5 s)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pika import URLParameters

from dspex.amqp.url import amqp_parameters
from workers.brokers.amqp import connection_parameters

URL = "amqp://guest:guest@127.0.0.1:5672/%2F"


@pytest.mark.parametrize("parameters", [amqp_parameters, connection_parameters])
@pytest.mark.parametrize(
    ("query", "promised", "asked"),
    [("", 30, 25), ("?heartbeat=60", 60, 55), ("?heartbeat=6", 6, 1), ("?heartbeat=1", 6, 1)],
)
def test_pika_is_asked_for_a_shorter_one(
    parameters: Callable[[str], URLParameters], query: str, promised: int, asked: int
) -> None:
    assert parameters(URL + query).heartbeat == asked
    assert 2 * (asked + 5) <= 2 * promised


@pytest.mark.parametrize("parameters", [amqp_parameters, connection_parameters])
def test_none_stays_none(parameters: Callable[[str], URLParameters]) -> None:
    assert parameters(f"{URL}?heartbeat=0").heartbeat == 0
