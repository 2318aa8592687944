"""What a worker loses that acks what came over a connection that is gone: arranged so that it does."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from dspex.amqp.topology import EXECUTIONS_QUEUE
from tests.faults.deployment import NO_MORE, FaultDeployment
from tests.tcp_proxy import TcpProxy


def cut_and_kill(deployment: FaultDeployment, environment: Mapping[str, str] = NO_MORE) -> None:
    """Cut a worker's connection while executions run and others wait in its memory, then kill it.

    A worker of four threads runs four executions, and holds four more that it has not begun. The connection is cut; the
    new one brings those four again, with smaller tags, and then as many new executions as it takes for their old tags
    to name, on the new connection, executions that nobody has begun. The threads come free, and take the four: an ack
    by their old tags alone takes the others off the broker. They are still in memory when the worker is killed.

    Args:
        environment: of the worker that dies.
    """
    busy, blocked = uuid4().hex, uuid4().hex
    with TcpProxy(deployment.broker_url) as proxy:
        worker = deployment.work(threads=4, prefetch=64, broker_url=proxy.url, environment=environment)
        deployment.wait_until_ended(deployment.send(8))  # tags 1 to 8
        running = deployment.send(4, gate=busy)  # 9 to 12
        deployment.wait(lambda: deployment.running(running) == 4, "four run")
        waiting = deployment.send(4)  # 13 to 16
        deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 0, "four wait in memory")
        accepted = proxy.accepted
        proxy.cut()
        deployment.wait(lambda: proxy.accepted >= accepted + 3, "it connects again")
        new = deployment.send(8, gate=blocked)
        new += deployment.send(4)
        deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 0, "all wait in memory")
        deployment.history.open_gate(busy)
        deployment.wait_until_ended(running + waiting)
        deployment.wait(lambda: deployment.running(new) == 4, "the threads are busy again")
        worker.kill()
    deployment.history.open_gate(blocked)
