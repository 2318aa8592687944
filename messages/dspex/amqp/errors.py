"""Explains pika's errors to people. No text contains the password of the URL."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
from typing import NamedTuple

from pika import URLParameters, exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from dspex.errors import NotDeclared, PublishDenied, PublishError

# AMQP reply codes (https://www.rabbitmq.com/amqp-0-9-1-reference#constants).
CONNECTION_FORCED = 320  # the broker shuts down, or an operator closed the connection
ACCESS_REFUSED = 403
NOT_FOUND = 404
NOT_ALLOWED = 530
INTERNAL_ERROR = 541

_SIZE_LIMIT = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")
_EXCHANGE = re.compile(r"(?:topic '(?P<key>[^']*)' in )?exchange '(?P<exchange>[^']*)'")

CONNECTION_ERRORS = (
    exceptions.AMQPError,
    AMQPConnectorException,  # not an AMQPError in pika 1.4.4; raised for example when the server never answers
    AssertionError,
    OSError,
)
"""What pika raises when a connection or a channel cannot be made, or is lost."""


class Permissions(NamedTuple):
    """What a login may do in a virtual host: patterns (https://www.rabbitmq.com/docs/access-control#authorisation)."""

    configure: str
    write: str
    read: str


CLIENT_PERMISSIONS = Permissions(r"^amq\.gen", r"^dspex\.commands$", r"^amq\.gen")
"""For a client that sends commands and receives answers. The broker names its reply queue, `amq.gen-...`."""

SILENT = "no answer in time: is it overloaded, or a firewall in between?"

_ACCESS_REFUSED = re.compile(r"ACCESS_REFUSED - (?:(?P<access>\w+) )?access to (?P<what>\w+ '[^']*')")


def address(parameters: URLParameters) -> str:
    """Host, port, virtual host and user of the broker, for messages to people."""
    user = getattr(parameters.credentials, "username", "")
    return f"RabbitMQ at {parameters.host}:{parameters.port} (virtual host {parameters.virtual_host!r}, user {user!r})"


def describe(error: BaseException) -> str:
    """Why a connection or channel was lost or failed: the original text, in one line."""
    error = _root(error)
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        text = f"{error.reply_code} {error.reply_text}"
    else:
        text = str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def cause(error: BaseException, parameters: URLParameters) -> str:
    """Why a connection was lost or failed, and what to check."""
    match _root(error):
        case socket.gaierror() as unknown:
            return f"the host name {parameters.host!r} is not resolved ({unknown.strerror}): check the URL, and DNS"
        case ssl.SSLCertVerificationError() as untrusted:
            return (
                f"its certificate is not trusted ({untrusted.verify_message}): give an ssl_context that trusts who "
                "issued it, and use a host name that is in it"
            )
        case ssl.SSLError() as failed:
            return f"no TLS ({failed.reason or failed}): amqps:// is for the port that speaks TLS, 5671 by default"
        case ConnectionRefusedError():
            return "connection refused; is it running, and on this port?"
        case exceptions.IncompatibleProtocolError():
            return "it ended the connection before the login: is it RabbitMQ? Does the port want TLS (amqps://)?"
        case TimeoutError() | AMQPConnectorException():
            return SILENT
        case exceptions.ConnectionOpenAborted() as aborted if "Timeout" in str(aborted):
            return SILENT
        case _:
            return describe(error)


def _root(error: BaseException) -> BaseException:
    """The innermost of the errors that pika wraps into each other."""
    while not isinstance(error, exceptions.IncompatibleProtocolError) and (inner := _inner(error)) is not None:
        error = inner
    return error


def _inner(error: BaseException) -> BaseException | None:
    several = getattr(error, "exceptions", None)
    candidates = (several[-1] if several else None, getattr(error, "exception", None), *error.args[:1])
    return next((found for found in candidates if isinstance(found, BaseException)), None)


def permission(error: BaseException, parameters: URLParameters, wanted: Permissions = CLIENT_PERMISSIONS) -> str | None:
    """Which permission the login lacks, and the command that grants it; None for any other error."""
    if not isinstance(error, exceptions.ChannelClosedByBroker) or error.reply_code != ACCESS_REFUSED:
        return None
    found = _ACCESS_REFUSED.match(error.reply_text)
    if found is None:
        return None
    return f"the user may not {found['access'] or 'use'} {found['what']}: {permit(parameters, wanted)}"


def permit(parameters: URLParameters, wanted: Permissions = CLIENT_PERMISSIONS) -> str:
    """The `rabbitmqctl` command that grants the login its permissions."""
    user = getattr(parameters.credentials, "username", "")
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", parameters.virtual_host, user, *wanted])


def refusal(error: BaseException, parameters: URLParameters, wanted: Permissions = CLIENT_PERMISSIONS) -> str | None:
    """Why the broker will refuse this login however often we retry; None where a retry may help."""
    # pika's text contains the broker's reply. If the connection just breaks during login, it has no reply code.
    said = str(error)
    by_broker = f"({ACCESS_REFUSED})" in said or f"({NOT_ALLOWED})" in said
    if isinstance(error, exceptions.AuthenticationError) or (
        isinstance(error, exceptions.ProbableAuthenticationError) and by_broker
    ):
        return f"{address(parameters)} refused the login: check user and password in the broker's URL"
    if isinstance(error, exceptions.ProbableAccessDeniedError) and by_broker and "connection limit" not in said:
        if "not found" in said:
            host = shlex.quote(parameters.virtual_host)
            return f"{address(parameters)}: the virtual host does not exist: rabbitmqctl add_vhost {host}"
        return f"{address(parameters)}: the user may not use the virtual host: {permit(parameters, wanted)}"
    return None


def transient(error: BaseException) -> bool:
    """Whether sending again may help. It does not where the broker closed the connection because of what we sent."""
    return not isinstance(error, exceptions.ConnectionClosedByBroker) or error.reply_code in (
        CONNECTION_FORCED,
        INTERNAL_ERROR,
    )


def closed_channel_error(
    reason: exceptions.ChannelClosedByBroker, parameters: URLParameters
) -> tuple[type[PublishError], str]:
    """The error class and text for the messages that made the broker close the channel."""
    if reason.reply_code == NOT_FOUND:
        return NotDeclared, f"{reason.reply_text}: start a worker, or run `dspex declare`"
    said = permission(reason, parameters) or f"{reason.reply_code} {reason.reply_text}"
    denied = reason.reply_code == ACCESS_REFUSED
    return PublishDenied if denied else PublishError, f"the broker refused the message: {said}"


def size_limit(reason: exceptions.ChannelClosedByBroker) -> int | None:
    """The broker's `max_message_size` in bytes, where it closed the channel because of a larger message; else None."""
    found = _SIZE_LIMIT.search(reason.reply_text)
    return None if found is None else int(found[1])


class Refused(NamedTuple):
    """The route that made the broker close a channel: its text names an exchange, and sometimes a routing key."""

    exchange: str
    routing_key: str | None = None

    def covers(self, exchange: str, routing_key: str) -> bool:
        """Whether a message to this exchange and key takes the refused route."""
        return self.exchange == exchange and self.routing_key in (None, routing_key)


def refused_route(reason: exceptions.ChannelClosedByBroker) -> Refused | None:
    """The route of the messages that made the broker close the channel; None where its text does not name one."""
    found = _EXCHANGE.search(reason.reply_text)
    if found is None or reason.reply_code not in (NOT_FOUND, ACCESS_REFUSED):
        return None
    # In errors about permissions, RabbitMQ calls the default exchange "amq.default"; its name is the empty string.
    name = "" if found["exchange"] == "amq.default" else found["exchange"]
    return Refused(name, found["key"])
