"""Reads the URL of RabbitMQ. Errors name what is wrong with it, and never contain any of the password."""

from __future__ import annotations

import re
from ssl import SSLContext
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from pika import SSLOptions, URLParameters

from dspex.amqp.heartbeats import notice_silence
from dspex.errors import SettingsError

PARAMETERS = (
    "blocked_connection_timeout",
    "channel_max",
    "client_properties",
    "connection_attempts",
    "frame_max",
    "heartbeat",
    "locale",
    "retry_delay",
    "socket_timeout",
    "ssl_options",
    "stack_timeout",
    "tcp_options",
)
"""The query parameters that pika knows: https://pika.readthedocs.io/en/stable/modules/parameters.html#urlparameters."""


def amqp_parameters(url: str, name: str = "dspex", ssl_context: SSLContext | None = None) -> URLParameters:
    """pika's parameters of a URL.

    Args:
        name: of the connection, as RabbitMQ lists it; `client_properties` in the URL take precedence.
        ssl_context: for `amqps://`; by default the system's authorities are trusted.

    Raises:
        SettingsError: the URL is invalid.
    """
    problem = url_problem(url)
    if problem is not None:
        raise SettingsError(f"the URL of the broker {problem}")
    parameters = URLParameters(url)
    if ssl_context is not None:
        if parameters.ssl_options is None:
            raise SettingsError("ssl_context: the URL of the broker must be amqps:// for TLS")
        parameters.ssl_options = SSLOptions(ssl_context, parameters.host)
    notice_silence(parameters)
    parameters.client_properties = {"connection_name": name} | (parameters.client_properties or {})
    return parameters


def url_problem(url: str) -> str | None:
    """What is wrong with the URL of a broker, as the rest of a sentence about it; None if it is valid."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps"):
            raise ValueError(url)
        wrong = _wrong_parameter(parts)
        if wrong is not None:
            return wrong
        URLParameters(url)
    except (ValueError, TypeError, SyntaxError, OSError):
        # The original error is not passed on: it may quote parts of the password.
        return "must be like amqp://user:password@host:5672/vhost, or amqps://, with special characters percent-encoded"
    return None


def login_of(url: str) -> str | None:
    """The user name in a valid URL; None if it has none."""
    return getattr(URLParameters(url).credentials, "username", None)


def _wrong_parameter(parts: SplitResult) -> str | None:
    """What is wrong with the first invalid query parameter; None if all are valid."""
    if "@" in parts.query or "@" in parts.fragment:
        return None  # not a query: the password contains an unencoded ?
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, _ in given:
        if name not in PARAMETERS:
            named = f"'{name}'" if re.fullmatch(r"[a-z_]{1,40}", name) else "one"
            return f"has an unknown parameter, {named}: known are {', '.join(PARAMETERS)}"
    for name, value in given:
        try:
            URLParameters(f"{parts.scheme}://localhost/?{urlencode({name: value})}")
        except (ValueError, TypeError, SyntaxError, OSError):
            return f"has an invalid value of the parameter '{name}'"
    return None
