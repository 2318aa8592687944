"""The code interface, one suite: in process on SQLite and on PostgreSQL, and over RabbitMQ."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import migrations
from deploy.local_servers import RabbitMQServer
from dspex import (
    Configuration,
    DspexError,
    ExecutionStatus,
    ProgramStatus,
    Signature,
    SignatureStatus,
    uuid7,
)
from dspex.callbacks import Callback
from dspex.client import RemoteClient
from dspex.commands import ModuleVersion
from dspex.interface import Interface
from dspex.results import ExecutionView, ProgramView
from store.engine import make_engine
from tests.conftest import new_database, start
from tests.waiting import wait_until
from workers.application import Application, bootstrap
from workers.brokers import amqp
from workers.local import LocalClient
from workers.process import WorkerProcess
from workers.settings import Settings

ARROW = "question: str, k: int = 3 -> answer: str, score: float"
SLOW = Configuration(parameters={"latency_ms": 60_000})


@contextmanager
def working(settings: Settings) -> Generator[Application]:
    """An application whose worker runs."""
    engine = make_engine(settings.database_url)
    migrations.upgrade(engine)
    engine.dispose()
    app = bootstrap(settings)
    worker = WorkerProcess(app)
    worker.start()
    try:
        yield app
    finally:
        worker.stop(0)
        app.close()


@pytest.fixture(scope="module")
def broker_url(servers_directory: Path) -> Iterator[str]:
    """A RabbitMQ of this module's own: the names of the queues are fixed."""
    broker = RabbitMQServer(servers_directory / "interface-rabbitmq")
    start(broker)
    yield broker.url
    broker.stop()


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.integration),
        pytest.param("remote", marks=pytest.mark.integration),
    ],
)
def dspex(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interface]:
    """The interface, with a worker behind it."""
    common: dict[str, Any] = {"threads": 8, "lease_seconds": 3, "log_level": "WARNING"}
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('interface') / 'dspex.db'}"
        with working(Settings(database_url=url, broker_url="memory://", **common)) as app:
            yield LocalClient(app)
        return
    with new_database(request.getfixturevalue("postgres_url")) as url:
        if request.param == "postgresql":
            with working(Settings(database_url=url, broker_url="memory://", **common)) as app:
                yield LocalClient(app)
        else:
            broker_url: str = request.getfixturevalue("broker_url")
            amqp.check(broker_url)
            with (
                working(Settings(database_url=url, broker_url=broker_url, **common)),
                RemoteClient(broker_url, source="/tests") as client,
            ):
                yield client


def code_of(call: Callable[[], object]) -> str:
    """The code of the error that a call raises."""
    with pytest.raises(DspexError) as raised:
        call()
    return raised.value.code


def ready(dspex: Interface, signature: Any = ARROW, **options: Any) -> ProgramView:
    """A program that is ready, on the mock."""
    program = dspex.create_program("a program", signature, adapter_type="mock", **options)
    assert program.status == ProgramStatus.DRAFT
    return dspex.initialize_program(program.program_id)


def in_background(call: Callable[[], ExecutionView]) -> tuple[threading.Thread, list[ExecutionView]]:
    """Make a call in a thread; its answer comes into the list."""
    answers: list[ExecutionView] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    return thread, answers


