"""The part of the client for blobs: bodies that are too large for a message."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import BinaryIO

from dspex.blobs import Blob, BlobStore
from dspex.blobs.reference import OCTETS, checked_media_type
from dspex.blobs.values import BLOBS, whole
from dspex.client.port import Port
from dspex.contract.results import ExecutionView
from dspex.errors import BlobsUnavailable, InvalidBlob


class BlobVerbs(Port):
    """See `dspex.blobs`. The blobs are those of the client's tenant."""

    def upload(self, source: bytes | str | os.PathLike[str] | BinaryIO, *, media_type: str | None = None) -> Blob:
        """Store a body, and return its blob: a value for an input, in place of the body.

        Args:
            source: bytes, the path of a file, or a file that is open in binary mode.
            media_type: by default what the name of the file says, or else `application/octet-stream`.

        Raises:
            BlobTooLarge, InvalidBlob: see `BlobStore.put`.
            BlobsUnavailable: the store cannot be reached, or the client has none.
        """
        store = self._blob_store()
        if isinstance(source, str | os.PathLike):
            source = Path(source)
            media_type = media_type or guessed(source)
        return store.put(source, tenant=self.tenant, media_type=media_type or OCTETS)

    def download(self, blob: Blob | str) -> bytes:
        """The body of a blob, or of a digest.

        Raises:
            NotFound, BlobCorrupt, InvalidBlob: see `BlobStore.get`.
            BlobsUnavailable: the store cannot be reached, or the client has none.
        """
        digest = blob.digest if isinstance(blob, Blob) else blob
        return self._blob_store().get(digest, tenant=self.tenant)

    def whole(self, execution: ExecutionView, *, inputs: bool = True) -> ExecutionView:
        """The execution with all its inputs and outputs. In a view, those in the blob store are in `$blobs`.

        Args:
            inputs: also the inputs, and not the outputs alone.

        Raises:
            NotFound, BlobTooLarge, BlobCorrupt, BlobsUnavailable: see `BlobStore.get`.
        """
        found = {"outputs": execution.outputs} | ({"inputs": execution.inputs} if inputs else {})
        kept = {
            name: whole(values, self.blobs, tenant=self.tenant)
            for name, values in found.items()
            if values is not None and BLOBS in values
        }
        return execution.model_copy(update=kept) if kept else execution

    def _blob_store(self) -> BlobStore:
        if self.blobs is None:
            raise BlobsUnavailable("the client has no blob store: give it blobs=open_store(…), or set DSPEX_BLOBS")
        return self.blobs


def guessed(path: Path) -> str:
    """The media type that the name of a file says."""
    guess, encoding = mimetypes.guess_type(path.name)
    if guess is None or encoding is not None:
        return OCTETS
    try:
        return checked_media_type(guess)
    except InvalidBlob:
        return OCTETS
