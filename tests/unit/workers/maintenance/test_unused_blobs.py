"""The removal of blobs that no execution refers to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.processes import wait_until
from dspex import ExecutionStatus
from dspex.blobs import Blob, BlobStore, open_store
from dspex.blobs.memory import MemoryObjects
from dspex.blobs.objects import StoredObject
from dspex.blobs.values import BLOBS
from dspex.errors import BlobsUnavailable, NotFound, NotTheOwner
from tests.unit.system import System
from workers.application.wiring import Application
from workers.maintenance import blobs as maintenance
from workers.maintenance.blobs import UnusedBlobs, leave_mark, remove_unused


class Aged(MemoryObjects):
    """A storage whose objects are as old as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.age = timedelta(0)
        self.ages: dict[str, timedelta] = {}

    def write(self, key: str, body: Any) -> None:
        self.ages[key] = self.age
        super().write(key, body)

    def under(self, prefix: str) -> Iterator[StoredObject]:
        now = datetime.now(UTC)
        return (found._replace(at=now - self.ages[found.key]) for found in super().under(prefix))


@pytest.fixture
def aged() -> Aged:
    return Aged()


@pytest.fixture
def app(system: System, aged: Aged) -> Application:
    object.__setattr__(system.app, "blobs", BlobStore(aged))
    return system.app


def put(app: Application, body: bytes, tenant: str = "default") -> Blob:
    assert app.blobs is not None
    return app.blobs.put(body, tenant=tenant, media_type="text/plain")


def asking(blob: Blob) -> dict[str, Any]:
    """Inputs that refer to a blob."""
    return {BLOBS: {"question": blob.model_dump()}}


def left(app: Application) -> set[bytes]:
    assert app.blobs is not None
    return {app.blobs.get(found.blob.digest, tenant=found.tenant) for found in app.blobs.stored()}


def test_what_is_old_and_unused_goes(system: System, app: Application, aged: Aged) -> None:
    assert app.blobs is not None
    aged.age = timedelta(days=8)
    used = put(app, b"used")
    for body in (b"unused", b"also unused"):
        put(app, body)
    put(app, b"used", tenant="other")  # that of a tenant is no reference of another
    aged.age = timedelta(days=6)
    put(app, b"young")
    program_id = system.program(adapter="scripted")
    ended = system.ended(system.execute(program_id, **asking(used)))
    assert (ended.status, ended.outputs) == (ExecutionStatus.COMPLETED, {"answer": "used"})
    assert remove_unused(app, app.blobs) == 3
    assert left(app) == {b"used", b"young"}
    assert remove_unused(app, app.blobs) == 0
    with pytest.raises(NotFound):
        app.blobs.find(used.digest, tenant="other")


def test_outputs_are_in_use(system: System, app: Application, aged: Aged) -> None:
    assert app.blobs is not None
    aged.age = timedelta(days=8)
    settings = app.settings.model_copy(update={"blob_threshold": 1024})
    object.__setattr__(app, "settings", settings)
    row = system.ended(system.execute(system.program(adapter="scripted"), question="x" * 2_000))
    assert row.outputs is not None
    assert list(row.outputs) == [BLOBS]
    assert remove_unused(app, app.blobs) == 0
    assert left(app) == {b"x" * 2_000}


def test_of_one_in_use_the_newest_object_stays(system: System, app: Application, aged: Aged) -> None:
    assert app.blobs is not None
    for days in (10, 9, 8):
        aged.age = timedelta(days=days)
        blob = put(app, b"used")
    system.ended(system.execute(system.program(adapter="scripted"), **asking(blob)))
    assert len(aged.ages) == 3
    assert remove_unused(app, app.blobs) == 2
    assert left(app) == {b"used"}


def test_stored_again_between_the_look_and_the_removal(app: Application, aged: Aged) -> None:
    """The producer finds the old object too old to rely on, and stores another, which the removal does not know."""
    assert app.blobs is not None
    aged.age = timedelta(days=8)
    blob = put(app, b"body")
    remove = aged.delete

    def delete(key: str) -> None:
        aged.age = timedelta(0)
        assert put(app, b"body") == blob
        remove(key)

    aged.delete = delete  # type: ignore[method-assign]
    assert remove_unused(app, app.blobs) == 1
    assert left(app) == {b"body"}


