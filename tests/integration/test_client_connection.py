"""The client's connections to a real broker: what is said where there is none, and how they are named."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest

from deploy.local_servers import RabbitMQServer
from deploy.processes import free_port
from dspex import CreateSignature, Signature, uuid7
from dspex.aio import AsyncClient
from dspex.amqp.publication import Publication
from dspex.client.remote import RemoteClient
from dspex.errors import BrokerUnavailable, NoAnswer, PublishError
from dspex.producer import Producer
from tests.conftest import start
from tests.rabbitmqctl import rabbitmqctl
from tests.waiting import wait_until
from workers.application.webhooks import DelivererProcess
from workers.application.wiring import bootstrap
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = pytest.mark.integration

OPENSSL = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"


class RabbitMQWithTls(RabbitMQServer):
    """RabbitMQ that speaks TLS on a second port, with a certificate for `localhost`."""

    tls_port: int
    certificate: Path

    def prepare(self) -> None:
        """Write the configuration, a key and a certificate."""
        super().prepare()
        self.tls_port = free_port()
        self.certificate, key = self.directory / "certificate.pem", self.directory / "key.pem"
        made = [*OPENSSL.split(), "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run([*made, "-keyout", str(key), "-out", str(self.certificate)], check=True, capture_output=True)
        key.chmod(0o644)  # the server may run as another user
        files = {"cacertfile": self.certificate, "certfile": self.certificate, "keyfile": key}
        configuration = self.directory / "rabbitmq.conf"
        lines = [
            configuration.read_text(encoding="utf-8").rstrip(),
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            *(f"ssl_options.{option} = {path}" for option, path in files.items()),
        ]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")


def at(scheme: str, port: int, login: str = "guest:guest") -> str:
    return f"{scheme}://{login}@localhost:{port}/%2F"


@pytest.fixture(scope="module")
def broker(servers_directory: Path) -> Iterator[RabbitMQWithTls]:
    server = RabbitMQWithTls(servers_directory / "client-tls-rabbitmq")
    start(server)
    amqp.check(server.url)
    yield server
    server.stop()


def asked(url: str, **options: Any) -> str:
    """What the client says, and its publisher too."""
    with RemoteClient(url, source="/tests", timeout=1.5, **options) as client:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            client.get_program(uuid4())
        assert time.monotonic() - began < 15
        with pytest.raises(BrokerUnavailable) as published:
            client._publisher.publish(Publication(b"", exchange="dspex.commands", routing_key="k"), timeout=1.5)
    said = str(caught.value)
    assert "sesame" not in said + str(published.value)
    assert said.partition(": ")[2] in str(published.value)
    return said


def test_no_such_host() -> None:
    assert "the host name 'no.such.host.invalid' is not resolved" in asked("amqp://guest:sesame@no.such.host.invalid/")


def test_nobody_listens() -> None:
    assert "connection refused; is it running" in asked(f"amqp://guest:sesame@127.0.0.1:{free_port()}/")


def test_no_tls_there(broker: RabbitMQWithTls) -> None:
    assert "amqps:// is for the port that speaks TLS" in asked(at("amqps", broker.port))


def test_tls_there(broker: RabbitMQWithTls) -> None:
    assert "Does the port want TLS (amqps://)?" in asked(at("amqp", broker.tls_port))


def test_a_certificate_that_is_not_trusted(broker: RabbitMQWithTls) -> None:
    assert "its certificate is not trusted (self-signed certificate): give an ssl_context" in asked(
        at("amqps", broker.tls_port)
    )


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"amqp://guest:sesame@127.0.0.1:{listening.getsockname()[1]}/?stack_timeout=1"
        assert "no answer in time: is it overloaded" in asked(url)
        with pytest.raises(BrokerUnavailable, match=r"DSPEX_BROKER_URL: .* no answer in time"):
            amqp.check(url)


def test_a_login_and_virtual_hosts(broker: RabbitMQWithTls) -> None:
    assert "refused the login" in asked(at("amqp", broker.port, "guest:sesame"))
    nowhere = broker.url.replace("%2F", "no-where")
    assert "the virtual host does not exist: rabbitmqctl add_vhost no-where" in asked(nowhere)
    rabbitmqctl(broker, "add_vhost", "others")
    rabbitmqctl(broker, "clear_permissions", "-p", "others", "guest")
    others = broker.url.replace("%2F", "others")
    assert "may not use the virtual host: rabbitmqctl set_permissions -p others guest " in asked(others)


def test_tls_by_a_context_on_every_connector(broker: RabbitMQWithTls) -> None:
    context = ssl.create_default_context(cafile=str(broker.certificate))
    url = at("amqps", broker.tls_port)
    with Producer.connect(url, "/tests", ssl_context=context) as producer:
        assert producer.send(CreateSignature(signature_id=uuid7(), signature=Signature.parse("question -> answer")))
    asynchronous = AsyncClient.connect(url, source="/tests", timeout=1, ssl_context=context).client
    with RemoteClient(url, source="/tests", timeout=1, ssl_context=context) as client, asynchronous:
        for connected in (client, asynchronous):
            with pytest.raises(NoAnswer):  # it was sent, and no worker runs
                connected.get_program(uuid4())


@pytest.fixture
def orders(broker: RabbitMQWithTls) -> Iterator[str]:
    """The URL of a login that may do nothing yet."""
    rabbitmqctl(broker, "add_user", "orders", "sesame")
    rabbitmqctl(broker, "set_permissions", "-p", "/", "orders", "^$", "^$", "^$")
    yield at("amqp", broker.port, "orders:sesame")
    rabbitmqctl(broker, "delete_user", "orders")


def connections(broker: RabbitMQWithTls, user: str) -> list[str]:
    """The names of a user's connections."""
    listed = rabbitmqctl(broker, "list_connections", "-q", "--no-table-headers", "user", "client_properties")
    lines = [line.split("\t", 1) for line in listed.splitlines() if line.strip()]
    return [
        properties.partition('"connection_name","')[2].partition('"')[0] for name, properties in lines if name == user
    ]


