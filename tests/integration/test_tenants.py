"""Tenants on the broker: who asks is the login that RabbitMQ has checked, and sees what is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pika
import pika.exceptions
import pytest

from dspex import (
    LM,
    Configuration,
    CreateSignature,
    DspexError,
    ExecuteProgram,
    ExecutionStatus,
    Producer,
    decode_event,
    uuid7,
    wrap,
)
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, EXECUTIONS_QUEUE
from dspex.client.remote import RemoteClient
from dspex.contract import envelope as envelopes
from dspex.contract.callback import Callback
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.contract.queries import ListPrograms
from dspex.contract.results import ExecutionView, RejectedMessageView
from dspex.contract.status import ProgramStatus
from tests.conftest import new_database
from tests.contract.interface import code_of, working
from tests.rabbitmqctl import rabbitmqctl
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import PrincipalSetting, Settings

ROLES = {
    "acme-app": ("acme", "admin"),
    "other-app": ("other", "admin"),
    "acme-viewer": ("acme", "viewer"),
    "ops": ("default", "viewer"),
}


def add_login(server: RabbitMQWithHosts, login: str) -> None:
    """A broker login whose password is its name."""
    if login not in rabbitmqctl(server, "list_users", "--quiet"):
        rabbitmqctl(server, "add_user", login, login)
    rabbitmqctl(server, "set_permissions", "-p", server.host, login, ".*", ".*", ".*")


@pytest.fixture(scope="module")
def url(own_rabbitmq: RabbitMQWithHosts, postgres_url: str) -> Iterator[str]:
    """A broker with logins, and a worker that knows all but one."""
    for login in (*ROLES, "stranger"):
        add_login(own_rabbitmq, login)
    for login, (tenant, _) in ROLES.items():
        topics = (login, EVENTS_EXCHANGE, "^$", rf"^{tenant}\.")
        rabbitmqctl(own_rabbitmq, "set_topic_permissions", "-p", own_rabbitmq.host, *topics)
    amqp.check(own_rabbitmq.url)
    principals = {
        login: PrincipalSetting.model_validate({"tenant": tenant, "roles": [role]})
        for login, (tenant, role) in ROLES.items()
    }
    with new_database(postgres_url) as database_url:
        settings = Settings(
            database_url=database_url,
            broker_url=own_rabbitmq.url,
            threads=4,
            tenancy=True,
            principals=principals,
            log_level="WARNING",
        )
        with working(settings):
            yield own_rabbitmq.url


def as_login(url: str, login: str) -> str:
    """The broker's URL for a login."""
    at = urlsplit(url)
    return f"amqp://{login}:{login}@{at.hostname}:{at.port}{at.path}"


def client(url: str, login: str) -> RemoteClient:
    """A client that logs in by this name."""
    return RemoteClient(as_login(url, login), source=f"/{login}")


@pytest.mark.integration
def test_a_tenant_sees_and_runs_what_is_its_own(url: str) -> None:
    with client(url, "acme-app") as acme, client(url, "other-app") as other:
        program = acme.create_program("p", "q -> a", adapter_type="mock")
        acme.initialize_program(program.program_id)
        execution = acme.execute_program(program.program_id, {"q": "?"})
        assert execution.status == ExecutionStatus.COMPLETED
        assert acme.get_stats(program.program_id).execution_count == 1
        for ask in (
            lambda: other.get_program(program.program_id),
            lambda: other.get_signature(program.signature_id),
            lambda: other.get_execution(execution.execution_id),
            lambda: other.cancel_execution(execution.execution_id),
            lambda: other.execute_program(program.program_id, {"q": "?"}),
            lambda: other.get_program_statistics(program.program_id),
        ):
            assert code_of(ask) == "not_found"
        assert not other.list_programs().items
        assert not other.list_executions().items
        # The same content is another signature: nothing tells one tenant of the other.
        assert other.create_program("p", "q -> a", adapter_type="mock").signature_id != program.signature_id


