"""Signatures: create, find, activate, deprecate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from dspex import Signature, SignatureStatus
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.status import SIGNATURE_TRANSITIONS
from store.batch import upsert
from store.tables import NOW, signatures


@dataclass(frozen=True)
class SignatureRow:
    """A signature as it is kept."""

    id: UUID
    signature: Signature
    status: SignatureStatus
    lock_version: int


def create(connection: Connection, signature_id: UUID, signature: Signature, *, activate: bool) -> SignatureRow:
    """Keep a signature, active or as a draft. The same id with the same content again changes nothing.

    Raises:
        Conflict: the id, or the module and version, belong to another signature.
    """
    data = signature.model_dump(mode="json")
    status = SignatureStatus.ACTIVE if activate else SignatureStatus.DRAFT
    inserted = connection.execute(
        upsert(connection)(signatures)
        .values(
            id=signature_id,
            name=signature.name,
            module=signature.module,
            version=signature.version,
            instructions=signature.instructions,
            inputs=data["inputs"],
            outputs=data["outputs"],
            digest=signature.digest,
            status=status,
            inserted_at=NOW,
            updated_at=NOW,
        )
        .on_conflict_do_nothing()
        .returning(signatures.c.id)
    ).one_or_none()
    if inserted is not None:
        return get(connection, signature_id)
    try:
        existing = get(connection, signature_id)
    except NotFound:
        raise Conflict(
            f"module: '{signature.module}' has a version {signature.version} already: choose another version"
        ) from None
    if existing.signature != signature:
        raise Conflict(f"signature_id: {signature_id} belongs to another signature")
    return existing


def get(connection: Connection, signature_id: UUID) -> SignatureRow:
    """The signature of this id.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(signatures).where(signatures.c.id == signature_id)).one_or_none()
    if row is None:
        raise NotFound(f"signature_id: there is no signature {signature_id}")
    return _row(row)


def transition(connection: Connection, signature_id: UUID, to: SignatureStatus) -> SignatureRow:
    """Change the status: draft → active → deprecated.

    Raises:
        NotFound: there is no such signature.
        IllegalTransition: it is not in a status from which this is allowed.
    """
    allowed = [status for status, targets in SIGNATURE_TRANSITIONS.items() if to in targets]
    c = signatures.c
    changed = connection.execute(
        update(signatures)
        .where(c.id == signature_id, c.status.in_(allowed))
        .values(status=to, lock_version=c.lock_version + 1, updated_at=NOW)
        .returning(c.id)
    ).one_or_none()
    row = get(connection, signature_id)
    if changed is None:
        raise IllegalTransition(f"signature {signature_id} cannot become {to}: it is {row.status}")
    return row


def _row(row: Any) -> SignatureRow:
    signature = Signature(
        name=row.name,
        module=row.module,
        version=row.version,
        instructions=row.instructions,
        inputs=row.inputs,
        outputs=row.outputs,
    )
    return SignatureRow(row.id, signature, SignatureStatus(row.status), row.lock_version)
