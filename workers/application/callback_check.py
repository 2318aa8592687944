"""Looks at a callback when it comes in, so that whoever sent it is told at once where it cannot be."""

from __future__ import annotations

from dspex.contract.callback import Callback
from workers.settings import Settings
from workers.telemetry.episodes import Episodes
from workers.webhooks.addresses import Guard
from workers.webhooks.secrets import WebhookSecrets


class CallbackCheck:
    """What a tenant may ask for. The values of secrets are not in it: whoever delivers has them."""

    def __init__(self, settings: Settings, episodes: Episodes | None = None) -> None:
        self._guard = Guard(settings.webhook_ports, settings.webhook_hosts, episodes=episodes)
        self._secrets = WebhookSecrets({}, granted(settings), settings.webhook_secret_hosts)

    def check(self, tenant: str, callback: Callback | None) -> None:
        """Whether webhooks may go there, with these secrets.

        Raises:
            ForbiddenAddress: not there.
            Denied: the tenant was not given a secret, or it is not for this use.
        """
        if callback is not None:
            self._guard.check(callback.url)
            self.check_signing(tenant, callback.secret, callback.url)
            for name in sorted(callback.headers.values()):
                self._secrets.check_sent(tenant, name, callback.url)

    def check_signing(self, tenant: str, name: str, url: str) -> None:
        """Whether the tenant's webhooks to a URL may be signed with this secret; raises as `check` does."""
        self._secrets.check_signing(tenant, name, url)


def granted(settings: Settings) -> dict[str, tuple[str, ...]] | None:
    """The names that each tenant may use; None where there is one tenant, which may use all."""
    return settings.webhook_secrets if settings.tenancy else None