def test_a_permission_that_is_missing_is_given_by_a_command_and_leaks_nothing(
    broker: RabbitMQWithTls, orders: str
) -> None:
    with RemoteClient(orders, source="/orders", timeout=10) as client:
        with pytest.raises(BrokerUnavailable, match=r"may not (configure|use) queue 'amq\.gen-") as caught:
            client.get_program(uuid4())
        command = str(caught.value).partition(": rabbitmqctl ")[2]
        assert command == r"set_permissions -p / orders '^amq\.gen' '^dspex\.commands$' '^amq\.gen'"
        wait_until(lambda: not connections(broker, "orders"), "the connection is closed")
        with Producer.connect(orders, "/orders") as producer:
            refused = CreateSignature(signature_id=uuid7(), signature=Signature.parse("question -> answer"))
            with pytest.raises(
                PublishError, match=r"may not (write|use) exchange 'dspex\.commands': rabbitmqctl set_perm"
            ):
                producer.send(refused)
        rabbitmqctl(broker, "set_permissions", "-p", "/", "orders", r"^amq\.gen", r"^dspex\.commands$", r"^amq\.gen")
        client.timeout = 0.5

        def is_sent() -> bool:
            try:
                client.get_program(uuid4())
            except NoAnswer:  # no worker runs
                return True
            except BrokerUnavailable:
                return False
            return True

        wait_until(is_sent, "there is a reply queue, once the permission is given")


def test_the_names_of_connections(broker: RabbitMQWithTls, migrated_database_url: str) -> None:
    settings = Settings(database_url=migrated_database_url, broker_url=broker.url, threads=1, log_level="WARNING")
    with (
        RemoteClient(broker.url, source="/orders", timeout=0.5) as client,
        Producer.connect(broker.url, "/shop") as shop,
    ):
        with pytest.raises(NoAnswer):
            client.get_program(uuid4())
        shop.send(CreateSignature(signature_id=uuid7(), signature=Signature.parse("question -> answer")))
        app = bootstrap(settings)
        deliverer = DelivererProcess(settings)
        deliverer._publisher.publish(Publication(b"", exchange="dspex.events", routing_key="k", mandatory=False))
        app.publisher.publish(Publication(b"", exchange="dspex.events", routing_key="k", mandatory=False))
        consuming = pika.BlockingConnection(app.broker.parameters)  # type: ignore[attr-defined]
        # Those of the tests before may not be gone yet.
        names = [name for name in connections(broker, "guest") if not name.endswith("/tests")]
        consuming.close()
        deliverer._publisher.close()
        app.close()
    assert sorted(names) == sorted(
        [
            *["dspex client /orders"] * 2,
            "dspex producer /shop",
            *[f"dspex worker {app.writes.lease.worker}"] * 2,
            next(name for name in names if name.startswith(f"dspex deliverer {socket.gethostname()[:64]}-")),
        ]
    )
