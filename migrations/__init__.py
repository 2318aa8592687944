"""Schema migrations: bring a database to a revision.

Alembic finds the revisions by the path of this package, whether it is installed or in a checkout.

A worker may be older than the database, during a rolling deploy and after a rollback of a release. So each revision
names the oldest code that runs on it: `serves_from` in its file is the newest revision of that code, for each database
if these differ. `env.py` writes it to the database beside the revision, where older code reads it.

Alembic takes a third of a second to load, so it is only loaded when it is needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

__all__ = [
    "OLDEST",
    "NotARevision",
    "current",
    "downgrade",
    "head",
    "is_newest",
    "losses",
    "newer",
    "revisions",
    "serves",
    "upgrade",
]

OLDEST = "0018"
"""The oldest revision on which this version runs. Newer ones may have to wait until older workers are gone."""

_one_at_a_time = threading.Lock()
"""Alembic keeps its state in globals. A lock of the database excludes other processes, see `env.py`."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Upgrade the database to a revision. Any number of processes may do this at the same time."""
    from alembic import command

    with _config_of(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Downgrade the database to a revision. `base` drops every table, with its data."""
    from alembic import command

    with _config_of(engine) as config:
        command.downgrade(config, revision)


def current(engine: Engine) -> str | None:
    """The revision of the database; None if it was never migrated."""
    with engine.connect() as connection:
        return _current(connection)


def _current(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def is_newest(engine: Engine) -> bool:
    """Whether the database is at the newest revision that this version has. Cheap, as Alembic is not loaded."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    return found == [head()]


def serves(engine: Engine) -> bool:
    """Whether this version can run on the database, because it knows the revision or the revision serves it."""
    revision = current(engine)
    if revision is None:
        return False
    if revision in revisions():
        return revision in revisions(OLDEST)
    return _serves_from(engine) in revisions()


def newer(engine: Engine) -> str | None:
    """The revision of the database, if it is from a newer version; None if this version knows it."""
    revision = current(engine)
    return None if revision is None or revision in revisions() else revision


def revisions(oldest: str = "base") -> list[str]:
    """The revisions that this version has, from `oldest` on, the newest first."""
    return [script.revision for script in _scripts().walk_revisions(oldest, "head")]


def losses(engine: Engine, revision: str) -> list[str]:
    """The data that a downgrade to a revision would lose, one line for each kind.

    Raises:
        NotARevision: this version does not know the revision of the database, or the requested one.
    """
    with engine.connect() as connection:
        return losses_of(connection, revision)


def losses_of(connection: Connection, revision: str) -> list[str]:
    """See `losses`. Writes nothing."""
    at = _current(connection)
    names = revisions()
    if at is not None and at not in names:
        raise NotARevision(f"the database is at {at}, of a newer version: only that one can take it back")
    if revision not in (*names, "base"):
        raise NotARevision(f"there is no revision {revision!r}; there are base, {', '.join(reversed(names))}")
    if at is None:
        return []
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT set_config('dspex.tenant', '*', true)")  # the rows of every tenant
    scripts = _scripts()
    undone = names[names.index(at) : names.index(revision) if revision in names else None]
    lost, renamed = list[str](), dict[str, str]()
    for name in undone:
        module = scripts.get_revision(name).module
        for what, rows in getattr(module, "LOSSES", {}).items():
            table, _, condition = rows.partition(" ")
            counted = f"SELECT count(*) FROM {renamed.get(table, table)} {condition}"  # noqa: S608
            if number := connection.exec_driver_sql(counted).scalar_one():
                lost.append(f"{number} {what}")
        renamed |= getattr(module, "RENAMED", {})
    return lost


class NotARevision(ValueError):
    """The name is not a revision of this version. The text lists those that are."""


def _serves_from(engine: Engine) -> str | None:
    """The newest revision of the oldest code that can run on the database, as its current revision says."""
    columns = {column["name"] for column in inspect(engine).get_columns("alembic_version")}
    if "serves_from" not in columns:
        return None
    with engine.connect() as connection:
        found: str | None = connection.exec_driver_sql("SELECT serves_from FROM alembic_version").scalar()
    return found


def head() -> str:
    """The newest revision that this code knows. The names of the files are in order."""
    names = [path.name for path in (Path(__file__).parent / "versions").glob("[0-9]*_*.py")]
    if not names:
        raise RuntimeError("no migrations are here: the installation is broken")
    return max(names).partition("_")[0]


@contextmanager
def _config_of(engine: Engine) -> Generator[Config, None, None]:
    with _one_at_a_time, engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        yield config


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
