"""References to blobs: which executions have values in the blob store. A blob without any is removed after a while."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, select, tuple_

from dspex.blobs.reference import digest_of_uri
from dspex.blobs.values import BLOBS
from store.database.batch import encode, execute, records, upsert
from store.database.identity import Identity
from store.tables import blob_references

MARK: Final = "sha256:"
"""A part of each reference: values without it have none."""
_COLUMNS = ("execution_id", "tenant", "digest")


def digests_in(values: Mapping[str, Any]) -> set[str]:
    """The digests of the blobs that inputs or outputs refer to: in `$blobs`, and as addresses (`blob:sha256:…`)."""
    given = values.get(BLOBS)
    blobs = given.values() if isinstance(given, Mapping) else ()
    named = {str(blob["digest"]) for blob in blobs if isinstance(blob, Mapping) and "digest" in blob}
    return named.union(digest for text in _texts(values) if (digest := digest_of_uri(text)) is not None)


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case Mapping():
            for item in value.values():
                yield from _texts(item)


def keep(connection: Connection, held: Mapping[Identity, Collection[str]]) -> None:
    """Keep that executions refer to blobs, by one statement; by none if none does.

    Call it in the transaction that writes the rows of the executions.
    """
    rows = [
        {"execution_id": execution.id, "tenant": execution.tenant, "digest": digest}
        for execution, digests in held.items()
        for digest in sorted(digests)
    ]
    if rows:
        execute(connection, _keep(connection.dialect.name, upsert(connection)), encode(rows))


def referred(connection: Connection, blobs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of these blobs (digest and tenant) that an execution refers to."""
    c = blob_references.c
    found = select(c.digest, c.tenant).where(tuple_(c.digest, c.tenant).in_(list(blobs))).distinct()
    return {(row.digest, row.tenant) for row in connection.execute(found)}


@lru_cache(maxsize=2)
def _keep(dialect: str, insert: Any) -> Any:
    c = blob_references.c
    r = records(dialect, {name: c[name].type for name in _COLUMNS})
    # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
    rows = select(*(r.c[name] for name in _COLUMNS)).where(r.c.execution_id.is_not(None))
    statement = insert(blob_references).from_select([*_COLUMNS], rows)
    return statement.on_conflict_do_nothing(index_elements=list(blob_references.primary_key))
