"""Makes one attempt to deliver: signs the webhook, sends it, and returns the result."""

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
"""The timeout of a whole attempt. Standard Webhooks 1.0.0 recommends 15 to 30 s."""
RESPONSE_BYTES: Final = 4096
"""How much of a response's body is read and stored; then the connection is closed."""
KEEPALIVE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Delivery:
    """The delivery of one event to one endpoint.

    Attributes:
        id: `webhook-id`: the id of the event, the same in every attempt.
        secrets: the signing secrets, one signature for each; two during a rotation.
        headers: additional headers with their values. They cannot replace headers that are set here.
    """

    id: str
    url: str
    body: bytes
    secrets: Sequence[str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Sender:
    """Sends webhooks. Reuses connections for the same host. Thread-safe.

    It follows no redirect, ignores proxies of the environment, and verifies TLS.

    Args:
        guard: decides where webhooks may go.
        timeout: seconds for a whole attempt: resolving, connecting, request and response.
        connections: the most open connections: the number of threads that send.
        ssl_context: by default, trusts the system's certificates.
        network: opens connections; by default, the system's sockets.
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
        """Make one attempt. Always returns a result within the timeout, whatever the endpoint does."""
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
            # PostgreSQL cannot store U+0000 in text.
            text = _beginning(response).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
            return _Answer(response.status, text, _retry_after(response))

    def close(self) -> None:
        """Close all connections, including those in use."""
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
    """All headers, by name in lower case. Ours take precedence.

    Raises:
        SettingsError: a secret is not usable for a signature or a header. The text does not quote it.
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
    """The first bytes of the body. Errors are ignored, as the status already decides."""
    kept = b""
    with suppress(TimeoutException, NetworkError, ProtocolError):
        for chunk in response.iter_stream():
            kept += chunk
            if len(kept) >= RESPONSE_BYTES:
                break
    return kept[:RESPONSE_BYTES]


def _reason(error: Exception, timeout: float) -> str:
    """Describe an error in our own words, as the text of an exception may contain internal details."""
    cause = error.__context__  # the original error, which the pool raises again `from None`
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
