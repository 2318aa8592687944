"""Private PostgreSQL, RabbitMQ and Redis servers from the machine's own programs, for tests and development.

Each listens on loopback only, on its own ports, with its data in its own directory. So any number can run at the same
time, beside servers that the machine already runs. From the root of the repository:

    python -m deploy.local_servers up        start all three in the background and print their settings
    python -m deploy.local_servers status
    python -m deploy.local_servers down
"""

import argparse
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from deploy.processes import LocalServer, ServerError, ServerMissing, wait_until

__all__ = ["LocalServer", "PostgresServer", "RabbitMQServer", "RedisServer", "ServerError", "ServerMissing"]


MAX_MESSAGE_SIZE = 65 * 1024 * 1024
"""The largest message that RabbitMQ takes, in bytes, as in deploy/rabbitmq.conf: an answer may have 64 MiB."""


def find_program(name: str, package: str, *folders: Path) -> Path:
    """The program `name` from the first of `folders` that has it, else from PATH. Raises ServerMissing."""
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} is not installed; on Debian or Ubuntu: apt-get install {package}")
    return Path(found)


class PostgresServer(LocalServer):
    """PostgreSQL with a superuser and a database `dspex`, no password, fsync on and up to 200 connections.

    It refuses to run as root; for root it runs as the user `postgres`, who must be able to reach the
    directory.
    """

    name = "PostgreSQL"
    package = "postgresql"
    more_settings: ClassVar[Mapping[str, str]] = {}
    """What a subclass sets beside."""

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database `dspex`, driver psycopg."""
        return f"postgresql+psycopg://dspex@127.0.0.1:{self.port}/dspex"

    @property
    def data(self) -> Path:
        """The database cluster."""
        return self.directory / "data"

    @property
    def user(self) -> str | None:
        """The user that the server runs as; None: the current user."""
        return "postgres" if os.geteuid() == 0 else None

    def program(self, name: str) -> Path:
        """A program of the newest PostgreSQL on the machine."""
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        newest_first = sorted(versions, key=lambda folder: float(folder.parent.name), reverse=True)
        return find_program(name, self.package, *newest_first)

    def prepare(self) -> None:
        """Run initdb once."""
        if (self.data / "PG_VERSION").exists():
            return
        initdb = self.program("initdb")
        if self.user is not None:
            self._hand_over(self.user)
        shutil.rmtree(self.data, ignore_errors=True)
        users = ["--username=dspex", "--auth=trust"]
        self._run([initdb, f"--pgdata={self.data}", *users, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])

    def _hand_over(self, user: str) -> None:
        closed = [folder for folder in self.directory.parents if not folder.stat().st_mode & stat.S_IXOTH]
        if closed:
            raise ServerError(
                f"{self.name} runs as the user {user} because root may not run it, and {user} cannot enter "
                f"{closed[-1]}; choose a directory it can reach"
            )
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise ServerError(f"the user {user} does not exist; run this as an ordinary user") from None
        shutil.chown(self.directory, user)

    def _run(self, command: Sequence[str | Path]) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        if done.returncode:
            reason = done.stderr.strip() or done.stdout.strip()
            raise self.failure(f"{Path(command[0]).name} failed: {reason}")

    def launch(self) -> None:
        """Start the postmaster; it listens on TCP only."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "256MB",
            "fsync": "on",
            **self.more_settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self.program("postgres"), "-D", self.data, *options]
        self.spawn(command, stop_signal=signal.SIGINT, user=self.user)  # SIGINT: a fast, orderly shutdown

    def ready(self) -> bool:
        """Whether it takes connections."""
        where = ["--host=127.0.0.1", f"--port={self.port}"]
        asking: list[str | Path] = [self.program("pg_isready"), "--quiet", "--timeout=1", *where]
        return subprocess.run(asking, env=self.environment(), check=False).returncode == 0

    def start(self) -> None:
        """Start it, wait until it answers, and create the database if it is missing."""
        super().start()
        created = self.directory / "database-created"
        if not created.exists():
            where = ["--host=127.0.0.1", f"--port={self.port}", "--username=dspex"]
            self._run([self.program("createdb"), *where, "--maintenance-db=postgres", "dspex"])
            created.touch()


