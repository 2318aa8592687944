"""A worker that is stopped while it runs executions, and goes on when others have ended them."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from tests.faults.deployment import NO_MORE, FaultDeployment

ZOMBIES = 100


def stop_until_rescued(deployment: FaultDeployment, environment: Mapping[str, str] = NO_MORE) -> int:
    """Stop a worker past its lease, have another one end what it ran, and let it go on to its own ends.

    Args:
        environment: of the worker that is stopped.

    Returns:
        How many executions it ran.
    """
    gate = uuid4().hex
    # What it has read ahead when it stops comes to the other one a lease later.
    zombie = deployment.work(threads=ZOMBIES, prefetch=1, lease_seconds=2, environment=environment)
    ids = deployment.send(ZOMBIES, gate=gate)
    deployment.wait(lambda: deployment.running(ids) == ZOMBIES, "all run")
    zombie.stop()
    deployment.history.open_gate(gate)
    rescuer = deployment.work(threads=ZOMBIES, lease_seconds=3)
    deployment.wait_until_ended(ids)
    zombie.resume()
    deployment.wait(lambda: _returned(deployment, zombie.pid) == ZOMBIES, "what it ran has ended")
    assert zombie.terminate() == 0
    assert rescuer.terminate() == 0
    return ZOMBIES


def _returned(deployment: FaultDeployment, pid: int) -> int:
    return sum(record["pid"] == pid for record in deployment.history.records("returned"))
