"""Looks at a callback when it comes in, so that whoever sent it is told at once where it cannot be."""

from __future__ import annotations

from collections.abc import Collection

from dspex.callbacks import Callback
from workers.settings import Settings
from workers.webhooks.addresses import Guard
from workers.webhooks.secrets import WebhookSecrets


class Gate:
    """What a tenant may ask for. The values of secrets are not in it: whoever delivers has them."""

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(settings.webhook_ports, settings.webhook_hosts)
        self._secrets = WebhookSecrets({}, granted(settings))

    def check(self, tenant: str, callback: Callback | None) -> None:
        """Whether webhooks may go there, with these secrets.

        Raises:
            ForbiddenAddress: not there.
            Denied: the tenant was not given a secret.
        """
        if callback is not None:
            self._guard.check(callback.url)
            self.check_secrets(tenant, {callback.secret, *callback.headers.values()})

    def check_secrets(self, tenant: str, names: Collection[str]) -> None:
        """Whether the tenant may use these; raises as `check` does."""
        self._secrets.check(tenant, sorted(names))


def granted(settings: Settings) -> dict[str, tuple[str, ...]] | None:
    """The names that each tenant may use; None where there is one tenant, which may use all."""
    return settings.webhook_secrets if settings.tenancy else None
