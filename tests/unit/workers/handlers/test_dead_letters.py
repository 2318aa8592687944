"""Dead letters of both kinds: replayed and discarded by whoever may, and refused where that cannot help."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from adapters.port import AdapterError, Outcome
from dspex import (
    CreateProgram,
    CreateSignature,
    ErrorCode,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStatus,
    InitializeProgram,
    ProgramStatus,
    Signature,
    decode_command,
    uuid7,
    wrap,
)
from dspex.amqp.publication import Publication
from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.contract.commands import ArchiveProgram, DestroyProgram
from dspex.contract.dead_letters import DiscardMessages, ReplayExecutions, ReplayMessages
from dspex.contract.gates import GateKind, Pause, Scope
from dspex.contract.queries import ListExecutions
from dspex.contract.results import RejectedMessageView
from dspex.contract.status import DeadLetterStatus
from dspex.errors import BrokerUnavailable, DspexError, InvalidValues
from store import counters, executions
from store.rejections import Rejection
from tests.unit.system import System
from workers.brokers.memory import MemoryPublisher
from workers.handlers.dead_letters import MESSAGES_AT_ONCE
from workers.local import LocalClient
from workers.security.authorization import Principal, Role
from workers.security.principals import Principals, as_it_came, on_behalf

OPERATOR = Principal("ops", "default", frozenset({Role.OPERATOR}))


@pytest.fixture
def dspex(system: System) -> LocalClient:
    return LocalClient(system.app, OPERATOR)


def broken(_: Mapping[str, Any]) -> Outcome:
    raise AdapterError(ErrorCode.PERMANENT, "no")


def failed(system: System, number: int = 1) -> list[UUID]:
    """Executions of a program whose adapter fails."""
    system.scripted.run = broken
    program_id = system.program(adapter="scripted")
    ids = [system.execute(program_id, question=str(n)) for n in range(number)]
    for execution_id in ids:
        assert system.ended(execution_id).status == ExecutionStatus.FAILED
    return ids


def mend(system: System) -> None:
    system.scripted.run = lambda inputs: Outcome({"answer": inputs["question"]})


def reject(system: System, body: bytes, queue: str = PROGRAMS_QUEUE, **changes: Any) -> UUID:
    """Record a message as rejected."""
    rejection = Rejection(queue, "not_found", "no", body, changes.pop("body_size", len(body)), **changes)
    system.app.writer.call(system.app.writes.reject, rejection)
    return rejection.id


def create_signature(instructions: str = "") -> bytes:
    signature = Signature.parse({"arrow": "a -> b", "instructions": instructions})
    command = CreateSignature(signature_id=uuid7(), signature=signature)
    return wrap(command, source="/tests").encode()


class TestExecutions:
    def test_what_is_replayed_runs_again_and_tells_again(self, system: System, dspex: LocalClient) -> None:
        [execution_id] = failed(system)
        [letter] = dspex.list_dead_executions().items
        assert letter.execution_id == execution_id
        mend(system)
        assert dspex.replay_executions([execution_id]).count == 1
        system.event(ExecutionCompleted, execution_id)
        row = system.ended(execution_id)
        assert (row.status, row.outputs, row.attempt) == (ExecutionStatus.COMPLETED, {"answer": "0"}, 1)
        assert [entry.status for entry in row.timeline] == ["running", "failed", "pending", "running", "completed"]
        assert row.timeline[2].by == "ops"
        assert len(system.events_of(ExecutionFailed, execution_id)) == 1
        assert dspex.replay_executions([execution_id, uuid7()]).count == 0
        with system.app.read("default") as connection:
            totals = counters.totals(connection, row.program_id)
        assert (totals.completed, totals.failed) == (1, 0)
        system.wait(lambda: system.unsent() == set())

    def test_a_filter_takes_each_once_also_where_it_fails_again(self, system: System, dspex: LocalClient) -> None:
        ids = failed(system, 5)
        row = system.row(ids[0])
        assert row is not None
        assert dspex.replay_executions(error_code="auth").count == 0
        assert dspex.replay_executions(program_id=uuid7()).count == 0
        assert dspex.replay_executions(program_id=row.program_id, error_code="permanent").count == 5
        system.wait(lambda: len(system.events_of(ExecutionFailed)) == 10)
        assert dspex.discard_executions(ids[:1]).count == 1
        assert dspex.discard_executions().count == 4
        assert dspex.discard_executions().count == 0
        assert dspex.replay_executions().count == 0
        assert dspex.list_dead_executions().items == ()
        assert {item.execution_id for item in dspex.list_dead_executions(discarded=True).items} == set(ids)
        assert dspex.replay_executions(ids).count == 5

    def test_more_than_a_transaction_takes(
        self, system: System, dspex: LocalClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workers.handlers.dead_letters.MAX_REPLAYS", 2)
        sizes: list[int] = []
        discard = executions.discard

        def counting(connection: Any, ids: Any, **how: Any) -> int:
            sizes.append(len(ids))
            return discard(connection, ids, **how)

        monkeypatch.setattr(executions, "discard", counting)
        ids = failed(system, 5)
        assert dspex.discard_executions(ids[:3]).count == 3
        assert dspex.replay_executions(ids[:3]).count == 3
        system.wait(lambda: len(system.events_of(ExecutionFailed)) == 8)
        assert dspex.discard_executions().count == 5
        assert sizes == [2, 1, 2, 2, 1]


class TestMessages:
    def test_what_is_replayed_is_carried_out(self, system: System, dspex: LocalClient) -> None:
        program_id, signature_id = uuid7(), uuid7()
        execution_id = system.execute(program_id, question="why")
        system.wait(system.rejected)
        [letter] = dspex.list_dead_messages().items
        assert (letter.error.code, letter.queue, letter.deliveries) == ("not_found", EXECUTIONS_QUEUE, 1)
        assert letter.message_type == ExecuteProgram.type
        assert decode_command(letter.body.encode()).subject == str(execution_id)
        assert dspex.get_rejected_message(letter.rejection_id) == letter
        signature = Signature.parse("question -> answer")
        for command in (
            CreateSignature(signature_id=signature_id, signature=signature),
            CreateProgram(program_id=program_id, signature_id=signature_id, name="p", adapter_type="mock"),
            InitializeProgram(program_id=program_id),
        ):
            system.send(command)
        system.wait(lambda: (found := system.find_program(program_id)) and found.status == ProgramStatus.READY)
        answer = dspex.replay_messages(error_code="not_found", queue=EXECUTIONS_QUEUE)
        assert (answer.count, answer.refused) == (1, 0)
        system.event(ExecutionCompleted, execution_id)
        assert dspex.get_rejected_message(letter.rejection_id).status == DeadLetterStatus.REPLAYED
        assert dspex.replay_messages([letter.rejection_id]).count == 0

    def test_one_that_is_rejected_again_is_dead_again(self, system: System, dspex: LocalClient) -> None:
        execution_id = system.execute(uuid7(), question="why")
        system.wait(system.rejected)
        [before] = dspex.list_dead_messages().items
        assert dspex.replay_messages([before.rejection_id]).count == 1
        system.wait(lambda: dspex.get_rejected_message(before.rejection_id).deliveries == 2)
        after = dspex.get_rejected_message(before.rejection_id)
        assert (after.status, after.body, after.message_id) == (DeadLetterStatus.DEAD, before.body, before.message_id)
        assert system.row(execution_id) is None
        assert dspex.discard_messages(queue="another").count == 0
        assert dspex.discard_messages().count == 1
        assert dspex.list_dead_messages().items == ()
        assert dspex.replay_messages().count == 0
        assert dspex.replay_messages([before.rejection_id]).count == 1

    def test_what_cannot_help_is_refused_by_its_id_and_passed_over_by_a_filter(
        self, system: System, dspex: LocalClient
    ) -> None:
        good = reject(system, create_signature())
        envelope = json.loads(create_signature())
        reasons = {
            reject(system, b'{"specversion"', body_size=5000): "only 14 of its 5000 bytes were kept",
            reject(system, b"garbage"): "the body is not JSON",
            reject(system, json.dumps(envelope | {"type": "dspex.unknown.v1"}).encode()): "'dspex.unknown.v1' is not",
            reject(system, json.dumps(envelope | {"data": {}}).encode()): "data.signature_id: is missing",
            reject(system, wrap(DestroyProgram(program_id=uuid7()), source="/t").encode()): "'ops' has the roles",
            reject(system, wrap(ReplayMessages(), source="/t").encode()): "is about dead letters itself",
            reject(system, wrap(Pause(scope=Scope(kind=GateKind.EVERYTHING)), source="/t").encode()): "for all tenants",
        }
        for rejection_id, reason in reasons.items():
            with pytest.raises(InvalidValues) as refused:
                dspex.replay_messages([rejection_id])
            [problem] = refused.value.problems
            assert problem.field == str(rejection_id)
            assert reason in problem.message
        with pytest.raises(InvalidValues, match="of the others, 1 were sent"):
            dspex.replay_messages([*reasons, good])
        assert dspex.get_rejected_message(good).status == DeadLetterStatus.REPLAYED
        assert {item.rejection_id for item in dspex.list_dead_messages().items} == set(reasons)
        answer = dspex.replay_messages()
        assert (answer.count, answer.refused) == (0, len(reasons))

    def test_many_that_are_refused_are_not_all_told(self, system: System, dspex: LocalClient) -> None:
        ids = [reject(system, b"%d" % number) for number in range(53)]
        with pytest.raises(InvalidValues, match="and 3 more cannot be sent") as refused:
            dspex.replay_messages(ids)
        assert len(refused.value.problems) == 51

    def test_all_are_replayed_however_many(self, system: System, dspex: LocalClient) -> None:
        ids = {reject(system, create_signature()) for _ in range(MESSAGES_AT_ONCE + 3)}
        assert dspex.replay_messages().count == len(ids)
        assert dspex.list_dead_messages().items == ()

    def test_what_the_broker_does_not_take_stays_dead(
        self, system: System, dspex: LocalClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(3):
            reject(system, create_signature())
        submit, calls = MemoryPublisher.submit, [0]

        def once(self: MemoryPublisher, publication: Publication) -> Any:
            calls[0] += 1
            if calls[0] > 1:
                raise BrokerUnavailable("gone")
            return submit(self, publication)

        monkeypatch.setattr(MemoryPublisher, "submit", once)
        with pytest.raises(BrokerUnavailable):
            dspex.replay_messages()
        assert len(dspex.list_dead_messages().items) == 2
        monkeypatch.undo()
        assert dspex.replay_messages().count == 2

    def test_one_that_no_queue_takes_stays_dead(
        self, system: System, dspex: LocalClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rejection_id = reject(system, create_signature())
        monkeypatch.setattr(system.broker, "queues", {})
        with pytest.raises(DspexError, match="there is no queue"):
            dspex.replay_messages([rejection_id])
        assert dspex.get_rejected_message(rejection_id).status == DeadLetterStatus.DEAD

    @pytest.mark.parametrize(
        ("body", "shown", "encoding"),
        [
            ("naïve".encode(), "naïve", "utf-8"),
            (b"", "", "utf-8"),
            (b"\xff\x00", "/wA=", "base64"),
            (b"a\x00", "YQA=", "base64"),
        ],
    )
    def test_a_body_is_shown_as_text_where_it_is_text(
        self, system: System, dspex: LocalClient, body: bytes, shown: str, encoding: str
    ) -> None:
        view: RejectedMessageView = dspex.get_rejected_message(reject(system, body))
        assert (view.body, view.body_encoding, view.body_size) == (shown, encoding, len(body))


class TestTenants:
    @pytest.fixture
    def published(self, system: System, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """The commands that are sent, with tenancy on."""
        sent: list[bytes] = []
        submit = MemoryPublisher.submit

        def listening(self: MemoryPublisher, publication: Publication, **how: Any) -> Any:
            if publication.exchange == COMMANDS_EXCHANGE:
                sent.append(publication.body)
            return submit(self, publication, **how)

        monkeypatch.setattr(MemoryPublisher, "submit", listening)
        object.__setattr__(system.app, "principals", Principals({}, system="workers"))
        return sent

    def test_the_workers_login_speaks_for_the_tenant(self, system: System, published: list[bytes]) -> None:
        acme = LocalClient(system.app, Principal("ops", "acme", frozenset({Role.OPERATOR})))
        body = b" \n" + create_signature()
        rejection_id = reject(system, body, tenant="acme")
        assert acme.replay_messages([rejection_id]).count == 1
        envelope = decode_command(published[0])
        assert envelope.tenant == "acme"
        assert envelope.id == json.loads(body)["id"]
        assert as_it_came(published[0], "acme") == body

    def test_another_tenants_is_refused(self, system: System, published: list[bytes]) -> None:
        command = ArchiveProgram(program_id=uuid7())
        theirs = reject(system, wrap(command, source="/t", tenant="acme").encode())
        mine = reject(system, wrap(command, source="/t", tenant="default").encode())
        hidden = reject(system, wrap(command, source="/t").encode(), tenant="acme")
        dspex = LocalClient(system.app, OPERATOR)
        with pytest.raises(InvalidValues, match="belongs to 'default'"):
            dspex.replay_messages([theirs])
        assert dspex.replay_messages([hidden]).count == dspex.discard_messages([hidden]).count == 0
        assert dspex.replay_messages([mine]).count == 1
        assert [decode_command(body).tenant for body in published] == ["default"]

    def test_one_that_grows_over_the_cap_is_refused(self, start: Callable[..., System]) -> None:
        body = create_signature("a" * 1024)
        system = start(max_message_bytes=len(body))
        object.__setattr__(system.app, "principals", Principals({}, system="workers"))
        rejection_id = reject(system, body)
        with pytest.raises(InvalidValues, match=rf"at most {len(body)} are allowed"):
            LocalClient(system.app, OPERATOR).replay_messages([rejection_id])

    def test_for_whom_a_message_is_recorded(self) -> None:
        principals = Principals({"app": Principal("app", "acme")}, system="workers")
        assert principals.tenant_of("workers", "acme") == principals.tenant_of("app", "other") == "acme"
        assert principals.tenant_of("workers") == principals.tenant_of(None, "acme") == "default"
        assert Principals().tenant_of(None, "acme") == "default"

    def test_a_message_without_the_name_is_as_it_came(self) -> None:
        for body in (b"", b"garbage", create_signature(), b'{"tenant":"other","id":1}'):
            assert as_it_came(body, "acme") == body
        assert as_it_came(on_behalf(b'{"tenant":"other"}', "acme"), "acme") == b'{"tenant":"other"}'


def test_a_stale_finish_after_a_replay_is_fenced(system: System, dspex: LocalClient) -> None:
    """Its worker was held up for longer than its lease; the one that took over failed, and was replayed."""
    program_id = system.program(adapter="scripted")
    execution_id = uuid7()
    system.lose(system.request(program_id, execution_id, question="1"))
    system.scripted.run = broken
    system.ended(execution_id)
    mend(system)
    dspex.replay_executions([execution_id])
    row = system.ended(execution_id)
    with system.app.engine.begin() as connection:
        end = executions.Finish(execution_id, program_id, 1, 1.0, row.usage, {"answer": "stale"})
        assert executions.finish(connection, 0, [end]) == [False]
    assert system.ended(execution_id).outputs == {"answer": "1"}


@pytest.mark.parametrize("command", [ReplayExecutions, DiscardMessages])
def test_ids_and_a_filter_exclude_each_other(command: Any) -> None:
    name = "execution_ids" if command is ReplayExecutions else "rejection_ids"
    wrong: list[dict[str, Any]] = [
        {name: [uuid7()], "error_code": "auth"},
        {name: [uuid7()], "since": "2026-01-01T00:00:00Z"},
        {name: []},
        {name: [uuid7() for _ in range(1001)]},
        {"since": "2026-01-01 at noon"},
        {"status": "failed"},
    ]
    for given in wrong:
        with pytest.raises(ValidationError):
            command.model_validate(given)
    right: list[dict[str, Any]] = [{}, {name: [uuid7()] * 1000}, {name: [uuid7()], "until": None}, {"queue": "q"}]
    for given in right[: 4 if command is DiscardMessages else 3]:
        assert decode_command(wrap(command.model_validate(given), source="/t").encode()).type == command.type


def test_a_list_says_whether_those_that_were_discarded_are_in_it() -> None:
    assert ListExecutions(discarded=False).model_dump(mode="json")["discarded"] is False
    assert "discarded" not in ListExecutions().model_dump(mode="json")
