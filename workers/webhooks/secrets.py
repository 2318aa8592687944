"""The secrets of webhooks: which names a tenant may use, and their values.

A name in a callback says what is sent to a URL of the tenant's choice. So these names have a form of their own
(`dspex.contract.callback.WebhookSecretName`), which no LM's key has; and with tenants, each has those that it was
given. Those that sign (`..._WEBHOOK_SECRET`) and those that are sent as headers (`..._WEBHOOK_TOKEN`) are two kinds:
who may name a URL could else have the secret delivered there that proves to others whom a webhook is from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dspex.contract.callback import parse_url
from dspex.errors import Denied, SettingsError

SECRETS_SETTING = "DSPEX_WEBHOOK_SECRETS"
HOSTS_SETTING = "DSPEX_WEBHOOK_SECRET_HOSTS"
SIGNS = "_WEBHOOK_SECRET"
SENT = "_WEBHOOK_TOKEN"


class WebhookSecrets:
    """Looks up values by name.

    Args:
        values: by name. A signing secret may have two in one, separated by a space, while it is being changed.
        granted: the names that a tenant may use; None where there are no tenants, and every name may be.
        hosts: where a name may be used, `host` or `host:port`; a name that is not in it, anywhere.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        granted: Mapping[str, Collection[str]] | None = None,
        hosts: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._values = dict(values)
        self._granted = granted
        self._hosts = hosts or {}

    def signing(self, tenant: str, name: str, url: str) -> tuple[str, ...]:
        """What a webhook is signed with.

        Raises:
            Denied: the tenant was not given that name, or it does not sign, or not there.
            SettingsError: the worker does not have it.
        """
        self.check_signing(tenant, name, url)
        return tuple(self._value(name).split())

    def headers(self, tenant: str, names: Mapping[str, str], url: str) -> dict[str, str]:
        """Headers with their values, from headers with the names of secrets. Raises as `signing` does."""
        for name in names.values():
            self.check_sent(tenant, name, url)
        return {header: self._value(name) for header, name in names.items()}

    def check_signing(self, tenant: str, name: str, url: str) -> None:
        """Whether a tenant's webhooks to a URL may be signed with it: raises `Denied` where not."""
        if not name.endswith(SIGNS):
            raise Denied(f"secret: '{name}' is one that is sent; what signs ends in {SIGNS}")
        self._check(tenant, name, url)

    def check_sent(self, tenant: str, name: str, url: str) -> None:
        """Whether its value may be sent to a URL: raises `Denied` where not."""
        if not name.endswith(SENT):
            raise Denied(f"headers: '{name}' signs, and is never sent; what is sent ends in {SENT}")
        self._check(tenant, name, url)

    def _check(self, tenant: str, name: str, url: str) -> None:
        if self._granted is not None and name not in self._granted.get(tenant, ()):
            raise Denied(f"secret: '{tenant}' may not use '{name}'; an operator can give it by {SECRETS_SETTING}")
        if name in self._hosts:
            target = parse_url(url)
            if not {target.host, target.host_port} & set(self._hosts[name]):
                raise Denied(f"secret: '{name}' is not for this host; an operator can allow it by {HOSTS_SETTING}")

    def _value(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            raise SettingsError(f"secret: the worker has no '{name}'; set it in its environment") from None
