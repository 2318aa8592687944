"""Labels with gates: what waits with one is a queue of its own, so that a gate holds it and nothing beside it.

A group of a queue stands for labels that have gates; see `store.executions.grouping`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, select

from dspex.ids import digest
from store.database.tenancy import ALL
from store.tables import queues

Labels = tuple[tuple[str, str], ...]
"""Names and values, in order."""


def group_of(labels: Labels) -> str:
    """The group that stands for labels; '' for none."""
    return digest([list(label) for label in labels])[:32] if labels else ""


def gated(gates: Collection[tuple[str, str]], tenant: str, metadata: Mapping[str, str] | None) -> Labels:
    """Those of an execution's labels that have a gate.

    Args:
        gates: the tenant and the name, `name=value`, of the gates of labels.
    """
    found = (metadata or {}).items()
    return tuple(sorted(one for one in found if not {(ALL, "=".join(one)), (tenant, "=".join(one))}.isdisjoint(gates)))


def labels_of(connection: Connection, keys: Iterable[Mapping[str, Any]]) -> dict[str, Labels]:
    """The labels of queues, by their group; the keys are by the columns of their rows."""
    found = dict[str, Labels]()
    for key in keys:
        its = and_(*(queues.c[name] == value for name, value in key.items()))
        kept = connection.execute(select(queues.c.labels).where(its)).scalar_one_or_none()
        found[key["group_key"]] = tuple((name, value) for name, value in kept or ())
    return found