def test_many_that_store_beside_many_that_remove(app: Application, aged: Aged) -> None:
    """Who has stored a blob finds it, whoever removes what."""
    blobs = app.blobs
    assert blobs is not None
    aged.age = timedelta(days=8)
    stop, lost = threading.Event(), list[Exception]()

    def remove() -> None:
        try:
            while not stop.is_set():
                remove_unused(app, blobs)
        except Exception as error:  # noqa: BLE001  told below
            lost.append(error)

    def store(number: int) -> None:
        try:
            for _ in range(50):
                blob = put(app, b"body %d" % (number % 2))
                assert blobs.get(blob.digest, tenant="default")
        except Exception as error:  # noqa: BLE001  told below
            lost.append(error)

    for number in range(2):
        put(app, b"body %d" % number)
    aged.age = timedelta(0)
    removing = [threading.Thread(target=remove) for _ in range(2)]
    storing = [threading.Thread(target=store, args=(number,)) for number in range(4)]
    for thread in (*removing, *storing):
        thread.start()
    for thread in storing:
        thread.join()
    stop.set()
    for thread in removing:
        thread.join()
    assert lost == []
    assert left(app) == {b"body 0", b"body 1"}


def test_what_another_database_may_refer_to_is_kept(
    app: Application, aged: Aged, start: Callable[..., System], migrated: Path, tmp_path: Path
) -> None:
    """Each leaves a mark, whoever comes first; where there are two, nobody removes anything."""
    blobs = app.blobs
    assert blobs is not None
    aged.age = timedelta(days=8)
    put(app, b"old")
    shutil.copy(migrated, tmp_path / "other.db")
    other = start(database_url=f"sqlite:///{tmp_path}/other.db").app
    object.__setattr__(other, "blobs", blobs)
    assert leave_mark(app, blobs) == set()
    assert leave_mark(app, blobs) == set()
    assert len(blobs.marks()) == 1
    for one in (other, app):
        with pytest.raises(NotTheOwner, match=r"nothing is removed.*--adopt"):
            remove_unused(one, blobs)
    assert len(blobs.marks()) == 2
    assert left(app) == {b"old"}
    assert remove_unused(app, blobs, adopt=True) == 1
    assert remove_unused(app, blobs) == 0
    with pytest.raises(NotTheOwner):
        remove_unused(other, blobs)


def test_a_worker_leaves_its_mark_before_it_looks_through_the_store(
    app: Application, aged: Aged, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.blobs is not None
    clock = [1_000_000.0]
    monkeypatch.setattr("workers.maintenance.blobs.time.monotonic", lambda: clock[0])
    aged.age = timedelta(days=8)
    unused = UnusedBlobs(app)
    put(app, b"old")
    unused.run()
    assert len(app.blobs.marks()) == 1
    app.blobs.mark(uuid4())
    clock[0] += maintenance.PASS_SECONDS
    unused.run()
    unused.run()
    assert left(app) == {b"old"}
    (told,) = (record.message for record in caplog.records if "another database" in record.message)
    assert told == (
        "DSPEX_BLOBS: memory:// is another database's, too: nothing is removed. Give each database a folder or prefix "
        "of its own. If the other is gone: dspex blob prune --adopt"
    )


def test_a_process_without_servers_leaves_its_mark_when_it_starts(start: Callable[..., System], tmp_path: Path) -> None:
    start(blobs=str(tmp_path / "blobs"))
    assert len(open_store(str(tmp_path / "blobs")).marks()) == 1


def test_a_store_that_is_down_is_looked_at_again(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> int:
        raise BlobsUnavailable("away")

    def works(*_: Any) -> int:
        passes.append(1)
        return 0

    clock = [1_000_000.0]
    monkeypatch.setattr("workers.maintenance.blobs.time.monotonic", lambda: clock[0])
    unused = UnusedBlobs(app)
    passes = list[int]()
    clock[0] += maintenance.PASS_SECONDS
    monkeypatch.setattr(maintenance, "remove_unused", down)
    unused.run()
    monkeypatch.setattr(maintenance, "remove_unused", works)
    unused.run()
    assert passes == []
    clock[0] += maintenance.AGAIN_SECONDS
    unused.run()
    unused.run()
    assert passes == [1]
    clock[0] += maintenance.PASS_SECONDS * 1.5
    unused.run()
    assert passes == [1, 1]


def test_a_process_without_servers_removes_nothing_by_itself(system: System) -> None:
    assert not any(thread.name == "blobs" for thread in system.process.threads)


STORES = """
import sys
from dspex.blobs import open_store
blobs, number = open_store(sys.argv[1]), 0
while True:
    number += 1
    blobs.put(b"%d" % number * 300_000, tenant="default")
"""


def there(blobs: BlobStore, number: int) -> bool:
    return len(list(blobs.stored())) >= number


def test_killed_while_it_stores_it_leaves_whole_blobs_alone(tmp_path: Path) -> None:
    blobs = open_store(str(tmp_path))
    for number in range(1, 4):
        process = subprocess.Popen([sys.executable, "-c", STORES, str(tmp_path)])
        assert wait_until(partial(there, blobs, number * 3), 30)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for found in blobs.stored():
        assert len(blobs.get(found.blob.digest, tenant=found.tenant)) == found.blob.size
    blobs.tidy(datetime.now(UTC) + timedelta(seconds=5))
    assert list((tmp_path / ".incoming").iterdir()) == []
