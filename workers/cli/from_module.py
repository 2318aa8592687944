"""`dspex signature from-module`: the signatures of an importable module, each under the version that it needs."""

from __future__ import annotations

from collections.abc import Sequence

from dspex import Signature
from dspex.client.interface import Interface
from dspex.client.losses import with_warnings
from dspex.contract.results import SignatureView
from dspex.contract.status import SignatureStatus
from dspex.errors import SettingsError
from dspex.signatures.compatibility import compare
from store.signatures import precedence
from workers.handlers.signature_modules import check_whole, read_signatures, renamed


def create_from_module(
    client: Interface,
    module: str,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    activate: bool = False,
    bump: bool = False,
    strict: bool = False,
) -> tuple[SignatureView, ...]:
    """Create the signatures of a module, which is imported: an operator's command may import any on this machine.

    One that is there with the same content, under its version, is left as it is.

    Args:
        name: instead of the class's name; for one signature.
        description: for people; for one signature.
        version: instead of 1.0.0.
        activate: also make them active.
        bump: give one that has changed the next version by what changed: a major one if it breaks callers, a minor one
            if it does not, a patch if only texts for the LM changed.
        strict: refuse classes of which something would be lost.

    Raises:
        DspexError: the module cannot be read, an option does not fit, or the version has another content.
    """
    if version is not None and bump:
        raise SettingsError("--version and --bump: give one of them")
    found = renamed(
        read_signatures(module, allowed_prefixes=None), module, name=name, description=description, version=version
    )
    if strict:
        check_whole(found)
    return tuple(
        with_warnings(_created(client, signature, activate=activate, bump=bump), signature) for signature in found
    )


def _created(client: Interface, signature: Signature, *, activate: bool, bump: bool) -> SignatureView:
    versions = _versions(client, signature)
    same = [view for view in versions if _is_same(view.signature, signature, of_any_version=bump)]
    if same:
        found = same[0]
        if signature.description not in (None, found.signature.description):
            described = found.signature.model_copy(update={"description": signature.description})
            found = client.update_signature(found.signature_id, described)
        is_waiting = activate and found.status == SignatureStatus.DRAFT
        return client.activate_signature(found.signature_id) if is_waiting else found
    if bump and versions:
        signature = signature.model_copy(update={"version": _next(versions, signature)})
    return client.create_signature(signature, activate=activate)


def _versions(client: Interface, signature: Signature) -> list[SignatureView]:
    """The versions that are there, the highest one first."""
    found: list[SignatureView] = []
    cursor = None
    while True:
        page = client.list_signatures(module=signature.module, limit=1_000, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return sorted(found, key=lambda view: precedence(view.signature.version), reverse=True)


def _is_same(kept: Signature, signature: Signature, *, of_any_version: bool) -> bool:
    is_version = of_any_version or kept.version == signature.version
    return is_version and (kept.name, kept.digest) == (signature.name, signature.digest)


def _next(versions: Sequence[SignatureView], signature: Signature) -> str:
    """The version after the highest one, by what has changed since."""
    highest = versions[0].signature
    major, minor, patch = (int(part) for part in highest.version.partition("+")[0].partition("-")[0].split("."))
    changed = compare(highest, signature)
    if not changed.compatible:
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if changed.changes else f"{major}.{minor}.{patch + 1}"
