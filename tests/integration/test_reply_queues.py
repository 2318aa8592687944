"""On the real broker, without tenants: an answer goes to its sender's queue, and a message that names another's is
rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pytest

from dspex import Configuration, ExecuteProgram, decode_event, uuid7, wrap
from dspex.amqp import replies
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE
from dspex.client.remote import RemoteClient
from dspex.contract.envelope import CONTENT_TYPE
from dspex.contract.events import MessageRejected, Reply
from dspex.contract.retry_policy import ExecutionPolicy
from tests.contract.interface import ready, working
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = pytest.mark.integration

TEAMS = "billing.invoices"
"""A durable queue of another team."""


@pytest.fixture(scope="module")
def url(own_amqp_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker with a worker and another team's queue."""
    amqp.check(own_amqp_url)
    database: Path = tmp_path_factory.mktemp("reply-queues") / "dspex.db"
    with working(Settings(database_url=f"sqlite:///{database}", broker_url=own_amqp_url, threads=4)):
        with pika.BlockingConnection(pika.URLParameters(own_amqp_url)) as connection:
            connection.channel().queue_declare(TEAMS, durable=True)
        yield own_amqp_url


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    """A channel of the login `guest`."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


@pytest.fixture(scope="module")
def program_id(url: str) -> UUID:
    """A program whose executions fail, and are tried twice."""
    with RemoteClient(url, source="/tests") as dspex:
        failing = Configuration(parameters={"fail": {"transient": "always"}})
        policy = ExecutionPolicy(max_attempts=2, first_delay=0.1)
        return ready(dspex, "q -> a", configuration=failing, policy=policy).program_id


def ask(channel: Any, program_id: UUID, reply_to: str, user_id: str | None = "guest", body: bytes | None = None) -> str:
    """Ask for an execution; returns the id of the message."""
    envelope = wrap(ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={"q": "?"}), source="/tests")
    properties = pika.BasicProperties(
        content_type=CONTENT_TYPE,
        message_id=envelope.id,
        correlation_id=envelope.id,
        reply_to=reply_to,
        user_id=user_id,
    )
    channel.basic_publish(COMMANDS_EXCHANGE, envelope.type, body or envelope.encode(), properties)
    return envelope.id


def taken(channel: Any, queue: str, what: str) -> bytes:
    """The next message of a queue."""
    found: list[bytes] = []

    def look() -> bool:
        body = channel.basic_get(queue, auto_ack=True)[2]
        if body is not None:
            found.append(body)
        return bool(found)

    wait_until(look, what)
    return found[0]


def rejected(url: str, message_id: str) -> Any:
    """What is recorded of a rejected message, once it is."""
    with RemoteClient(url, source="/tests") as dspex:
        found: list[Any] = []

        def look() -> bool:
            found[:] = [item for item in dspex.list_dead_messages().items if item.message_id == message_id]
            return bool(found)

        wait_until(look, "it is recorded as rejected")
        return found[0]


def waiting(channel: Any, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


@pytest.mark.parametrize(
    ("reply_to", "user_id"),
    [(TEAMS, "guest"), (TEAMS, None), ("dspex.executions", "guest"), ("dspex.programs.XQ", None), ("guest.a", None)],
)
def test_a_queue_that_is_not_the_senders_gets_nothing(
    url: str, channel: Any, program_id: UUID, reply_to: str, user_id: str | None
) -> None:
    events = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(events, EVENTS_EXCHANGE, "default.dspex.message.rejected.v1")
    if reply_to == "guest.a":
        channel.queue_declare("guest.a", auto_delete=True)
    letters = waiting(channel, "dspex.programs.XQ")
    message_id = ask(channel, program_id, reply_to, user_id)
    assert rejected(url, message_id).error.code == "forbidden_reply_to"
    told = decode_event(taken(channel, events, "it is told")).data
    assert isinstance(told, MessageRejected)
    assert (told.message_id, told.error.code) == (message_id, "forbidden_reply_to")
    # An execution of this program takes what comes before it along, if there is anything.
    with RemoteClient(url, source="/tests") as dspex:
        assert dspex.execute_program(program_id, {"q": "?"}).error is not None
    assert waiting(channel, TEAMS) == 0
    assert waiting(channel, "dspex.programs.XQ") == letters
    if reply_to == "guest.a":
        assert waiting(channel, "guest.a") == 0
    assert "dspex.reply.v1" not in {item.message_type for item in _all_rejected(url)}, "an answer came to a worker"


def _all_rejected(url: str) -> list[Any]:
    with RemoteClient(url, source="/tests") as dspex:
        return list(dspex.list_dead_messages().items)


def test_what_is_no_command_is_not_answered_there_either(url: str, channel: Any, program_id: UUID) -> None:
    ask(channel, program_id, TEAMS, body=b"no command")
    wait_until(lambda: "malformed_message" in {item.error.code for item in _all_rejected(url)}, "it is recorded")
    letters = "dspex.executions.XQ"
    wait_until(lambda: waiting(channel, letters) > 0, "it is dead-lettered, which comes after the answer")
    assert waiting(channel, TEAMS) == 0


def test_a_queue_that_begins_with_the_login_gets_the_answer_also_of_a_later_attempt(
    channel: Any, program_id: UUID
) -> None:
    channel.queue_declare("guest.answers", auto_delete=True)
    ask(channel, program_id, "guest.answers")
    reply = decode_event(taken(channel, "guest.answers", "the answer comes"), 1 << 20).data
    assert isinstance(reply, Reply)
    assert isinstance(reply.answer, dict)
    assert (reply.answer["status"], reply.answer["attempt"]) == ("failed", 2)


def test_direct_reply_to_gets_the_answer(channel: Any, program_id: UUID) -> None:
    answers: list[bytes] = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda _c, _m, _p, body: answers.append(body), auto_ack=True)
    ask(channel, program_id, "amq.rabbitmq.reply-to", user_id=None)

    def look() -> bool:
        channel.connection.process_data_events(0.1)
        return bool(answers)

    wait_until(look, "the answer comes")
    assert isinstance(decode_event(answers[0], 1 << 20).data, Reply)


@pytest.mark.parametrize(
    "name",
    [
        "AAAAAAAAAAAAAAAA.AAAA",
        "g1h2AAlyZXBseUAxMjMAAEzLAAAAAGsMubQ=.pFtNmeSyxAEXuP8kFxPlww==",  # of a node that there is not
        "----------------.AAAA",
    ],
)
@pytest.mark.parametrize("body", [None, b"no command"])
def test_a_name_of_direct_reply_to_that_was_made_up_stops_nobodys_answers(
    url: str, channel: Any, program_id: UUID, caplog: pytest.LogCaptureFixture, name: str, body: bytes | None
) -> None:
    """RabbitMQ ends the connection that publishes there."""
    message_id = ask(channel, program_id, f"amq.rabbitmq.reply-to.{name}", body=body)
    if body is None:
        assert rejected(url, message_id).error.code == "forbidden_reply_to"
    with RemoteClient(url, source="/tests", timeout=10) as dspex:
        assert dspex.execute_program(program_id, {"q": "?"}).error is not None
    assert "next attempt in" not in caplog.text, "the worker has lost the connection that it publishes by"


def test_events_that_are_led_back_among_the_commands_make_no_others(url: str, channel: Any, program_id: UUID) -> None:
    """Whoever listens to events and sends commands may bind one exchange to the other."""
    channel.exchange_declare("guest.loop", "topic")
    channel.exchange_bind("guest.loop", EVENTS_EXCHANGE, "default.dspex.message.rejected.v1")
    channel.exchange_bind(COMMANDS_EXCHANGE, "guest.loop", "#")

    def led_back() -> int:
        return len([item for item in _all_rejected(url) if item.message_type == MessageRejected.type])

    try:
        ask(channel, program_id, TEAMS, body=b"no command")
        wait_until(lambda: led_back() > 0, "the event is recorded as what it is: no command")
        ask(channel, program_id, TEAMS, body=b"no command")
        wait_until(lambda: led_back() > 1, "so is the next")
        with RemoteClient(url, source="/tests") as dspex:
            assert dspex.execute_program(program_id, {"q": "?"}).error is not None
        assert led_back() == 2
    finally:
        channel.exchange_delete("guest.loop")


def test_a_client_is_closed_at_once(url: str, program_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "LOOK_SECONDS", 60.0)
    with RemoteClient(url, source="/tests") as dspex:
        assert dspex.get_program(program_id).program_id == program_id
        thread = dspex._replies._thread
    assert thread is not None
    assert not thread.is_alive()
