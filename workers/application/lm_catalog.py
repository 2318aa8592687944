"""The LMs that programs may call: by the settings' aliases, and the secrets of the environment."""

from __future__ import annotations

from adapters.lm import LMCatalog
from workers.settings import Settings, load_secrets


def make_catalog(settings: Settings) -> LMCatalog:
    """The catalog of a process. The values of secrets are read now."""
    granted = settings.lm_secrets if settings.tenancy else None
    return LMCatalog(settings.lms, load_secrets().get, granted, settings.lm_proxy)
