"""The callback of a command or a program, which names a webhook, and the rules for a webhook's URL."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from dspex.contract.events import Event
from dspex.model import Frozen

MAX_URL_LENGTH: Final = 2048
MAX_HEADERS: Final = 8
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][a-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?",
    re.ASCII | re.IGNORECASE,
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_RESERVED_HEADERS = re.compile(
    r"webhook-.*|content-.*|proxy-.*|host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|user-agent",
    re.IGNORECASE,
)


class Target(NamedTuple):
    """The parts of a URL. It is parsed once, so that the check and the connection see the same host.

    Attributes:
        host: in lower case; an IPv6 address without brackets.
        path: path and query, as in the request line.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_port(self) -> str:
        """`host:port`, as settings name it: `localhost:8080`, `[::1]:8080`."""
        return host_port(self.host, self.port)

    @property
    def authority(self) -> str:
        """The value of the header `Host`: without the port if it is the scheme's default."""
        default = DEFAULT_PORTS[self.scheme] == self.port
        return self.host_port.rpartition(":")[0] if default else self.host_port


def host_port(host: str, port: int) -> str:
    """`host:port`; an IPv6 address has brackets in it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(url: str) -> Target:
    """Parse the URL of a webhook. Stricter than a browser: an ambiguous URL is refused.

    Raises:
        ValueError: the URL is refused. The text says why and does not quote it.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"has {len(url)} characters; at most {MAX_URL_LENGTH} are allowed")
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(_advice(url))
    scheme = match["scheme"].lower()
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65_535:
        raise ValueError("its port is not between 1 and 65535")
    target = match["target"] or "/"
    return Target(scheme, _host(match["host"].lower()), port, target if target[0] == "/" else f"/{target}")


def _advice(url: str) -> str:
    authority = re.split(r"[/?#\\]", url.partition("://")[2])[0]
    if "@" in authority:
        return "has credentials in it: give them as 'headers', by the name of a secret"
    if not url.isascii():
        return "has other characters than ASCII: write the host in its xn-- form, the rest percent-encoded"
    if "#" in url:
        return "has a fragment, which is never sent: remove it"
    return "is not a URL of the form https://host/path"


def _host(host: str) -> str:
    """A host name, or an address in its canonical form. Some software reads 127.1 and 0x7f000001 as addresses."""
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return str(IPv4Address(host))
    except AddressValueError:
        raise ValueError("its host is neither a name nor an IP address in its usual form") from None
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("its host is not a name of the form receiver.example.com")
    return host


def _url(value: str) -> str:
    parse_url(value)
    return value


def _header_name(value: str) -> str:
    if _RESERVED_HEADERS.fullmatch(value):
        raise ValueError(f"the header '{value}' is set by DSPex or belongs to the connection: use another")
    return value


WebhookURL = Annotated[str, Field(min_length=1, examples=["https://receiver.example.com/dspex"]), AfterValidator(_url)]
HeaderName = Annotated[
    str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$", max_length=64, examples=["X-Api-Key"]), AfterValidator(_header_name)
]
WebhookSecretName = Annotated[
    str,
    Field(pattern=r"^[A-Z][A-Z0-9_]*_WEBHOOK_(SECRET|TOKEN)$", max_length=100, examples=["ORDERS_WEBHOOK_SECRET"]),
]
"""Has a prefix of its own, so that no webhook can name, and so send, an LM key or a database password."""

CallbackEvent = Literal["completed", "failed", "cancelled"]


class Callback(Frozen):
    """The webhook that receives the end of an execution (Standard Webhooks 1.0.0).

    Secrets are given by name; the workers have the values. `secret` signs the webhook. `headers` are sent with every
    delivery, each with the value of the secret that it names. With `thin`, or if the event is too large for a webhook,
    `dspex.execution.ended.v1` is sent instead: ids and status, no outputs.
    """

    url: WebhookURL
    secret: WebhookSecretName
    events: tuple[CallbackEvent, ...] = Field(default=("completed", "failed", "cancelled"), min_length=1, max_length=3)
    headers: dict[HeaderName, WebhookSecretName] = Field(default_factory=dict, max_length=MAX_HEADERS)
    thin: bool = False

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, values in (("events", self.events), ("headers", [header.lower() for header in self.headers])):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: one is listed twice")
        return self

    def wants(self, event: Event) -> bool:
        """Whether the callback asks for events of this type."""
        return event.type in {f"dspex.execution.{name}.v1" for name in self.events}
