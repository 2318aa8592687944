"""Opens the blob store of the settings."""

from __future__ import annotations

from dspex.blobs import BlobStore, open_store
from dspex.errors import BlobsUnavailable, InvalidBlob, SettingsError
from workers.settings import Settings


def open_blobs(settings: Settings) -> BlobStore | None:
    """The blob store; None: this process has none. S3 is not asked yet.

    Raises:
        SettingsError: the folder cannot be made or written to, or the extra for S3 is missing.
    """
    if settings.blobs is None:
        return None
    try:
        return open_store(settings.blobs, max_bytes=settings.blob_max_bytes)
    except (BlobsUnavailable, InvalidBlob) as error:
        raise SettingsError(f"DSPEX_BLOBS: {error.message}") from None


def check_blobs(settings: Settings) -> None:
    """Check that the blob store can be read and written to, if there is one.

    Raises:
        SettingsError: it cannot.
    """
    store = open_blobs(settings)
    if store is None:
        return
    try:
        store.check()
    except BlobsUnavailable as error:
        raise SettingsError(f"DSPEX_BLOBS: {error.message}") from None
