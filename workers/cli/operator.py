"""In whose name the command line asks."""

from __future__ import annotations

from dspex.errors import SettingsError
from store.database.tenancy import checked
from workers.security.authorization import Principal
from workers.security.principals import EVERYBODY
from workers.settings import Settings


def operator_of(settings: Settings, tenant: str | None) -> Principal:
    """In whose name a command asks: an admin of the tenant.

    Raises:
        SettingsError: there is one tenant, and another is named.
        InvalidValues: it cannot be the name of a tenant.
    """
    if tenant is None or checked(tenant) == EVERYBODY.tenant:
        return EVERYBODY
    if not settings.tenancy:
        raise SettingsError(f"--tenant: there is one tenant, '{EVERYBODY.tenant}': set DSPEX_TENANCY for others")
    return Principal(EVERYBODY.name, tenant, EVERYBODY.roles)
