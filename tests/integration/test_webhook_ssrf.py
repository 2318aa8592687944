"""No socket is opened to where webhooks may not go: the corpus against the real sender, with every connect watched."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dspex.webhooks import new_secret
from tests.forbidden_addresses import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS
from tests.webhook_receiver import WebhookReceiver
from workers.webhooks.addresses import Guard, Resolver, resolve
from workers.webhooks.attempt import Attempt, Outcome
from workers.webhooks.sender import Delivery, Sender

PUBLIC = "93.184.215.14"
SECRET = new_secret()
TRUST_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where sockets were to be connected to; none is: it fails as a host that is down does."""
    seen: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        seen.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    return seen


@pytest.fixture
def victim() -> Iterator[WebhookReceiver]:
    """A service of this machine, which must see nothing."""
    with WebhookReceiver() as victim:
        yield victim


def send(url: str, resolver: Resolver, ports: Sequence[int] = (443,)) -> Attempt:
    with Sender(Guard(ports=ports, resolver=resolver), ssl_context=TRUST_NOBODY) as sender:
        return sender.send(Delivery("id", url, b"{}", [SECRET]))


def always(*addresses: str) -> Resolver:
    return lambda *_: addresses


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_the_watch_sees_what_is_connected_to(connects: list[Any]) -> None:
    attempt = send("https://receiver.example/", always(PUBLIC))
    assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "no connection came about")
    assert connects == [(PUBLIC, 443)]


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_no_socket_to_a_forbidden_address(connects: list[Any], address: str) -> None:
    for url in (f"https://{literal(address)}/", "https://receiver.example/"):
        for answers in ([address], [PUBLIC, address], [address, PUBLIC]):
            attempt = send(url, always(*answers))
            assert attempt.outcome is Outcome.REFUSED
            assert address not in (attempt.reason or "") or url != "https://receiver.example/"
    assert connects == []


@pytest.mark.parametrize("url", FORBIDDEN_URLS)
def test_no_socket_to_a_forbidden_url(connects: list[Any], url: str) -> None:
    def resolver(host: str, seconds: float) -> Sequence[str]:
        known_somewhere = ("metadata.google.internal", "localhost.localdomain", "ip6-localhost")
        return ["127.0.0.1"] if host in known_somewhere else resolve(host, seconds)

    attempt = send(url, resolver)
    assert attempt.outcome is Outcome.REFUSED
    assert connects == []


def test_rebinding_does_not_help(connects: list[Any]) -> None:
    """The name has a good address when it is looked at, and a bad one ever after."""
    answers = itertools.chain([[PUBLIC]], itertools.repeat(["127.0.0.1"]))
    guard = Guard(resolver=lambda *_: next(answers))
    with Sender(guard, ssl_context=TRUST_NOBODY) as sender:
        guard.check("https://rebinding.example/")  # when it is registered: nothing is resolved
        attempts = [sender.send(Delivery("id", "https://rebinding.example/", b"{}", [SECRET])) for _ in range(3)]
    assert [attempt.outcome for attempt in attempts] == [Outcome.FAILED, Outcome.REFUSED, Outcome.REFUSED]
    assert connects == [(PUBLIC, 443)]


def test_the_system_is_never_asked_for_a_name_again(connects: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is connected to is an address: getaddrinfo sees no name that the guard has not asked for."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def watched(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    send("https://receiver.example/", always(PUBLIC))
    assert asked == [PUBLIC]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "receiver.example", "[::ffff:127.0.0.1]", "127.1", "0"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_service_of_this_machine_sees_nothing(victim: WebhookReceiver, host: str, scheme: str) -> None:
    """Its port is allowed, and nothing is watched or faked but the name: only its address is in the way."""

    def resolver(name: str, seconds: float) -> Sequence[str]:
        return ["127.0.0.1"] if name == "receiver.example" else resolve(name, seconds)

    attempt = send(f"{scheme}://{host}:{victim.port}/", resolver, ports=[443, victim.port])
    assert attempt.outcome is Outcome.REFUSED
    assert victim.connections == 0
