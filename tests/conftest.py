"""Real servers for tests: the ones the environment names, else private ones started when first asked for.

DSPEX_TEST_DATABASE_URL, DSPEX_TEST_BROKER_URL and DSPEX_TEST_REDIS_URL name servers that are there already;
their content is left alone, save for databases that tests create under names of their own and drop. A test
that needs a server the machine does not have fails; none is skipped.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

import migrations
from adapters.python_port import Limits
from adapters.python_port.server import Server as ServerOfChildren
from deploy.local_servers import LocalServer, PostgresServer, RedisServer, ServerError
from deploy.pgbouncer import PgBouncer
from store.database.engine import make_engine
from tests import canary, plugin, sizes
from tests.virtual_hosts import RabbitMQWithHosts

pytest.register_assert_rewrite("adapters.contract")
sizes.set_examples()

collect_ignore_glob = ["plugins/*"]  # of a plug-in's author: `test_plugin.py` runs them as he does

SERVER_FIXTURES = frozenset(
    {"postgres_url", "amqp_url", "shared_rabbitmq", "redis_url", "postgres_server", "redis_server"}
)
"""A test that asks for one of these needs a real server, and is marked `integration`."""

Server = TypeVar("Server", bound=LocalServer)


LONGEST = (
    *("test_worker_command", "test_frozen", "test_publisher", "test_broker_refusals", "test_lifecycle"),
    *("test_migrations", "test_run_files", "test_main_job", "test_client_connection", "test_hostile_messages"),
    *("test_run_command", "test_amqp_broker", "test_outbox", "test_handles", "test_lm_answers", "test_python_port"),
    *("test_random_faults", "test_broker_connection", "test_protections"),
)
"""The files of tests that take longest. They come first, so that no process waits for the last of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a real server, and begin with the longest."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        callspec = getattr(item, "callspec", None)
        databases = () if callspec is None else (callspec.params.get(name) for name in ("database_url", "engine"))
        if "postgresql" in databases or SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def no_data_in_logs() -> Iterator[None]:
    """No log line shows what was put in as data."""
    with canary.watched():
        yield


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """The data of private servers. Unlike tmp_path every user can enter it, which PostgreSQL needs."""
    directory = Path(tempfile.mkdtemp(prefix="dspex-servers-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def start(server: LocalServer) -> None:
    """Start a server for a test; where that fails the test fails with the reason alone."""
    try:
        server.start()
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)


def shared(setting: str, kind: type[LocalServer], directory: Path) -> Iterator[str]:
    """The URL in the environment variable `setting`, else that of a server that ends with the session."""
    url = os.environ.get(setting)
    if url:
        yield url
        return
    server = kind(directory / f"shared-{kind.name.lower()}")
    start(server)
    yield server.url
    server.stop()


class UnkilledPostgres(PostgresServer):
    """One that nobody kills: it need not wait for the disk."""

    more_settings: ClassVar[Mapping[str, str]] = {"fsync": "off", "full_page_writes": "off"}


@pytest.fixture(scope="session")
def postgres_url(servers_directory: Path) -> Iterator[str]:
    """A PostgreSQL, as an SQLAlchemy URL whose user may create databases. Tests want `database_url`."""
    yield from shared("DSPEX_TEST_DATABASE_URL", UnkilledPostgres, servers_directory)


@pytest.fixture(scope="session")
def shared_rabbitmq(servers_directory: Path) -> Iterator[RabbitMQWithHosts]:
    """A RabbitMQ of the session: to start one takes three seconds of CPU."""
    server = RabbitMQWithHosts(servers_directory / "shared-rabbitmq")
    start(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """A RabbitMQ. The session shares it: tests use queues with names of their own."""
    url = os.environ.get("DSPEX_TEST_BROKER_URL")
    return url or request.getfixturevalue("shared_rabbitmq").at_another_host().url


@pytest.fixture(scope="module")
def own_rabbitmq(shared_rabbitmq: RabbitMQWithHosts) -> Iterator[RabbitMQWithHosts]:
    """The session's RabbitMQ at a virtual host of the module's own. A test may kill it, and starts it again."""
    yield shared_rabbitmq.at_another_host()
    start(shared_rabbitmq)


@pytest.fixture(scope="module")
def own_amqp_url(shared_rabbitmq: RabbitMQWithHosts) -> str:
    """A virtual host of the module's own: it declares and uses the queues of a deployment, whose names are fixed."""
    return shared_rabbitmq.at_another_host().url


@pytest.fixture(scope="session")
def redis_url(servers_directory: Path) -> Iterator[str]:
    """A Redis. The session shares it: tests use keys of their own."""
    yield from shared("DSPEX_TEST_REDIS_URL", RedisServer, servers_directory)


def private(kind: type[Server], directory: Path) -> Iterator[Callable[[], Server]]:
    """A function that starts a server of the test's own at each call; all end with the test, data too."""
    with ExitStack() as ending:

        def make() -> Server:
            home = directory / f"private-{kind.name.lower()}-{uuid.uuid4().hex[:8]}"
            server = kind(home)
            ending.callback(shutil.rmtree, home, ignore_errors=True)
            ending.callback(server.kill)
            start(server)
            return server

        yield make


@pytest.fixture
def postgres_server(servers_directory: Path) -> Iterator[Callable[[], PostgresServer]]:
    """Makes private PostgreSQL servers a test may kill and restart."""
    yield from private(PostgresServer, servers_directory)


@pytest.fixture
def rabbitmq_server(shared_rabbitmq: RabbitMQWithHosts) -> Iterator[Callable[[], RabbitMQWithHosts]]:
    """The session's RabbitMQ at virtual hosts that nobody has used, which a test may kill and restart."""
    yield shared_rabbitmq.at_another_host
    start(shared_rabbitmq)


@pytest.fixture
def redis_server(servers_directory: Path) -> Iterator[Callable[[], RedisServer]]:
    """Makes private Redis servers a test may kill and restart."""
    yield from private(RedisServer, servers_directory)


@contextmanager
def new_database(postgres_url: str, template: str = "template1") -> Generator[str]:
    """A new PostgreSQL database, empty by default, dropped at the end even where connections are still open."""
    server = make_url(postgres_url)
    administration = server.set(drivername="postgresql").render_as_string(hide_password=False)
    name = f"dspex_test_{uuid.uuid4().hex}"
    with psycopg.connect(administration, autocommit=True) as connection:
        names = (sql.Identifier(name), sql.Identifier(template))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
    yield server.set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(administration, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_database_url(postgres_url: str) -> Iterator[str]:
    """A new, empty PostgreSQL database, for one test."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a PostgreSQL database with every table: to copy it takes a tenth of what the migrations take."""
    with new_database(postgres_url) as url:
        engine = make_engine(url)
        migrations.upgrade(engine)
        engine.dispose()
        yield make_url(url).database or ""


@pytest.fixture
def migrated_database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A new PostgreSQL database with every table, for one test."""
    with new_database(postgres_url, migrated_template) as url:
        yield url


@contextmanager
def pooled(database_url: str, directory: Path) -> Generator[str]:
    """The database by way of a PgBouncer of its own, in transaction mode."""
    home = directory / f"private-pgbouncer-{uuid.uuid4().hex[:8]}"
    server = PgBouncer(home, database_url)
    try:
        start(server)
        yield server.url
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def pooled_database_url(postgres_database_url: str, servers_directory: Path) -> Iterator[str]:
    """A new, empty PostgreSQL database, by way of PgBouncer in transaction mode."""
    with pooled(postgres_database_url, servers_directory) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database, as an SQLAlchemy URL: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dspex.db'}"
    url: str = request.getfixturevalue("postgres_database_url")
    return url


@pytest.fixture(scope="module")
def server_of_children() -> Iterator[ServerOfChildren]:
    """Makes the child processes of `python_port`. One for all tests of a file: it takes a second to start."""
    server = ServerOfChildren(Limits())
    yield server
    server.close()


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example of a plug-in (`tests/plugins`), not on the path."""
    path = tmp_path_factory.mktemp("plugin")
    plugin.install(path)
    return path


@pytest.fixture
def example_plugin(plugin_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of a plug-in is installed: its adapter `echo`, its rewards and tools."""
    monkeypatch.syspath_prepend(str(plugin_path))
