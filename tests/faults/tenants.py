"""A deployment as in production: two tenants with logins of their own, and workers whose role no policy spares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from adapters.port import ProgramSpec
from deploy.local_servers import RabbitMQServer
from dspex import Configuration, uuid7
from dspex.amqp.topology import EVENTS_EXCHANGE, event_key
from store import programs, signatures
from store.database.tenancy import ALL, scope
from tests.faults.adapter import NAME, SIGNATURE
from tests.faults.deployment import POLICY, FaultDeployment
from tests.rabbitmqctl import rabbitmqctl
from tests.roles import Roles

TENANTS: Final = ("acme", "other")
"""Each is the name of its login, and its password."""
HEARD: Final = "faults.heard"
"""The queue of a listener that misses no event: what is published while its binding is gone reaches it by `UNHEARD`."""
UNHEARD: Final = "faults.unheard"
SECRET_NAME: Final = "FAULTS_WEBHOOK_SECRET"
PROGRAMS: Final = 2
"""Of each tenant."""


class TenantsDeployment(FaultDeployment):
    """Two tenants with two programs each, a listener, and what its workers and its deliverer are started with."""

    def __init__(
        self,
        rabbitmq: RabbitMQServer,
        roles: Roles,
        database_url: str,
        directory: Path,
        *,
        secret: str,
        **settings: str,
    ) -> None:
        super().__init__(rabbitmq.url, database_url, directory)
        self.rabbitmq = rabbitmq
        self.roles = roles
        self.worker_url = roles.url(roles.worker)
        principals = {tenant: {"tenant": tenant, "roles": ["admin"]} for tenant in TENANTS}
        self.environment = {
            **self.environment,
            "DSPEX_DATABASE_URL": self.worker_url,
            "DSPEX_TENANCY": "1",
            "DSPEX_PRINCIPALS": json.dumps(principals),
            "DSPEX_WEBHOOK_SECRETS": json.dumps({tenant: [SECRET_NAME] for tenant in TENANTS}),
            SECRET_NAME: secret,
            **settings,
        }
        self._let_in()
        self.programs: Mapping[str, tuple[UUID, ...]] = {tenant: self._programs(tenant) for tenant in TENANTS}
        self.listen()

    def url_of(self, tenant: str) -> str:
        """The broker's URL for the login of a tenant."""
        at = urlsplit(self.broker_url)
        return f"amqp://{tenant}:{tenant}@{at.hostname}:{at.port}{at.path}"

    def listen(self) -> None:
        """Bind the listener: at first, and where the exchange of events was deleted."""
        with self.channel() as channel:
            channel.exchange_declare(UNHEARD, "fanout", durable=True)
            channel.queue_declare(HEARD, durable=True)
            channel.queue_bind(HEARD, UNHEARD)
            channel.exchange_declare(EVENTS_EXCHANGE, "topic", durable=True)
            channel.queue_bind(HEARD, EVENTS_EXCHANGE, event_key("*", "dspex.execution.#"))

    def close(self) -> None:
        """Kill the workers, and take the listener and the logins from the broker, which others use."""
        super().close()
        logins = (f'rabbit_auth_backend_internal:delete_user(<<"{tenant}">>, <<"test">>)' for tenant in TENANTS)
        evaluate(self.rabbitmq, *logins, 'rabbit_policy:delete(<<"/">>, <<"unheard">>, <<"test">>)')
        with self.channel() as channel:
            channel.queue_delete(HEARD)
            channel.exchange_delete(UNHEARD)

    def _let_in(self) -> None:
        """The logins, and where events go that no queue is bound for."""
        everything = ", ".join(['<<".*">>'] * 3)
        added = [
            statement
            for tenant in TENANTS
            for statement in (
                f'rabbit_auth_backend_internal:add_user(<<"{tenant}">>, <<"{tenant}">>, <<"test">>)',
                f'rabbit_auth_backend_internal:set_permissions(<<"{tenant}">>, <<"/">>, {everything}, <<"test">>)',
            )
        ]
        events = EVENTS_EXCHANGE.replace(".", "\\\\.")
        alternate = f'[{{<<"alternate-exchange">>, <<"{UNHEARD}">>}}]'
        unheard = (
            f'rabbit_policy:set(<<"/">>, <<"unheard">>, <<"^{events}$">>, {alternate}, 0, <<"exchanges">>, <<"t">>)'
        )
        evaluate(self.rabbitmq, *added, unheard)

    def _programs(self, tenant: str) -> tuple[UUID, ...]:
        made = []
        with self.engine.begin() as connection:
            scope(connection, ALL)
            signature = signatures.create(connection, uuid7(), SIGNATURE, activate=True, tenant=tenant)
            for number in range(PROGRAMS):
                program = programs.create(
                    connection,
                    uuid7(),
                    name=f"{NAME} {number}",
                    signature_id=signature.id,
                    adapter_type=NAME,
                    configuration=Configuration(),
                    policy=POLICY,
                    tenant=tenant,
                )
                begun = programs.begin_initialize(connection, program.id, tenant=tenant)
                spec = ProgramSpec(NAME, SIGNATURE, program.configuration)
                programs.end_initialize(connection, begun, spec.backend_id)
                made.append(program.id)
        return tuple(made)


def evaluate(rabbitmq: RabbitMQServer, *statements: str) -> None:
    """Have a broker evaluate Erlang: one start of its command line, which takes seconds, for all."""
    rabbitmqctl(rabbitmq, "eval", ", ".join(statements) + ".")