@pytest.mark.integration
def test_dead_executions_are_their_tenants_own(url: str) -> None:
    with client(url, "acme-app") as acme, client(url, "other-app") as other, client(url, "acme-viewer") as viewer:
        program = acme.create_program("late", "q -> a", adapter_type="mock")
        failed = acme.execute_program(program.program_id, {"q": "?"})
        assert failed.status == ExecutionStatus.FAILED
        assert other.list_dead_executions().items == ()
        for change in (other.replay_executions, other.discard_executions):
            assert change([failed.execution_id]).count == change().count == 0
        assert viewer.list_dead_executions().items == (failed,)
        assert code_of(viewer.replay_executions) == code_of(viewer.discard_executions) == "denied"
        acme.initialize_program(program.program_id)
        assert acme.replay_executions().count == 1
        wait_until(lambda: acme.get_execution(failed.execution_id).status == ExecutionStatus.COMPLETED, "it ran")
        assert [step.by for step in acme.get_execution(failed.execution_id).timeline][2] == "acme-app"


@pytest.mark.integration
def test_a_rejected_message_is_sent_again_for_its_tenant(url: str) -> None:
    command = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"q": "?"})
    with Producer.connect(as_login(url, "acme-app"), source="/orders") as producer:
        producer.send(command)
    with client(url, "acme-app") as acme, client(url, "other-app") as other, client(url, "acme-viewer") as viewer:
        wait_until(lambda: bool(acme.list_dead_messages().items), "it is rejected")
        [letter] = acme.list_dead_messages().items
        assert viewer.get_rejected_message(letter.rejection_id) == letter
        assert code_of(viewer.replay_messages) == code_of(viewer.discard_messages) == "denied"
        assert other.list_dead_messages().items == ()
        assert code_of(lambda: other.get_rejected_message(letter.rejection_id)) == "not_found"
        for change in (other.replay_messages, other.discard_messages):
            assert change([letter.rejection_id]).count == change().count == 0
        assert acme.replay_messages([letter.rejection_id]).count == 1
        # What the workers' login has sent for a tenant is recorded as what the tenant had sent.
        wait_until(lambda: acme.get_rejected_message(letter.rejection_id).deliveries == 2, "it is rejected again")
        [again] = acme.list_dead_messages().items
        assert (again.rejection_id, again.body) == (letter.rejection_id, letter.body)
        program = acme.create_program("late", "q -> a", adapter_type="mock", program_id=command.program_id)
        acme.initialize_program(program.program_id)
        assert acme.replay_messages().count == 1
        completed = {"program_id": command.program_id, "status": ExecutionStatus.COMPLETED}
        wait_until(lambda: bool(acme.list_executions(**completed).items), "it is carried out")
        assert acme.list_dead_messages().items == ()
        assert other.list_executions().items == ()


@pytest.mark.integration
def test_the_workers_login_asks_nothing(url: str) -> None:
    asks_nothing = pytest.raises(DspexError, match=r"'guest' is the workers' own login, which asks nothing")
    with RemoteClient(url, source="/orders") as system, asks_nothing:
        system.list_programs()


@pytest.mark.integration
def test_roles_decide_and_strangers_are_denied(url: str) -> None:
    with client(url, "acme-viewer") as viewer, client(url, "stranger") as stranger:
        viewer.list_programs()
        with pytest.raises(DspexError, match=r"'acme-viewer' has the roles viewer; it needs one of admin"):
            viewer.create_signature("a -> b")
        assert code_of(lambda: viewer.quick_execute("q -> a", {"q": "?"})) == "denied"
        assert code_of(stranger.list_programs) == "denied"


