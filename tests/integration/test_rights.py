"""The role of the workers on PostgreSQL: what it lacks is said at the start, with the command that mends it; what is
taken from it later is waited for, and nothing is run again and again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import ProgrammingError

from deploy.processes import wait_until as waited
from dspex import Configuration
from dspex.client.remote import RemoteClient
from store import executions, gates
from store.column_types import database_now
from store.database.engine import make_engine
from store.database.tenancy import ALL
from store.executions import Lease
from store.gates import GateKey
from store.queues import register
from store.queues.register import State, Worker
from store.tables import executions as executions_table
from tests.contract.interface import ready, working
from tests.contract.store.rows import ready_program, request
from tests.roles import Roles
from tests.waiting import wait_until
from workers.application.wiring import bootstrap
from workers.brokers import amqp
from workers.local import LocalClient
from workers.security.authorization import Principal, Role
from workers.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def roles(postgres_database_url: str) -> Iterator[Roles]:
    with Roles.made(postgres_database_url) as roles:
        yield roles


def test_an_ordinary_role_with_all_rights_is_taken(roles: Roles) -> None:
    assert roles.problem(roles.worker) is None


def test_an_owner_is_held_where_policies_are_forced(roles: Roles) -> None:
    assert roles.problem(roles.owner) is None
    roles.run("ALTER TABLE programs NO FORCE ROW LEVEL SECURITY")
    problem = roles.problem(roles.owner)
    assert problem is not None
    assert problem.endswith("ALTER TABLE programs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;")
    assert roles.problem(roles.owner, tenancy=False) is None
    assert roles.problem(roles.worker) is None
    roles.run(_command(problem))
    assert roles.problem(roles.owner) is None


@pytest.mark.parametrize("attribute", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_that_no_policy_holds_is_refused_where_there_are_tenants(roles: Roles, attribute: str) -> None:
    roles.run(f"ALTER ROLE {roles.worker} {attribute}")
    problem = roles.problem(roles.worker)
    assert problem is not None
    assert problem.startswith(f"DSPEX_TENANCY: row-level security does not hold the role {roles.worker}: ")
    assert "\n" not in problem
    assert roles.problem(roles.worker, tenancy=False) is None
    roles.run(_command(problem))
    assert roles.problem(roles.worker) is None


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("UPDATE, INSERT ON executions", "INSERT, UPDATE ON executions"),
        ("DELETE ON event_outbox", "DELETE ON event_outbox"),
        ("SELECT ON alembic_version", "SELECT ON alembic_version"),
        ("ALL ON webhook_deliveries", "SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries"),
    ],
)
def test_a_right_that_is_missing_is_named_with_the_command_that_gives_it(roles: Roles, taken: str, said: str) -> None:
    roles.run(f"REVOKE {taken} FROM {roles.worker}")
    problem = roles.problem(roles.worker, tenancy=False)
    assert problem == (
        f"DSPEX_DATABASE_URL: the role {roles.worker} lacks rights (docs/security.md): GRANT {said} TO {roles.worker};"
    )
    assert problem is not None
    roles.run(_command(problem))
    assert roles.problem(roles.worker) is None


def test_a_schema_that_may_not_be_used_is_no_empty_database(roles: Roles) -> None:
    roles.run(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM {roles.worker}")
    problem = roles.problem(roles.worker)
    assert problem is not None
    assert problem.endswith(f": GRANT USAGE ON SCHEMA public TO {roles.worker};")
    roles.run(_command(problem))
    assert roles.problem(roles.worker) is None


def _command(problem: str) -> str:
    found = re.search(r"(GRANT|ALTER) .*;$", problem)
    assert found is not None
    return found[0]


NUMBER, THREADS = 200, 2


@pytest.mark.parametrize("taken", ["INSERT ON event_outbox", "UPDATE ON program_counters"])
def test_what_cannot_be_ended_is_not_run_again_and_again(
    roles: Roles, own_amqp_url: str, caplog: pytest.LogCaptureFixture, taken: str
) -> None:
    caplog.set_level(logging.WARNING)
    settings = Settings(database_url=roles.url(roles.worker), broker_url=own_amqp_url, threads=THREADS, lease_seconds=1)
    amqp.check(own_amqp_url)
    with working(settings) as app, RemoteClient(own_amqp_url, source="/tests") as dspex:
        program = ready(dspex, "q -> a", configuration=Configuration(parameters={"latency_ms": 1}))
        first = dspex.execute_program(program.program_id, {"q": "?"})
        wait_until(lambda: _scalar(app.engine, "SELECT count(*) FROM event_outbox") == 0, "every event is confirmed")
        roles.run(f"REVOKE {taken} FROM {roles.worker}")
        handles = [dspex.submit_program(program.program_id, {"q": "the first"})]
        wait_until(lambda: not app.writer.fit(), "its end cannot be written")
        handles += [dspex.submit_program(program.program_id, {"q": str(number)}) for number in range(NUMBER)]
        # Three leases: what was let go of would be taken by then, and be another attempt.
        claimed = "SELECT count(*) FROM executions"
        assert not waited(lambda: _scalar(app.engine, claimed) > 2, 3.5)
        roles.run(f"GRANT {taken} TO {roles.worker}")
        executions = [handle.execution(timeout=120) for handle in handles]
    assert {execution.status for execution in (first, *executions)} == {"completed"}
    assert {execution.attempt for execution in executions} == {1}
    said = [record.getMessage() for record in caplog.records if "nothing more is claimed" in record.getMessage()]
    assert len(said) == 1
    assert "permission denied for table" in said[0]


def _scalar(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        found: int = connection.exec_driver_sql(query).scalar_one()
    return found


def test_the_register_is_for_sessions_that_see_all_tenants(roles: Roles) -> None:
    all_of_them, tenants = (make_engine(roles.url(roles.worker), tenant=tenant) for tenant in (ALL, "acme"))
    worker = Worker("w", "host", 7, "0.1.0", State.WORKING, {}, places=4)
    with all_of_them.begin() as connection:
        register.renew(connection, worker, lease_seconds=60, age=0)
        assert len(register.page(connection, None, 10)) == 1
    with tenants.connect() as connection:
        assert register.page(connection, None, 10) == []
        with pytest.raises(ProgrammingError, match="row-level security"):
            register.renew(connection, replace(worker, name="forged"), lease_seconds=60, age=0)
        connection.rollback()
        register.leave(connection, "w")
        connection.commit()
    with all_of_them.begin() as connection:
        assert len(register.page(connection, None, 10)) == 1
    for engine in (all_of_them, tenants):
        engine.dispose()


def test_a_tenant_is_told_by_what_of_the_operators_it_is_held(roles: Roles) -> None:
    """Gates and workers are the operators' rows; what waits is the tenant's."""
    app = bootstrap(Settings(database_url=roles.url(roles.worker), broker_url="memory://", log_level="WARNING"))
    client = LocalClient(app, Principal("ann", "default", frozenset({Role.VIEWER})))
    with app.engine.begin() as connection:
        asked = request(ready_program(connection))
        executions.claim(connection, Lease("accepted", 60), [asked], now=[False])
        connection.execute(update(executions_table).values(run_at=database_now(-60)))

    def waiting() -> tuple[str, str | None, str | None]:
        found = client.get_execution(asked.id).waiting
        assert found is not None
        return found.reason, found.held_by, found.unserved

    assert waiting() == ("place", None, "anything")
    assert client.get_backlog().total.unserved == ("anything",)
    with app.engine.begin() as connection:
        gates.pause(connection, GateKey("everything"), by="ops")
    assert waiting() == ("paused", "everything", None)
    assert [holder.scope for holder in client.get_backlog().total.held_by] == ["everything"]
    app.close()
