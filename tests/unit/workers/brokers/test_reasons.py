"""Why RabbitMQ cannot be used: each line names the setting, says what to do, and has no password in it."""

from __future__ import annotations

import pytest
from pika import URLParameters, exceptions

from workers.brokers.reasons import explain, weakness
from workers.brokers.topology import QueueType

PARAMETERS = URLParameters("amqp://ada:sesame@rabbit.example:5673/v1")


def closed(text: str, code: int = 406) -> exceptions.ChannelClosedByBroker:
    return exceptions.ChannelClosedByBroker(code, f"PRECONDITION_FAILED - {text}")


def inequivalent(argument: str, values: str, what: str = "queue 'dspex.programs'") -> exceptions.ChannelClosedByBroker:
    return closed(f"inequivalent arg '{argument}' for {what} in vhost '/': {values}")


@pytest.mark.parametrize(
    ("wanted", "values", "current"),
    [
        ("quorum", "received the value 'quorum' of type 'longstr' but current is none", "classic"),
        ("quorum", "received 'quorum' but current is 'classic'", "classic"),
        ("classic", "received 'classic' but current is 'quorum'", "quorum"),
        ("classic", "received none but current is the value 'quorum' of type 'longstr'", "quorum"),
    ],
)
def test_a_queue_of_the_other_type(wanted: QueueType, values: str, current: str) -> None:
    said = explain(inequivalent("x-queue-type", values), PARAMETERS, wanted)
    assert said.startswith(f"DSPEX_QUEUE_TYPE: queue 'dspex.programs' is of type {current}, not {wanted}: ")
    assert f"set DSPEX_QUEUE_TYPE={current}, or replace" in said
    assert "`rabbitmqctl delete_queue dspex.programs`" in said


@pytest.mark.parametrize("what", ["queue 'dspex.programs'", "exchange 'dspex.commands'"])
def test_other_arguments(what: str) -> None:
    error = inequivalent("x-max-length", "received none but current is the value '3' of type 'long'", what)
    said = explain(error, PARAMETERS, "quorum")
    assert said.startswith(f"DSPEX_BROKER_URL: {what} exists with another x-max-length: delete it")


def test_consumer_timeout() -> None:
    error = closed(
        "delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. This timeout value can be "
        "configured, see consumers doc guide to learn more"
    )
    said = explain(error, PARAMETERS, "classic")
    assert "consumer_timeout" in said
    assert "(1800000 ms)" in said
    assert "DSPEX_PREFETCH" in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused; is it running, and on this port?"),
        (exceptions.StreamLostError("Stream connection lost"), "Stream connection lost"),
        (exceptions.AuthenticationError("PLAIN"), "refused the login: check user and password"),
        (closed("no idea"), "406 PRECONDITION_FAILED - no idea"),
        (closed("no queue", 404), "404 PRECONDITION_FAILED - no queue"),
        (
            exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - configure access to queue 'dspex.programs'"),
            r"may not configure queue 'dspex.programs': rabbitmqctl set_permissions -p v1 ada '^dspex\.' ",
        ),
        (StopIteration(), "cancelled the consumer; was the queue deleted?"),
    ],
)
def test_everything_else_says_where(error: BaseException, words: str) -> None:
    said = explain(error, PARAMETERS, "classic")
    assert said.startswith("DSPEX_BROKER_URL: RabbitMQ at rabbit.example:5673 (virtual host 'v1', user 'ada')")
    assert words in said
    assert "sesame" not in said
    assert "\n" not in said


@pytest.mark.parametrize("version", ["3.8.2", "3.13.7", b"3.10.8", "3.13.0-rc.1"])
def test_a_broker_that_a_message_can_crash_is_told_with_the_way_out(version: str | bytes) -> None:
    said = weakness({"product": "RabbitMQ", "version": version})
    assert said is not None
    assert said.startswith("The broker is RabbitMQ 3.")
    for words in ("can crash a queue", "x-death", "use RabbitMQ 4", "docs/security.md"):
        assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "server",
    [
        {"product": "RabbitMQ", "version": "4.0.0"},
        {"product": "RabbitMQ", "version": "4.2.1"},
        {"product": "RabbitMQ", "version": "10.1.0"},
        {"product": "RabbitMQ", "version": "unknown"},
        {"product": "RabbitMQ"},
        {"product": "LavinMQ", "version": "2.4.0"},
        {},
    ],
)
def test_of_another_broker_nothing_is_said(server: dict[str, str]) -> None:
    assert weakness(server) is None
