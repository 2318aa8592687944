"""Makes the catalog of LMs from the aliases in the settings and the secrets in the environment."""

from __future__ import annotations

from adapters.lm import LMCatalog
from workers.settings import Settings, load_secrets


def make_catalog(settings: Settings) -> LMCatalog:
    """Make the catalog of a process. Reads the values of secrets now."""
    granted = settings.lm_secrets if settings.tenancy else None
    return LMCatalog(settings.lms, load_secrets().get, granted, settings.lm_proxy)
