"""The application in one process, for tests of what it does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import migrations
from store.database.engine import make_engine
from tests.unit.system import System
from workers.settings import Settings


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with every table."""
    file = tmp_path_factory.mktemp("migrated") / "dspex.db"
    engine = make_engine(f"sqlite:///{file}")
    migrations.upgrade(engine)
    engine.dispose()
    return file


@pytest.fixture
def start(migrated: Path, tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Starts a system with settings of the test's own; each on the same database."""
    database = tmp_path / "dspex.db"
    shutil.copy(migrated, database)
    systems: list[System] = []

    def start(*, running: bool = True, **settings: Any) -> System:
        given: dict[str, Any] = {
            "database_url": f"sqlite:///{database}",
            "broker_url": "memory://",
            "threads": 8,
        } | settings
        system = System(Settings(**given))
        systems.append(system)
        if running:
            system.start()
        return system

    yield start
    for system in systems:
        system.stop()


@pytest.fixture
def system(start: Callable[..., System]) -> System:
    return start()
