"""examples/fastapi_service under uvicorn, beside a `dspex worker`: a question is asked, and its answer served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import make_url
from standardwebhooks import Webhook

import migrations
from deploy.processes import Process, free_port, start_time
from dspex import Configuration, ErrorDetail, ExecutionCompleted, ExecutionFailed, uuid7, wrap
from dspex.client.remote import RemoteClient
from dspex.contract.events import Event, ExecutionEnded
from dspex.contract.status import ExecutionStatus
from dspex.webhooks import new_secret
from store.database.engine import make_engine
from tests.conftest import new_database
from tests.deployment import environment_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fastapi_service"
PATIENCE = 90.0
SECRET = new_secret()


class Answer(NamedTuple):
    status: int
    body: Any


class Service(NamedTuple):
    url: str
    database_url: str
    dspex: RemoteClient
    program_id: UUID

    def call(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, json.loads(response.read() or b"null"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read() or b"null"))

    def ask(self, text: str) -> str:
        asked = self.call("/questions", json.dumps({"text": text}).encode())
        assert (asked.status, asked.body["status"], asked.body["outputs"]) == (202, "pending", None)
        question_id: str = asked.body["id"]
        return question_id

    def answer(self, question_id: str) -> dict[str, Any]:
        """The question, once it has ended."""
        wait_until(lambda: self.shown(question_id)["status"] != "pending", "the answer is served", PATIENCE)
        return self.shown(question_id)

    def shown(self, question_id: str) -> dict[str, Any]:
        answer = self.call(f"/questions/{question_id}")
        assert answer.status == 200
        shown: dict[str, Any] = answer.body
        return shown

    def count(self, table: str) -> int:
        url = make_url(self.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        count: int = row[0]
        return count


@contextmanager
def running(log: Path, environment: dict[str, str], *command: str) -> Generator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        family = Process(process.pid, start_time(process.pid) or 0, signal.SIGTERM, process).family()
        process.terminate()
        try:
            process.wait(30)
        finally:
            for member in family:
                member.send(signal.SIGKILL)
            process.wait(PATIENCE)


def wait_until_said(log: Path, process: subprocess.Popen[bytes], text: str) -> None:
    wait_until(lambda: text in log.read_text() or process.poll() is not None, f"it says '{text}'", PATIENCE)
    assert text in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def service(own_amqp_url: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service and a worker with its deliverer, each with a database of its own."""
    logs = tmp_path_factory.mktemp("logs")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with new_database(postgres_url) as workers_database, new_database(postgres_url) as own_database:
        engine = make_engine(workers_database)
        migrations.upgrade(engine)
        engine.dispose()
        settings = {"DSPEX_WEBHOOK_HOSTS": f"127.0.0.1:{port}", "QUESTIONS_WEBHOOK_SECRET": SECRET}
        environment = environment_of(own_amqp_url, workers_database) | settings
        log = logs / "worker.log"
        with (
            running(log, environment, "workers.cli", "worker", "--threads", "4") as worker,
            RemoteClient(own_amqp_url, source="/tests", timeout=PATIENCE) as client,
        ):
            wait_until_said(log, worker, "takes jobs")
            wait_until_said(log, worker, "sends webhooks")
            program_id = client.create_program(
                "qa", "question -> answer", adapter_type="mock", configuration=Configuration()
            ).program_id
            client.initialize_program(program_id)
            bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
            environment = bare | {
                "QUESTIONS_BROKER_URL": own_amqp_url,
                "QUESTIONS_DATABASE_URL": own_database,
                "QUESTIONS_PROGRAM_ID": str(program_id),
                "QUESTIONS_URL": url,
                "QUESTIONS_WEBHOOK_SECRET": f"{new_secret()} {SECRET}",
            }
            log = logs / "service.log"
            arguments = ("--app-dir", str(EXAMPLE), "--port", str(port))
            with running(log, environment, "uvicorn", "service:app", *arguments) as server:
                wait_until_said(log, server, "Uvicorn running")
                yield Service(url, own_database, client, program_id)
            assert "Traceback" not in log.read_text(), log.read_text()


def signed(event: Event, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    """A webhook as DSPex would send it."""
    envelope = wrap(event, source="/dspex/workers")
    body = envelope.encode()
    return body, signature(body, envelope.id, secret)


def signature(body: bytes, webhook_id: str, secret: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, body.decode()),
    }


