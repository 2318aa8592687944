"""A worker that serves some of all that waits: it takes every command off the broker, and leaves the rest to others."""

from __future__ import annotations

import logging

import pytest

from dspex import ExecutionOptions, ExecutionStatus
from dspex.client.remote import RemoteClient
from dspex.contract.options import Lane
from tests.contract.interface import ready, working
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.cli.worker import _tell_served
from workers.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(own_amqp_url: str, migrated_database_url: str) -> Settings:
    amqp.check(own_amqp_url)
    return Settings(database_url=migrated_database_url, broker_url=own_amqp_url, threads=4, log_level="WARNING")


def served(settings: Settings, **given: object) -> Settings:
    return settings.model_copy(update={f"serve_{name}": value for name, value in given.items()})


def test_what_one_worker_does_not_serve_waits_for_another(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    only = served(settings, lanes=(Lane.HIGH,), adapters=("mock",))
    with RemoteClient(settings.broker_url, source="/tests") as client:
        with working(only) as app:
            program_id = ready(client).program_id
            high = client.submit_program(program_id, {"question": "?"}, options=ExecutionOptions(lane=Lane.HIGH))
            assert high.execution(30).status == ExecutionStatus.COMPLETED
            left = client.submit_program(program_id, {"question": "?"})
            again = client.submit_program(program_id, {"question": "!"}, options=ExecutionOptions(lane=Lane.HIGH))
            assert again.execution(30).status == ExecutionStatus.COMPLETED  # after the other was written down
            wait_until(lambda: left.status() == ExecutionStatus.PENDING, "it is accepted")
            with caplog.at_level(logging.INFO, "workers.cli.worker"):
                _tell_served(app)
            told = "It runs what is of lanes high; adapters mock. Everything else waits for other workers."
            assert told in caplog.text
            metrics = (it for it in app.metrics.registry.collect() if it.name == "dspex_serves_info")
            names = {(sample.labels["kind"], sample.labels["name"]) for it in metrics for sample in it.samples}
            assert names == {("lanes", "high"), ("adapters", "mock")}
            assert left.status() == ExecutionStatus.PENDING
        with working(settings):
            assert left.execution(30).status == ExecutionStatus.COMPLETED
            assert [step.status for step in left.execution(0).timeline] == ["pending", "running", "completed"]