class RedisServer(LocalServer):
    """Redis that writes every change to its append-only file: a killed one comes back with its data."""

    name = "Redis"
    package = "redis-server"
    start_seconds = 30.0

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Nothing: Redis makes its files itself."""

    def launch(self) -> None:
        """Start redis-server in the foreground."""
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        program = find_program("redis-server", self.package)
        self.spawn([program, *where, "--save", "", "--appendonly", "yes"])

    def ready(self) -> bool:
        """Whether it answers a ping; it does not while it loads its data."""
        return self.answer(b"PING\r\n") == b"+PONG\r\n"


class RabbitMQServer(LocalServer):
    """RabbitMQ without plugins, user `guest`, with an Erlang port mapper (epmd) of its own."""

    name = "RabbitMQ"
    package = "rabbitmq-server"
    port_names = ("server", "distribution", "mapper")
    start_seconds = 120.0
    stop_seconds = 60.0
    max_message_size = MAX_MESSAGE_SIZE

    @property
    def url(self) -> str:
        """The URL of the virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def prepare(self) -> None:
        """Write the configuration."""
        self._write("rabbitmq-env.conf", "")
        self._write("enabled_plugins", "[].\n")
        listener = f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
        logging = "log.console = true\nlog.console.level = info\nlog.file = false\n"
        limits = f"disk_free_limit.absolute = 50MB\nmax_message_size = {self.max_message_size}\n"
        self._write("rabbitmq.conf", f"{listener}{logging}{limits}")

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """All paths are in our directory, and all ports on loopback, apart from the machine's own server."""
        here = str(self.directory)
        return super().environment() | {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.ports["mapper"]),
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/advanced.config",
            "RABBITMQ_ALLOW_INPUT": "true",  # makes the launcher replace itself by the server
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/rabbitmq-env.conf",
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_NODENAME": f"dspex{self.port}@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def launch(self) -> None:
        """Start the port mapper, then the server, which would otherwise start a mapper that nobody ends."""
        server = self._server_program()
        mapper = find_program("epmd", self.package)
        self.spawn([mapper, "-port", str(self.ports["mapper"]), "-address", "127.0.0.1"])
        names_request = b"\x00\x01n"
        if not wait_until(lambda: bool(self.answer(names_request, self.ports["mapper"])), 10):
            self.kill()
            raise self.failure("epmd does not answer")
        self.spawn([server, "-noinput"])

    def _server_program(self) -> Path:
        # Debian's command on PATH switches to the user rabbitmq and its folders; this one does not.
        return find_program("rabbitmq-server", self.package, Path("/usr/lib/rabbitmq/bin"))

    def ready(self) -> bool:
        """Whether it answers the AMQP handshake."""
        return self.answer(b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


def servers_in(directory: Path) -> dict[str, LocalServer]:
    """The three servers of a directory, not started, by the setting for their URL."""
    kinds: dict[str, type[LocalServer]] = {
        "DSPEX_DATABASE_URL": PostgresServer,
        "DSPEX_BROKER_URL": RabbitMQServer,
        "DSPEX_REDIS_URL": RedisServer,
    }
    return {
        setting: kind(directory / kind.name.lower(), outlive_parent=True).adopt() for setting, kind in kinds.items()
    }


def up(servers: dict[str, LocalServer]) -> None:
    """Start the servers that do not run, then print the settings as shell lines."""
    for server in servers.values():
        server.start()
    for setting, server in servers.items():
        print(f"export {setting}={server.url}")


def down(servers: dict[str, LocalServer]) -> None:
    """Stop the servers that `up` has started. Their data stays."""
    for server in servers.values():
        print(f"{server.name}: {'stopped' if server.running else 'was not running'}")
        server.stop()


def status(servers: dict[str, LocalServer]) -> None:
    """Print which servers run, and where."""
    for server in servers.values():
        print(f"{server.name}: {server.url if server.running and server.ready() else 'not running'}")


def main() -> None:
    """Read the command line. Exits with 1 and one message if a server cannot start."""
    commands = {"up": up, "down": down, "status": status}
    parser = argparse.ArgumentParser(prog="deploy.local_servers", description="Servers for development.")
    parser.add_argument("command", choices=commands)
    parser.add_argument("--directory", type=Path, default=Path(".servers"), help="where they keep their data")
    arguments = parser.parse_args()
    try:
        commands[arguments.command](servers_in(arguments.directory))
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
