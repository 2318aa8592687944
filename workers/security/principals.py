"""Finds the principal of a message by its login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from dspex.errors import Denied
from dspex.ids import DEFAULT_TENANT
from workers.security.authorization import Principal, Role

EVERYBODY = Principal("everybody", DEFAULT_TENANT, frozenset({Role.ADMIN}), fleet=True)
"""The principal of everybody while tenancy is off: there is one tenant, and every publisher may do everything."""


@dataclass(frozen=True)
class Principals:
    """The principals of a deployment.

    Args:
        by_login: the principals of broker logins, from the settings; None: tenancy is off.
        system: the workers' own login, which may act for any tenant.
    """

    by_login: Mapping[str, Principal] | None = None
    system: str | None = None

    def of(self, user_id: str | None, tenant: str | None = None) -> Principal:
        """The principal of a message.

        Args:
            user_id: the AMQP property `user-id`, which RabbitMQ has checked against the login; None: it is not set.
            tenant: the tenant in the envelope.
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
        """Whether the content of a message belongs to the tenant for which it is recorded (`tenant_of`), as far as
        known.

        It may belong to another one: events and answers come back if somebody binds their exchange to the workers'
        queues, and the tenant of an unknown login is not known.

        Args:
            tenant: the tenant in the envelope.
            event: whether it is one of our events.
        """
        if self.by_login is None:
            return True
        if self.is_system(user_id):
            return tenant is not None
        principal = self.by_login.get(user_id or "")
        return principal is not None and (not event or tenant == principal.tenant)

    def tenant_of(self, user_id: str | None, tenant: str | None = None) -> str:
        """The tenant for which a message is recorded. `tenant` is the one in the envelope."""
        if self.is_system(user_id):
            return tenant or DEFAULT_TENANT
        principal = (self.by_login or {}).get(user_id or "")
        return principal.tenant if principal else DEFAULT_TENANT


def on_behalf(body: bytes, tenant: str) -> bytes:
    """Add a tenant to a message without one, so that the workers' login can send it for the tenant."""
    return body.replace(b"{", _named(tenant), 1)


def as_it_came(body: bytes, tenant: str) -> bytes:
    """Undo `on_behalf`, so that a message that is rejected again is recorded as the same one."""
    return body.replace(_named(tenant), b"{", 1)


def _named(tenant: str) -> bytes:
    return b'{"tenant":"%s",' % tenant.encode()
