"""The limits of the settings: what holds until an operator says otherwise."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sqlalchemy import Connection

from dspex.errors import InvalidValues, SettingsError
from store.gates import GateKey, Limits, set_default_limit
from store.gates.rows import LIMITS, LM, TENANT, checked_key, checked_limits
from workers.persistence.group_commit import Writer
from workers.persistence.operations import Writes

logger = logging.getLogger(__name__)

LIMITED = (LM, TENANT)
"""What a setting may limit: what an operator knows by a name that stays."""


def read_limits(given: Mapping[str, Mapping[str, int]]) -> dict[GateKey, Limits]:
    """Read limits by what they are of: `{"lm:fast": {"in_flight": 10}}`.

    Raises:
        SettingsError: one is wrong. The text names it.
    """
    read = dict[GateKey, Limits]()
    for scope, members in given.items():
        kind, _, name = scope.partition(":")
        if kind not in LIMITED or not name:
            raise SettingsError(f"DSPEX_LIMITS: '{scope}' must be {' or '.join(f'{kind}:NAME' for kind in LIMITED)}")
        if unknown := members.keys() - set(LIMITS):
            raise SettingsError(f"DSPEX_LIMITS: '{scope}': '{min(unknown)}' is not one of {', '.join(LIMITS)}")
        try:
            read[checked_key(GateKey(kind, name))] = checked_limits(Limits(**members))
        except InvalidValues as wrong:
            raise SettingsError(f"DSPEX_LIMITS: '{scope}': {wrong.message}") from None
    return read


def apply_limits(writer: Writer, writes: Writes, limits: Mapping[GateKey, Limits]) -> None:
    """Set these limits where no operator has set others. Does not wait."""

    def apply(connection: Connection) -> None:
        for key in sorted(limits):
            set_default_limit(connection, key, limits[key])

    if limits:
        writer.submit(writes.each, apply, _applied)


def _applied(_result: object, error: Exception | None) -> None:
    if error is not None:
        logger.warning("The limits of DSPEX_LIMITS were not set: %s", error)