class TestSignatures:
    def test_a_draft_is_activated_once_then_deprecated_once(self, dspex: Interface) -> None:
        draft = dspex.create_signature("a -> b", activate=False)
        assert draft.status == SignatureStatus.DRAFT
        assert dspex.activate_signature(draft.signature_id).status == SignatureStatus.ACTIVE
        with pytest.raises(DspexError, match="Only draft signatures can be activated"):
            dspex.activate_signature(draft.signature_id)
        assert dspex.deprecate_signature(draft.signature_id).status == SignatureStatus.DEPRECATED
        assert code_of(lambda: dspex.deprecate_signature(draft.signature_id)) == "illegal_transition"

    def test_only_a_draft_can_be_updated(self, dspex: Interface) -> None:
        draft = dspex.create_signature("a -> b", activate=False)
        updated = dspex.update_signature(draft.signature_id, "a, c: int -> b")
        assert [field.name for field in updated.signature.inputs] == ["a", "c"]
        assert updated.lock_version == draft.lock_version + 1
        dspex.activate_signature(draft.signature_id)
        assert code_of(lambda: dspex.update_signature(draft.signature_id, "a -> b")) == "illegal_transition"

    def test_it_is_read_as_it_was_given(self, dspex: Interface) -> None:
        given = Signature.parse({"name": "qa", "arrow": ARROW, "instructions": "Be brief.", "version": "2.0.0-rc.1"})
        kept = dspex.create_signature(given)
        assert dspex.get_signature(kept.signature_id).signature == given
        assert kept.digest == given.digest

    def test_one_that_is_used_is_not_destroyed_and_others_are(self, dspex: Interface) -> None:
        program = ready(dspex, f"used_{uuid4().hex} -> b")
        assert code_of(lambda: dspex.destroy_signature(program.signature_id)) == "illegal_transition"
        unused = dspex.create_signature("a -> b")
        dspex.destroy_signature(unused.signature_id)
        assert code_of(lambda: dspex.get_signature(unused.signature_id)) == "not_found"

    def test_lists_are_filtered_and_come_in_pages_newest_first(self, dspex: Interface) -> None:
        name = f"listed {uuid4().hex}"
        made = [dspex.create_signature({"name": name, "arrow": "a -> b"}).signature_id for _ in range(5)]
        seen: list[UUID] = []
        cursor = None
        while True:
            page = dspex.list_signatures(name=name, status=SignatureStatus.ACTIVE, limit=2, cursor=cursor)
            seen += [item.signature_id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == made[::-1]
        assert set(made) <= {item.signature_id for item in dspex.list_active_signatures()}
        assert not dspex.list_signatures(name=name, status=SignatureStatus.DRAFT).items
        assert code_of(lambda: dspex.list_signatures(cursor="nonsense")) == "invalid_values"

    def test_versions_of_a_module_coexist_and_are_compared(self, dspex: Interface) -> None:
        module = f"tests.m{uuid4().hex}"
        old = dspex.create_signature({"module": module, "version": "1.0.0", "arrow": "a -> b"})
        new = dspex.create_signature({"module": module, "version": "1.1.0", "arrow": "a, k: int = 1 -> b, c"})
        assert old.compatibility is None
        assert new.compatibility is not None
        assert {change.field for change in new.compatibility.changes} == {"k", "c"}
        worse = dspex.create_signature({"module": module, "version": "2.0.0", "arrow": "a, k: int -> c"})
        again = {"module": module, "version": "1.0.0", "arrow": "other -> b"}
        assert code_of(lambda: dspex.create_signature(again)) == "conflict"
        assert dspex.compare_signatures(old.signature_id, new.signature_id).compatible
        breaking = dspex.compare_signatures(old.signature_id, worse.signature_id)
        assert not breaking.compatible
        assert {change.field for change in breaking.changes if not change.compatible} == {"k", "b"}

    def test_a_module_outside_the_allow_list_is_refused(self, dspex: Interface) -> None:
        assert dspex.validate_module("json.decoder") is False
        assert code_of(lambda: dspex.create_signature_from_module("json.decoder:JSONDecoder")) == "module_not_allowed"


class TestPrograms:
    def test_it_is_created_with_its_signature_and_initialized_once(self, dspex: Interface) -> None:
        program = ready(dspex)
        assert (program.status, program.adapter_type) == (ProgramStatus.READY, "mock")
        assert program.backend_id is not None
        assert program.backend_id.startswith("mock-")
        assert dspex.initialize_program(program.program_id) == program

    def test_the_same_content_finds_the_same_signature(self, dspex: Interface) -> None:
        arrow = f"found_{uuid4().hex} -> b"
        first, second = (dspex.create_program("one", arrow, adapter_type="mock") for _ in range(2))
        assert first.signature_id == second.signature_id
        third = dspex.create_program("three", first.signature_id, adapter_type="mock")
        assert third.signature_id == first.signature_id

    def test_a_signature_is_found_by_module_and_version(self, dspex: Interface) -> None:
        module = f"tests.m{uuid4().hex}"
        made = [
            dspex.create_signature({"module": module, "version": v, "arrow": "a -> b"}).signature_id
            for v in ("1.9.0", "1.10.0")
        ]
        newest = dspex.create_program("p", ModuleVersion(module=module), adapter_type="mock")
        older = dspex.create_program("p", ModuleVersion(module=module, version="1.9.0"), adapter_type="mock")
        assert [older.signature_id, newest.signature_id] == made
        missing = ModuleVersion(module=module, version="3.0.0")
        assert code_of(lambda: dspex.create_program("p", missing, adapter_type="mock")) == "not_found"

    def test_one_that_cannot_be_built_says_why_and_its_executions_do_too(self, dspex: Interface) -> None:
        unknown = Configuration(parameters={"latency": 1})
        program = dspex.create_program("broken", ARROW, adapter_type="mock", configuration=unknown)
        program = dspex.initialize_program(program.program_id)
        assert program.status == ProgramStatus.ERROR
        assert program.error is not None
        assert "latency" in program.error.message
        failed = dspex.execute_program(program.program_id, {"question": "?"})
        assert failed.error is not None
        assert failed.error.code == "program_not_ready"
        assert "error" in failed.error.message
        assert "latency" in failed.error.message
        mended = dspex.update_program(program.program_id, Configuration())
        assert dspex.initialize_program(mended.program_id).status == ProgramStatus.READY

    def test_a_new_configuration_is_a_new_backend_id_unless_somebody_was_faster(self, dspex: Interface) -> None:
        program = ready(dspex)
        changed = dspex.update_program(
            program.program_id, Configuration(module="ChainOfThought"), lock_version=program.lock_version
        )
        assert changed.status == ProgramStatus.READY
        assert changed.backend_id != program.backend_id
        late = Configuration(module="ReAct")
        stale = program.lock_version
        assert code_of(lambda: dspex.update_program(program.program_id, late, lock_version=stale)) == "conflict"
        assert dspex.execute_program(program.program_id, {"question": "?"}).backend_id == changed.backend_id

    def test_an_archived_one_takes_no_executions_and_can_be_destroyed(self, dspex: Interface) -> None:
        program = ready(dspex)
        dspex.execute_program(program.program_id, {"question": "?"})
        assert code_of(lambda: dspex.destroy_program(program.program_id)) == "illegal_transition"
        assert dspex.archive_program(program.program_id).status == ProgramStatus.ARCHIVED
        refused = dspex.execute_program(program.program_id, {"question": "again?"})
        assert refused.error is not None
        assert "archived" in refused.error.message
        dspex.destroy_program(program.program_id)
        assert code_of(lambda: dspex.get_program(program.program_id)) == "not_found"

    def test_lists_are_filtered(self, dspex: Interface) -> None:
        program = ready(dspex, f"in_{uuid4().hex} -> b")
        by_signature = dspex.list_programs(signature_id=program.signature_id)
        assert [item.program_id for item in by_signature.items] == [program.program_id]
        assert not dspex.list_programs(signature_id=program.signature_id, status=ProgramStatus.DRAFT).items


class TestExecutions:
    def test_inputs_become_outputs_and_a_timeline(self, dspex: Interface) -> None:
        program = ready(dspex)
        execution = dspex.execute_program(program.program_id, {"question": "why?"})
        assert execution.status == ExecutionStatus.COMPLETED
        assert execution.outputs is not None
        assert set(execution.outputs) == {"answer", "score"}
        assert execution.backend_id == program.backend_id
        assert [step.status for step in execution.timeline] == ["running", "completed"]
        assert execution.usage.calls == 1
        assert dspex.get_execution(execution.execution_id) == execution

    def test_the_same_id_runs_once_and_another_body_is_a_conflict(self, dspex: Interface) -> None:
        program = ready(dspex)
        execution_id = uuid7()
        first = dspex.execute_program(program.program_id, {"question": "1"}, execution_id=execution_id)
        second = dspex.execute_program(program.program_id, {"question": "1"}, execution_id=execution_id)
        assert first == second
        other = {"question": "2"}
        assert (
            code_of(lambda: dspex.execute_program(program.program_id, other, execution_id=execution_id)) == "conflict"
        )
        assert dspex.get_stats(program.program_id).execution_count == 1

    def test_every_wrong_input_is_named_and_leaves_a_row(self, dspex: Interface) -> None:
        program = ready(dspex)
        failed = dspex.execute_program(program.program_id, {"question": 1, "k": "3", "extra": True})
        assert failed.status == ExecutionStatus.FAILED
        assert failed.error is not None
        assert failed.error.code == "invalid_input"
        assert {problem.field for problem in failed.error.problems} == {"question", "k", "extra"}
        assert dspex.get_execution(failed.execution_id).status == ExecutionStatus.FAILED

    def test_an_execution_of_no_program_is_refused(self, dspex: Interface) -> None:
        assert code_of(lambda: dspex.execute_program(uuid4(), {"question": "?"})) == "not_found"

    def test_a_running_one_is_cancelled_and_its_adapter_stops(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=SLOW)
        execution_id = uuid7()
        thread, answers = in_background(
            lambda: dspex.execute_program(program.program_id, {"question": "?"}, execution_id=execution_id)
        )
        running = {"program_id": program.program_id, "status": ExecutionStatus.RUNNING}
        wait_until(lambda: bool(dspex.list_executions(**running).items), "it runs")
        asked = dspex.cancel_execution(execution_id)
        assert asked.cancel_requested
        thread.join(timeout=20)
        assert [answer.status for answer in answers] == [ExecutionStatus.CANCELLED]
        assert answers[0].outputs is None
        assert code_of(lambda: dspex.cancel_execution(execution_id)) == "illegal_transition"
        statistics = dspex.get_program_statistics(program.program_id)
        assert (statistics.total, statistics.cancelled) == (1, 1)

    def test_lists_are_filtered_by_program_status_error_and_time(self, dspex: Interface) -> None:
        program = ready(dspex)
        begun = datetime.now(UTC) - timedelta(minutes=1)
        good = [dspex.execute_program(program.program_id, {"question": str(n)}).execution_id for n in range(3)]
        bad = dspex.execute_program(program.program_id, {}).execution_id

        def ids(**filters: Any) -> list[UUID]:
            page = dspex.list_executions(program_id=program.program_id, **filters)
            return [item.execution_id for item in page.items]

        assert ids() == [bad, *good[::-1]]
        assert ids(limit=2) == [bad, good[2]]
        assert ids(status=ExecutionStatus.COMPLETED) == good[::-1]
        assert ids(error_code="invalid_input") == [bad]
        assert ids(since=begun) == [bad, *good[::-1]]
        assert ids(until=begun) == []
        assert bad in {item.execution_id for item in dspex.recent_executions()}


class TestWebhooks:
    """What is asked of them; `tests/unit/test_deliverer.py` is about what is sent."""

    callback = Callback(url="https://receiver.example/hook", secret="A_WEBHOOK_SECRET", events=("failed",))

    def test_an_endpoint_has_a_life(self, dspex: Interface) -> None:
        made = dspex.register_endpoint(self.callback)
        assert dspex.register_endpoint(self.callback, endpoint_id=made.endpoint_id) == made
        assert dspex.get_endpoint(made.endpoint_id) == made
        assert (made.callback, made.registered, made.enabled) == (self.callback, True, True)
        other = self.callback.model_copy(update={"thin": True})
        assert code_of(lambda: dspex.register_endpoint(other, endpoint_id=made.endpoint_id)) == "conflict"
        changed = dspex.update_endpoint(made.endpoint_id, other, lock_version=made.lock_version)
        assert changed.callback == other
        stale = made.lock_version
        assert code_of(lambda: dspex.update_endpoint(made.endpoint_id, other, lock_version=stale)) == "conflict"
        rotated = dspex.rotate_secret(made.endpoint_id, "B_WEBHOOK_SECRET", overlap=60)
        assert (rotated.callback.secret, rotated.previous_secret) == ("B_WEBHOOK_SECRET", "A_WEBHOOK_SECRET")
        assert not dspex.disable_endpoint(made.endpoint_id).enabled
        assert made.endpoint_id in {item.endpoint_id for item in dspex.list_endpoints(enabled=False).items}
        assert dspex.enable_endpoint(made.endpoint_id).enabled
        dspex.delete_endpoint(made.endpoint_id)
        assert code_of(lambda: dspex.get_endpoint(made.endpoint_id)) == "not_found"

    def test_what_cannot_be_a_callback_is_refused_at_once(self, dspex: Interface) -> None:
        forbidden = Callback(url="https://127.0.0.1/", secret="A_WEBHOOK_SECRET")
        program = ready(dspex)
        for ask in (
            lambda: dspex.register_endpoint(forbidden),
            lambda: dspex.create_program("p", ARROW, adapter_type="mock", callback=forbidden),
            lambda: dspex.update_program(program.program_id, program.configuration, callback=forbidden),
            lambda: dspex.execute_program(program.program_id, {"question": "?"}, callback=forbidden),
        ):
            assert code_of(ask) == "forbidden_address"

    def test_the_log_says_what_is_to_be_delivered(self, dspex: Interface) -> None:
        program = ready(dspex, callback=self.callback)
        assert dspex.get_program(program.program_id).callback == self.callback
        good = dspex.execute_program(program.program_id, {"question": "?"})
        assert (good.callback, dspex.list_deliveries(execution_id=good.execution_id).items) == (self.callback, ())
        # Of no name that there is: it is tried, fails, and stays.
        own = self.callback.model_copy(update={"url": "https://receiver.invalid/"})
        bad = dspex.execute_program(program.program_id, {}, callback=own)
        (delivery,) = dspex.list_deliveries(execution_id=bad.execution_id).items
        assert (delivery.event, delivery.host, delivery.status) == ("failed", "receiver.invalid:443", "pending")
        assert dspex.get_delivery(delivery.delivery_id).event_id == delivery.event_id
        assert dspex.replay_deliveries(execution_id=bad.execution_id) == 0
        dspex.disable_endpoint(delivery.endpoint_id)
        assert dspex.list_deliveries(status="failed", endpoint_id=delivery.endpoint_id).items
        dspex.enable_endpoint(delivery.endpoint_id)
        assert dspex.replay_deliveries(delivery.delivery_id) == 1
        assert code_of(lambda: dspex.replay_deliveries(uuid7())) == "not_found"


class TestStatistics:
    def test_three_runs_are_counted(self, dspex: Interface) -> None:
        program = ready(dspex)
        for number in range(2):
            dspex.execute_program(program.program_id, {"question": str(number)})
        dspex.execute_program(program.program_id, {})
        stats = dspex.get_stats(program.program_id)
        assert stats.execution_count == 3
        assert stats.last_executed_at is not None
        all_time = dspex.get_program_statistics(program.program_id)
        window = dspex.get_program_statistics(program.program_id, since=datetime.now(UTC) - timedelta(hours=1))
        for figures in (all_time, window):
            assert (figures.total, figures.successful, figures.failed, figures.cancelled) == (3, 2, 1, 0)
            assert figures.success_rate == pytest.approx(2 / 3)
            assert figures.average_duration_ms is not None
            assert figures.p50_duration_ms is not None
            assert figures.p95_duration_ms is not None
            assert figures.input_tokens > 0
        before = dspex.get_program_statistics(program.program_id, until=datetime.now(UTC) - timedelta(hours=1))
        assert (before.total, before.success_rate, before.p95_duration_ms) == (0, None, None)
        assert code_of(lambda: dspex.get_stats(uuid4())) == "not_found"

    def test_quick_execute_goes_the_whole_way(self, dspex: Interface) -> None:
        outputs = dspex.quick_execute(ARROW, {"question": "why?"})
        assert outputs == dspex.quick_execute(ARROW, {"question": "why?"})
        assert set(outputs) == {"answer", "score"}
        assert code_of(lambda: dspex.quick_execute(ARROW, {})) == "invalid_input"
        assert code_of(lambda: dspex.quick_execute(ARROW, {"question": "?"}, adapter_type="none_such")) == "permanent"
