"""The schema's migrations: bring a database to a revision.

Alembic finds the revisions by the path of this package: installed or in a checkout, whatever the working directory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

__all__ = ["OLDEST", "current", "downgrade", "head", "serves", "upgrade"]

OLDEST = "0005"
"""The oldest revision that this version runs on: newer ones may have to wait until older workers are gone."""

_one_at_a_time = threading.Lock()
"""What Alembic is doing is in globals of its own; processes are kept apart by the database, see `env.py`."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database up to a revision. Any number of processes may do this at once."""
    with _config_of(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Bring the database down to a revision; `base` removes every table, with its data."""
    with _config_of(engine) as config:
        command.downgrade(config, revision)


def current(engine: Engine) -> str | None:
    """The revision that the database is at; None: nothing has been migrated."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def serves(engine: Engine) -> bool:
    """Whether this version can run on the database as it is."""
    revision = current(engine)
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions(OLDEST, "head")]
    return revision in known


def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("no migrations are here: the installation is broken")
    return revision


@contextmanager
def _config_of(engine: Engine) -> Generator[Config, None, None]:
    with _one_at_a_time, engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        yield config


def _config() -> Config:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
