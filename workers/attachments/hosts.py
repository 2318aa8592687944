"""The hosts that images, audio and files may be fetched from: those that the operator has named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dspex.contract.callback import Target, parse_url
from dspex.errors import ForbiddenAddress, SettingsError
from workers.telemetry.episodes import Episodes
from workers.webhooks.addresses import Guard, Resolver, Words, resolve

SETTING: Final = "DSPEX_FETCH_HOSTS"
ANY: Final = "*"
WORDS: Final = Words("Fetched addresses", "that nothing is fetched from", SETTING, SETTING)


class Hosts:
    """Decides which addresses are fetched. Thread-safe.

    Args:
        named: `*` for all hosts with public addresses, the name of such a host, or `host:port` of one that may have
            private addresses and be spoken to by http. Link-local addresses and metadata services are refused always.
        resolver: resolves names.
        episodes: logs refusals.

    Raises:
        SettingsError: one of `named` is none of these.
    """

    def __init__(self, named: Iterable[str], resolver: Resolver = resolve, episodes: Episodes | None = None) -> None:
        by_port = frozenset(name for name in named if name != ANY and name.rpartition(":")[2].isdigit())
        self._any = ANY in named
        self._public = frozenset(_public(name) for name in named if name != ANY and name not in by_port)
        self.guard = Guard(hosts=by_port, resolver=resolver, episodes=episodes, words=WORDS)
        self._by_port = frozenset(name.lower() for name in by_port)

    def check(self, url: str) -> Target:
        """Check an address without resolving its host. `guard` checks what the name resolves to.

        Raises:
            ForbiddenAddress: it is not fetched. The text says why, and which setting would allow it.
        """
        target = self.guard.check(url)
        if self._any or target.host in self._public or target.host_port in self._by_port:
            return target
        raise ForbiddenAddress(
            f"url: nothing is fetched from '{target.host}' here: send a data URL or a blob; an operator can allow the "
            f"host by {SETTING}"
        )


def _public(name: str) -> str:
    try:
        target = parse_url(f"https://{name}")
    except ValueError as error:
        raise SettingsError(f"{SETTING}: '{name[:100]}' {error}; give *, host, or host:port") from None
    if target.host != name.lower().strip("[]"):
        raise SettingsError(f"{SETTING}: '{name[:100]}' must be *, host, or host:port")
    return target.host
