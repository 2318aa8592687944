"""Every kind of fault at random, beside load of two tenants, and a checker at the end: `make torture` does so for long.

| variable                     |                                                             |
|------------------------------|-------------------------------------------------------------|
| `DSPEX_TEST_SEED`            | of all chance; timing has its own                           |
| `DSPEX_TEST_TORTURE_SECONDS` | how long faults happen under torture: ten minutes           |
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.local_servers import PostgresServer, RabbitMQServer, RedisServer
from dspex.webhooks import new_secret
from tests.conftest import new_database
from tests.faults.aftermath import Inspector, wrong
from tests.faults.backlog import NETS, Watch
from tests.faults.conftest import RESULT
from tests.faults.fleet import Deliverer, Fleet
from tests.faults.load import Hands, Ledger, Load
from tests.faults.random_faults import KINDS, Faults, Scene
from tests.faults.steering import Steering
from tests.faults.tenants import TenantsDeployment
from tests.roles import Roles
from tests.sizes import TORTURE, sized
from tests.webhook_receiver import WebhookReceiver

SEED = int(os.environ.get("DSPEX_TEST_SEED", "14"))
SECONDS = sized(10, int(os.environ.get("DSPEX_TEST_TORTURE_SECONDS", "600")))
QUIET_SECONDS = sized(60, 400)
LEASE = sized(2, 3)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.mark.timeout(SECONDS + QUIET_SECONDS + 300)
def test_every_kind_of_fault_at_random(
    postgres: PostgresServer,
    rabbitmq: RabbitMQServer,
    redis_server: Callable[[], RedisServer],
    receiver: WebhookReceiver,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    with ExitStack() as stack:
        database_url = stack.enter_context(new_database(postgres.url))
        roles = stack.enter_context(Roles.made(database_url))
        cache = redis_server()
        deployment = TenantsDeployment(
            rabbitmq,
            roles,
            database_url,
            tmp_path,
            secret=new_secret(),
            DSPEX_LEASE_SECONDS=str(LEASE),
            DSPEX_REDIS_URL=cache.url,
            DSPEX_SHUTDOWN_SECONDS="5",
            DSPEX_WEBHOOK_HOSTS=f"127.0.0.1:{receiver.port}",
            DSPEX_WEBHOOK_TIMEOUT="2",
            DSPEX_WEBHOOK_RETRIES="0" + ",1" * 49,
        )
        stack.callback(deployment.close)
        ledger = Ledger()
        load = Load(deployment, ledger, SEED, rate=sized(12, 14), webhooks=receiver.url())
        fleet = stack.enter_context(Fleet(deployment, sized(2, 3), threads=8))
        deliverer = stack.enter_context(Deliverer(deployment))
        scene = Scene(deployment, postgres, cache, fleet, deliverer, load, LEASE)
        receiver.script = scene.answer
        steering, watch = Steering(deployment, ledger, SEED), Watch(deployment)
        faults = Faults(scene, tuple(kind for kind in KINDS if kind.quick or TORTURE), pause=sized(1, 2))

        stop, began = threading.Event(), time.monotonic()
        with ThreadPoolExecutor() as crew:
            working = [
                crew.submit(load.run, stop),
                crew.submit(Hands(deployment, ledger, SEED).run, stop),
                crew.submit(steering.run, stop),
                crew.submit(watch.run, stop),
                *(crew.submit(faults.run, stop, SEED + number) for number in range(2)),
            ]
            wait(working, SECONDS, FIRST_EXCEPTION)
            stop.set()
        for future in working:
            future.result()
        load.close(100)
        fleet.rest()
        left = until_nothing_is_wrong(deployment, ledger, steering)
        steering.close()
        quiet = time.monotonic() - began - SECONDS

        threads = [worker.threads() for worker in fleet.workers]
        logs = {log: log.read_text(errors="replace") for log in tmp_path.glob("*.log")}
        lines = sum(log.count("\n") for log in logs.values())
        told = [
            f"seed {SEED}, {SECONDS} s of faults, quiet after {quiet:.0f} s, wrong {len(left)}, lines of log {lines}",
            f"asked {len(ledger.asked)}, confirmed {len(ledger.confirmed)}, workers {len(deployment.workers)}",
            f"sent and done: {dict(sorted(ledger.done.items()))}",
            f"looks at the backlog {watch.looks}, batches {len(ledger.batches)}",
            f"faults {faults.happened.total()}: {dict(sorted(faults.happened.items()))}",
        ]
        request.node.user_properties.extend((RESULT, line) for line in told)
        problems = [
            *left,
            *(f"at some moment: {line}" for line in watch.wrong),
            *faults.broken,
            *fleet.strange,
            *(f"threads: {alive} of {started} live" for alive, started in threads if alive != started),
            *(f"{log.name}: {excerpt(text)}" for log, text in logs.items() if "Traceback" in text),
            *(f"{log.name}: {net}" for log, text in logs.items() for net in NETS if net in text),
        ]
        if problems:
            kept = Path(shutil.copytree(tmp_path, f"{tmp_path}-kept"))
            pytest.fail("\n".join([*told, f"logs and history: {kept}", *problems[:60]]), pytrace=False)


def until_nothing_is_wrong(deployment: TenantsDeployment, ledger: Ledger, steering: Steering) -> list[str]:
    """Let go what is paused or limited, and look, until all is as promised or the time is over; returns what is not."""
    inspector, deadline = Inspector(deployment), time.monotonic() + QUIET_SECONDS
    while True:
        steering.end()
        left = wrong(ledger, inspector.look())
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(1)


def excerpt(log: str) -> str:
    """The first traceback of a log."""
    at = log.index("Traceback")
    return log[max(0, at - 500) : at + 3000]
