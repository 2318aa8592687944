"""The Python of README.md and of pages of docs/: messages, client, deploy, webhooks; against a worker and RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from dspex import ExecutionStatus, ProgramStatus
from dspex.client.remote import RemoteClient
from dspex.producer import Producer
from tests.contract.interface import ready, working
from tests.pages import block
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_url")]

SIGNATURE = "question -> answer, confidence: float"


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the worker's blobs."""
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="module")
def broker_url(own_amqp_url: str, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ with a worker."""
    amqp.check(own_amqp_url)
    database_url = f"sqlite:///{tmp_path_factory.mktemp('pages') / 'dspex.db'}"
    settings = Settings(
        database_url=database_url, broker_url=own_amqp_url, threads=4, log_level="WARNING", blobs=str(blobs)
    )
    with working(settings):
        yield own_amqp_url


@pytest.fixture
def client(broker_url: str) -> Iterator[RemoteClient]:
    with RemoteClient(broker_url, source="/tests") as client:
        yield client


def run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block with these names; what it makes comes to them."""
    exec(compile(code, "a page", "exec"), names)
    return names


def put(code: str, old: str, new: str) -> str:
    """The block with the server of this test, or with what a reader does by hand, in it."""
    assert code.count(old) == 1, old
    return code.replace(old, new)


def test_a_deployment_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(block("docs/deploy.md", "python"), {})
    assert "module None Predict" in capsys.readouterr().out


def test_the_readme_asks_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(block("README.md", "python"), {})
    assert "'answer': " in capsys.readouterr().out


def test_a_producer(client: RemoteClient, broker_url: str) -> None:
    def wait() -> None:
        def statuses() -> list[ProgramStatus]:
            return [program.status for program in client.list_programs(name="qa").items]

        wait_until(lambda: statuses() == [ProgramStatus.READY], "it is built")

    code = put(block("docs/messages.md", "python", "from dspex import CreateProgram"), "amqp://...", broker_url)
    (by_hand,) = (line.strip() for line in code.splitlines() if line.lstrip().startswith("# wait for "))
    names: dict[str, Any] = {"wait": wait}
    run(put(code, by_hand, "wait()"), names)

    def completed() -> bool:
        found = client.list_executions(program_id=names["program_id"]).items
        return [it.status for it in found] == [ExecutionStatus.COMPLETED]

    wait_until(completed, "it has run")


def test_blobs(
    client: RemoteClient,
    broker_url: str,
    blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text("A report.", encoding="utf-8")
    program = ready(client, "document -> answer")
    code = put(put(block("docs/blobs.md", "python"), "amqp://...", broker_url), "/srv/dspex/blobs", str(blobs))
    run(code, {"program_id": program.program_id})
    printed = capsys.readouterr().out
    assert "{'answer': 'mock answer" in printed
    assert printed.endswith("b'A report.'\n")


def test_one_interface(broker_url: str) -> None:
    code = block("docs/client.md", "python", "from dspex.client import RemoteClient  #")
    made = run(put(code, "amqp://...", broker_url), {})
    assert made["execution"].status == ExecutionStatus.COMPLETED


def test_the_page_of_the_client(client: RemoteClient, broker_url: str, redis_url: str) -> None:
    program_id = ready(client, SIGNATURE).program_id
    rows = [{"question": f"{number}"} for number in range(5)]
    names: dict[str, Any] = {"program_id": program_id, "rows": rows}
    code = block("docs/client.md", "python", "from dspex.client import RemoteClient, as_completed")
    run(put(code, "amqp://orders:...@broker:5672/", broker_url), names)
    try:
        assert names["handle"].done()
        run(block("docs/client.md", "python", "import pydantic"), names)
        assert names["Outputs"].model_fields.keys() == {"answer", "confidence"}
        names["handles"] = [client.submit_program(program_id, row) for row in rows]
        run(block("docs/client.md", "python", "from dspex import DspexError"), names)
        run(block("docs/client.md", "python", "created = client.create_execution("), names)
        marked = client.get_execution(names["created"].execution_id)
        assert (marked.status, marked.lock_version) == (ExecutionStatus.COMPLETED, 3)
    finally:
        names["client"].close()
    names["execution_id"] = names["handle"].execution_id
    code = put(block("docs/client.md", "python", "client = RemoteClient("), "amqp://...", broker_url)
    run(put(code, "redis://redis:6379/0", redis_url), names)
    names["client"].close()


def test_a_service_on_asyncio(client: RemoteClient, broker_url: str) -> None:
    code = put(block("docs/client.md", "python", "from contextlib"), "amqp://...", broker_url)
    service = run(code, {"PROGRAM_ID": ready(client, SIGNATURE).program_id})
    app = service["app"]

    async def ask() -> dict[str, Any]:
        async with service["lifespan"](app):
            answer: dict[str, Any] = await service["ask"]("Why?", Request({"type": "http", "app": app}))
            return answer

    assert set(asyncio.run(ask())) == {"answer", "confidence"}
    assert [route.path for route in app.routes if getattr(route, "endpoint", None) is service["ask"]] == ["/questions"]


def test_three_ways_to_a_webhook(client: RemoteClient, broker_url: str) -> None:
    names: dict[str, Any] = {"dspex": client, "program_id": ready(client, SIGNATURE).program_id}
    with Producer.connect(broker_url, source="/orders") as names["producer"]:
        run(block("docs/webhooks.md", "python", "from dspex import Callback"), names)
    assert [endpoint.callback for endpoint in client.list_endpoints().items] == [names["callback"]]
