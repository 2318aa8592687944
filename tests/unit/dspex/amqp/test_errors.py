"""What pika's errors mean: when to try again, and in which words to give up."""

import socket

import pytest
from pika import URLParameters, exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorSocketConnectError

from dspex.amqp.errors import (
    address,
    cause,
    closed_channel_error,
    describe,
    permission,
    refusal,
    refused_route,
    transient,
)
from dspex.errors import NotDeclared, PublishDenied, PublishError

PARAMETERS = URLParameters("amqp://ada:sesame@rabbit.example:5673/v%2F1")


def closed(code: int, text: str) -> exceptions.ConnectionClosedByBroker:
    return exceptions.ConnectionClosedByBroker(code, text)


def test_the_address_has_no_password() -> None:
    assert address(PARAMETERS) == "RabbitMQ at rabbit.example:5673 (virtual host 'v/1', user 'ada')"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            exceptions.ProbableAuthenticationError(repr(closed(403, "ACCESS_REFUSED - Login was refused"))),
            "refused the login",
        ),
        (exceptions.AuthenticationError("PLAIN"), "refused the login"),
        (
            exceptions.ProbableAccessDeniedError(repr(closed(530, "NOT_ALLOWED - vhost v not found"))),
            "virtual host does not exist",
        ),
        (
            exceptions.ProbableAccessDeniedError(
                repr(closed(530, "NOT_ALLOWED - access to vhost 'v/1' refused for user 'ada'"))
            ),
            "may not use the virtual host: rabbitmqctl set_permissions -p v/1 ada '^amq",
        ),
        (
            exceptions.ProbableAccessDeniedError(
                repr(closed(530, "NOT_ALLOWED - access refused: connection limit (1) is reached"))
            ),
            None,
        ),
        (exceptions.ProbableAuthenticationError(repr(exceptions.StreamLostError("EOF"))), None),
        (exceptions.ProbableAccessDeniedError(repr(closed(541, "INTERNAL_ERROR - vhost is down"))), None),
        (ConnectionRefusedError(111, "Connection refused"), None),
    ],
)
def test_which_refusals_are_final(error: Exception, words: str | None) -> None:
    said = refusal(error, PARAMETERS)
    assert said is None if words is None else words in str(said)
    assert "sesame" not in str(said)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (exceptions.StreamLostError("EOF"), True),
        (exceptions.AMQPHeartbeatTimeout("silence"), True),
        (closed(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"), True),
        (closed(541, "INTERNAL_ERROR"), True),
        (closed(501, "FRAME_ERROR"), False),
    ],
)
def test_when_sending_again_may_help(error: Exception, again: bool) -> None:
    assert transient(error) is again


def test_the_cause_is_found_below_the_wrappings() -> None:
    refused = AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "Connection refused"))
    wrapped = exceptions.AMQPConnectionError(AMQPConnectionWorkflowFailed([refused]))
    assert describe(wrapped) == "[Errno 111] Connection refused"
    assert describe(socket.gaierror(-2, "Name or service not known")) == "[Errno -2] Name or service not known"
    assert cause(wrapped, PARAMETERS) == "connection refused; is it running, and on this port?"
    assert describe(closed(320, "CONNECTION_FORCED")) == "320 CONNECTION_FORCED"
    assert describe(exceptions.StreamLostError()) == "StreamLostError"


def test_why_a_channel_was_closed() -> None:
    missing = exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no exchange 'x' in vhost '/'")
    kind, text = closed_channel_error(missing, PARAMETERS)
    assert kind is NotDeclared
    assert "no exchange 'x'" in text
    assert "dspex declare" in text
    denied = exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused")
    assert closed_channel_error(denied, PARAMETERS)[0] is PublishDenied
    too_large = exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED - message size 2 is larger than 1")
    assert closed_channel_error(too_large, PARAMETERS) == (
        PublishError,
        "the broker refused the message: 406 PRECONDITION_FAILED - message size 2 is larger than 1",
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("configure access to queue 'amq.gen-x' in vhost 'v/1' refused", "may not configure queue 'amq.gen-x': "),
        ("access to exchange 'dspex.commands' in vhost 'v/1' refused", "may not use exchange 'dspex.commands': "),
    ],
)
def test_the_permission_that_is_missing_is_given_by_a_command(said: str, words: str) -> None:
    error = exceptions.ChannelClosedByBroker(403, f"ACCESS_REFUSED - {said} for user 'ada'")
    command = r"rabbitmqctl set_permissions -p v/1 ada '^amq\.gen' '^dspex\.commands$' '^amq\.gen'"
    assert permission(error, PARAMETERS) == f"the user {words}{command}"
    assert permission(exceptions.ChannelClosedByBroker(404, "NOT_FOUND"), PARAMETERS) is None


@pytest.mark.parametrize(
    ("code", "said", "route"),
    [
        (404, "NOT_FOUND - no exchange 'dspex.events' in vhost '/'", ("dspex.events", None)),
        (403, "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'w'", ("", None)),
        (403, "ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused for user 'w'", ("x", None)),
        (403, "ACCESS_REFUSED - access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'w'", ("x", "a.b")),
        (406, "PRECONDITION_FAILED - user_id property set to 'a' but authenticated user was 'b'", None),
    ],
)
def test_over_which_messages_a_channel_was_closed(code: int, said: str, route: tuple[str, str | None] | None) -> None:
    assert refused_route(exceptions.ChannelClosedByBroker(code, said)) == route
