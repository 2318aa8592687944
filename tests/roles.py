"""The roles that a database of PostgreSQL has in production: an owner who migrates, and who works."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from sqlalchemy import Engine, make_url

import migrations
from dspex import uuid7
from dspex.errors import SettingsError
from store.database.engine import make_engine
from workers.persistence.schema import require_rights


class Roles:
    """A database with an owner and an ordinary role that may do everything with its tables."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.owner, self.worker = (f"rights_{kind}_{uuid7().hex}" for kind in ("owner", "worker"))
        for role in (self.owner, self.worker):
            self.run(f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}")
        self.run(f"ALTER DEFAULT PRIVILEGES FOR ROLE {self.owner} GRANT ALL ON TABLES TO {self.worker}")
        self.engine_of(self.owner, migrations.upgrade)

    @classmethod
    @contextmanager
    def made(cls, url: str) -> Generator[Roles]:
        """Both, until the block ends."""
        roles = cls(url)
        try:
            yield roles
        finally:
            for role in (roles.worker, roles.owner):
                roles.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    def url(self, role: str) -> str:
        return make_url(self._url).set(username=role).render_as_string(hide_password=False)

    def run(self, command: str) -> None:
        """As the superuser."""
        plain = make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(sql.SQL(command))  # pyright: ignore[reportArgumentType]

    def engine_of(self, role: str, use: object) -> None:
        engine = make_engine(self.url(role))
        use(engine)  # type: ignore[operator]
        engine.dispose()

    def problem(self, role: str, *, tenancy: bool = True) -> str | None:
        """What a worker says at its start."""
        engine: Engine = make_engine(self.url(role))
        try:
            require_rights(engine, tenancy=tenancy)
        except SettingsError as error:
            return error.message
        finally:
            engine.dispose()
        return None
