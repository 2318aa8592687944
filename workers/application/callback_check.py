"""Checks a callback when it arrives, so that its sender learns of an error at once."""

from __future__ import annotations

from dspex.contract.callback import Callback
from workers.settings import Settings
from workers.telemetry.episodes import Episodes
from workers.webhooks.addresses import Guard
from workers.webhooks.secrets import WebhookSecrets


class CallbackCheck:
    """Checks the callbacks of tenants. It has no values of secrets; only the deliverer has them."""

    def __init__(self, settings: Settings, episodes: Episodes | None = None) -> None:
        self._guard = Guard(settings.webhook_ports, settings.webhook_hosts, episodes=episodes)
        self._secrets = WebhookSecrets({}, granted(settings), settings.webhook_secret_hosts)

    def check(self, tenant: str, callback: Callback | None) -> None:
        """Check that webhooks may go to the callback's URL with its secrets.

        Raises:
            ForbiddenAddress: webhooks may not go to the URL.
            Denied: a secret is not granted to the tenant, or not for this use.
        """
        if callback is not None:
            self._guard.check(callback.url)
            self.check_signing(tenant, callback.secret, callback.url)
            for name in sorted(callback.headers.values()):
                self._secrets.check_sent(tenant, name, callback.url)

    def check_signing(self, tenant: str, name: str, url: str) -> None:
        """Check that the tenant's webhooks to a URL may be signed with this secret. Raises the errors of `check`."""
        self._secrets.check_signing(tenant, name, url)


def granted(settings: Settings) -> dict[str, tuple[str, ...]] | None:
    """The names of secrets that each tenant may use; None in a system without tenants, where all are allowed."""
    return settings.webhook_secrets if settings.tenancy else None
