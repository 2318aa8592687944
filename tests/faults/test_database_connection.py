"""Row 7: nobody knows whether a commit was made; and row 23: connections are fewer than threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.local_servers import PostgresServer
from dspex.client.remote import RemoteClient
from tests.faults.deployment import FaultDeployment
from tests.faults.worker import POOL
from tests.tcp_proxy import TcpProxy

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_cut_at_the_commit(deployment: FaultDeployment, passed: Passed, sized: Sized, answered: bool) -> None:
    """`before`: the server never gets it. `after`: it commits, and its answer is lost."""
    cuts = sized(10, 100)
    url = deployment.engine.url.render_as_string(hide_password=False)
    with TcpProxy(url) as proxy:
        worker = deployment.work(threads=4, database_url=proxy.url)
        for _ in range(cuts):
            cut = proxy.cut_at(b"COMMIT", answered=answered)
            ids = deployment.send(5, sleep=0.02)
            assert cut.wait(30)
            deployment.wait_until_ended(ids)
        verdict = deployment.judge()
        assert worker.alive
    passed(7, f"cut {'after' if answered else 'before'} the server has the COMMIT", cuts, verdict)


def test_killed_at_any_time(
    deployment: FaultDeployment, postgres: PostgresServer, passed: Passed, sized: Sized
) -> None:
    """As by `pg_ctl stop -m immediate`, and less orderly: every process of the server is killed at once."""
    kills = sized(2, 20)
    workers = [deployment.work(threads=8) for _ in range(2)]
    for _ in range(kills):
        before = len(deployment.confirmed)
        deployment.send(100, sleep=0.05)
        deployment.wait(lambda before=before: deployment.ended(deployment.confirmed) > before + 20, "some")  # type: ignore[misc]
        postgres.kill()
        deployment.send(20)
        postgres.start()
    verdict = deployment.judge()
    assert all(alive == started for alive, started in (worker.threads() for worker in workers))
    passed(7, "kill -9 PostgreSQL under load", kills, verdict)


def test_more_threads_than_connections(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Every thread writes, reads what was asked for, and answers."""
    worker = deployment.work(threads=32, environment={POOL: "2"})
    deployment.send(sized(200, 5_000), sleep=0.02)
    with RemoteClient(deployment.broker_url, source="/faults") as client, ThreadPoolExecutor(16) as clients:

        def ask(number: int) -> None:
            client.get_program_statistics(deployment.program_id)
            client.list_executions(program_id=deployment.program_id, limit=10)
            found = client.execute_program(deployment.program_id, {"sleep": 0.01})
            client.get_execution(found.execution_id)

        assert len(list(clients.map(ask, range(sized(100, 2_000))))) == sized(100, 2_000)
    verdict = deployment.judge()
    alive, started = worker.threads()
    assert alive == started
    passed(23, "32 threads, 2 connections to the database", verdict.jobs, verdict)
