"""Makes one attempt to deliver: signs, sends, and says what came of it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

import httpcore2
from httpcore2 import ConnectError, NetworkBackend, NetworkError, ProtocolError, TimeoutException
from standardwebhooks import Webhook

from dspex.contract.callback import Target
from dspex.contract.envelope import CONTENT_TYPE
from dspex.errors import DspexError, SettingsError
from dspex.webhooks import check_secret
from workers.webhooks.addresses import Guard
from workers.webhooks.attempt import Attempt, Outcome, outcome_of
from workers.webhooks.network import GuardedNetwork, NoAddress
from workers.webhooks.schedule import parse_retry_after

TIMEOUT_SECONDS: Final = 20.0
"""For all of an attempt. Standard Webhooks 1.0.0 asks for 15 to 30 s."""
RESPONSE_BYTES: Final = 4096
"""What is read of an answer's body, and kept; the connection is closed on the rest."""
KEEPALIVE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint.

    Attributes:
        id: `webhook-id`, the same on every attempt: the id of the event.
        secrets: what it is signed with, each for itself: two while the secret is being changed.
        headers: more headers, values and all. They take the place of none that is set here.
    """

    id: str
    url: str
    body: bytes
    secrets: Sequence[str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Sender:
    """Sends webhooks. Thread-safe; connections are kept and used again for the same host alone.

    No redirect is followed, no proxy is used whatever the environment says, and TLS is verified.

    Args:
        guard: where they may go.
        timeout: seconds for all of an attempt: the name, the connection, the request, the answer.
        connections: open ones at most: the number of threads that send.
        ssl_context: whom to trust; the system's certificates by default.
        network: how to connect to an address; the system's sockets by default.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        timeout: float = TIMEOUT_SECONDS,
        connections: int = 16,
        ssl_context: ssl.SSLContext | None = None,
        network: NetworkBackend | None = None,
    ) -> None:
        self._guard = guard
        self._timeout = timeout
        self._network = GuardedNetwork(guard, network)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),
            max_connections=connections,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=self._network,
        )

    def send(self, delivery: Delivery) -> Attempt:
        """Make one attempt. Whatever the endpoint does, it answers, within the timeout."""
        start = time.monotonic()
        answer = _Answer()
        try:
            with self._network.deadline.within(self._timeout):
                answer = self._post(delivery)
            outcome = outcome_of(answer.status)
            reason = None if outcome is Outcome.DELIVERED else f"it answered with {answer.status}"
        except DspexError as error:
            outcome, reason = Outcome.REFUSED, error.message
        except (TimeoutException, NetworkError, ProtocolError) as error:
            outcome, reason = Outcome.FAILED, _reason(error, self._timeout)
        return Attempt(
            outcome=outcome,
            duration_ms=(time.monotonic() - start) * 1000,
            status=answer.status or None,
            reason=reason,
            response=answer.text,
            retry_after=answer.retry_after if outcome is Outcome.THROTTLED else None,
        )

    def _post(self, delivery: Delivery) -> _Answer:
        target = self._guard.check(delivery.url)
        url = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        headers = list(_headers(delivery, target).items())
        waiting = {"timeout": {"pool": self._timeout}}
        with self._pool.stream("POST", url, headers=headers, content=delivery.body, extensions=waiting) as response:
            # U+0000 is no text to PostgreSQL.
            text = _beginning(response).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
            return _Answer(response.status, text, _retry_after(response))

    def close(self) -> None:
        """Close the connections that are kept. What is being sent is cut off."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Answer:
    status: int = 0
    text: str = ""
    retry_after: float | None = None


def _headers(delivery: Delivery, target: Target) -> dict[str, str]:
    """Every header, by its name in lower case: ours win.

    Raises:
        SettingsError: a secret cannot sign or be sent; the text does not quote it.
    """
    given = {name.lower(): value.strip() for name, value in delivery.headers.items()}
    for name, value in given.items():
        if not (value.isascii() and value.isprintable()):
            raise SettingsError(f"headers: the value of '{name}' has characters that a header cannot have")
    if not delivery.secrets:
        raise SettingsError("secret: there is none to sign with")
    now = datetime.now(UTC).replace(microsecond=0)
    text = delivery.body.decode()
    signatures = [Webhook(check_secret(secret)).sign(delivery.id, now, text) for secret in delivery.secrets]
    return given | {
        "host": target.authority,
        "user-agent": "DSPex",
        "content-type": CONTENT_TYPE,
        "content-length": str(len(delivery.body)),
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _retry_after(response: httpcore2.Response) -> float | None:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return parse_retry_after(value.decode("latin-1").strip())
    return None


def _beginning(response: httpcore2.Response) -> bytes:
    """The first bytes of the body. The status counts: an answer that breaks off or drips is one all the same."""
    kept = b""
    with suppress(TimeoutException, NetworkError, ProtocolError):
        for chunk in response.iter_stream():
            kept += chunk
            if len(kept) >= RESPONSE_BYTES:
                break
    return kept[:RESPONSE_BYTES]


def _reason(error: Exception, timeout: float) -> str:
    """What happened, in words of our own: an exception's may quote what is not the reader's business."""
    cause = error.__context__  # the pool raises it again `from None`
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "TLS: no secure connection came about"
    match error:
        case TimeoutException():
            return f"it did not answer within {timeout:g} s"
        case NoAddress():
            return "the name of the host has no address"
        case ConnectError():
            return "no connection came about"
        case ProtocolError():
            return "it did not answer in HTTP"
        case _:
            return "the connection broke"
