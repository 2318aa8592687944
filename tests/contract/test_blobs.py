"""The blob store: one suite over every storage."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from dspex.blobs import Blob, BlobStore, blob_digest, open_store, store
from dspex.blobs.folder import INCOMING, FolderObjects
from dspex.blobs.memory import MemoryObjects
from dspex.blobs.objects import Objects
from dspex.blobs.s3 import ObstoreObjects
from dspex.errors import BlobCorrupt, BlobsUnavailable, BlobTooLarge, InvalidBlob, NotFound

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(params=["memory", "folder", "obstore"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return FolderObjects(tmp_path / "blobs")
    return MemoryObjects() if request.param == "memory" else ObstoreObjects(MemoryStore(), "memory")


@pytest.fixture
def blobs(objects: Objects) -> BlobStore:
    return BlobStore(objects, max_bytes=3_000_000)


@pytest.mark.parametrize("body", [b"", b"x", b"\x00\xff" * 600_000])
def test_what_was_stored_is_read(blobs: BlobStore, tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "body"
    path.write_bytes(body)
    blob = blobs.put(body, tenant="acme", media_type="image/svg+xml")
    assert blob == Blob(digest=f"sha256:{hashlib.sha256(body).hexdigest()}", size=len(body), media_type="image/svg+xml")
    assert blobs.put(path, tenant="acme", media_type="image/svg+xml") == blob
    assert blobs.put(io.BytesIO(body), tenant="acme", media_type="image/svg+xml") == blob
    assert blobs.find(blob.digest, tenant="acme") == blob
    assert blobs.get(blob.digest, tenant="acme") == body
    assert b"".join(blobs.open(blob.digest, tenant="acme")) == body
    assert [(found.tenant, found.blob) for found in blobs.stored()] == [("acme", blob)]


def test_a_tenant_finds_its_own_alone(blobs: BlobStore) -> None:
    digest = blobs.put(b"secret", tenant="acme").digest
    for call in (blobs.find, blobs.get, lambda digest, tenant: list(blobs.open(digest, tenant=tenant))):
        for tenant in ("other", "acm", "ACME"):
            with pytest.raises(NotFound, match=digest):
                call(digest, tenant=tenant)
    assert list(blobs.stored("other")) == []
    assert len(list(blobs.stored("acme"))) == 1


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "0" * 64,
        "md5:" + "0" * 32,
        "sha256:" + "A" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 64 + "\n",
        "sha256:../../" + "0" * 58,
        "sha256:" + "٣" * 64,
    ],
)
def test_what_is_no_digest_is_refused(blobs: BlobStore, digest: str) -> None:
    for call in (blobs.find, blobs.get, lambda digest, tenant: list(blobs.open(digest, tenant=tenant))):
        with pytest.raises(InvalidBlob, match="lower case"):
            call(digest, tenant="acme")


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "../acme", ".incoming", "-a", "a" * 65, "acme\n"])
def test_what_is_no_tenant_is_refused(blobs: BlobStore, tenant: str) -> None:
    with pytest.raises(InvalidBlob, match="tenant"):
        blobs.put(b"x", tenant=tenant)
    with pytest.raises(InvalidBlob, match="tenant"):
        blobs.find(ABSENT, tenant=tenant)


@pytest.mark.parametrize("media_type", ["", "image", "image/", "Image/PNG", "a/b/c", "text/plain; charset=x", "../x"])
def test_what_is_no_media_type_is_refused(blobs: BlobStore, media_type: str) -> None:
    with pytest.raises(InvalidBlob, match="media type"):
        blobs.put(b"x", tenant="acme", media_type=media_type)


class Endless(io.RawIOBase):
    """A file without end."""

    read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        self.read_bytes += size
        return b"x" * size


def test_what_is_too_large_is_refused_before_it_is_read_to_its_end(blobs: BlobStore) -> None:
    endless = Endless()
    with pytest.raises(BlobTooLarge, match="3000000 bytes"):
        blobs.put(endless, tenant="acme")  # type: ignore[arg-type]
    assert endless.read_bytes < 5_000_000
    with pytest.raises(BlobTooLarge):
        blobs.put(b"x" * 3_000_001, tenant="acme")
    assert list(blobs.stored()) == []
    digest = blobs.put(b"x" * 3_000_000, tenant="acme").digest
    with pytest.raises(BlobTooLarge, match="3000000 bytes; at most 2999999"):
        blobs.get(digest, tenant="acme", max_bytes=2_999_999)


@pytest.mark.parametrize("body", [b"", b"other", b"x" * 2_000_000, b"bodyx"])
def test_another_body_is_an_error_and_no_answer(blobs: BlobStore, objects: Objects, body: bytes) -> None:
    digest = blobs.put(b"body", tenant="acme").digest
    [found] = blobs.stored()
    objects.delete(found.key)
    objects.write(found.key, io.BytesIO(body))
    with pytest.raises(BlobCorrupt, match=digest):
        blobs.get(digest, tenant="acme")
    with pytest.raises(BlobCorrupt, match=digest):
        list(blobs.open(digest, tenant="acme"))


def test_stored_again_adds_an_object_only_after_a_while(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = blobs.put(b"body", tenant="acme").digest
    blobs.put(b"body", tenant="acme")
    assert len(list(blobs.stored())) == 1
    monkeypatch.setattr(store, "STORED_AGAIN_AFTER", timedelta(seconds=-1))
    blobs.put(b"body", tenant="acme")
    old, _ = sorted(blobs.stored(), key=lambda found: found.key)
    blobs.remove(old)  # as a removal that looked before
    blobs.remove(old)
    assert blobs.get(digest, tenant="acme") == b"body"


def test_another_media_type_is_that_of_the_last(blobs: BlobStore) -> None:
    digest = blobs.put(b"body", tenant="acme", media_type="text/plain").digest
    blobs.put(b"body", tenant="acme", media_type="text/csv")
    assert blobs.find(digest, tenant="acme").media_type == "text/csv"


def test_a_removal_beside_storing_and_reading(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal takes what it has listed before; what is stored meanwhile is found by whoever stored it."""
    monkeypatch.setattr(store, "STORED_AGAIN_AFTER", timedelta(seconds=-1))
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            listed = sorted(blobs.stored("acme"), key=lambda found: found.key)
            for found in listed[:-1]:
                blobs.remove(found)

    def use(_: int) -> None:
        for _ in range(20):
            digest = blobs.put(b"body", tenant="acme").digest
            assert blobs.get(digest, tenant="acme") == b"body"

    with ThreadPoolExecutor(4) as threads:
        remover = threads.submit(remove)
        try:
            list(threads.map(use, range(3)))
        finally:
            done.set()
        remover.result()


