"""The producer on a publisher that confirms what a test lets it: what is sent, counted, and said of what failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from dspex import ExecuteProgram, Producer, uuid7
from dspex.amqp.publication import Publication
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.errors import BrokerUnavailable, MessageTooLarge, PublishError

PROGRAM = uuid7()


class Publishing:
    """Confirms each message, or fails it with what is given for its place."""

    limit = None

    def __init__(self, errors: dict[int, BaseException] | None = None) -> None:
        self.errors = errors or {}
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
        self.sent.append(publication._asdict() | {"envelope": json.loads(publication.body)})
        future: Future[None] = Future()
        error = self.errors.get(len(self.sent))
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        return future

    def publish(self, publication: Publication, *, timeout: float | None = None) -> None:
        self.submit(publication, timeout=timeout).result()

    def close(self, timeout: float | None = None) -> None:
        self.closed = True


def command(size: int = 0) -> ExecuteProgram:
    return ExecuteProgram(execution_id=uuid7(), program_id=PROGRAM, inputs={"q": "x" * size})


def test_one_that_is_sent() -> None:
    publisher, asked = Publishing(), command()
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    id_ = Producer(publisher, source="/orders", tenant="acme").send(asked, traceparent=traceparent)
    (sent,) = publisher.sent
    assert (sent["exchange"], sent["routing_key"], sent["message_id"]) == (COMMANDS_EXCHANGE, asked.type, id_)
    envelope = sent["envelope"]
    assert (envelope["id"], envelope["source"], envelope["tenant"]) == (id_, "/orders", "acme")
    assert envelope["traceparent"] == traceparent
    assert envelope["data"]["execution_id"] == str(asked.execution_id)


def test_a_tenant_of_one_command_goes_before_the_producers_own() -> None:
    publisher = Publishing()
    producer = Producer(publisher, source="/orders", tenant="acme")
    producer.send(command(), tenant="other")
    producer.send_all([command()])
    assert [sent["envelope"]["tenant"] for sent in publisher.sent] == ["other", "acme"]


def test_all_are_counted() -> None:
    publisher = Publishing()
    assert Producer(publisher, source="/orders").send_all(command() for _ in range(7)) == 7
    assert len({sent["message_id"] for sent in publisher.sent}) == 7
    assert Producer(publisher, source="/orders").send_all([]) == 0


@pytest.mark.parametrize("place", [1, 2, 4])
def test_the_first_that_failed_is_named_and_the_others_are_counted(place: int) -> None:
    publisher = Publishing({place: BrokerUnavailable("gone")})
    asked = [command() for _ in range(4)]
    with pytest.raises(BrokerUnavailable) as failed:
        Producer(publisher, source="/orders").send_all(asked)
    # What was not handed over yet when it failed is not sent.
    assert str(failed.value) == (
        f"command {place}, dspex.program.execute.v1 of {asked[place - 1].execution_id}: gone; "
        f"{place - 1} other commands are confirmed"
    )
    assert len(publisher.sent) == place


def test_one_that_is_too_large_is_named_like_any_other() -> None:
    publisher = Publishing()

    def commands() -> Iterator[ExecuteProgram]:
        yield command()
        yield command(MAX_MESSAGE_BYTES)

    with pytest.raises(MessageTooLarge, match=r"^command 2, .* 1 other commands are confirmed$"):
        Producer(publisher, source="/orders").send_all(commands())
    assert len(publisher.sent) == 1


def test_what_is_in_flight_with_it_is_waited_for_and_counted() -> None:
    class Slow(Publishing):
        futures: list[Future[None]] = []  # noqa: RUF012

        def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
            self.futures.append(Future())
            if len(self.futures) == 3:
                self.futures[0].set_exception(PublishError("no"))
                self.futures[1].set_result(None)
                self.futures[2].set_exception(BrokerUnavailable("gone"))
            return self.futures[-1]

    with pytest.raises(PublishError, match=r"^command 1, .*: no; 1 other commands are confirmed$"):
        Producer(Slow(), source="/orders").send_all(command() for _ in range(3))


def test_a_bug_is_told_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match=r"^bug$"):
        Producer(Publishing({1: ZeroDivisionError("bug")}), source="/orders").send_all([command()])


def test_it_closes_its_own_publisher_alone() -> None:
    publisher = Publishing()
    with Producer(publisher, source="/orders"):
        pass
    assert not publisher.closed