@pytest.mark.integration
def test_whatever_is_denied_leaves_an_audit_line(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not only what roles forbid: others' secrets, in a callback and of an LM; others' queues; the workers' login."""
    caplog.set_level("WARNING", "dspex.audit")
    hook = Callback(url="https://receiver.example/", secret="OTHERS_WEBHOOK_SECRET")
    lm = Configuration(lm=LM(model="openai/gpt-4o", secret="OTHERS_OPENAI_API_KEY"))
    program_id = uuid7()
    with client(url, "acme-app") as acme, RemoteClient(url, source="/orders") as system:
        program = acme.create_program("p", "q -> a", adapter_type="mock")
        assert code_of(lambda: acme.create_program("x", "q -> a", adapter_type="mock", callback=hook)) == "denied"
        ask = code_of(lambda: acme.execute_program(program.program_id, {"q": "?"}, callback=hook))
        assert ask == "denied"
        made = code_of(
            lambda: acme.create_program("x", "q -> a", adapter_type="native", configuration=lm, program_id=program_id)
        )
        assert made == "auth"
        assert code_of(system.list_programs) == "denied"
        with pika.BlockingConnection(pika.URLParameters(as_login(url, "acme-app"))) as connection:
            body = wrap(ListPrograms(), source="/x", message_id="to-another").encode()
            properties = pika.BasicProperties(user_id="acme-app", reply_to="other-app.answers")
            connection.channel().basic_publish(COMMANDS_EXCHANGE, ListPrograms.type, body, properties)
        wait_until(
            lambda: "to-another" in {one.message_id for one in acme.list_rejected_messages().items}, "it is told"
        )
    told = [text.removeprefix("denied: ") for text in caplog.messages if text.startswith("denied: ")]
    by = "by acme-app of tenant acme"
    assert sorted(text.partition(" on ")[0] for text in told) == [
        f"dspex.program.create_with_signature.v1 {by} (for its configuration.lm.secret)",
        f"dspex.program.create_with_signature.v1 {by} (for its secret)",
        f"dspex.program.execute.v1 {by} (for its secret)",
        f"dspex.program.list.v1 {by} (reply_to is not its sender's)",
        "dspex.program.list.v1 by guest of tenant default (the workers' own login asks nothing)",
    ]
    (of_lm,) = [text for text in told if "OTHERS_OPENAI_API_KEY" in text]
    assert f" on {program_id}: configuration.lm.secret: 'OTHERS_OPENAI_API_KEY' was not given to 'acme'" in of_lm
    assert sum("OTHERS_WEBHOOK_SECRET" in text for text in told) == 2


@pytest.mark.integration
def test_what_a_stranger_sends_is_not_validated(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    validated: list[object] = []
    envelope_of = envelopes.envelope_of

    def noted(data: Any) -> Any:
        validated.append(data)
        return envelope_of(data)

    monkeypatch.setattr(envelopes, "envelope_of", noted)
    large = {"type": {"type": "object", "properties": {f"p{i}": {"type": "boolean"} for i in range(256)}}}
    fields = [{"name": f"f{i}", "default": {}, **large} for i in range(64)]
    signature_id = str(uuid7())
    data = {"signature_id": signature_id, "signature": {"inputs": fields, "outputs": fields}}
    message = {"specversion": "1.0", "id": "large", "source": "/x", "type": CreateSignature.type, "data": data}
    body = json.dumps(message).encode()
    assert 700_000 < len(body) < 1024 * 1024
    with (
        caplog.at_level("WARNING", "dspex.audit"),
        pika.BlockingConnection(pika.URLParameters(as_login(url, "stranger"))) as connection,
    ):
        channel = connection.channel()
        answers = channel.queue_declare("", exclusive=True).method.queue
        for number in range(20):
            reply_to = answers if number else None  # the first one is recorded
            properties = pika.BasicProperties(user_id="stranger", reply_to=reply_to)
            channel.basic_publish(COMMANDS_EXCHANGE, CreateSignature.type, body, properties)
        codes: list[str] = []

        def answered() -> bool:
            _, _, answer = channel.basic_get(answers, auto_ack=True)
            if answer is not None:
                codes.append(json.loads(answer)["data"]["error"]["code"])
            return len(codes) == 19

        wait_until(answered, "all are answered")
    assert set(codes) == {"denied"}
    assert CreateSignature not in validated
    line = "denied: dspex.signature.create.v1 by stranger of tenant default (the login is not known) on "
    told = [text for text in caplog.messages if text.startswith("denied: ")]
    assert len(told) == 10  # of 20
    assert set(told) == {line + signature_id}


@pytest.mark.integration
def test_what_is_led_back_is_seen_by_whose_it_is(url: str) -> None:
    """Somebody has bound the exchange of events to the workers' queue: outputs of all tenants are rejected there."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection, client(url, "acme-app") as acme:
        program = acme.create_program("led back", "q -> a", adapter_type="mock")
        acme.initialize_program(program.program_id)
        channel = connection.channel()
        binding = {
            "source": EVENTS_EXCHANGE,
            "destination": COMMANDS_EXCHANGE,
            "routing_key": "acme.dspex.execution.completed.v1",
        }
        channel.exchange_bind(**binding)  # pyright: ignore[reportArgumentType]
        channel.queue_bind(EXECUTIONS_QUEUE, COMMANDS_EXCHANGE, binding["routing_key"])
        try:
            ended = acme.execute_program(program.program_id, {"q": "?"})
            # And those of the version before do not say whose they are; nor can one say that of what is too large.
            event = {"specversion": "1.0", "id": "led-back", "source": "/x", "type": "dspex.execution.completed.v1"}
            old = json.dumps(event | {"data": {"outputs": {"a": str(ended.outputs)}}}).encode()
            large = b"led back" + b"x" * MAX_MESSAGE_BYTES
            for body in (old, large):
                channel.basic_publish("", EXECUTIONS_QUEUE, body, pika.BasicProperties(user_id="guest"))
            for login in ("acme-viewer", "stranger"):  # who has them from elsewhere
                body = json.dumps(event | {"id": login, "tenant": "other"}).encode()
                with pika.BlockingConnection(pika.URLParameters(as_login(url, login))) as theirs:
                    theirs.channel().basic_publish("", EXECUTIONS_QUEUE, body, pika.BasicProperties(user_id=login))
        finally:
            channel.queue_unbind(EXECUTIONS_QUEUE, COMMANDS_EXCHANGE, binding["routing_key"])
            channel.exchange_unbind(**binding)  # pyright: ignore[reportArgumentType]
    with client(url, "acme-viewer") as acme, client(url, "ops") as ops, client(url, "other-app") as other:

        def seen(tenant: RemoteClient) -> dict[str | None, RejectedMessageView]:
            return {one.message_id: one for one in tenant.list_rejected_messages(queue=EXECUTIONS_QUEUE).items}

        wait_until(lambda: {"led-back", "stranger", None} <= set(seen(ops)), "what is nobody's is recorded")
        wait_until(lambda: "acme-viewer" in seen(acme), "what is theirs is, too")
        nobodys = {id_: one for id_, one in seen(ops).items() if id_ in ("led-back", "stranger", None)}
        assert {id_: one.body for id_, one in nobodys.items()} == {"led-back": "", "stranger": "", None: ""}
        assert nobodys["led-back"].body_size == len(old)
        assert nobodys[None].body_size == len(large)
        assert nobodys["led-back"].error.code == "unknown_message_type"
        assert seen(acme)["acme-viewer"].body == ""
        event_id = f"{ended.execution_id}."
        [own] = [one for id_, one in seen(acme).items() if id_ and id_.startswith(event_id)]
        assert json.loads(own.body)["data"]["outputs"] == ended.outputs
        assert not any(id_ and id_.startswith(event_id) for tenant in (ops, other) for id_ in seen(tenant))


@pytest.mark.integration
@pytest.mark.parametrize("key", ["#", "*.#", "other.#", "other.dspex.execution.completed.v1", "acme-.#", "*acme.#", ""])
def test_a_tenant_cannot_bind_to_the_events_of_others(url: str, key: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(as_login(url, "acme-app"))) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_bind(queue, EVENTS_EXCHANGE, key)


@pytest.mark.integration
def test_a_tenant_can_tell_nobody_of_events(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(as_login(url, "acme-app"))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.basic_publish(EVENTS_EXCHANGE, "acme.dspex.execution.completed.v1", b"{}")


def _executed(tenant: RemoteClient) -> ExecutionView:
    program = tenant.create_program("told", "q -> a", adapter_type="mock")
    tenant.initialize_program(program.program_id)
    return tenant.execute_program(program.program_id, {"q": "?"})


@pytest.mark.integration
def test_a_tenant_hears_of_its_own_alone(url: str) -> None:
    with (
        pika.BlockingConnection(pika.URLParameters(as_login(url, "acme-app"))) as connection,
        client(url, "acme-app") as acme,
        client(url, "other-app") as other,
    ):
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EVENTS_EXCHANGE, "acme.#")
        channel.queue_bind(queue, EVENTS_EXCHANGE, "acme.dspex.execution.*.v1")
        others, own = (_executed(tenant) for tenant in (other, acme))
        heard: dict[str, str | None] = {}

        def told() -> bool:
            method, _, body = channel.basic_get(queue, auto_ack=True)
            if method is not None and body is not None:
                heard[str(decode_event(body).subject)] = decode_event(body).tenant
                assert method.routing_key.startswith("acme.")
            return str(own.execution_id) in heard

        wait_until(told, "its own end is told")
    assert str(others.execution_id) not in heard
    assert set(heard.values()) == {"acme"}


@pytest.mark.integration
def test_ids_of_another_tenant_are_free_and_tell_of_nobody(url: str) -> None:
    """Whoever knows, or guesses, the ids that another will use is in nobody's way."""
    signature_id, program_id, execution_id = (uuid7() for _ in range(3))
    with client(url, "acme-app") as acme, client(url, "other-app") as other:
        for tenant, own in ((other, "text -> summary"), (acme, "q -> a")):
            signature = tenant.create_signature(own, signature_id=signature_id)
            program = tenant.create_program("p", signature_id, adapter_type="mock", program_id=program_id)
            assert (signature.signature_id, program.program_id) == (signature_id, program_id)
            assert tenant.initialize_program(program_id).status == ProgramStatus.READY
        ended = [
            tenant.execute_program(program_id, inputs, execution_id=execution_id)
            for tenant, inputs in ((other, {"text": "a"}), (acme, {"q": "?"}))
        ]
        assert [one.status for one in ended] == [ExecutionStatus.COMPLETED] * 2
        for tenant, view, output in ((other, ended[0], "summary"), (acme, ended[1], "a")):
            assert set(view.outputs or {}) == {output}
            assert tenant.get_execution(execution_id) == view
            assert tenant.get_stats(program_id).execution_count == 1
            assert [one.execution_id for one in tenant.list_executions().items][:1] == [execution_id]
        other.archive_program(program_id)
        other.destroy_program(program_id)
        assert acme.get_program(program_id).status == ProgramStatus.READY


@pytest.mark.integration
def test_executions_with_one_id_run_side_by_side(url: str) -> None:
    """Of programs that are built the same, so that one adapter runs both: one is cancelled, the other runs on."""
    execution_id = uuid7()
    slow = Configuration(parameters={"latency_ms": 60_000})
    with client(url, "acme-app") as acme, client(url, "other-app") as other:
        programs = [
            tenant.create_program("slow", "q -> a", adapter_type="mock", configuration=slow) for tenant in (acme, other)
        ]
        built = [
            tenant.initialize_program(program.program_id)
            for tenant, program in zip((acme, other), programs, strict=True)
        ]
        assert built[0].backend_id == built[1].backend_id
        for tenant, program in zip((acme, other), programs, strict=True):
            tenant.submit_program(program.program_id, {"q": "?"}, execution_id=execution_id)

        def status(tenant: RemoteClient) -> ExecutionStatus | None:
            found = [one for one in tenant.list_executions().items if one.execution_id == execution_id]
            return found[0].status if found else None

        wait_until(lambda: [status(acme), status(other)] == [ExecutionStatus.RUNNING] * 2, "both run")
        other.cancel_execution(execution_id)
        wait_until(lambda: status(other) == ExecutionStatus.CANCELLED, "it is stopped")
        view = acme.get_execution(execution_id)
        assert (view.status, view.cancel_requested) == (ExecutionStatus.RUNNING, False)
        acme.cancel_execution(execution_id)
        wait_until(lambda: status(acme) == ExecutionStatus.CANCELLED, "it is stopped too")
