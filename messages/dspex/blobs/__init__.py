"""Blobs: bodies that are too large for a message, in a store beside the database, named by their digest.

A `BlobStore` works alike on each kind of storage (`dspex.blobs.objects`): a folder, S3 and what is compatible with it,
or memory. It promises the following, which `tests/contract/test_blobs.py` checks for each:

- **The name is the content.** `sha256:` and the digest of the body, in lower case. What is read is compared with it,
  and a body that differs is an error, not an answer.
- **A tenant finds its own blobs alone.** The tenant is a part of every key; another's digest is not found.
- **Whole or not at all.** A body is there when it is complete, also where the process that stores it is killed.
- **Bounded memory.** Bodies are streamed; one that is larger than the cap is refused before it is stored.
- **What is stored again stays.** Each storing that may come too late has an object of its own, so the removal of old
  ones, which names what it removes, never takes a body that came after it looked (`docs/decisions/0034-blobs.md`).
"""

from dspex.blobs.address import open_store
from dspex.blobs.reference import Blob, blob_digest
from dspex.blobs.store import BlobStore, StoredBlob

__all__ = ["Blob", "BlobStore", "StoredBlob", "blob_digest", "open_store"]
