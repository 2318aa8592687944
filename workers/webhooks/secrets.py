"""The secrets of webhooks: which names a tenant may use, and their values.

A name in a callback says what is sent to a URL of the tenant's choice. So these names have a form of their own
(`dspex.callbacks.WebhookSecretName`), which no LM's key has; and with tenants, each has those that it was given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dspex.errors import Denied, SettingsError

SECRETS_SETTING = "DSPEX_WEBHOOK_SECRETS"


class WebhookSecrets:
    """Looks up values by name.

    Args:
        values: by name. A signing secret may have two in one, separated by a space, while it is being changed.
        granted: the names that a tenant may use; None where there are no tenants, and every name may be.
    """

    def __init__(self, values: Mapping[str, str], granted: Mapping[str, Collection[str]] | None = None) -> None:
        self._values = dict(values)
        self._granted = granted

    def signing(self, tenant: str, name: str) -> tuple[str, ...]:
        """What a webhook is signed with.

        Raises:
            Denied: the tenant was not given that name.
            SettingsError: the worker does not have it.
        """
        return tuple(self._value(tenant, name).split())

    def headers(self, tenant: str, names: Mapping[str, str]) -> dict[str, str]:
        """Headers with their values, from headers with the names of secrets. Raises as `signing` does."""
        return {header: self._value(tenant, name) for header, name in names.items()}

    def check(self, tenant: str, names: Collection[str]) -> None:
        """Whether the tenant may use the names, when they come in: raises `Denied` where not."""
        for name in names:
            if self._granted is not None and name not in self._granted.get(tenant, ()):
                raise Denied(f"secret: '{tenant}' may not use '{name}'; an operator can give it by {SECRETS_SETTING}")

    def _value(self, tenant: str, name: str) -> str:
        self.check(tenant, (name,))
        try:
            return self._values[name]
        except KeyError:
            raise SettingsError(f"secret: the worker has no '{name}'; set it in its environment") from None
