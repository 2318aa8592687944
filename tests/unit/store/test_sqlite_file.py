"""What is asked and answered is in `dspex.db`: a new one is for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import migrations
from store.database.engine import make_engine


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_a_new_file_and_what_is_beside_it_are_for_the_owner_alone(tmp_path: Path, umask: int) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'dspex.db'}")
    before = os.umask(umask)
    try:
        migrations.upgrade(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE more (id INTEGER)")
            assert modes(tmp_path) == {"dspex.db": 0o600, "dspex.db-wal": 0o600, "dspex.db-shm": 0o600}
    finally:
        os.umask(before)
        engine.dispose()


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "dspex.db"
    path.touch(0o640)
    path.chmod(0o640)
    engine = make_engine(f"sqlite:///{path}")
    migrations.upgrade(engine)
    engine.dispose()
    assert modes(tmp_path) == {"dspex.db": 0o640}
