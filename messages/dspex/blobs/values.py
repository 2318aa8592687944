"""Values that are in the blob store instead of in a message or a row.

Inputs and outputs are objects by the names of fields. A field whose value is in the store is not among them; its blob
is in the member `$blobs`, a name that no field can have:

    {"question": "…", "$blobs": {"document": {"digest": "sha256:…", "size": 400000, "media_type": "text/plain"}}}

The body of `application/json` is the value as JSON, and that of `text/…` is the value itself, in UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pydantic
from pydantic_core import from_json, to_json

from dspex.blobs.reference import JSON, Blob
from dspex.blobs.store import BlobStore
from dspex.errors import BlobsUnavailable, BlobTooLarge, InvalidBlob
from dspex.model import problems

BLOBS: Final = "$blobs"
TEXT: Final = "text/plain"
THRESHOLD_BYTES: Final = 256 * 1024
"""From how many bytes on a value goes to the store, by default."""


def is_value(blob: Blob) -> bool:
    """Whether the body is a value of a field, and not one that a field of media takes by its address."""
    return blob.media_type == JSON or blob.media_type.startswith("text/")


def placed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with `Blob` objects as values, as a message has them: in `$blobs`, or by their `uri` if they are media."""
    plain: dict[str, Any] = {}
    blobs: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Blob) and is_value(value):
            blobs[name] = value.model_dump()
        else:
            plain[name] = _addressed(value)
    return _with(plain, blobs)


def _with(values: dict[str, Any], blobs: dict[str, Any]) -> dict[str, Any]:
    if not blobs:
        return values
    given = values.get(BLOBS)
    return values | {BLOBS: (dict(given) if isinstance(given, Mapping) else {}) | blobs}


def _addressed(value: Any) -> Any:
    if isinstance(value, Blob):
        return value.uri
    if isinstance(value, list | tuple) and any(isinstance(item, Blob) for item in value):
        return [_addressed(item) for item in value]
    return value


def references_of(values: Mapping[str, Any]) -> dict[str, Blob]:
    """The blobs of values by the names of their fields.

    Raises:
        InvalidBlob: `$blobs` is no object of blobs, or a field is there twice.
    """
    given = values.get(BLOBS)
    if given is None and BLOBS not in values:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidBlob(f"{BLOBS}: must be an object of blobs by the names of fields")
    found: dict[str, Blob] = {}
    for name, blob in given.items():
        try:
            found[name] = Blob.model_validate(blob)
        except pydantic.ValidationError as error:
            raise InvalidBlob(f"{BLOBS}.{name[:100]}.{problems(error)[0]}") from None
        if name in values:
            raise InvalidBlob(f"{BLOBS}.{name[:100]}: the field has a value beside its blob: give one of them")
    return found


def value_of(blob: Blob, store: BlobStore, *, tenant: str) -> Any:
    """The value whose body is a blob.

    Raises:
        InvalidBlob: the size is another, or the body is not what its media type says.
        NotFound, BlobTooLarge, BlobCorrupt, BlobsUnavailable: see `BlobStore.get`.
    """
    if not is_value(blob):
        raise InvalidBlob(f"a blob of {blob.media_type} is no value: use application/json or text/plain")
    size = store.find(blob.digest, tenant=tenant).size
    if size != blob.size:
        raise InvalidBlob(f"blob {blob.digest} has {size} bytes, and not {blob.size}")
    body = store.get(blob.digest, tenant=tenant)
    try:
        return from_json(body, allow_inf_nan=False) if blob.media_type == JSON else body.decode()
    except ValueError:
        kind = "JSON" if blob.media_type == JSON else "text in UTF-8"
        raise InvalidBlob(f"blob {blob.digest} is not {kind}") from None


def whole(values: Mapping[str, Any], store: BlobStore | None, *, tenant: str) -> dict[str, Any]:
    """Values without blobs: each is read from the store.

    Raises:
        BlobsUnavailable: there are blobs, and no store to read them from, or it cannot be reached.
        InvalidBlob, NotFound, BlobTooLarge, BlobCorrupt: see `value_of`.
    """
    found = references_of(values)
    if not found:
        return dict(values)
    if store is None:
        raise BlobsUnavailable(f"{', '.join(found)}: in the blob store; give the client blobs=open_store(…)")
    total = sum(blob.size for blob in found.values())
    if total > store.max_bytes:
        raise BlobTooLarge(f"{', '.join(found)}: have {total} bytes; at most {store.max_bytes} are allowed in all")
    plain = {name: value for name, value in values.items() if name != BLOBS}
    return plain | {name: value_of(blob, store, tenant=tenant) for name, blob in found.items()}


def offloaded(values: Mapping[str, Any], store: BlobStore, *, tenant: str, threshold: int) -> dict[str, Any]:
    """Values of which each that has at least `threshold` bytes as JSON is in the store.

    Raises:
        BlobTooLarge: one is larger than the store takes.
        BlobsUnavailable: the store cannot be reached or written to.
    """
    large: dict[str, Any] = {}
    for name, value in values.items():
        if name == BLOBS or not _may_be_large(value, threshold):
            continue
        try:
            body, media_type = (value.encode(), TEXT) if isinstance(value, str) else (to_json(value), JSON)
        except ValueError:  # it is no JSON, which its validation says better
            continue
        if len(body) >= threshold:
            large[name] = store.put(body, tenant=tenant, media_type=media_type).model_dump()
    return _with({name: value for name, value in values.items() if name not in large}, large)


def _may_be_large(value: Any, threshold: int) -> bool:
    """Whether to look closer. Most values are short texts and numbers, for which this is all."""
    if isinstance(value, str):
        return len(value) * 4 >= threshold
    return isinstance(value, list | dict)