def test_marks_of_owners_are_no_blobs(blobs: BlobStore) -> None:
    assert blobs.marks() == set()
    marks = {uuid4(), uuid4()}
    for mark in marks:
        blobs.mark(mark)
        blobs.mark(mark)
    assert blobs.marks() == marks
    assert list(blobs.stored()) == []
    blobs.tidy(datetime.now(UTC) + timedelta(days=1))
    assert blobs.marks() == marks


def test_a_store_that_works_is_checked_without_a_trace(blobs: BlobStore) -> None:
    blobs.check()
    assert list(blobs.stored()) == []


# The folder


def files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    blobs = open_store(str(tmp_path / "blobs"))
    blobs.put(b"body", tenant="acme")
    [file] = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    blobs = open_store(f"file://{tmp_path}/blobs")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    digest = blobs.put(b"secret", tenant="acme").digest
    [found] = blobs.stored()
    file = tmp_path / "blobs" / found.key
    for kind in ("link", "pipe"):
        file.unlink()
        if kind == "link":
            file.symlink_to(secret)
        else:
            os.mkfifo(file)
        with pytest.raises(NotFound):
            blobs.get(digest, tenant="acme")
        assert list(blobs.stored()) == []
        with pytest.raises((FileNotFoundError, BlobsUnavailable)):
            FolderObjects(tmp_path / "blobs").read(found.key)


def test_what_a_killed_process_left_is_no_blob_and_is_tidied(tmp_path: Path) -> None:
    blobs = open_store(str(tmp_path))
    left = tmp_path / INCOMING / "abc"
    left.write_bytes(b"half a bo")
    assert list(blobs.stored()) == []
    blobs.tidy(datetime.now(UTC) - timedelta(days=1))
    assert left.exists()
    blobs.tidy(datetime.now(UTC) + timedelta(seconds=5))
    assert not left.exists()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BlobsUnavailable, match=rf"{file}/blobs: Not a directory"):
        open_store(str(file / "blobs"))


def test_a_folder_that_is_gone_is_not_one_without_blobs(tmp_path: Path) -> None:
    blobs = open_store(str(tmp_path / "blobs"))
    digest = blobs.put(b"body", tenant="acme").digest
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    for call in (lambda: blobs.get(digest, tenant="acme"), lambda: blobs.put(b"x", tenant="acme"), blobs.check):
        with pytest.raises(BlobsUnavailable, match="is it mounted"):
            call()
    with pytest.raises(BlobsUnavailable, match="is it mounted"):
        list(blobs.stored())


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = open_store(str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BlobsUnavailable, match="No space left on device"):
        blobs.put(b"body", tenant="acme")
    assert list(files(tmp_path)) == []


def test_a_file_that_cannot_be_read(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidBlob, match="absent: No such file"):
        blobs.put(tmp_path / "absent", tenant="acme")
    with pytest.raises(InvalidBlob, match="Is a directory"):
        blobs.put(tmp_path, tenant="acme")


def test_the_callers_file_stays_open(blobs: BlobStore) -> None:
    file: BinaryIO = io.BytesIO(b"body")
    blobs.put(file, tenant="acme")
    assert not file.closed


# Addresses


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://host/bucket", "is not an address"),
        ("file://host/folder", "is not an address"),
        ("s3://", "no valid bucket"),
        ("s3://key:secret@bucket/x", "has credentials"),
        ("s3://bucket/../x", "no valid bucket or prefix"),
        ("s3://bucket?endpoint=ftp://host", "endpoint"),
        ("s3://bucket?secret_access_key=hunter2", "knows endpoint and region alone"),
    ],
)
def test_addresses_that_are_none(address: str, reason: str) -> None:
    with pytest.raises(InvalidBlob, match=reason) as caught:
        open_store(address)
    assert "hunter2" not in caught.value.message
    assert "secret@" not in caught.value.message


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXXXX")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    blobs = open_store("s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=eu-west-1")
    with pytest.raises(BlobsUnavailable, match="s3://bucket/prefix: Generic, Connection refused") as caught:
        blobs.get(blob_digest(b"x"), tenant="acme")
    assert "hunter2" not in str(caught.value)
    assert "AKIAXXXX" not in str(caught.value)
