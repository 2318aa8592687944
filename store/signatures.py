"""Signatures: create, find, update drafts, activate, deprecate, destroy."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, func, select
from sqlalchemy import update as update_rows
from sqlalchemy.exc import IntegrityError

from dspex import Signature, SignatureStatus
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.ids import DEFAULT_TENANT, canonical_json
from dspex.lru import Lru
from store.database import pages
from store.database.batch import upsert
from store.database.pages import DEFAULT_LIMIT, Page
from store.tables import NOW, programs, signatures

CONTENT = ("name", "module", "version", "description", "instructions", "inputs", "outputs")
"""The columns with the content of a `Signature`."""

_NAMESPACE = UUID("7a2f0c1e-5d0b-5c9a-8f3e-2b6d4e9a1c75")


@dataclass(frozen=True)
class SignatureRow:
    """A stored signature."""

    id: UUID
    signature: Signature
    status: SignatureStatus
    lock_version: int
    tenant: str
    inserted_at: datetime
    updated_at: datetime


def create(
    connection: Connection, signature_id: UUID, signature: Signature, *, activate: bool, tenant: str = DEFAULT_TENANT
) -> SignatureRow:
    """Insert a signature, active or as a draft. The same id with the same content again changes nothing.

    Raises:
        Conflict: the id, or the module and version, belong to another signature.
    """
    if _insert(connection, signature_id, signature, activate, tenant):
        return get(connection, signature_id, tenant=tenant)
    existing = _find(connection, signature_id, tenant)
    if existing is None and _of_version(connection, signature, tenant) is not None:
        raise _taken(signature)
    if existing is None or existing.signature != signature:
        raise Conflict(f"signature_id: {signature_id} belongs to another signature")
    return existing


def find_or_create(
    connection: Connection, signature: Signature, *, activate: bool = True, tenant: str = DEFAULT_TENANT
) -> SignatureRow:
    """Find the signature with this name, module, version and content, in any status, or create it.

    Concurrent callers get the same one. One that is found takes the description that is given; without one it keeps
    its own.

    Raises:
        Conflict: the module has this version with another content or name.
    """
    found = _of_content(connection, signature, tenant)
    if found is not None:
        return _described(connection, found, signature.description)
    content = [tenant, signature.name, signature.module, signature.version, signature.digest]
    # An id derived from the content makes sure that there is one row. It may be taken, by a draft that was changed.
    signature_id = uuid.uuid5(_NAMESPACE, canonical_json(content).decode())
    while not _insert(connection, signature_id, signature, activate, tenant):
        found = _of_content(connection, signature, tenant)
        if found is not None:
            return _described(connection, found, signature.description)
        if _of_version(connection, signature, tenant) is not None:
            raise _taken(signature)
        signature_id = uuid.uuid5(_NAMESPACE, signature_id.hex)
    return get(connection, signature_id, tenant=tenant)


def get(connection: Connection, signature_id: UUID, *, tenant: str = DEFAULT_TENANT) -> SignatureRow:
    """The signature with this id.

    Raises:
        NotFound: there is no such signature.
    """
    found = _find(connection, signature_id, tenant)
    if found is None:
        raise NotFound(f"signature_id: there is no signature {signature_id}")
    return found


def find(connection: Connection, module: str, version: str, *, tenant: str = DEFAULT_TENANT) -> SignatureRow:
    """The signature with this module and version.

    Raises:
        NotFound: there is no such signature.
    """
    c = signatures.c
    found = _one(connection, c.tenant == tenant, c.module == module, c.version == version)
    if found is None:
        raise NotFound(f"module: there is no version {version} of '{module}'")
    return found


def versions(connection: Connection, module: str, *, tenant: str = DEFAULT_TENANT) -> list[SignatureRow]:
    """The signatures of a module, highest version first, by the rules of Semantic Versioning."""
    c = signatures.c
    found = connection.execute(select(signatures).where(c.tenant == tenant, c.module == module))
    return sorted(map(row_of, found), key=lambda row: precedence(row.signature.version), reverse=True)


def page(
    connection: Connection,
    *,
    name: str | None = None,
    status: SignatureStatus | None = None,
    module: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[SignatureRow]:
    """Signatures that match all given conditions, newest first.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    c = signatures.c
    given = {c.name: name, c.status: status, c.module: module}
    conditions = [column == value for column, value in given.items() if value is not None]
    statement = select(signatures).where(c.tenant == tenant, *conditions)
    return pages.read(connection, statement, signatures, row_of, cursor=cursor, limit=limit)


