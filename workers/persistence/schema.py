"""Checks that the database can be reached, and has the tables and privileges that this version needs."""

from __future__ import annotations

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

import migrations
from dspex.errors import SettingsError
from dspex.text import masked
from store.database.failures import describe
from store.database.rights import rights

logger = logging.getLogger(__name__)


def require_schema(engine: Engine) -> None:
    """Check the database. An embedded one (SQLite) is created or upgraded.

    Raises:
        SettingsError: the database cannot be reached, needs `dspex migrate`, or is too new for this version.
    """
    try:
        if migrations.is_newest(engine):
            return
        newer = migrations.newer(engine)
        if newer is not None:
            _serve_the_newer(engine, newer)
        elif engine.dialect.name == "sqlite":
            migrations.upgrade(engine)
        elif not migrations.serves(engine):
            raise SettingsError("the database does not have this version's tables: run `dspex migrate`")
    except DBAPIError as error:
        raise unreachable(engine, error) from None


def require_rights(engine: Engine, *, tenancy: bool) -> None:
    """Check the privileges of the workers' role and, with tenancy, that row-level security applies to it.

    Raises:
        SettingsError: one is not so. The text contains the command that changes it.
    """
    if engine.dialect.name != "postgresql":
        return
    try:
        with engine.connect() as connection:
            found = rights(connection)
    except DBAPIError as error:
        raise unreachable(engine, error) from None
    if found.grants:
        raise SettingsError(
            f"DSPEX_DATABASE_URL: the role {found.role} lacks rights (docs/security.md): {' '.join(found.grants)}"
        )
    if tenancy and found.bypasses:
        raise SettingsError(
            f"DSPEX_TENANCY: row-level security does not hold the role {found.role}: let workers log in as another "
            f"(docs/security.md), or ALTER ROLE {found.role} NOSUPERUSER NOBYPASSRLS;"
        )
    if tenancy and found.unheld:
        mended = " ".join(
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;" for table in found.unheld
        )
        raise SettingsError(f"DSPEX_TENANCY: row-level security does not hold the role {found.role}: {mended}")


def _serve_the_newer(engine: Engine, revision: str) -> None:
    ours = migrations.head()
    if not migrations.serves(engine):
        raise SettingsError(
            f"the database is at {revision}, and this version, of {ours}, cannot run on it: run the newer version, or "
            f"have that one take the database back: `dspex downgrade --to {ours}`"
        )
    logger.warning("The database is at %s, newer than this version, of %s, which it serves too.", revision, ours)


def unreachable(engine: Engine, error: DBAPIError) -> SettingsError:
    """The error for a database that does not answer."""
    return SettingsError(f"DSPEX_DATABASE_URL: {where(engine)}: {describe(error)}")


def where(engine: Engine) -> str:
    """The database's URL, without its password."""
    return masked(engine.url.render_as_string(hide_password=True))
