"""Rows 31 to 36: a backlog, a blip, a deploy. Nothing dies here, and all that was confirmed ends once.

31 a worker is frozen in a transaction; 32 many actions are refused; 33 nobody takes what is due; 34 a right or a table
is away; 35 answers go nowhere; 36 workers come and go, among the variables of a cluster.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from dspex import ExecuteProgram, ExecutionOptions, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, QUEUES
from dspex.client.remote import RemoteClient
from dspex.errors import DspexError
from tests.faults.deployment import FaultDeployment, Worker
from workers.brokers.topology import dead_letter_queue

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND state = 'idle in transaction' AND state_change < clock_timestamp() - interval '30 ms'"
)

ENDED = "SELECT count(*) FROM executions WHERE finished_at IS NOT NULL"


@contextmanager
def frozen_in_transaction(deployment: FaultDeployment, worker: Worker) -> Generator[None]:
    """Stop a worker until one of its transactions is open, which may take some tries, and let it go on after."""
    for _ in range(500):
        worker.stop()
        time.sleep(0.04)
        if deployment.scalar(IN_TRANSACTION):
            break
        worker.resume()
        time.sleep(random.uniform(0, 0.02))
    else:
        pytest.fail("it is never in a transaction")
    yield
    worker.resume()


def test_a_worker_that_is_frozen_in_a_transaction(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Each message comes twice, so the other worker meets what the frozen one holds: it goes on before that is free."""
    freezes = sized(2, 30)
    workers = [deployment.work(threads=8, lease_seconds=9) for _ in range(2)]  # a session is ended after 3 s
    with feeding(deployment, copies=2):
        for freeze in range(freezes):
            with frozen_in_transaction(deployment, workers[freeze % 2]):
                wanted = deployment.scalar(ENDED) + 20
                deployment.wait(lambda n=wanted: deployment.scalar(ENDED) >= n, "the other goes on")  # type: ignore[misc]
    passed(31, "SIGSTOP in a transaction, another goes on", freezes, deployment.judge())


