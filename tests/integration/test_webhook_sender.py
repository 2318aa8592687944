"""The sender against receivers that answer well, badly, slowly and not at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from dspex import ExecutionCompleted, uuid7, wrap
from dspex.webhooks import new_secret, verify
from tests.webhook_receiver import SILENCE, Answer, WebhookReceiver, dripping, make_certificate
from workers.webhooks.addresses import Guard
from workers.webhooks.attempt import Attempt, Outcome
from workers.webhooks.bodies import encode
from workers.webhooks.schedule import MAX_RETRY_AFTER
from workers.webhooks.sender import RESPONSE_BYTES, Delivery, Sender

HOST = "hooks.test"
SECRET, OTHER = new_secret(), new_secret()
EVENT = wrap(
    ExecutionCompleted(execution_id=uuid7(), program_id=uuid7(), outputs={"a": "\u00e9"}, attempt=1, duration_ms=1),
    source="/dspex",
)
TRUST_NOBODY: dict[str, Any] = {"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
"""Reading the certificates of the system takes longer than all the rest."""


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


def sender_to(*receivers: WebhookReceiver, host: str = HOST, timeout: float = 30.0, **more: Any) -> Sender:
    """A sender that may go to the receivers: every name means this machine."""
    hosts = [f"{name}:{receiver.port}" for receiver in receivers for name in (host, f"other.{host}", "127.0.0.1")]
    return Sender(Guard(hosts=hosts, resolver=lambda *_: ["127.0.0.1"]), timeout=timeout, **TRUST_NOBODY | more)


def delivery(url: str, **more: Any) -> Delivery:
    return Delivery(id=EVENT.id, url=url, body=encode(EVENT), secrets=[SECRET], **more)


def deliver(receiver: WebhookReceiver, answer: Answer, timeout: float = 30.0) -> Attempt:
    receiver.script = lambda _: answer
    with sender_to(receiver, timeout=timeout) as sender:
        return sender.send(delivery(receiver.url(HOST)))


class TestRequest:
    def test_the_library_and_ours_take_what_is_sent(self, receiver: WebhookReceiver) -> None:
        attempt = deliver(receiver, Answer(204))
        assert (attempt.outcome, attempt.status, attempt.reason) == (Outcome.DELIVERED, 204, None)
        assert attempt.duration_ms > 0
        (request,) = receiver.requests
        Webhook(SECRET).verify(request.body, dict(request.headers))
        assert verify(request.body, request.headers, SECRET) == EVENT
        assert request.headers["webhook-id"] == EVENT.id
        assert request.headers["content-type"] == "application/cloudevents+json"
        assert request.headers["host"] == f"{HOST}:{receiver.port}"

    def test_two_secrets_sign_while_one_is_changed(self, receiver: WebhookReceiver) -> None:
        with sender_to(receiver) as sender:
            sender.send(Delivery(EVENT.id, receiver.url(HOST), encode(EVENT), [SECRET, OTHER]))
        (request,) = receiver.requests
        for secret in (SECRET, OTHER):
            Webhook(secret).verify(request.body, dict(request.headers))
        assert len(request.headers["webhook-signature"].split(" ")) == 2

    def test_more_headers_are_sent_and_take_the_place_of_none(self, receiver: WebhookReceiver) -> None:
        given = {"Authorization": "Bearer abc", "Webhook-Id": "forged", "HOST": "forged", "Content-Length": "1"}
        with sender_to(receiver) as sender:
            attempt = sender.send(delivery(receiver.url(HOST, "/a?b=c"), headers=given))
        assert attempt.outcome is Outcome.DELIVERED
        (request,) = receiver.requests
        assert request.headers["authorization"] == "Bearer abc"
        assert request.headers["webhook-id"] == EVENT.id
        assert request.headers["host"] == f"{HOST}:{receiver.port}"
        assert request.path == "/a?b=c"
        assert verify(request.body, request.headers, SECRET) == EVENT

    @pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\nb", "a\0b", "\u00e9"])
    def test_a_value_that_no_header_can_have_is_not_sent_and_not_quoted(
        self, receiver: WebhookReceiver, value: str
    ) -> None:
        with sender_to(receiver) as sender:
            attempt = sender.send(delivery(receiver.url(HOST), headers={"X-Key": value}))
        assert attempt.outcome is Outcome.REFUSED
        assert attempt.reason == "headers: the value of 'x-key' has characters that a header cannot have"
        assert receiver.connections == 0

    @pytest.mark.parametrize("secrets", [[], ["whsec_c2hvcnQ="], [SECRET, "not-one"]])
    def test_nothing_goes_out_unsigned(self, receiver: WebhookReceiver, secrets: list[str]) -> None:
        with sender_to(receiver) as sender:
            attempt = sender.send(Delivery(EVENT.id, receiver.url(HOST), encode(EVENT), secrets))
        assert attempt.outcome is Outcome.REFUSED
        assert "secret" in (attempt.reason or "")
        assert receiver.connections == 0

    def test_a_delivery_shows_no_secret(self) -> None:
        shown = repr(delivery("https://receiver.example/", headers={"X-Key": "canary"}))
        assert SECRET not in shown
        assert "canary" not in shown

    def test_no_proxy_of_the_environment_is_used(
        self, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with WebhookReceiver() as proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url())
                monkeypatch.setenv(name.lower(), proxy.url())
            assert deliver(receiver, Answer()).outcome is Outcome.DELIVERED
            assert proxy.connections == 0


class TestAnswer:
    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (200, Outcome.DELIVERED),
            (201, Outcome.DELIVERED),
            (400, Outcome.FAILED),
            (404, Outcome.FAILED),
            (410, Outcome.GONE),
            (429, Outcome.THROTTLED),
            (500, Outcome.FAILED),
            (503, Outcome.THROTTLED),
        ],
    )
    def test_the_status_decides_and_the_answer_is_kept(
        self, receiver: WebhookReceiver, status: int, outcome: Outcome
    ) -> None:
        attempt = deliver(receiver, Answer(status, body=b"because"))
        assert (attempt.outcome, attempt.status, attempt.response) == (outcome, status, "because")
        assert (attempt.reason is None) == (outcome is Outcome.DELIVERED)

    @pytest.mark.parametrize(
        ("status", "value", "seconds"),
        [(429, "7", 7), (503, "7", 7), (429, "99999999", MAX_RETRY_AFTER), (429, "soon", None), (500, "7", None)],
    )
    def test_retry_after_is_read_where_the_receiver_throttles(
        self, receiver: WebhookReceiver, status: int, value: str, seconds: float | None
    ) -> None:
        assert deliver(receiver, Answer(status, {"Retry-After": value})).retry_after == seconds

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_no_redirect_is_followed(self, receiver: WebhookReceiver, status: int) -> None:
        with WebhookReceiver() as elsewhere:
            receiver.script = lambda _: Answer(status, {"Location": elsewhere.url()})
            with sender_to(receiver, elsewhere) as sender:
                attempt = sender.send(delivery(receiver.url(HOST)))
            assert (attempt.outcome, attempt.status) == (Outcome.FAILED, status)
            assert elsewhere.connections == 0
        assert len(receiver.requests) == 1

    def test_a_large_answer_is_read_in_part(self, receiver: WebhookReceiver) -> None:
        attempt = deliver(receiver, Answer(500, body=b"x" * 10_000_000))
        assert attempt.status == 500
        assert attempt.response == "x" * RESPONSE_BYTES

    def test_an_endless_answer_is_too(self, receiver: WebhookReceiver) -> None:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        chunks = iter(lambda: b"a\r\n0123456789\r\n", b"")
        attempt = deliver(receiver, Answer(raw=[head, *(next(chunks) for _ in range(5000))]))
        assert attempt.outcome is Outcome.DELIVERED
        assert len(attempt.response) == RESPONSE_BYTES

    def test_what_is_no_text_is_kept_as_what_can_be(self, receiver: WebhookReceiver) -> None:
        assert deliver(receiver, Answer(500, body=b"a\0\xffb")).response == "a\N{REPLACEMENT CHARACTER}\ufffdb"


class TestTrouble:
    """Every one of these would hang or raise, were it not for the deadline and the closed set of outcomes."""

    @pytest.mark.parametrize(
        "answer",
        [
            SILENCE,
            dripping(b""),
            dripping(b"HTTP/1.1 200 OK\r\nx-a: "),
            dripping(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2"),
        ],
        ids=["silence", "drips", "drips a header", "drips after 100"],
    )
    def test_who_does_not_answer_in_time_has_failed(self, receiver: WebhookReceiver, answer: Answer) -> None:
        attempt = deliver(receiver, answer, timeout=0.5)
        assert (attempt.outcome, attempt.status) == (Outcome.FAILED, None)
        assert attempt.reason in ("it did not answer within 0.5 s", "it did not answer in HTTP")
        assert attempt.duration_ms < 20_000

    def test_a_drip_does_not_hold_the_thread_longer_than_the_deadline(self, receiver: WebhookReceiver) -> None:
        attempt = deliver(receiver, dripping(b"HTTP/1.1 200 OK\r\nx-a: "), timeout=0.5)
        assert attempt.reason == "it did not answer within 0.5 s"

    def test_a_status_counts_though_the_body_drips(self, receiver: WebhookReceiver) -> None:
        attempt = deliver(receiver, dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n"), timeout=2.0)
        assert attempt.outcome is Outcome.DELIVERED
        assert set(attempt.response) == {"x"}

    def test_a_connection_that_is_reset(self, receiver: WebhookReceiver) -> None:
        attempt = deliver(receiver, Answer(reset=True))
        assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "the connection broke")

    @pytest.mark.parametrize("raw", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 200_000])
    def test_what_is_no_http(self, receiver: WebhookReceiver, raw: bytes) -> None:
        attempt = deliver(receiver, Answer(raw=[raw]))
        assert attempt.outcome is Outcome.FAILED
        assert attempt.reason in ("it did not answer in HTTP", "the connection broke")

    def test_headers_without_end(self, receiver: WebhookReceiver) -> None:
        head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 1000) for n in range(1000))
        assert deliver(receiver, Answer(raw=[head])).reason == "it did not answer in HTTP"

    def test_nobody_listens(self) -> None:
        with WebhookReceiver() as gone:
            pass
        with sender_to(gone) as sender:
            attempt = sender.send(delivery(gone.url(HOST)))
        assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "no connection came about")

    def test_who_listens_and_never_speaks_tls(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            place = f"{HOST}:{listener.getsockname()[1]}"
            guard = Guard(hosts=[place], resolver=lambda *_: ["127.0.0.1"])
            with Sender(guard, timeout=0.5, **TRUST_NOBODY) as sender:
                attempt = sender.send(delivery(f"https://{place}/"))
        assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "it did not answer within 0.5 s")

    def test_a_name_that_is_not_known(self) -> None:
        def unknown(*_: object) -> list[str]:
            raise OSError("the name of the host is not known")

        with Sender(Guard(resolver=unknown)) as sender:
            attempt = sender.send(delivery("https://nowhere.example/"))
        assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "the name of the host has no address")

    def test_a_name_server_that_is_slow(self) -> None:
        def slow(*_: object) -> list[str]:
            raise TimeoutError

        with Sender(Guard(resolver=slow)) as sender:
            attempt = sender.send(delivery("https://slow.example/"))
        assert (attempt.outcome, attempt.reason) == (Outcome.FAILED, "it did not answer within 20 s")

    def test_an_address_that_is_dead_leaves_time_for_the_next(self, receiver: WebhookReceiver) -> None:
        guard = Guard(hosts=[f"{HOST}:{receiver.port}"], resolver=lambda *_: ["127.9.9.9", "::1", "127.0.0.1"])
        with Sender(guard) as sender:
            assert sender.send(delivery(receiver.url(HOST))).outcome is Outcome.DELIVERED


class TestConnections:
    def test_one_is_used_again_for_the_same_host_and_for_no_other(self, receiver: WebhookReceiver) -> None:
        with sender_to(receiver) as sender:
            for host in (HOST, HOST, f"other.{HOST}", HOST, f"other.{HOST}"):
                assert sender.send(delivery(receiver.url(host))).outcome is Outcome.DELIVERED
        by_host: dict[str, set[int]] = {}
        for request in receiver.requests:
            by_host.setdefault(request.headers["host"].partition(":")[0], set()).add(request.connection)
        assert receiver.connections == 2
        assert {host: len(connections) for host, connections in by_host.items()} == {HOST: 1, f"other.{HOST}": 1}

    def test_one_that_the_receiver_has_closed_is_replaced(self, receiver: WebhookReceiver) -> None:
        receiver.script = lambda _: Answer(headers={"connection": "close"})
        with sender_to(receiver) as sender:
            outcomes = [sender.send(delivery(receiver.url(HOST))).outcome for _ in range(3)]
        assert outcomes == [Outcome.DELIVERED] * 3
        assert receiver.connections == 3

    def test_after_a_deadline_it_is_not_used_again(self, receiver: WebhookReceiver) -> None:
        with sender_to(receiver, timeout=2.0) as sender:
            receiver.script = lambda _: SILENCE
            assert sender.send(delivery(receiver.url(HOST))).outcome is Outcome.FAILED
            receiver.script = lambda _: Answer(body=b"mine")
            assert sender.send(delivery(receiver.url(HOST))).response == "mine"
        assert receiver.connections == 2

    def test_what_fails_gives_its_place_back(self, receiver: WebhookReceiver) -> None:
        answers = iter([Answer(reset=True), SILENCE, Answer(500, body=b"x" * 100_000), Answer(raw=[b"no"]), Answer()])
        receiver.script = lambda _: next(answers)
        with sender_to(receiver, timeout=2.0, connections=1) as sender:
            refused = [sender.send(delivery("https://127.0.0.1/")).outcome for _ in range(3)]
            outcomes = [sender.send(delivery(receiver.url(HOST))).outcome for _ in range(5)]
        assert set(refused) == {Outcome.REFUSED}
        assert outcomes == [Outcome.FAILED] * 4 + [Outcome.DELIVERED]

    def test_many_threads_share_it(self, receiver: WebhookReceiver) -> None:
        receiver.script = lambda request: Answer(body=request.headers["webhook-id"].encode())
        together = threading.Barrier(8)

        def send(number: int) -> bool:
            if number < 8:
                together.wait(30)
            attempt = sender.send(Delivery(f"id-{number}", receiver.url(HOST), encode(EVENT), [SECRET]))
            return attempt.response == f"id-{number}"

        with sender_to(receiver, connections=8) as sender, ThreadPoolExecutor(8) as pool:
            assert all(pool.map(send, range(200)))
        assert receiver.connections <= 8


class TestTLS:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        return make_certificate(tmp_path, HOST)

    def trusting(self, certificate: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=certificate)

    def test_the_name_of_the_url_is_what_tls_and_http_ask_for(self, certificate: Path) -> None:
        with (
            WebhookReceiver(certificate) as receiver,
            sender_to(receiver, ssl_context=self.trusting(certificate)) as sender,
        ):
            attempt = sender.send(delivery(receiver.url(HOST)))
            assert attempt.outcome is Outcome.DELIVERED
            assert receiver.names == [HOST]
            assert receiver.requests[0].headers["host"] == f"{HOST}:{receiver.port}"

    def test_a_certificate_that_the_system_does_not_trust(self, certificate: Path) -> None:
        with WebhookReceiver(certificate) as receiver:
            guard = Guard(hosts=[f"{HOST}:{receiver.port}"], resolver=lambda *_: ["127.0.0.1"])
            with Sender(guard) as sender:
                attempt = sender.send(delivery(receiver.url(HOST)))
            assert attempt.outcome is Outcome.FAILED
            assert (attempt.reason or "").startswith("TLS: its certificate is not trusted")
            assert receiver.requests == []

    def test_a_certificate_of_another_host(self, certificate: Path) -> None:
        with (
            WebhookReceiver(certificate) as receiver,
            sender_to(receiver, ssl_context=self.trusting(certificate)) as sender,
        ):
            attempt = sender.send(delivery(receiver.url(f"other.{HOST}")))
            assert (attempt.reason or "").startswith("TLS: its certificate is not trusted: Hostname mismatch")
            assert receiver.requests == []

    def test_who_speaks_no_tls(self, receiver: WebhookReceiver) -> None:
        with sender_to(receiver) as sender:
            attempt = sender.send(delivery(receiver.url(HOST).replace("http:", "https:")))
        assert attempt.outcome is Outcome.FAILED
        assert receiver.requests == []
