"""docs/security.md: its commands, as they are written there, on servers of the test's own; and with those roles and no
more, a migration, a worker with tenants, a producer, a client, a listener and a webhook."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pika
import pika.exceptions
import psycopg
import pytest

from deploy.local_servers import PostgresServer, RabbitMQServer
from dspex import CreateProgram, CreateSignature, ExecuteProgram, InitializeProgram, Producer, Signature, uuid7
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.contract.envelope import decode_event
from dspex.errors import PublishError
from dspex.webhooks import new_secret, verify
from store.database.engine import make_engine
from tests.acceptance.deployment import DSPEX, deployed
from tests.conftest import start
from tests.deployment import Deployment
from tests.rabbitmqctl import rabbitmqctl
from tests.waiting import wait_until
from tests.webhook_receiver import WebhookReceiver
from workers.brokers import amqp
from workers.persistence.schema import require_rights

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SECRET = new_secret()


class Deployed(NamedTuple):
    """What the document made: a deployment of the workers' roles, URLs by login, and the superuser's database."""

    deployment: Deployment
    owner_url: str
    superuser: str
    logins: Mapping[str, str]
    receiver: WebhookReceiver


def block(language: str, beginning: str) -> str:
    """The code of the document that begins so."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if code.startswith(beginning)]
    assert len(found) == 1
    return str(found[0])


