"""Blobs in a folder: for one machine, or for several that mount the same folder.

A body is written to a temporary file beside the blobs, synced, and renamed: no reader sees a part of it. Files are for
their owner alone (0600). Symbolic links, and whatever else is not a regular file, are passed over.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from dspex.blobs.objects import CHUNK_BYTES, Objects, StoredObject
from dspex.errors import BlobsUnavailable

INCOMING: Final = ".incoming"
"""Where bodies are that are not complete yet. No tenant has a name that begins with a dot."""
TRIES: Final = 5
"""How often a folder is made or read again from which a removal takes something at the same time."""


class FolderObjects(Objects):
    """Objects as files under a folder, which is made if it is not there.

    Raises:
        BlobsUnavailable: it cannot be made, or not written to.
    """

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root
        with self._explained():
            self._incoming = root / INCOMING
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._incoming, os.W_OK | os.X_OK):
            raise BlobsUnavailable(f"the folder of blobs {self.name} cannot be written to: give this user the rights")

    def write(self, key: str, body: BinaryIO) -> None:
        """See `Objects.write`."""
        temporary = self._incoming / uuid.uuid4().hex
        with self._explained():
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    while chunk := body.read(CHUNK_BYTES):
                        file.write(chunk)
                    file.flush()
                    os.fsync(descriptor)
                self._move(temporary, self._root / key)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def _move(self, temporary: Path, to: Path) -> None:
        for left in reversed(range(TRIES)):
            made = [folder for folder in to.parents if not folder.exists()]
            to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.rename(to)
            except FileNotFoundError:  # the folder was empty, and was removed
                if not left:
                    raise
                continue
            for folder in (to.parent, *(folder.parent for folder in made)):
                _sync(folder)
            return

    def read(self, key: str) -> Iterator[bytes]:
        """See `Objects.read`."""
        with self._explained():
            # NONBLOCK: a pipe in its place would be waited for
            descriptor = os.open(self._root / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise FileNotFoundError(key)
        return self._chunks(os.fdopen(descriptor, "rb"))

    def _chunks(self, file: BinaryIO) -> Iterator[bytes]:
        with file, self._explained():
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def under(self, prefix: str) -> Iterator[StoredObject]:
        """See `Objects.under`."""
        with self._explained():
            if not (self._root / prefix).is_dir():
                self._require_root()
                return
            yield from self._under(self._root / prefix, prefix)

    def _under(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        folders, files = self._entries(folder, prefix)
        yield from files
        for name in folders:
            yield from self._under(folder / name, f"{prefix}{name}/")

    def _entries(self, folder: Path, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """What is in a folder. Read again if a file goes meanwhile, as another may have come before it went."""
        for _ in range(TRIES):
            folders: list[str] = []
            files: list[StoredObject] = []
            try:
                for entry in os.scandir(folder):
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        files.append(StoredObject(f"{prefix}{entry.name}", found.st_size, _moment(found.st_mtime)))
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return [], []
            return sorted(folders), files
        return [], []

    def delete(self, key: str) -> None:
        """See `Objects.delete`. Folders that are empty then go, too."""
        path = self._root / key
        with self._explained():
            with suppress(FileNotFoundError):
                path.unlink()
            with suppress(OSError):  # not empty
                for folder in (path.parent, path.parent.parent):
                    folder.rmdir()

    def tidy(self, before: datetime) -> None:
        """See `Objects.tidy`."""
        with self._explained():
            for entry in os.scandir(self._incoming):
                with suppress(FileNotFoundError):
                    if _moment(entry.stat(follow_symlinks=False).st_mtime) < before:
                        Path(entry.path).unlink()

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            self._require_root()
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BlobsUnavailable(f"the folder of blobs {self.name}: {reason}") from None

    def _require_root(self) -> None:
        """A folder that is not mounted must not look like one without blobs."""
        if not self._incoming.is_dir():
            raise BlobsUnavailable(f"the folder of blobs {self.name} is gone: is it mounted?") from None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sync(folder: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
