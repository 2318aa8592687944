"""A private PgBouncer in transaction mode, in front of a PostgreSQL database, for tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import make_url

from deploy.local_servers import find_program
from deploy.processes import LocalServer


class PgBouncer(LocalServer):
    """Debian's configuration, with `pool_mode = transaction`; no ignored startup parameters or prepared statements.

    Args:
        database_url: of the database behind it, without a password.
    """

    name = "PgBouncer"
    package = "pgbouncer"
    start_seconds = 20.0

    def __init__(self, directory: Path, database_url: str, *, pool_size: int = 8) -> None:
        super().__init__(directory)
        self._behind = make_url(database_url)
        self._pool_size = pool_size

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database through PgBouncer."""
        here = self._behind.set(host="127.0.0.1", port=self.port)
        return here.render_as_string(hide_password=False)

    @property
    def user(self) -> str | None:
        """The user that it runs as, because it refuses to run as root."""
        return "postgres" if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Write the configuration."""
        behind = self._behind
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": self._pool_size,
            "max_client_conn": 200,
            "logfile": "",
        }
        text = "\n".join(f"{name} = {value}" for name, value in lines.items())
        where = f"host={behind.host} port={behind.port} dbname={behind.database} user={behind.username}"
        (self.directory / "pgbouncer.ini").write_text(
            f"[databases]\n{behind.database} = {where}\n[pgbouncer]\n{text}\n", encoding="utf-8"
        )
        if self.user is not None:
            shutil.chown(self.directory, self.user)

    def launch(self) -> None:
        """Start it in the foreground."""
        self.spawn([find_program("pgbouncer", self.package, Path("/usr/sbin")), "pgbouncer.ini"], user=self.user)

    def ready(self) -> bool:
        """Whether it accepts connections: it refuses a request for TLS."""
        return self.answer(b"\x00\x00\x00\x08\x04\xd2\x16\x2f") == b"N"
