"""`dspex deploy` over RabbitMQ: the workers build the program and run its check, and the command needs no database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.click_runner import runner
from tests.contract.interface import working
from tests.queues import declare_empty
from workers.cli.main import main
from workers.settings import Settings

FILE = """
name = "triage"
signature = "ticket -> urgency: Literal['low', 'high']"
adapter_type = "mock"

[check]
ticket = "It is on fire."
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "triage.toml"
    file.write_text(FILE, encoding="utf-8")
    return file


def test_by_the_workers(file: Path, own_amqp_url: str, migrated_database_url: str) -> None:
    declare_empty(own_amqp_url)
    environment = {"DSPEX_BROKER_URL": own_amqp_url, "DSPEX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    with working(Settings(broker_url=own_amqp_url, database_url=migrated_database_url, threads=2)):
        made = runner().invoke(main, ["deploy", str(file), "--yes", "--json"], env=environment)
        assert made.exit_code == 0, made.stderr
        told = json.loads(made.stdout)
        assert told["program"]["status"] == "ready"
        assert told["check"]["status"] == "completed"
        again = runner().invoke(main, ["deploy", str(file)], env=environment)
        assert (again.exit_code, "is as the deployment says" in again.stdout) == (0, True)
        tenant = runner().invoke(main, ["deploy", str(file), "--tenant", "acme"], env=environment)
        assert (tenant.exit_code, tenant.stderr.startswith("dspex: --tenant: there is one tenant")) == (2, True)


def test_without_a_broker(file: Path) -> None:
    refused = runner().invoke(main, ["deploy", str(file)], env={"DSPEX_BROKER_URL": "amqp://127.0.0.1:1/"})
    assert refused.exit_code == 2
    assert refused.stderr.startswith("dspex: ")
    assert "127.0.0.1:1" in refused.stderr
