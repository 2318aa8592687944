"""The handlers for signatures."""

from __future__ import annotations

from dspex.contract.commands import (
    ActivateSignature,
    CreateSignature,
    CreateSignatureFromModule,
    DeprecateSignature,
    DestroySignature,
    UpdateSignature,
)
from dspex.contract.queries import CompareSignatures, GetSignature, GetSignatureSchema, ListSignatures, ValidateModule
from dspex.contract.results import Answer, Nothing, Page, SignatureList, SignatureSchema, SignatureView
from dspex.contract.status import SignatureStatus
from dspex.errors import NotFound
from dspex.signatures.compatibility import Compatibility, compare
from store import signatures
from workers.application.wiring import Application
from workers.brokers.work_queue import CHANGES
from workers.handlers.registry import handles
from workers.handlers.signature_modules import check_whole, read_signatures, renamed, validate_module
from workers.outbound.serializers import page_of, signature_view
from workers.security.authorization import ADMINS, EVERY_ROLE, MAKERS, OPERATORS
from workers.security.request import Received


@handles(CreateSignature, roles=MAKERS, priority=CHANGES)
def create_signature(app: Application, received: Received[CreateSignature]) -> SignatureView:
    """Create a signature. For a new version of a module, also return the changes since the last one."""
    command, tenant = received.command, received.tenant
    row = app.write(
        lambda connection: signatures.create(
            connection, command.signature_id, command.signature, activate=command.activate, tenant=tenant
        )
    )
    if row.signature.module is None:
        return signature_view(row, command.signature)
    with app.read(tenant) as connection:
        versions = signatures.versions(connection, row.signature.module, tenant=tenant)
    earlier = versions[[version.id for version in versions].index(row.id) + 1 :]
    changes = compare(earlier[0].signature, row.signature) if earlier else None
    return signature_view(row, command.signature).model_copy(update={"compatibility": changes})


@handles(CreateSignatureFromModule, roles=OPERATORS, priority=CHANGES)
def create_from_module(app: Application, received: Received[CreateSignatureFromModule]) -> SignatureList:
    """Create drafts of a module's signatures. Of existing ones nothing but the description is changed."""
    asked = received.command
    found = read_signatures(asked.module, allowed_prefixes=app.settings.signature_modules)
    found = renamed(found, asked.module, name=asked.name, description=asked.description, version=asked.version)
    if asked.strict:
        check_whole(found)
    rows = app.write(
        lambda connection: [
            signatures.find_or_create(connection, signature, activate=False, tenant=received.tenant)
            for signature in found
        ]
    )
    return SignatureList(signatures=tuple(map(signature_view, rows, found)))


@handles(ValidateModule, roles=OPERATORS, priority=CHANGES)
def is_module(app: Application, received: Received[ValidateModule]) -> Answer:
    """Whether a module contains signatures."""
    return Answer(value=validate_module(received.command.module, allowed_prefixes=app.settings.signature_modules))


@handles(UpdateSignature, roles=MAKERS)
def update_signature(app: Application, received: Received[UpdateSignature]) -> SignatureView:
    """Replace the content of a draft."""
    command, tenant = received.command, received.tenant
    row = app.write(
        lambda connection: signatures.update(connection, command.signature_id, command.signature, tenant=tenant)
    )
    return signature_view(row, command.signature)


@handles(ActivateSignature, roles=OPERATORS)
def activate_signature(app: Application, received: Received[ActivateSignature]) -> SignatureView:
    """draft → active."""
    signature_id, tenant = received.command.signature_id, received.tenant
    return signature_view(app.write(lambda connection: signatures.activate(connection, signature_id, tenant=tenant)))


@handles(DeprecateSignature, roles=OPERATORS)
def deprecate_signature(app: Application, received: Received[DeprecateSignature]) -> SignatureView:
    """active → deprecated."""
    signature_id, tenant = received.command.signature_id, received.tenant
    return signature_view(app.write(lambda connection: signatures.deprecate(connection, signature_id, tenant=tenant)))


@handles(DestroySignature, roles=ADMINS)
def destroy_signature(app: Application, received: Received[DestroySignature]) -> Nothing:
    """Delete a signature that no program uses."""
    signature_id, tenant = received.command.signature_id, received.tenant
    app.write(lambda connection: signatures.destroy(connection, signature_id, tenant=tenant))
    return Nothing()


@handles(GetSignature, roles=EVERY_ROLE)
def get_signature(app: Application, received: Received[GetSignature]) -> SignatureView:
    """Read one signature."""
    with app.read(received.tenant) as connection:
        return signature_view(signatures.get(connection, received.command.signature_id, tenant=received.tenant))


@handles(GetSignatureSchema, roles=EVERY_ROLE)
def get_schema(app: Application, received: Received[GetSignatureSchema]) -> SignatureSchema:
    """Read the JSON Schemas of a signature."""
    asked, tenant = received.command, received.tenant
    with app.read(tenant) as connection:
        if asked.signature_id is not None:
            row = signatures.get(connection, asked.signature_id, tenant=tenant)
        else:
            active = signatures.page(
                connection, name=asked.name, status=SignatureStatus.ACTIVE, limit=1, tenant=tenant
            ).items
            if not active:
                raise NotFound(f"there is no active signature with the name '{asked.name}'")
            row = active[0]
    return SignatureSchema(
        signature_id=row.id,
        name=row.signature.name,
        version=row.signature.version,
        description=row.signature.description,
        status=row.status,
        digest=row.signature.digest,
        inputs=row.signature.input_schema(),
        outputs=row.signature.output_schema(),
    )


@handles(ListSignatures, roles=EVERY_ROLE)
def list_signatures(app: Application, received: Received[ListSignatures]) -> Page[SignatureView]:
    """Read a page of signatures."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = signatures.page(
            connection,
            name=asked.name,
            status=asked.status,
            module=asked.module,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, signature_view, Page[SignatureView])


@handles(CompareSignatures, roles=EVERY_ROLE)
def compare_signatures(app: Application, received: Received[CompareSignatures]) -> Compatibility:
    """Compare two signatures."""
    asked = received.command
    with app.read(received.tenant) as connection:
        old = signatures.get(connection, asked.old_id, tenant=received.tenant)
        new = signatures.get(connection, asked.new_id, tenant=received.tenant)
    return compare(old.signature, new.signature)
