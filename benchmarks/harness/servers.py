"""Private PostgreSQL, RabbitMQ and Redis servers for a benchmark, emptied for each run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import LiteralString

import pika
import psycopg
import redis
from psycopg import sql

from deploy.local_servers import LocalServer, PostgresServer, RabbitMQServer, RedisServer


class Servers:
    """The three started servers: with fsync, synchronous commits, and Redis's append-only file, as in the tests."""

    def __init__(self, postgres: PostgresServer, rabbitmq: RabbitMQServer, redis_server: RedisServer) -> None:
        self.postgres, self.rabbitmq, self.redis = postgres, rabbitmq, redis_server
        self._admin = psycopg.connect(self.database_url("postgres"), autocommit=True)
        self._results = redis.Redis.from_url(redis_server.url)

    def database_url(self, database: str) -> str:
        """The URL of a database, for any driver."""
        return f"postgresql://dspex@127.0.0.1:{self.postgres.port}/{database}"

    def environment(self, database: str) -> dict[str, str]:
        """The environment with the servers' URLs, for the processes of any system."""
        return {
            "BENCH_DATABASE_URL": self.database_url(database),
            "BENCH_BROKER_URL": self.rabbitmq.url,
            "BENCH_REDIS_URL": self.redis.url,
            "DSPEX_DATABASE_URL": self.database_url(database),
            "DSPEX_BROKER_URL": self.rabbitmq.url,
            "DSPEX_LOG_LEVEL": "WARNING",
        }

    @property
    def roots(self) -> dict[str, list[int]]:
        """The processes of each server."""
        servers: dict[str, LocalServer] = {"PostgreSQL": self.postgres, "RabbitMQ": self.rabbitmq, "Redis": self.redis}
        return {name: [process.pid for process in server.processes] for name, server in servers.items()}

    def empty(self, database: str, queues: Iterable[str]) -> None:
        """Make an empty database, delete the queues, and empty Redis."""
        self.drop(database)
        self._execute("CREATE DATABASE {}", database)
        self.delete_queues(queues)
        self._results.flushall()

    def drop(self, database: str) -> None:
        """Drop a database, if it exists."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def has(self, database: str) -> bool:
        """Whether there is such a database."""
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        return self._admin.execute(query, (database,)).fetchone() is not None

    def rename(self, database: str, name: str) -> None:
        """Rename a database."""
        self._execute("ALTER DATABASE {} RENAME TO {}", database, name)

    def settle(self) -> None:
        """Make PostgreSQL finish its writes, so that a run does not pay for earlier ones."""
        self._admin.execute("CHECKPOINT")

    def results(self) -> int:
        """How many results Redis has."""
        return int(self._results.dbsize())

    def delete_queues(self, queues: Iterable[str]) -> None:
        """Delete queues, if they exist."""
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))
        channel = connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        connection.close()

    def close(self) -> None:
        """Disconnect."""
        self._admin.close()
        self._results.close()

    def _execute(self, statement: LiteralString, *names: str) -> None:
        self._admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def servers(directory: Path | None = None) -> Generator[Servers]:
    """Run the servers inside the block; then remove their data.

    Args:
        directory: the directory of their data, which PostgreSQL's user must be able to reach; a new one by default.
    """
    with ExitStack() as ending:
        home = Path(tempfile.mkdtemp(prefix="dspex-bench-", dir=directory))
        ending.callback(shutil.rmtree, home, ignore_errors=True)
        home.chmod(0o755)
        postgres = ending.enter_context(PostgresServer(home / "postgresql"))
        rabbitmq = ending.enter_context(RabbitMQServer(home / "rabbitmq"))
        made = Servers(postgres, rabbitmq, ending.enter_context(RedisServer(home / "redis")))
        ending.callback(made.close)
        yield made
