"""The principal of the command line."""

from __future__ import annotations

from dspex.errors import SettingsError
from store.database.tenancy import checked
from workers.security.authorization import Principal
from workers.security.principals import EVERYBODY
from workers.settings import Settings


def operator_of(settings: Settings, tenant: str | None) -> Principal:
    """The principal of a command: an admin of the tenant.

    Raises:
        SettingsError: a tenant is named although tenancy is off.
        InvalidValues: the name of the tenant is invalid.
    """
    if tenant is None or checked(tenant) == EVERYBODY.tenant:
        return EVERYBODY
    if not settings.tenancy:
        raise SettingsError(f"--tenant: there is one tenant, '{EVERYBODY.tenant}': set DSPEX_TENANCY for others")
    return Principal(EVERYBODY.name, tenant, EVERYBODY.roles, fleet=True)
