"""The secrets of webhooks: the names that a tenant may use, and their values.

The value of a name in a callback goes to a URL of the tenant's choice. So these names have a form of their own
(`dspex.contract.callback.WebhookSecretName`), which no LM key has, and with tenancy each tenant may use only granted
names. Secrets that sign (`..._WEBHOOK_SECRET`) are never sent; only those for headers (`..._WEBHOOK_TOKEN`) are.
Otherwise a tenant could get the signing secret sent to its own URL, and forge webhooks.
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
    """Looks secrets up by name.

    Args:
        values: the values by name. During a rotation, a signing secret may contain two values, separated by a space.
        granted: the names that each tenant may use; None: tenancy is off, and all are allowed.
        hosts: the hosts, as `host` or `host:port`, to which a name is limited. A name that is missing here may go
    anywhere.
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
        """The values of a signing secret.

        Raises:
            Denied: the name is not granted to the tenant, is not for signing, or not for this host.
            SettingsError: the worker lacks the secret.
        """
        self.check_signing(tenant, name, url)
        return tuple(self._value(name).split())

    def headers(self, tenant: str, names: Mapping[str, str], url: str) -> dict[str, str]:
        """Replace the names of secrets in headers by their values. Raises the errors of `signing`."""
        for name in names.values():
            self.check_sent(tenant, name, url)
        return {header: self._value(name) for header, name in names.items()}

    def check_signing(self, tenant: str, name: str, url: str) -> None:
        """Check that a tenant's webhooks to a URL may be signed with a secret. Raises `Denied` if not."""
        if not name.endswith(SIGNS):
            raise Denied(f"secret: '{name}' is one that is sent; what signs ends in {SIGNS}")
        self._check(tenant, name, url)

    def check_sent(self, tenant: str, name: str, url: str) -> None:
        """Check that the value of a secret may be sent to a URL. Raises `Denied` if not."""
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
