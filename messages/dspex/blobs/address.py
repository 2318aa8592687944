"""Opens a blob store by its address: a folder, `file:///…`, `s3://bucket/prefix?endpoint=…&region=…` or `memory://`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dspex.blobs.store import MAX_BYTES, BlobStore
from dspex.errors import InvalidBlob

FORMS: Final = "use the path of a folder, file:///folder or s3://bucket/prefix?endpoint=https://…&region=…"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._/-]*)?\Z")


def checked_address(address: str) -> str:
    """The address, if it is one. Nothing is opened.

    Raises:
        InvalidBlob: it is none; the text says which are, and quotes no credentials.
    """
    _parse(address)
    return address


def open_store(address: str, *, max_bytes: int = MAX_BYTES) -> BlobStore:
    """Open a blob store.

    Args:
        address: the path of a folder, `file:///…`, `s3://bucket/prefix` (with `endpoint` and `region` as query), or
            `memory://` for this process alone.
        max_bytes: the largest body that is stored.

    Raises:
        InvalidBlob: the address is wrong.
        BlobsUnavailable: the folder cannot be made or written to, or `obstore` is missing. S3 is not asked yet.
    """
    parsed = _parse(address)
    if parsed is None:
        from dspex.blobs.memory import MemoryObjects

        return BlobStore(MemoryObjects(), max_bytes=max_bytes)
    if isinstance(parsed, Path):
        from dspex.blobs.folder import FolderObjects

        return BlobStore(FolderObjects(parsed), max_bytes=max_bytes)
    from dspex.blobs.s3 import s3_objects

    bucket, prefix, query = parsed
    name = f"s3://{bucket}/{prefix}"
    objects = s3_objects(bucket, prefix, endpoint=query.get("endpoint"), region=query.get("region"), name=name)
    return BlobStore(objects, max_bytes=max_bytes)


def _parse(address: str) -> Path | tuple[str, str, dict[str, str]] | None:
    if address == "memory://":
        return None
    if "://" not in address:
        return Path(address).absolute()
    try:
        url = urlsplit(address)
        query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise InvalidBlob(f"is not an address of blobs: {FORMS}") from None
    if url.scheme == "file" and not url.netloc and url.path.startswith("/") and not url.query and not url.fragment:
        return Path(unquote(url.path))
    if url.scheme != "s3":
        raise InvalidBlob(f"is not an address of blobs: {FORMS}")
    if "@" in url.netloc:
        raise InvalidBlob("has credentials in it: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    prefix = url.path.strip("/")
    if not _BUCKET.match(url.netloc) or (prefix and (not _PREFIX.match(prefix) or ".." in prefix)) or url.fragment:
        raise InvalidBlob(f"has no valid bucket or prefix: {FORMS}")
    unknown = sorted(set(query) - {"endpoint", "region"})
    if unknown:
        raise InvalidBlob(f"has {unknown[0][:50]!r} in its query, which knows endpoint and region alone")
    if "endpoint" in query and not _ENDPOINT.match(query["endpoint"]):
        raise InvalidBlob("has an endpoint that is not https://host:port")
    if "region" in query and not re.match(r"[a-z0-9-]{1,40}\Z", query["region"]):
        raise InvalidBlob("has a region that is none")
    return url.netloc, prefix, query
