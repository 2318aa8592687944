"""Which variables of the environment are settings, which only look like it, and which were meant as one."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Mapping

from dspex.errors import SettingsError

logger = logging.getLogger(__name__)

PREFIX = "DSPEX_"
MISSPELT = 0.8
"""How much alike a variable and a setting are, from 0 to 1 (`difflib`), where the setting must have been meant."""
SIMILAR = 0.6

_SERVICE = re.compile(
    r"DSPEX(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"DSPEX(_[A-Z0-9_]+)?_PORT")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)


def look_over(environment: Mapping[str, str], settings: Collection[str]) -> None:
    """Find the variables that begin like settings and are none.

    Those of the tests, and those that Kubernetes makes of a Service named `dspex` or `dspex-...`
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), are passed over. An
    unknown one has a line in the log: a newer version may know it, and this one must be able to take its place.

    Args:
        settings: the names of the settings, `DSPEX_THREADS`.

    Raises:
        SettingsError: one is a setting, misspelt.
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
    """Whether Kubernetes, or a link of Docker, made it: `DSPEX_PORT=tcp://10.0.0.1:80`, `DSPEX_SERVICE_HOST=...`."""
    if _SERVICE.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _ADDRESS.fullmatch(value))


def _meant(name: str, settings: Collection[str], alike: float) -> str | None:
    bare = [setting.removeprefix(PREFIX) for setting in settings]
    found = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=alike)
    return PREFIX + found[0] if found else None