def completed(question_id: str, service: Service, outputs: dict[str, Any]) -> ExecutionCompleted:
    return ExecutionCompleted(
        execution_id=UUID(question_id), program_id=service.program_id, outputs=outputs, attempt=1, duration_ms=1
    )


def test_a_question_is_answered(service: Service) -> None:
    asked = {service.ask(f"Why is the sky blue, {number}?") for number in range(5)}
    for question_id in asked:
        shown = service.answer(question_id)
        assert shown["status"] == "completed"
        assert shown["outputs"] == service.dspex.get_execution(UUID(question_id)).outputs
    wait_until(lambda: service.count("dspex_outbox") == 0, "what was published is deleted")
    assert service.count("seen_webhooks") >= len(asked)


def test_a_reference_has_the_execution_asked_for(service: Service) -> None:
    question_id = service.ask("What is in the reference?")
    shown = service.answer(question_id)
    other = ErrorDetail(code="auth", message="no")
    failed = ExecutionFailed(
        execution_id=UUID(question_id), program_id=service.program_id, error=other, attempt=1, duration_ms=1
    )
    body, headers = signed(failed)
    assert service.call("/dspex", body, **headers).status == 204
    assert service.shown(question_id) == shown | {"status": "failed", "outputs": None, "error_code": "auth"}
    ended = ExecutionEnded(
        execution_id=UUID(question_id),
        program_id=service.program_id,
        status=ExecutionStatus.COMPLETED,
        attempt=1,
        duration_ms=1,
    )
    body, headers = signed(ended)
    assert service.call("/dspex", body, **headers).status == 204
    assert service.shown(question_id) == shown


def test_a_webhook_that_comes_again_changes_nothing(service: Service) -> None:
    question_id = service.ask("Twice?")
    service.answer(question_id)
    first, headers = signed(completed(question_id, service, {"answer": "first"}))
    for _ in range(2):
        assert service.call("/dspex", first, **headers).status == 204
    second, more = signed(completed(question_id, service, {"answer": "second"}))
    assert service.call("/dspex", second, **more).status == 204
    seen = service.count("seen_webhooks")
    assert service.call("/dspex", first, **headers).status == 204
    assert service.shown(question_id)["outputs"] == {"answer": "second"}
    assert service.count("seen_webhooks") == seen


def test_what_is_not_from_dspex_is_refused(service: Service) -> None:
    question_id = service.ask("Who is it?")
    shown = service.answer(question_id)
    body, headers = signed(completed(question_id, service, {"answer": "forged"}), secret=new_secret())
    seen = service.count("seen_webhooks")
    assert service.call("/dspex", body).status == 401
    assert service.call("/dspex", body, **headers).status == 401
    good, headers = signed(completed(question_id, service, {"answer": "changed"}))
    assert service.call("/dspex", good.replace(b"changed", b"CHANGED"), **headers).status == 401
    assert service.call("/dspex", good + b" " * 300_000, **headers).status == 413
    assert service.call("/dspex", b"no JSON", **signature(b"no JSON", "an id", SECRET)).status == 400
    assert service.shown(question_id) == shown
    assert service.count("seen_webhooks") == seen


def test_questions_that_cannot_be(service: Service) -> None:
    assert service.call(f"/questions/{uuid7()}").status == 404
    questions = service.count("questions")
    assert service.call("/questions", b'{"text": ""}').status == 422
    assert service.count("questions") == questions


def test_a_secret_that_is_none_ends_the_start(tmp_path: Path) -> None:
    environment = os.environ | {
        "QUESTIONS_BROKER_URL": "amqp://guest:guest@localhost/",
        "QUESTIONS_DATABASE_URL": f"sqlite:///{tmp_path / 'questions.db'}",
        "QUESTIONS_PROGRAM_ID": str(uuid7()),
        "QUESTIONS_URL": "https://questions.example.com",
        "QUESTIONS_WEBHOOK_SECRET": "sesame",
    }
    log = tmp_path / "service.log"
    arguments = ("--app-dir", str(EXAMPLE), "--port", str(free_port()))
    with running(log, environment, "uvicorn", "service:app", *arguments) as server:
        wait_until_said(log, server, "a webhook's secret must be 'whsec_'")
        assert server.wait(PATIENCE) != 0
    assert "sesame" not in log.read_text()
