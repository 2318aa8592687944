"""Row 18: Redis is a cache. What it forgets, or takes with it, the database has."""

from __future__ import annotations

from collections.abc import Callable

import redis

from deploy.local_servers import RedisServer
from dspex.client.remote import RemoteClient
from tests.faults.deployment import FaultDeployment

Passed = Callable[..., None]


def test_redis_forgets_and_dies(
    deployment: FaultDeployment, redis_server: Callable[[], RedisServer], passed: Passed
) -> None:
    server = redis_server()
    deployment.work(threads=8, redis_url=server.url)
    deployment.send(50, sleep=0.1)
    with redis.Redis.from_url(server.url) as cache:
        cache.flushall()
    deployment.send(50, sleep=0.1)
    server.kill()
    deployment.send(50, sleep=0.1)
    with RemoteClient(deployment.broker_url, source="/faults") as client:
        answered = client.execute_program(deployment.program_id, {"size": 3})
        verdict = deployment.judge()
        outputs = [client.get_execution(id_).outputs or {} for id_ in deployment.confirmed]
    assert (answered.outputs or {})["answer"] == "xxx"
    assert [output["answer"] for output in outputs] == ["x"] * 150
    passed(18, "FLUSHALL and SIGKILL of Redis", 2, verdict, "results from the database: 150 of 150")