def make_roles(server: PostgresServer) -> None:
    """What a superuser types into psql."""
    where = ["--host=127.0.0.1", f"--port={server.port}", "--username=dspex"]
    psql = [str(server.program("psql")), *where, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname=postgres"]
    # That of the servers for development has the document's name.
    subprocess.run([*psql, "--command=DROP DATABASE dspex"], check=True, capture_output=True, timeout=60)
    subprocess.run(psql, input=block("sql", "CREATE ROLE"), check=True, capture_output=True, text=True, timeout=60)


def make_logins(server: RabbitMQServer) -> dict[str, str]:
    """What an administrator types into a shell. Returns the URLs by login."""
    urls = {}
    for line in block("sh", "rabbitmqctl add_vhost").splitlines():
        if not line:
            continue
        name, *arguments = shlex.split(line)
        assert name == "rabbitmqctl"
        rabbitmqctl(server, *arguments)
        if arguments[0] == "add_user":
            urls[arguments[1]] = f"amqp://{arguments[1]}:{arguments[2]}@127.0.0.1:{server.port}/dspex"
    return urls


@pytest.fixture(scope="module")
def made(servers_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with ExitStack() as ending:
        postgres = PostgresServer(servers_directory / "security-postgres")
        rabbitmq = RabbitMQServer(servers_directory / "security-rabbitmq")
        for server in (postgres, rabbitmq):
            ending.callback(server.stop)
            start(server)
        make_roles(postgres)
        logins = make_logins(rabbitmq)
        written = dict(line.removeprefix("export ").split("=", 1) for line in _exports().splitlines())
        settings = {name: shlex.split(value)[0] for name, value in written.items()}
        assert settings.pop("DSPEX_BROKER_URL").startswith("amqp://dspex-worker:change-me-3@")
        owner_url, worker_url = (
            f"postgresql://{role}@127.0.0.1:{postgres.port}/dspex" for role in ("dspex_owner", "dspex_worker")
        )
        receiver = ending.enter_context(WebhookReceiver())
        settings |= {
            "DSPEX_WEBHOOK_HOSTS": f"127.0.0.1:{receiver.port}",
            "DSPEX_WEBHOOK_SECRETS": '{"acme": ["ACME_WEBHOOK_SECRET"]}',
            "ACME_WEBHOOK_SECRET": SECRET,
        }
        migrate(owner_url)
        running = ending.enter_context(
            _deployed(logins["dspex-worker"], worker_url, tmp_path_factory.mktemp("security"), settings)
        )
        superuser = f"postgresql://dspex@127.0.0.1:{postgres.port}/dspex"
        yield Deployed(running, owner_url, superuser, logins, receiver)


@contextmanager
def _deployed(broker_url: str, database_url: str, directory: Path, settings: dict[str, str]) -> Generator[Deployment]:
    """With one process; its `dspex migrate` finds nothing to do, which a worker's role may look at."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    with deployed(broker_url, url, directory, processes=1, **settings) as running:
        running.wait(lambda: "takes jobs" in running.log, "the worker takes jobs")
        running.wait(lambda: "The deliverer sends webhooks" in running.log, "so does its deliverer")
        yield running


def _exports() -> str:
    return block("sh", "export DSPEX_BROKER_URL")


def migrate(url: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    done = subprocess.run(
        [*DSPEX, "migrate"],
        env=environment | {"DSPEX_DATABASE_URL": url},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_producer_a_client_a_listener_and_a_webhook(made: Deployed) -> None:
    signature_id, program_id, execution_id = uuid7(), uuid7(), uuid7()
    callback = Callback(url=made.receiver.url(), secret="ACME_WEBHOOK_SECRET")
    with (
        pika.BlockingConnection(pika.URLParameters(made.logins["acme-app"])) as connection,
        Producer.connect(made.logins["acme-orders"], source="/orders") as producer,
        RemoteClient(made.logins["acme-app"], source="/app") as client,
    ):
        channel = connection.channel()
        channel.queue_declare("acme-app.events", durable=True)
        channel.queue_bind("acme-app.events", "dspex.events", "acme.#")
        producer.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("q -> a")))
        producer.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="qa", adapter_type="mock"))
        producer.send(InitializeProgram(program_id=program_id))
        wait_until(lambda: _heard(channel, "dspex.program.ready.v1"), "the listener hears that the program is ready")
        producer.send(
            ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"q": "?"}, callback=callback)
        )
        wait_until(lambda: _heard(channel, "dspex.execution.completed.v1"), "the listener hears of the end")
        assert client.get_execution(execution_id).status == "completed"
        answers = client.map(program_id, [{"q": str(number)} for number in range(50)])
        assert len(list(answers)) == 50
    wait_until(lambda: len(made.receiver.requests) == 1, "the webhook comes", 60)
    (request,) = made.receiver.requests
    assert verify(request.body, request.headers, [SECRET]).subject == str(execution_id)


def refused() -> Any:
    """What follows is refused by the broker."""
    return pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED")


def _heard(channel: Any, type_: str) -> bool:
    method, _, body = channel.basic_get("acme-app.events", auto_ack=True)
    if method is None:
        return False
    event = decode_event(body, 1 << 20)
    assert (method.routing_key, event.tenant) == (f"acme.{event.type}", "acme")
    return bool(event.type == type_)


def test_a_table_that_a_later_migration_makes_is_the_workers_to_use(made: Deployed) -> None:
    migrate(made.owner_url)
    with psycopg.connect(made.owner_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE of_a_later_version (id integer)")
        rights = connection.execute(
            "SELECT has_table_privilege('dspex_worker', 'of_a_later_version', p) "
            "FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p"
        ).fetchall()
        connection.execute("DROP TABLE of_a_later_version")
    assert [right for (right,) in rights] == [True, True, True, True, False]


def test_workers_make_no_tables_and_are_held_by_row_level_security(made: Deployed) -> None:
    with psycopg.connect(made.owner_url.replace("dspex_owner", "dspex_worker"), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (id integer)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("ALTER TABLE executions NO FORCE ROW LEVEL SECURITY")
        connection.execute("SET dspex.tenant = 'other'")
        assert connection.execute("SELECT count(*) FROM programs").fetchone() == (0,)
    with psycopg.connect(made.superuser) as connection:
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(owners).fetchall() == [("dspex_owner",)]


@pytest.mark.parametrize("key", ["#", "*.dspex.#", "other.#", "acme2.#", "default.#"])
def test_a_tenant_binds_to_its_own_events_alone(made: Deployed, key: str) -> None:
    for login in ("acme-app", "acme-ops"):
        with _channel(made, login) as channel:
            queue = channel.queue_declare("", exclusive=True).method.queue
            with refused():
                channel.queue_bind(queue, "dspex.events", key)
    with _channel(made, "acme-app") as channel:
        channel.exchange_declare("acme-app.copy", "topic", auto_delete=True)
        with refused():
            channel.exchange_bind("acme-app.copy", "dspex.events", key)


QUEUES = ("dspex.programs", "dspex.executions", "dspex.requests")


@pytest.mark.parametrize("login", ["acme-orders", "acme-app", "acme-ops", "dead-letters"])
def test_no_login_reads_the_queues_of_workers_or_writes_beside_the_exchange(made: Deployed, login: str) -> None:
    letters = tuple(f"{queue}.XQ" for queue in QUEUES)
    for queue in (*QUEUES, *letters):
        with _channel(made, login) as channel:
            if login == "dead-letters" and queue in letters:
                channel.basic_get(queue)
                continue
            with refused():
                channel.basic_get(queue)
    for exchange, key in (("", "dspex.executions"), ("dspex.events", "acme.dspex.program.ready.v1")):
        with _channel(made, login) as channel:
            channel.confirm_delivery()
            with refused():
                channel.basic_publish(exchange, key, b"{}")
    with _channel(made, login) as channel, refused():
        channel.queue_declare("dspex.mine")


def test_a_producer_only_sends(made: Deployed) -> None:
    with _channel(made, "acme-orders") as channel, refused():
        channel.queue_declare("", exclusive=True)
    with Producer.connect(made.logins["dead-letters"], source="/orders") as producer, pytest.raises(PublishError):
        producer.send(InitializeProgram(program_id=uuid7()))


@contextmanager
def _channel(made: Deployed, login: str) -> Generator[Any]:
    with pika.BlockingConnection(pika.URLParameters(made.logins[login])) as connection:
        yield connection.channel()


def test_the_images_first_start_makes_the_same_roles(postgres_server: Callable[[], PostgresServer]) -> None:
    server = postgres_server()
    where = ["--host=127.0.0.1", f"--port={server.port}", "--username=dspex", "--dbname=postgres"]
    psql = [str(server.program("psql")), *where, "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    subprocess.run([*psql, "--command=DROP DATABASE dspex"], check=True, capture_output=True, timeout=60)
    passwords = {"OWNER_PASSWORD": "it's the owner's", "WORKER_PASSWORD": "the-worker's"}
    script = ["--file", str(ROOT / "deploy" / "postgres_roles.sql")]
    subprocess.run([*psql, *script], env=os.environ | passwords, check=True, capture_output=True, timeout=60)
    owner, worker = (f"postgresql://{role}@127.0.0.1:{server.port}/dspex" for role in ("dspex_owner", "dspex_worker"))
    migrate(owner)
    engine = make_engine(worker.replace("postgresql://", "postgresql+psycopg://"))
    require_rights(engine, tenancy=True)
    engine.dispose()
    with psycopg.connect(f"postgresql://dspex@127.0.0.1:{server.port}/dspex") as connection:
        kept = connection.execute("SELECT count(*) FROM pg_authid WHERE rolname LIKE 'dspex\\_%' AND rolpassword <> ''")
        assert kept.fetchone() == (2,)


class AsTheImage(RabbitMQServer):
    """RabbitMQ with the configuration of docker-compose.yml, and the login that its image makes."""

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        ours = (ROOT / "deploy" / "rabbitmq.conf").read_text(encoding="utf-8")
        configuration = self.directory / "rabbitmq.conf"
        login = "default_user = dspex-worker\ndefault_pass = secret\n"
        before = [line for line in configuration.read_text(encoding="utf-8").splitlines() if line not in ours]
        configuration.write_text("\n".join([*before, login, ours]), encoding="utf-8")


def test_the_login_that_the_image_makes_has_the_workers_rights(servers_directory: Path) -> None:
    server = AsTheImage(servers_directory / "image-rabbitmq")
    start(server)
    try:
        url = server.url.replace("guest:guest", "dspex-worker:secret")
        amqp.check(url)
        with pika.BlockingConnection(pika.URLParameters(url)) as connection, refused():
            connection.channel().queue_declare("orders.mine")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("dspex", "DSPEX_TENANCY: row-level security does not hold the role dspex: "),
        ("dspex_worker", "GRANT UPDATE ON"),
    ],
)
def test_a_worker_says_at_its_start_what_is_wrong_with_its_role(made: Deployed, role: str, said: str) -> None:
    taken = "REVOKE UPDATE ON webhook_attempts FROM dspex_worker"
    with psycopg.connect(made.owner_url, autocommit=True) as connection:
        connection.execute(taken)
        try:
            done = subprocess.run(
                [*DSPEX, "worker"],
                env={**made.deployment.environment, "DSPEX_DATABASE_URL": made.owner_url.replace("dspex_owner", role)},
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            connection.execute(taken.replace("REVOKE", "GRANT").replace("FROM", "TO"))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
