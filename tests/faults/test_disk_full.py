"""Row 22: the disk of the database is full, and later is not."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local_servers import PostgresServer, RabbitMQServer
from tests.conftest import start
from tests.faults.deployment import FaultDeployment

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

MIB = 1024 * 1024


@pytest.fixture
def small_disk(servers_directory: Path) -> Iterator[Path]:
    """A file system of 256 MiB in memory, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("a small file system is mounted by root alone")
    directory = servers_directory / "small-disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=755", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_the_disk_is_full(
    small_disk: Path, rabbitmq: RabbitMQServer, tmp_path: Path, passed: Passed, sized: Sized
) -> None:
    """Not a row is lost; PostgreSQL, which may have ended for lack of room, is started again by its operator."""
    server = PostgresServer(small_disk / "postgresql")
    start(server)
    filler = small_disk / "filler"
    fills, slowest = sized(2, 20), 0.0
    deployment = FaultDeployment(rabbitmq.url, server.url, tmp_path)
    try:
        worker = deployment.work(threads=8)
        deployment.wait_until_ended(deployment.send(20))
        for _ in range(fills):
            fill(filler)
            ids = deployment.send(200, size=200_000)
            deployment.wait(lambda: "The database cannot be written" in worker.log or not server.running, "it is full")
            filler.unlink()
            if not (server.running and server.ready()):
                server.kill()
                start(server)
            began = time.monotonic()
            deployment.wait_until_ended(ids)
            slowest = max(slowest, time.monotonic() - began)
        verdict = deployment.judge()
        alive, started = worker.threads()
        passed(22, "the disk of PostgreSQL is full", fills, verdict, f"healed in {slowest:.1f} s")
        assert alive == started
    finally:
        deployment.close()
        server.kill()


def fill(filler: Path) -> None:
    """Leave no room: what does not fit is not written."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            return
