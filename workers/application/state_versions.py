"""Compares the versions with which a state was saved with those that are installed here."""

from __future__ import annotations

import platform
from importlib import metadata

from dspex.contract.state import SavedWith


def other_versions(saved: SavedWith) -> str | None:
    """What differs, as a line; None: nothing."""
    here = {"python": ".".join(platform.python_version_tuple()[:2]), "dspy": _version("dspy")}
    differs = [
        f"{name} {then} and not {now}"
        for name, now in here.items()
        if now is not None and (then := getattr(saved, name)) not in (None, now)
    ]
    return f"the state was saved with {', '.join(differs)}" if differs else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
