"""What a worker loses that acks what came over a connection that is gone: arranged so that it does."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from uuid import UUID

from dspex import ExecuteProgram, ExecutionOptions, uuid7
from dspex.amqp.topology import EXECUTIONS_QUEUE
from store import executions
from store.executions import Lease, Request
from tests.faults.deployment import NO_MORE, FaultDeployment
from tests.tcp_proxy import TcpProxy
from workers.persistence.group_commit import MAX_LATER_SECONDS


def cut_and_kill(deployment: FaultDeployment, environment: Mapping[str, str] = NO_MORE) -> None:
    """Cut a worker's connection while it holds messages that it cannot accept yet, then kill it.

    The worker has taken four messages off the broker, and another session keeps their rows from it. The connection is
    cut; the new one brings those four again, with smaller tags, and then as many new ones as it takes for the old tags
    to name, on the new connection, messages that nobody has accepted. The four become rows, and are acked: by their old
    tags alone, this takes the others off the broker. They are still in memory when the worker is killed.

    Args:
        environment: of the worker that dies.
    """
    old, new = [uuid7() for _ in range(4)], [uuid7() for _ in range(12)]
    with TcpProxy(deployment.broker_url) as proxy, ExitStack() as first, ExitStack() as second:
        worker = deployment.work(threads=4, prefetch=64, broker_url=proxy.url, environment=environment)
        deployment.wait_until_ended(deployment.send(8))  # tags 1 to 8
        first.enter_context(_kept_away(deployment, old))
        _send(deployment, old)  # 9 to 12
        accepted = proxy.accepted
        proxy.cut()
        deployment.wait(lambda: proxy.accepted >= accepted + 3, "it connects again")
        second.enter_context(_kept_away(deployment, new))
        _send(deployment, new)  # 5 to 16
        first.close()
        deployment.wait_until_ended(old)
        # What came by the old connection was put off, and is accepted last. Nothing tells when.
        time.sleep(MAX_LATER_SECONDS + 1)
        worker.kill()


def _send(deployment: FaultDeployment, ids: list[UUID]) -> None:
    """Publish executions, and wait until a worker has them in memory."""
    for id_ in ids:
        command = ExecuteProgram(execution_id=id_, program_id=deployment.program_id, inputs={})
        deployment.publish(command).result(100)
    deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 0, "all are in memory")


@contextmanager
def _kept_away(deployment: FaultDeployment, ids: list[UUID]) -> Generator[None]:
    """Nobody else can insert these rows: they are inserted here, and in the end they were not."""
    asked = [Request(id_, deployment.program_id, {}, ExecutionOptions(), "/faults") for id_ in ids]
    with deployment.engine.connect() as connection:
        executions.claim(connection, Lease("nobody", 60), asked, now=[True] * len(asked))
        yield
        connection.rollback()
