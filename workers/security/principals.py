"""From the login of a message to the principal that asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from dspex.errors import Denied
from dspex.ids import DEFAULT_TENANT
from workers.security.authorization import Principal, Role

EVERYBODY = Principal("everybody", DEFAULT_TENANT, frozenset({Role.ADMIN}))
"""Who asks while tenancy is off: there is one tenant, and whoever may publish may do everything."""


@dataclass(frozen=True)
class Principals:
    """The principals of a deployment.

    Args:
        by_login: those of broker logins, as the operator has set them; None: tenancy is off.
        system: the workers' own login, which may act for any tenant.
    """

    by_login: Mapping[str, Principal] | None = None
    system: str | None = None

    def of(self, user_id: str | None, tenant: str | None = None) -> Principal:
        """The principal of a message.

        Args:
            user_id: the AMQP property `user-id`, which RabbitMQ has checked against the login; None: it is not set.
            tenant: what the envelope says.

        Raises:
            Denied: with tenancy on, a message without `user-id`, of an unknown login, or for another's tenant.
        """
        if self.by_login is None:
            return EVERYBODY
        if self.is_system(user_id):
            return Principal(user_id, tenant or DEFAULT_TENANT, frozenset({Role.SYSTEM}))
        if user_id is None:
            raise Denied("user-id: the message does not say who sent it: set the AMQP property to the broker's login")
        principal = self.by_login.get(user_id)
        if principal is None:
            raise Denied(f"user-id: '{user_id}' is not in DSPEX_PRINCIPALS")
        if tenant not in (None, principal.tenant):
            raise Denied(f"tenant: '{user_id}' belongs to '{principal.tenant}'")
        return principal

    def is_system(self, user_id: str | None) -> TypeGuard[str]:
        """Whether it is the workers' own login."""
        return self.by_login is not None and user_id is not None and user_id == self.system

    def is_its_own(self, user_id: str | None, tenant: str | None, *, event: bool) -> bool:
        """Whether what is in a message is of the tenant that it is recorded for (`tenant_of`), as far as one can know.

        It may be another's: events and answers come back where somebody has bound their exchange to the workers'
        queues; and nobody knows whose the messages of an unknown login are.

        Args:
            tenant: what the envelope says.
            event: whether it is one of ours.
        """
        if self.by_login is None:
            return True
        if self.is_system(user_id):
            return tenant is not None
        principal = self.by_login.get(user_id or "")
        return principal is not None and (not event or tenant == principal.tenant)

    def tenant_of(self, user_id: str | None, tenant: str | None = None) -> str:
        """The tenant that a message is recorded for, whoever it is from; `tenant` is what the envelope says."""
        if self.is_system(user_id):
            return tenant or DEFAULT_TENANT
        principal = (self.by_login or {}).get(user_id or "")
        return principal.tenant if principal else DEFAULT_TENANT


def on_behalf(body: bytes, tenant: str) -> bytes:
    """A message that names no tenant, as the workers' own login sends it for one."""
    return body.replace(b"{", _named(tenant), 1)


def as_it_came(body: bytes, tenant: str) -> bytes:
    """The message that `on_behalf` was given: one that is rejected again is the same again."""
    return body.replace(_named(tenant), b"{", 1)


def _named(tenant: str) -> bytes:
    return b'{"tenant":"%s",' % tenant.encode()
