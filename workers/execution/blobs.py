"""The values of an execution in the blob store: inputs are read before the run, large outputs stored after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from adapters.port import AdapterError, NotHere, Outcome
from dspex import ErrorCode, Signature, SignatureField
from dspex.blobs.values import BLOBS, offloaded, references_of, value_of
from dspex.errors import BlobsUnavailable, BlobTooLarge, InvalidBlob, InvalidInput, Problem
from workers.application.wiring import Application
from workers.attachments.store_errors import store_errors, tell_away


def whole_inputs(app: Application, inputs: Mapping[str, Any], signature: Signature, tenant: str) -> Mapping[str, Any]:
    """The inputs, with those that are in the blob store.

    Raises:
        InvalidInput: a blob is not there, is larger than it may be, or is not what it is said to be.
        NotHere: this worker has no blob store.
        AdapterError: `transient`: the store cannot be reached; `permanent`: a body in it is another.
    """
    return inputs if BLOBS not in inputs else _whole(app, inputs, signature.inputs, tenant)


def whole_outputs(app: Application, outputs: Mapping[str, Any], signature: Signature, tenant: str) -> Mapping[str, Any]:
    """The outputs that a service tells, with those that are in the blob store. Raises the errors of `whole_inputs`."""
    return outputs if BLOBS not in outputs else _whole(app, outputs, signature.outputs, tenant)


def _whole(
    app: Application, given: Mapping[str, Any], fields: Sequence[SignatureField], tenant: str
) -> Mapping[str, Any]:
    try:
        blobs = references_of(given)
    except InvalidBlob as error:
        raise InvalidInput(error.message) from None
    names = {field.name for field in fields}
    unknown = [Problem(name, "is not a known field: remove it") for name in blobs if name not in names]
    if unknown:
        raise InvalidInput(unknown)
    if app.blobs is None:
        raise NotHere(f"{', '.join(blobs)}: in the blob store, and this worker has none: set DSPEX_BLOBS")
    most, total = app.blobs.max_bytes, sum(blob.size for blob in blobs.values())
    if total > most:
        text = f"the blobs have {total} bytes; DSPEX_BLOB_MAX_BYTES allows {most} in all"
        raise InvalidInput([Problem(name, text) for name in blobs])
    values = {name: value for name, value in given.items() if name != BLOBS}
    for name, blob in blobs.items():
        with store_errors(name, app.episodes):
            values[name] = value_of(blob, app.blobs, tenant=tenant)
    return values


def kept_outputs(app: Application, outcome: Outcome, tenant: str) -> Mapping[str, Any]:
    """The outputs as the row has them: large ones are in the blob store, if there is one.

    Where the store cannot be reached, outputs that fit into a message are kept whole.

    Raises:
        AdapterError: `invalid_output`: they are too large; `transient`: they are too large for a message, and the store
            cannot be reached.
    """
    outputs, most = outcome.outputs, app.settings.max_message_bytes
    down: BlobsUnavailable | None = None
    if app.blobs is not None:
        try:
            outputs = offloaded(outputs, app.blobs, tenant=tenant, threshold=app.settings.blob_threshold)
        except BlobTooLarge as error:
            raise AdapterError(
                ErrorCode.INVALID_OUTPUT, f"DSPEX_BLOB_MAX_BYTES: {error.message}", usage=outcome.usage
            ) from None
        except BlobsUnavailable as error:
            tell_away(app.episodes, error)
            down = error
    size = len(to_json(outputs))
    if size <= most:
        return outputs
    if down is not None:
        raise AdapterError(ErrorCode.TRANSIENT, f"DSPEX_BLOBS: {down.message}", usage=outcome.usage)
    raise AdapterError(
        ErrorCode.INVALID_OUTPUT,
        f"the outputs have {size} bytes; DSPEX_MAX_MESSAGE_BYTES allows {most}",
        usage=outcome.usage,
    )
