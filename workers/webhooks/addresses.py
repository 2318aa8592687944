"""Decides where webhooks may go: the guard against requests to internal addresses (SSRF).

A tenant can put any host into a URL, and a name may resolve to other addresses each time. So the guard checks the URL,
then every address, and `workers.webhooks.network` connects only to checked addresses.

The tables are IANA's special-purpose addresses, and the metadata services of clouds. `ipaddress.is_global` is not used,
because it accepts 64:ff9b::7f00:1, 2002:7f00:1::, 224.0.0.1 and 168.63.129.16, and differs between versions of Python.
 https://www.iana.org/assignments/iana-ipv4-special-registry https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from dspex.contract.callback import Target, host_port, parse_url
from dspex.errors import ForbiddenAddress, SettingsError
from workers.telemetry.episodes import Episodes

HOSTS_SETTING: Final = "DSPEX_WEBHOOK_HOSTS"
PORTS_SETTING: Final = "DSPEX_WEBHOOK_PORTS"


class Words(NamedTuple):
    """How refusals are told.

    Attributes:
        refused: what is refused, as the beginning of a line of the log.
        may_not: what the address is that is refused.
        hosts_setting: the setting that allows a host.
        ports_setting: the setting that allows a port.
    """

    refused: str
    may_not: str
    hosts_setting: str
    ports_setting: str


WEBHOOKS: Final = Words("Webhooks", "that webhooks may not go to", HOSTS_SETTING, PORTS_SETTING)

Resolver = Callable[[str, float], Sequence[str]]
"""Resolves a host within so many seconds. Raises OSError, or TimeoutError if it takes longer."""


def _networks(*texts: str) -> tuple[tuple[int, int, int], ...]:
    """Networks as version, address and mask, because numbers compare far faster than network objects."""
    networks = [ip_network(text) for text in texts]
    return tuple((each.version, int(each.network_address), int(each.netmask)) for each in networks)


_UNICAST: Final = _networks("0.0.0.0/0", "2000::/3")
"""Public IPv6 addresses are in 2000::/3. Loopback, private, mapped (::ffff:0:0/96) and NAT64 addresses are not."""

_SPECIAL: Final = _networks(
    "0.0.0.0/8",  # this network; Linux treats 0.0.0.0 as loopback
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared by carriers; 100.100.100.200 is Alibaba's metadata
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # Azure's host
    "169.254.0.0/16",  # link-local; metadata at 169.254.169.254
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocols; 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "2001::/23",  # protocols; Teredo is 2001::/32
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which contains an IPv4 address
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)

_LOCAL: Final = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"
)
"""The addresses that a host allowed by the operator may have, besides public ones."""

_METADATA: Final = _networks("100.100.100.200/32", "fd00:ec2::/32", "fd00:c1::/32", "fd20:ce::/32")
"""Metadata services within `_LOCAL`. They give out credentials, and are never receivers of webhooks."""


def is_public(address: str) -> bool:
    """Whether an IP address is public, without a special purpose."""
    number = _parsed(address)
    return number is not None and _within(number, _UNICAST) and not _within(number, _SPECIAL)


def is_local(address: str) -> bool:
    """Whether an IP address is this machine's or private, and not a metadata service."""
    number = _parsed(address)
    return number is not None and _within(number, _LOCAL) and not _within(number, _METADATA)


def resolve(host: str, seconds: float) -> Sequence[str]:
    """Resolve a host by the system. See `Resolver`.

    It runs in its own thread, because getaddrinfo has no timeout. With a slow name server, that thread stays until the
    system gives up.
    """
    found: Future[Sequence[str]] = Future()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.set_result(tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers)))
        except (OSError, UnicodeError):
            found.set_exception(OSError("the name of the host is not known"))

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return found.result(seconds)


class Guard:
    """Decides where webhooks may go. Thread-safe.

    Args:
        ports: the allowed ports of public addresses; https only.
        hosts: hosts, as `host:port`, that may have private addresses and use http, for development and internal
    receivers. Link-local addresses and metadata services are refused for them, too.
        resolver: resolves names.
        episodes: logs refusals.
        words: how they are told.

    Raises:
        SettingsError: one of `hosts` is not `host:port`.
    """

    def __init__(
        self,
        ports: Iterable[int] = (443,),
        hosts: Iterable[str] = (),
        resolver: Resolver = resolve,
        episodes: Episodes | None = None,
        words: Words = WEBHOOKS,
    ) -> None:
        self._ports = frozenset(ports)
        self._words = words
        self._hosts = frozenset(_named(host, words.hosts_setting) for host in hosts)
        self._resolver = resolver
        self._episodes = episodes or Episodes()

    def check(self, url: str) -> Target:
        """Check a URL without resolving its host, when it is registered and before each use.

        Raises:
            ForbiddenAddress: the URL is not allowed. The text says why, and which setting would allow it.
        """
        try:
            target = parse_url(url)
        except ValueError as error:
            raise ForbiddenAddress(f"url: {error}") from None
        if target.host_port in self._hosts:
            return target
        if target.scheme != "https":
            raise ForbiddenAddress(
                f"url: use https; an operator can allow '{target.host_port}' without it by {self._words.hosts_setting}"
            )
        if target.port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise ForbiddenAddress(
                f"url: the port {target.port} is not one of {allowed}; "
                f"an operator can allow it by {self._words.ports_setting}"
            )
        if _parsed(target.host) is not None:
            self._require((target.host,), target.host, target.port)
        return target

    def addresses(self, host: str, port: int, seconds: float) -> Sequence[str]:
        """Resolve a host and check every address. Connect to these without resolving again.

        Raises:
            ForbiddenAddress: one of the addresses is not allowed, even if others are.
            OSError: the host has no address. TimeoutError: they were not found within `seconds`.
        """
        found = (host,) if _parsed(host) is not None else self._resolver(host, seconds)
        if not found:
            raise OSError("the host has no address")
        self._require(found, host, port)
        return found

    def _require(self, addresses: Sequence[str], host: str, port: int) -> None:
        place = host_port(host, port)
        named = place in self._hosts
        for address in addresses:
            if not (is_public(address) or (named and is_local(address))):
                words = self._words
                self._episodes.tell(f"{words.refused} are refused", f"one to {place} would go to {address}")
                advice = "it never may" if named else f"an operator can allow '{place}' by {words.hosts_setting}"
                raise ForbiddenAddress(f"url: the host '{host}' has an address {words.may_not}; {advice}")


def _named(value: str, setting: str) -> str:
    try:
        target = parse_url(f"https://{value}")
    except ValueError as error:
        raise SettingsError(f"{setting}: '{value}' {error}; give host:port") from None
    if not value.lower().endswith(f":{target.port}"):
        raise SettingsError(f"{setting}: '{value}' must be host:port")
    return target.host_port


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; None if it is invalid, or is bound to an interface (fe80::1%eth0)."""
    try:
        return None if "%" in address else ip_address(address)
    except ValueError:
        return None


def _within(address: IPv4Address | IPv6Address, networks: tuple[tuple[int, int, int], ...]) -> bool:
    number = int(address)
    return any(address.version == version and number & mask == network for version, network, mask in networks)