def update(
    connection: Connection,
    signature_id: UUID,
    signature: Signature,
    *,
    lock_version: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> SignatureRow:
    """Replace the content of a draft. Of others, only the description can be changed.

    Args:
        lock_version: the version on which the change is based; None: the current one.

    Raises:
        NotFound: there is no such signature.
        IllegalTransition: it is not a draft.
        Conflict: the signature was changed meanwhile, or the module and version belong to another one.
    """
    c = signatures.c
    try:
        with connection.begin_nested():  # otherwise an error would abort the transaction on PostgreSQL
            changed = connection.execute(
                update_rows(signatures)
                .where(c.id == signature_id, c.tenant == tenant, _at(lock_version))
                .where((c.status == SignatureStatus.DRAFT) | _has_content(signature))
                .values(**_content(signature), lock_version=c.lock_version + 1, updated_at=NOW)
                .returning(c.id)
            ).one_or_none()
    except IntegrityError:
        raise _taken(signature) from None
    row = get(connection, signature_id, tenant=tenant)
    if changed is None:
        if row.status != SignatureStatus.DRAFT:
            text = f"Only draft signatures can be updated: {signature_id} is {row.status}"
            raise IllegalTransition(f"{text}, so that no more than its description may differ")
        raise Conflict(f"signature {signature_id} has been changed: it is at lock_version {row.lock_version}")
    return row


def activate(connection: Connection, signature_id: UUID, *, tenant: str = DEFAULT_TENANT) -> SignatureRow:
    """Activate a draft: programs can be initialized with it, and it can no longer be changed.

    Raises:
        NotFound: there is no such signature.
        IllegalTransition: it is not a draft.
    """
    return _transition(connection, signature_id, tenant, SignatureStatus.DRAFT, SignatureStatus.ACTIVE, "activated")


def deprecate(connection: Connection, signature_id: UUID, *, tenant: str = DEFAULT_TENANT) -> SignatureRow:
    """Mark an active signature as one that new programs should not use.

    Raises:
        NotFound: there is no such signature.
        IllegalTransition: it is not active.
    """
    return _transition(
        connection, signature_id, tenant, SignatureStatus.ACTIVE, SignatureStatus.DEPRECATED, "deprecated"
    )


def destroy(connection: Connection, signature_id: UUID, *, tenant: str = DEFAULT_TENANT) -> None:
    """Delete a signature that no program uses, whatever its status.

    Raises:
        NotFound: there is no such signature.
        IllegalTransition: programs use it.
    """
    c = signatures.c
    # The creation of a program holds a key-share lock on the row, so this waits for it, and then counts the program.
    locked = select(c.id).where(c.id == signature_id, c.tenant == tenant).with_for_update()
    if connection.execute(locked).one_or_none() is None:
        raise NotFound(f"signature_id: there is no signature {signature_id}")
    p = programs.c
    counted = select(func.count()).where(p.signature_id == signature_id, p.tenant == tenant)
    users = connection.execute(counted).scalar_one()
    if users:
        raise IllegalTransition(f"signature {signature_id} cannot be destroyed: {users} programs use it")
    connection.execute(delete(signatures).where(c.id == signature_id, c.tenant == tenant))


def row_of(row: Any) -> SignatureRow:
    """Read a signature from a row with all columns."""
    return SignatureRow(
        row.id,
        signature_of(row),
        SignatureStatus(row.status),
        row.lock_version,
        row.tenant,
        row.inserted_at,
        row.updated_at,
    )


def signature_of(row: Any, prefix: str = "") -> Signature:
    """Read the content of a signature from a row whose columns have the table's names, after a prefix.

    Cached: equal content gives the same object, with its compiled validators.
    """
    content = {name: getattr(row, prefix + name) for name in CONTENT}
    key = (getattr(row, f"{prefix}digest"), *(content[name] for name in _NOT_IN_DIGEST))
    signature = _read.get(key)
    if signature is None:
        signature = Signature.accepted(content)
        _read.put(key, signature, signature.size)
    return signature


READ_BYTES = 64 * 1024 * 1024

_NOT_IN_DIGEST = ("name", "module", "version", "description")

_read: Lru[tuple[str | None, ...], Signature] = Lru(READ_BYTES)
"""The cache of `signature_of`, by the digest and the members that the digest does not include."""


def _transition(
    connection: Connection, signature_id: UUID, tenant: str, start: SignatureStatus, to: SignatureStatus, done: str
) -> SignatureRow:
    c = signatures.c
    changed = connection.execute(
        update_rows(signatures)
        .where(c.id == signature_id, c.tenant == tenant, c.status == start)
        .values(status=to, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    row = get(connection, signature_id, tenant=tenant)
    if changed is None:
        raise IllegalTransition(f"Only {start} signatures can be {done}: {signature_id} is {row.status}")
    return row


def _insert(connection: Connection, signature_id: UUID, signature: Signature, activate: bool, tenant: str) -> bool:
    status = SignatureStatus.ACTIVE if activate else SignatureStatus.DRAFT
    inserted = connection.execute(
        upsert(connection)(signatures)
        .values(id=signature_id, **_content(signature), status=status, tenant=tenant, inserted_at=NOW, updated_at=NOW)
        .on_conflict_do_nothing()
        .returning(signatures.c.id)
    ).one_or_none()
    return inserted is not None


def _content(signature: Signature) -> dict[str, Any]:
    data = signature.model_dump(mode="json")
    return {
        "name": signature.name,
        "module": signature.module,
        "version": signature.version,
        "description": signature.description,
        "instructions": signature.instructions,
        "inputs": data["inputs"],
        "outputs": data["outputs"],
        "digest": signature.digest,
    }


def _at(lock_version: int | None) -> Any:
    c = signatures.c
    return c.lock_version == (c.lock_version if lock_version is None else lock_version)


def _taken(signature: Signature) -> Conflict:
    return Conflict(f"module: '{signature.module}' has a version {signature.version} already: choose another version")


def _find(connection: Connection, signature_id: UUID, tenant: str) -> SignatureRow | None:
    c = signatures.c
    return _one(connection, c.id == signature_id, c.tenant == tenant)


def _of_version(connection: Connection, signature: Signature, tenant: str) -> SignatureRow | None:
    if signature.module is None:  # any number of signatures may have no module
        return None
    c = signatures.c
    return _one(connection, c.tenant == tenant, c.module == signature.module, c.version == signature.version)


def _of_content(connection: Connection, signature: Signature, tenant: str) -> SignatureRow | None:
    """The oldest signature with this content; active ones before drafts, drafts before deprecated ones."""
    c = signatures.c
    order = case((c.status == SignatureStatus.ACTIVE, 0), (c.status == SignatureStatus.DRAFT, 1), else_=2)
    row: Row[Any] | None = connection.execute(
        select(signatures)
        .where(c.tenant == tenant, _has_content(signature))
        .order_by(order, c.inserted_at, c.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else row_of(row)


def _has_content(signature: Signature) -> ColumnElement[bool]:
    """All but the description."""
    c = signatures.c
    return and_(
        c.digest == signature.digest,
        c.name == signature.name,
        c.module.is_not_distinct_from(signature.module),
        c.version == signature.version,
    )


def _described(connection: Connection, found: SignatureRow, description: str | None) -> SignatureRow:
    """The signature with this description; without one it keeps its own."""
    if description is None or description == found.signature.description:
        return found
    c = signatures.c
    connection.execute(
        update_rows(signatures)
        .where(c.id == found.id, c.tenant == found.tenant)
        .values(description=description, lock_version=c.lock_version + 1, updated_at=NOW)
    )
    return get(connection, found.id, tenant=found.tenant)


def _one(connection: Connection, *conditions: Any) -> SignatureRow | None:
    row = connection.execute(select(signatures).where(*conditions)).one_or_none()
    return None if row is None else row_of(row)


def precedence(version: str) -> tuple[Any, ...]:
    """The sort key of a version: SemVer 2.0.0, section 11, then the build metadata, so that the order is total."""
    release, _, build = version.partition("+")
    numbers, _, pre = release.partition("-")
    identifiers = [(0, int(part), "") if re.fullmatch(r"\d+", part) else (1, 0, part) for part in pre.split(".")]
    return tuple(map(int, numbers.split("."))), not pre, identifiers if pre else [], build
