"""Checks the environment for variables that look like settings: misspelt, unknown, or from another program."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Mapping

from dspex.errors import SettingsError

logger = logging.getLogger(__name__)

PREFIX = "DSPEX_"
MISSPELT = 0.8
"""From this similarity of names on, from 0 to 1 (`difflib`), a variable counts as a misspelt setting."""
SIMILAR = 0.6

_SERVICE = re.compile(
    r"DSPEX(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"DSPEX(_[A-Z0-9_]+)?_PORT")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)


def look_over(environment: Mapping[str, str], settings: Collection[str]) -> None:
    """Find variables that have the prefix of settings but are not settings.

    Ignores those of the tests, and those that Kubernetes sets for a Service named `dspex` or `dspex-...`
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). An unknown one is only
    logged, as it may be a setting of a newer version, and a rollback to this version must work.

    Args:
        settings: the names of the settings, such as `DSPEX_THREADS`.

    Raises:
        SettingsError: a variable is a misspelt setting.
    """
    wrong = [
        name
        for name, value in environment.items()
        if name.startswith(PREFIX)
        and name not in settings
        and not name.startswith(PREFIX + "TEST_")
        and not _of_a_service(name, value)
    ]
    misspelt = {name: meant for name in wrong if (meant := _meant(name, settings, MISSPELT)) is not None}
    if misspelt:
        lines = (f"{name}: there is no such setting; {meant} is meant" for name, meant in misspelt.items())
        raise SettingsError("\n".join(lines))
    for name in wrong:
        meant = _meant(name, settings, SIMILAR)
        question = f" (is {meant} meant?)" if meant else ""
        logger.warning("%s: this version has no such setting, and goes on without it%s.", name, question)


def _of_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes or a Docker link has set it: `DSPEX_PORT=tcp://10.0.0.1:80`, `DSPEX_SERVICE_HOST=...`."""
    if _SERVICE.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _ADDRESS.fullmatch(value))


def _meant(name: str, settings: Collection[str], alike: float) -> str | None:
    bare = [setting.removeprefix(PREFIX) for setting in settings]
    found = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=alike)
    return PREFIX + found[0] if found else None