def test_actions_that_are_refused(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Cancels of what has ended, as fast as eight clients can, in the batches of what runs beside them."""
    number = sized(150, 5_000)
    deployment.work(threads=8)
    ended = deployment.send(20)
    deployment.wait_until_ended(ended)
    with RemoteClient(deployment.broker_url, source="/faults") as client, ThreadPoolExecutor(8) as clients:

        def cancel(execution_id: UUID) -> str:
            try:
                client.cancel_execution(execution_id)
            except DspexError as error:
                return error.code
            return "cancelled"

        answers = clients.map(cancel, itertools.islice(itertools.cycle(ended), number))
        deployment.send(number, sleep=0.01)
        assert set(answers) == {"illegal_transition"}
    verdict = deployment.judge()
    assert deployment.count("status = 'completed'", deployment.confirmed) == number + 20
    passed(32, "cancels that are refused beside executions", number, verdict)


def test_what_is_due_and_nobody_takes(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """It waits in its queue, however long, and nothing is published for it."""
    number, copies = sized(150, 2_000), "faults.copies"
    workers = [deployment.work(threads=1, prefetch=1) for _ in range(2)]
    later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(seconds=sized(2, 20)))
    for _ in range(number):
        deployment.publish(
            ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs={}, options=later)
        )
    deployment.wait(lambda: deployment.count("true", deployment.confirmed) == number, "all are scheduled")
    scheduled = deployment.confirmed.copy()
    deployment.send(20, gate="end")
    with deployment.channel() as channel:
        channel.queue_declare(copies)
        channel.queue_bind(copies, COMMANDS_EXCHANGE, ExecuteProgram.type)
        overdue = "status = 'pending' AND not_before < clock_timestamp() - interval '4 seconds'"
        deployment.wait(lambda: deployment.count(overdue, scheduled) == number, "they are due for four leases")
        published = deployment.waiting(copies)
        channel.queue_delete(copies)
    deployment.history.open_gate("end")
    verdict = deployment.judge(sized(60, 600))
    passed(33, "what is due waits for four leases", number, verdict, f"published {published}")
    assert published == 0
    assert all(worker.alive for worker in workers)


def test_a_right_or_a_table_is_away(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """No good command becomes a dead letter, and nothing ends as failed: it is waited for."""
    role, rounds = f"faults_{uuid7().hex}", sized(1, 20)
    run(deployment, f"CREATE ROLE {role} LOGIN", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    url = deployment.engine.url.set(username=role).render_as_string(hide_password=False)
    worker = deployment.work(threads=8, database_url=url)
    blips = [
        (f"REVOKE {right} ON {table} FROM {role}", f"GRANT {right} ON {table} TO {role}")
        for right, table in [("INSERT", "executions"), ("UPDATE", "program_counters"), ("SELECT", "programs")]
    ]
    blips.append(("ALTER TABLE event_outbox RENAME TO away", "ALTER TABLE away RENAME TO event_outbox"))
    with feeding(deployment):
        for take, give in blips * rounds:
            run(deployment, take)
            time.sleep(0.5)  # any time will do
            run(deployment, give)
            deployment.wait_until_ended(deployment.send(5))
    verdict = deployment.judge()
    passed(34, "a right or a table is away for a while", len(blips) * rounds, verdict)
    assert deployment.count("status = 'completed'", deployment.confirmed) == len(deployment.confirmed)
    assert deployment.scalar("SELECT count(*) FROM rejected_messages") == 0
    assert sum(deployment.waiting(dead_letter_queue(queue)) for queue in QUEUES) == 0
    assert "Traceback" not in worker.log
    worker.kill()
    run(deployment, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_answers_that_go_nowhere_or_are_too_large(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """What is confirmed has a row or a record, whoever waits for the answer; and an answer of any size comes."""
    number, large = sized(20, 500), 20
    worker = deployment.work(threads=8)
    with deployment.channel() as channel:
        gone = channel.queue_declare("", exclusive=True).method.queue
    publisher, refused = AmqpPublisher(deployment.broker_url), set[UUID]()
    for index in range(number):
        program_id = deployment.program_id if index % 2 else uuid7()
        command = ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={})
        (deployment.confirmed if index % 2 else refused).add(command.execution_id)
        body = wrap(command, source="/faults").encode()
        publisher.publish(Publication(body, exchange=COMMANDS_EXCHANGE, routing_key=command.type, reply_to=gone))
    publisher.close()
    deployment.send(large, size=1_000_000)
    recorded = "SELECT count(*) FROM rejected_messages WHERE error_code = 'not_found'"
    deployment.wait(lambda: deployment.scalar(recorded) == len(refused), "each is recorded")
    deployment.wait_until_ended()
    with RemoteClient(deployment.broker_url, source="/faults", timeout=30) as client:
        pages, page = 1, client.list_executions(limit=100)
        listed = {item.execution_id for item in page.items}
        while page.next_cursor is not None:
            pages, page = pages + 1, client.list_executions(limit=100, cursor=page.next_cursor)
            listed |= {item.execution_id for item in page.items}
    assert listed == deployment.confirmed
    assert pages > 1, "all of it went into one answer"
    passed(35, "answers go nowhere, or are too large", number + large, deployment.judge())
    assert "Traceback" not in worker.log


def test_workers_come_and_go(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Told to stop at any time after their start, by either signal, among what Kubernetes makes of a Service."""
    number, codes = sized(2, 60), list[int | None]()
    service = {"DSPEX_PORT": "tcp://10.0.0.1:80", "DSPEX_SERVICE_HOST": "10.0.0.1", "DSPEX_SERVICE_PORT": "80"}
    following = deployment.work(threads=4, lease_seconds=5, environment=service)
    with feeding(deployment):
        for turn in range(number):
            worker, following = following, deployment.work(threads=4, lease_seconds=5, wait=False, environment=service)
            early = deployment.work(threads=4, lease_seconds=5, wait=False, environment=service)
            following.wait_until_ready()
            for one, signals in ((worker, (signal.SIGTERM, signal.SIGHUP)), (early, (signal.SIGTERM,))):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signals[turn % len(signals)])
                codes.append(one.wait())
    verdict = deployment.judge()
    passed(36, "workers are replaced, or stopped as they start", len(codes), verdict)
    # The signal itself ends a process that has not come to handle it, and has taken nothing.
    assert codes[::2] == [0] * number
    assert set(codes[1::2]) <= {0, -signal.SIGTERM}
    assert set(deployment.history.count("call").values()) == {1}, "an execution was run twice"


@contextmanager
def feeding(deployment: FaultDeployment, copies: int = 1) -> Generator[None]:
    """Executions come in all the time, each so often."""
    stopped = False

    def feed() -> None:
        while not stopped:
            command = ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs={"sleep": 0.02})
            for _ in range(copies):
                deployment.publish(command)
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as feeder:
        fed = feeder.submit(feed)
        try:
            yield
        finally:
            stopped = True
        fed.result(60)


def run(deployment: FaultDeployment, *statements: str) -> None:
    """As the superuser, each in a transaction of its own."""
    for statement in statements:
        with deployment.engine.begin() as connection:
            connection.exec_driver_sql(statement)
