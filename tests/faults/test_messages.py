"""Rows 11, 13 and 15: the same message many times, messages that are none, and messages of any size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic_core import to_json

from dspex import ExecuteProgram, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.client.remote import RemoteClient
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.errors import MessageTooLarge, RequestFailed
from dspex.producer import Producer
from tests.faults.deployment import FaultDeployment
from tests.faults.poisoning import poison
from workers.brokers.topology import dead_letter_queue

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

CLIENTS = 16
MIB = 1024 * 1024


def test_one_body_many_times_by_many_clients_and_then_another(
    deployment: FaultDeployment, passed: Passed, sized: Sized
) -> None:
    for _ in range(2):
        deployment.work(threads=8)
    number = sized(1_000, 20_000)
    command = ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs={"sleep": 0.2})
    other = command.model_copy(update={"inputs": {"sleep": 0.1}})

    def send(_: int) -> None:
        with Producer.connect(deployment.broker_url, source="/faults") as producer:
            producer.send_all([command] * -(-number // CLIENTS))

    def ask_for_other(_: int) -> str:
        with RemoteClient(deployment.broker_url, source="/faults") as client:
            with pytest.raises(RequestFailed) as refused:
                client.execute_program(deployment.program_id, other.inputs, execution_id=other.execution_id)
            return refused.value.code

    deployment.publish(command).result(30)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, range(CLIENTS)))
        assert set(clients.map(ask_for_other, range(CLIENTS))) == {"conflict"}
    deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 0, "all are taken")
    verdict = deployment.judge()
    assert deployment.scalar("SELECT count(*) FROM executions") == 1
    assert dict(deployment.history.count("call")) == {str(command.execution_id): 1}
    passed(11, f"one body by {CLIENTS} clients, then another body", number, verdict, f"conflicts: {CLIENTS}")


def test_poison_is_recorded_and_what_is_good_runs(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    workers = [deployment.work(threads=4) for _ in range(2)]
    sent = poison(deployment, sized(200, 10_000))
    recorded = "SELECT coalesce(sum(deliveries), 0) FROM rejected_messages"
    deployment.wait(lambda: deployment.scalar(recorded) == sum(sent.values()), "all poison is recorded")
    for queue, number in sent.items():
        dead = dead_letter_queue(queue)
        deployment.wait(lambda d=dead, n=number: deployment.waiting(d) == n, "it is dead-lettered")  # type: ignore[misc]
    verdict = deployment.judge()
    assert deployment.count("status = 'completed'", deployment.confirmed) == len(deployment.confirmed)
    assert all(alive == started for alive, started in (worker.threads() for worker in workers))
    passed(13, "the corpus and random bytes among good jobs", sum(sent.values()), verdict)


def test_sizes_around_the_cap(deployment: FaultDeployment, passed: Passed) -> None:
    worker = deployment.work(threads=4)
    publisher = AmqpPublisher(deployment.broker_url)
    sizes = (MAX_MESSAGE_BYTES - 1, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1, 17 * MIB)
    for size in sizes:
        command = ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs={})
        body = wrap(command, source="/faults").encode().ljust(size)
        publisher.publish(Publication(body, exchange="", routing_key=EXECUTIONS_QUEUE))
        if size <= MAX_MESSAGE_BYTES:
            deployment.confirmed.add(command.execution_id)
    publisher.close()
    deployment.wait(lambda: deployment.scalar("SELECT count(*) FROM rejected_messages") == 2, "two are recorded")
    recorded = "SELECT error_code, body_size, length(body) FROM rejected_messages ORDER BY body_size"
    assert deployment.rows(recorded) == [("message_too_large", size, MAX_MESSAGE_BYTES) for size in sizes[2:]]
    deployment.wait_until_ended(deployment.send())

    told = {"told": f"by {worker.pid} in call 1"}
    room = MAX_MESSAGE_BYTES - len(to_json({"answer": ""} | told))
    [fits], [does_not] = deployment.send(size=room), deployment.send(size=room + 1)
    verdict = deployment.judge()
    codes = dict(deployment.rows("SELECT id, error ->> 'code' FROM executions"))
    assert codes == dict.fromkeys(deployment.confirmed) | {does_not: "invalid_output"}
    assert fits in codes
    alive, started = worker.threads()
    assert alive == started
    passed(15, "messages and outputs at the cap, +-1 byte, 17 MiB", len(sizes) + 2, verdict)


def test_a_producer_does_not_send_what_is_over_the_cap(deployment: FaultDeployment) -> None:
    command = ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs={"gate": ""})
    room = MAX_MESSAGE_BYTES - len(wrap(command, source="/faults").encode())
    with Producer.connect(deployment.broker_url, source="/faults") as producer:
        producer.send(command.model_copy(update={"inputs": {"gate": "x" * room}}))
        with pytest.raises(MessageTooLarge, match=str(MAX_MESSAGE_BYTES + 1)):
            producer.send(command.model_copy(update={"inputs": {"gate": "x" * (room + 1)}}))
    deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 1, "one is there")
