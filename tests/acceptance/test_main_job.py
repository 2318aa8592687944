"""The main job on RabbitMQ and PostgreSQL, from producers that share nothing with the workers but the broker."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from tests.acceptance.deployment import deployed
from tests.acceptance.node import installed
from tests.conftest import new_database, pooled
from tests.deployment import Deployment
from tests.poison import bad_messages, envelope
from tests.virtual_hosts import RabbitMQWithHosts

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples" / "bare_producers"


@pytest.fixture(scope="module", params=["direct", "pooled"])
def deployment(
    request: pytest.FixtureRequest,
    shared_rabbitmq: RabbitMQWithHosts,
    postgres_url: str,
    servers_directory: Path,
    tmp_path_factory: Any,
) -> Iterator[Deployment]:
    """Two worker processes; pooled: all of it, `dspex migrate` too, behind PgBouncer in transaction mode."""
    with ExitStack() as ending:
        database_url = ending.enter_context(new_database(postgres_url))
        if request.param == "pooled":
            database_url = ending.enter_context(pooled(database_url, servers_directory))
        logs = tmp_path_factory.mktemp("workers")
        yield ending.enter_context(deployed(shared_rabbitmq.at_another_host().url, database_url, logs))


@pytest.fixture(scope="module")
def program_ids(deployment: Deployment) -> list[str]:
    """20 programs, made by the producer."""
    ids = produce(deployment, "programs", "mock", "20").split()
    ready = "SELECT count(*) FROM programs WHERE status = 'ready'"
    deployment.wait(lambda: deployment.scalar(ready) == 20, "20 programs are ready")
    return ids


def produce(deployment: Deployment, *arguments: str) -> str:
    """Run the producer's process."""
    command = [sys.executable, str(HERE / "producer.py"), deployment.broker_url, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


SNAPSHOT = """
SELECT id, program_id, status, attempt, lock_version, started_at, finished_at, outputs::text FROM executions ORDER BY id
"""
COUNTERS = """
SELECT p.id, coalesce((SELECT sum(completed) FROM program_counters c WHERE c.program_id = p.id), 0),
             coalesce((SELECT sum(failed) FROM program_counters c WHERE c.program_id = p.id), 0),
             (SELECT count(*) FROM executions e WHERE e.program_id = p.id AND e.status = 'completed'),
             (SELECT count(*) FROM executions e WHERE e.program_id = p.id AND e.status = 'failed')
FROM programs p
"""


def test_2000_executions_of_20_programs_published_twice_are_run_and_counted_once(
    deployment: Deployment, program_ids: list[str]
) -> None:
    assert produce(deployment, "executions", "2000", *program_ids).strip() == "2000"
    ended = "SELECT count(*) FROM executions WHERE status IN ('completed', 'failed')"
    deployment.wait(lambda: deployment.scalar(ended) == 2000, "2,000 executions have ended")
    assert deployment.scalar("SELECT count(*) FROM executions") == 2000
    assert deployment.scalar("SELECT count(*) FROM executions WHERE status = 'completed' AND attempt = 1") == 2000
    assert deployment.scalar("SELECT count(DISTINCT worker) FROM executions") == 2
    assert [row[1:] for row in deployment.rows(COUNTERS)] == [(100, 0, 100, 0)] * 20

    # Again, and 200 new ones behind them: when those have ended, the duplicates have been handled.
    before = deployment.rows(SNAPSHOT)
    with listening(deployment, "default.dspex.execution.completed.v1") as heard:
        assert produce(deployment, "executions", "2200", *program_ids).strip() == "2200"
        deployment.wait(lambda: deployment.scalar(ended) == 2200, "200 more have ended")
        deployment.wait(lambda: deployment.scalar("SELECT count(*) FROM event_outbox") == 0, "no event is left")
        deployment.wait(lambda: heard() == 200, "the new ones are told of, and they alone")
    assert set(before) <= set(deployment.rows(SNAPSHOT))
    assert [row[1:] for row in deployment.rows(COUNTERS)] == [(110, 0, 110, 0)] * 20
    assert deployment.scalar("SELECT count(*) FROM rejected_messages") == 0


def test_a_bare_amqp_client_in_python_produces(deployment: Deployment, program_ids: list[str]) -> None:
    command = [sys.executable, str(EXAMPLES / "publish.py"), deployment.broker_url, program_ids[0]]
    check_produced(deployment, [*command, json.dumps({"question": "from pika"})], "from pika")


@pytest.fixture(scope="module")
def node_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producers in Node, with what they need."""
    return installed(EXAMPLES, tmp_path_factory.mktemp("producers"))


def test_a_bare_amqp_client_in_node_produces(
    deployment: Deployment, program_ids: list[str], node_examples: Path
) -> None:
    command = ["node", str(node_examples / "publish.mjs"), deployment.broker_url, program_ids[0]]
    check_produced(deployment, [*command, json.dumps({"question": "from amqplib"})], "from amqplib")


def test_a_bare_amqp_client_in_node_is_answered(
    deployment: Deployment, program_ids: list[str], node_examples: Path
) -> None:
    ask = ["node", str(node_examples / "ask.mjs"), deployment.broker_url, program_ids[0]]
    rows = [json.dumps({"question": f"question {number}"}) for number in range(20)]
    asked = subprocess.run([*ask, *rows], check=True, capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [answer["inputs"]["question"] for answer in answers] == [f"question {number}" for number in range(20)]
    assert {answer["status"] for answer in answers} == {"completed"}
    completed = "SELECT outputs FROM executions WHERE id = :id AND status = 'completed'"
    for answer in answers:
        assert deployment.scalar(completed, id=uuid.UUID(answer["execution_id"])) == answer["outputs"]


def test_a_bare_amqp_client_in_node_is_told_why_it_is_refused(deployment: Deployment, node_examples: Path) -> None:
    ask = ["node", str(node_examples / "ask.mjs"), deployment.broker_url, str(uuid.uuid4()), "{}"]
    asked = subprocess.run(ask, check=False, capture_output=True, text=True, timeout=60)
    assert asked.returncode == 1
    assert "not_found" in asked.stderr


def check_produced(deployment: Deployment, command: list[str], question: str) -> None:
    """Run a producer that prints the id of its execution; it completes."""
    produced = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    execution_id = uuid.UUID(produced.stdout.split()[-1])
    completed = "SELECT inputs ->> 'question' FROM executions WHERE id = :id AND status = 'completed'"
    deployment.wait(lambda: deployment.scalar(completed, id=execution_id) == question, "the execution completed")


def test_what_cannot_be_taken_is_recorded_and_dead_lettered_and_the_next_good_message_runs(
    deployment: Deployment, program_ids: list[str]
) -> None:
    bad = bad_messages(program_ids[0])
    good: list[str] = []
    connection = pika.BlockingConnection(pika.URLParameters(deployment.broker_url))
    channel = connection.channel()
    channel.confirm_delivery()
    for queue in (PROGRAMS_QUEUE, EXECUTIONS_QUEUE):
        for body, _ in bad.values():
            channel.basic_publish("", queue, body)
            message = envelope(program_ids[1])
            good.append(message["data"]["execution_id"])
            channel.basic_publish(COMMANDS_EXCHANGE, message["type"], json.dumps(message).encode())
    completed = "SELECT count(*) FROM executions WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'completed'"
    deployment.wait(lambda: deployment.scalar(completed, ids=good) == len(good), "the good ones completed")
    deployment.wait(
        lambda: deployment.scalar("SELECT count(*) FROM rejected_messages") == 2 * len(bad), "all are recorded"
    )
    recorded = deployment.rows("SELECT queue, body, error_code, error_message, body_size FROM rejected_messages")
    for name, (body, code) in bad.items():
        for queue in (PROGRAMS_QUEUE, EXECUTIONS_QUEUE):
            found = [row for row in recorded if (row[0], row[4]) == (queue, len(body)) and body.startswith(row[1])]
            assert [row[2] for row in found if row[2] == code] == [code], (name, queue, found)
    deployment.wait(
        lambda: dead_letters(channel, PROGRAMS_QUEUE) == dead_letters(channel, EXECUTIONS_QUEUE) == len(bad),
        "all are dead-lettered",
    )
    connection.close()


def test_a_message_of_an_unknown_type_on_the_exchange_is_recorded(
    deployment: Deployment, program_ids: list[str]
) -> None:
    message = envelope(program_ids[0], type="dspex.program.dance.v1")
    connection = pika.BlockingConnection(pika.URLParameters(deployment.broker_url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(COMMANDS_EXCHANGE, message["type"], json.dumps(message).encode(), mandatory=True)
    connection.close()
    recorded = "SELECT count(*) FROM rejected_messages WHERE message_id = :id AND message_type = :type"
    deployment.wait(lambda: deployment.scalar(recorded, id=message["id"], type=message["type"]) == 1, "it is recorded")


def dead_letters(channel: Any, queue: str) -> int:
    """How many messages were dead-lettered from a queue."""
    count: int = channel.queue_declare(f"{queue}.XQ", passive=True).method.message_count
    return count


@contextmanager
def listening(deployment: Deployment, key: str) -> Generator[Callable[[], int]]:
    """A queue of its own on the exchange of events; the function says how many have come."""
    connection = pika.BlockingConnection(pika.URLParameters(deployment.broker_url))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EVENTS_EXCHANGE, key)
    yield lambda: channel.queue_declare(queue, passive=True).method.message_count
    connection.close()
