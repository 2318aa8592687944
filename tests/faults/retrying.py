"""Attempts that fail while the broker refuses connections."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from tests.faults.deployment import NO_MORE, FaultDeployment
from tests.tcp_proxy import TcpProxy

RETRIED = 100


def fail_while_refused(deployment: FaultDeployment, proxy: TcpProxy, environment: Mapping[str, str] = NO_MORE) -> None:
    """Have the first attempts of executions fail while the broker is away, for longer than the pause before the second.

    Args:
        proxy: before the broker.
        environment: of the worker.
    """
    gate = uuid4().hex
    deployment.work(threads=RETRIED, broker_url=proxy.url, lease_seconds=3, environment=environment)
    ids = deployment.send(RETRIED, gate=gate, fail="transient", times=1)
    deployment.wait(lambda: deployment.running(ids) == RETRIED, "all run")
    proxy.refuse()
    proxy.cut()
    deployment.history.open_gate(gate)
    # The second attempts need no broker. Without the protection they do, and wait.
    settled = "(status = 'completed' OR status = 'pending' AND updated_at < clock_timestamp() - interval '2.5 seconds')"
    deployment.wait(lambda: deployment.count(settled, ids) == RETRIED, "all have run again, or wait for long")
    proxy.accept()
