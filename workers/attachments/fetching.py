"""Fetches an image, audio or a file from an address, by the guard and the pinned connections of webhooks.

Nothing of the environment is used: no proxy, no credentials, no cookies. Each redirect is checked as the first address
was. The body is read up to a limit, as it is: one that is compressed is refused.
"""

from __future__ import annotations

import re
import ssl
from typing import Final, NamedTuple
from urllib.parse import urljoin

import httpcore2
from httpcore2 import NetworkBackend, NetworkError, ProtocolError, TimeoutException

from dspex.errors import ForbiddenAddress
from workers.attachments.hosts import Hosts
from workers.webhooks.network import GuardedNetwork, NoAddress

MAX_REDIRECTS: Final = 3
MAX_AT_ONCE: Final = 16
"""Connections of a process."""
KEEPALIVE_SECONDS: Final = 30.0

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429})
_LENGTH = re.compile(rb"[0-9]{1,19}")


class Fetched(NamedTuple):
    """What was fetched.

    Attributes:
        media_type: by the header, in lower case and without parameters; empty if there is none.
    """

    media_type: str
    body: bytes


class NotFetched(Exception):
    """Why nothing was fetched, in our own words.

    Attributes:
        passing: whether it may be different later.
    """

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class Fetcher:
    """Fetches from addresses. Thread-safe.

    Args:
        ssl_context: by default, trusts the system's certificates.
        network: opens connections; by default, the system's sockets.
    """

    def __init__(
        self, hosts: Hosts, *, ssl_context: ssl.SSLContext | None = None, network: NetworkBackend | None = None
    ) -> None:
        self._hosts = hosts
        self._network = GuardedNetwork(hosts.guard, network)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl_context or httpcore2.default_ssl_context(),
            max_connections=MAX_AT_ONCE,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=self._network,
        )

    def fetch(self, url: str, max_bytes: int, seconds: float) -> Fetched:
        """Fetch a body of at most `max_bytes`, within `seconds` in all.

        Raises:
            NotFetched: it cannot be fetched, or may not.
        """
        try:
            with self._network.deadline.within(seconds):
                for _ in range(MAX_REDIRECTS + 1):
                    answer = self._get(url, max_bytes, seconds)
                    if isinstance(answer, Fetched):
                        return answer
                    url = answer
            raise NotFetched(f"it redirects more than {MAX_REDIRECTS} times", passing=False)
        except ForbiddenAddress as error:
            raise NotFetched(error.message.removeprefix("url: "), passing=False) from None
        except TimeoutException:
            raise NotFetched(f"it did not answer within {seconds:.3g} s", passing=True) from None
        except NoAddress:
            raise NotFetched("the name of the host has no address", passing=True) from None
        except NetworkError as error:
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                raise NotFetched("TLS: its certificate is not trusted", passing=False) from None
            raise NotFetched("no connection came about, or it broke", passing=True) from None
        except ProtocolError:
            raise NotFetched("it did not answer in HTTP", passing=True) from None

    def _get(self, url: str, max_bytes: int, seconds: float) -> Fetched | str:
        """The body, or where it is now."""
        target = self._hosts.check(url)
        address = httpcore2.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        headers = {"host": target.authority, "user-agent": "DSPex", "accept": "*/*", "accept-encoding": "identity"}
        waiting = {"timeout": {"pool": seconds}}
        with self._pool.stream("GET", address, headers=list(headers.items()), extensions=waiting) as response:
            given = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in given:
                return urljoin(url, given[b"location"].decode("latin-1"))
            if response.status != 200:
                passing = response.status >= 500 or response.status in _PASSING
                raise NotFetched(f"it answered with {response.status}", passing=passing)
            if given.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                raise NotFetched("its body is compressed, although that was not asked for", passing=False)
            return Fetched(_media_type(given.get(b"content-type", b"")), _body(response, given, max_bytes))

    def close(self) -> None:
        """Close all connections, including those in use."""
        self._pool.close()


def _media_type(header: bytes) -> str:
    return header.decode("latin-1").partition(";")[0].strip().lower()


def _body(response: httpcore2.Response, headers: dict[bytes, bytes], max_bytes: int) -> bytes:
    too_large = NotFetched(f"it has more than the {max_bytes} bytes that are left for it", passing=False)
    length = headers.get(b"content-length", b"")
    if _LENGTH.fullmatch(length) and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    for part in response.iter_stream():
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)
