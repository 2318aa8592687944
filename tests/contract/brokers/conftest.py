"""What Dramatiq's worker, and ours, need of a broker: one suite over the in-process one and RabbitMQ's two queues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from tests.contract.brokers.rig import AmqpRig, Jobs, MemoryRig, Rig
from tests.queues import QUEUE_TYPES
from workers.brokers.encoding import CloudEventEncoder


@pytest.fixture(
    scope="module", params=["memory", *(pytest.param(kind, marks=pytest.mark.integration) for kind in QUEUE_TYPES)]
)
def broker_kind(request: pytest.FixtureRequest) -> str:
    """The broker in memory, or the type of RabbitMQ's queues."""
    kind: str = request.param
    return kind


@pytest.fixture
def rig(request: pytest.FixtureRequest, broker_kind: Any) -> Iterator[Rig]:
    rig = MemoryRig() if broker_kind == "memory" else AmqpRig(request.getfixturevalue("own_amqp_url"), broker_kind)
    encoder = dramatiq.get_encoder()
    dramatiq.set_encoder(CloudEventEncoder())
    yield rig
    rig.close()
    dramatiq.set_encoder(encoder)


@pytest.fixture
def jobs(rig: Rig) -> Iterator[Jobs]:
    jobs = Jobs(rig)
    yield jobs
    jobs.stop()
