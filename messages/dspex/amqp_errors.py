"""What pika's errors mean for a publisher, in words for people. The password of the URL never gets into a text."""

from __future__ import annotations

from pika import URLParameters, exceptions

from dspex.errors import PublishError, Unroutable

# AMQP reply codes (https://www.rabbitmq.com/amqp-0-9-1-reference#constants).
CONNECTION_FORCED = 320  # the broker shuts down, or an operator closed the connection
ACCESS_REFUSED = 403
NOT_FOUND = 404
NOT_ALLOWED = 530
INTERNAL_ERROR = 541


def address(parameters: URLParameters) -> str:
    """Where the broker is, and as whom we go there."""
    user = getattr(parameters.credentials, "username", "")
    return f"RabbitMQ at {parameters.host}:{parameters.port} (virtual host {parameters.virtual_host!r}, user {user!r})"


def describe(error: BaseException) -> str:
    """The cause of a lost or failed connection or channel, out of pika's wrappings."""
    while True:
        inner = _inner(error)
        if inner is None:
            break
        error = inner
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        return f"{error.reply_code} {error.reply_text}"
    return str(error) or type(error).__name__


def _inner(error: BaseException) -> BaseException | None:
    several = getattr(error, "exceptions", None)
    candidates = (several[-1] if several else None, getattr(error, "exception", None), *error.args[:1])
    return next((found for found in candidates if isinstance(found, BaseException)), None)


def refusal(error: BaseException, parameters: URLParameters) -> str | None:
    """Why the broker will not let us in, however often we try; None where trying again may help."""
    # pika wraps the broker's words into a text; a connection that just breaks during the login has no reply code in it.
    said = str(error)
    by_broker = f"({ACCESS_REFUSED})" in said or f"({NOT_ALLOWED})" in said
    if isinstance(error, exceptions.AuthenticationError) or (
        isinstance(error, exceptions.ProbableAuthenticationError) and by_broker
    ):
        return f"{address(parameters)} refused the login: check user and password in the broker's URL"
    if isinstance(error, exceptions.ProbableAccessDeniedError) and by_broker and "connection limit" not in said:
        return f"{address(parameters)}: the virtual host does not exist, or the user may not use it"
    return None


def transient(error: BaseException) -> bool:
    """Whether sending again may help: not where the broker closed the connection over what we sent."""
    return not isinstance(error, exceptions.ConnectionClosedByBroker) or error.reply_code in (
        CONNECTION_FORCED,
        INTERNAL_ERROR,
    )


def closed_channel_error(reason: exceptions.ChannelClosedByBroker) -> tuple[type[PublishError], str]:
    """The error, and its text, for the messages over which the broker closed the channel."""
    if reason.reply_code == NOT_FOUND:
        return Unroutable, f"{reason.reply_text}: start a worker, or run `dspex declare`"
    return PublishError, f"the broker refused the message: {reason.reply_code} {reason.reply_text}"
