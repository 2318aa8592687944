"""Programs: kept whole, initialized in two fenced steps, updated, archived, destroyed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from dspex import LM, Configuration, ErrorDetail, LMParameters, ProgramStatus, uuid7
from dspex.contract.callback import Callback
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import Conflict, IllegalTransition, NotFound
from store import counters, executions, programs, signatures
from store.executions import Ended, NoProgram
from tests.contract.store.rows import (
    ALICE,
    ENDS,
    ERROR,
    SIGNATURE,
    at_once,
    claim_now,
    completed,
    counted_by_status,
    ended_by_status,
    failed,
    get,
    keep_program,
    keep_signature,
    ready_program,
    request,
    take,
)


class TestPrograms:
    def test_is_kept_whole(self, connection: Connection) -> None:
        signature_id, program_id = keep_signature(connection), uuid7()
        parameters = LMParameters(temperature=0.0, top_p=1.0, max_tokens=5, stop=("\n", "ü"), timeout=2.5)
        configuration = Configuration(
            module="ChainOfThought",
            parameters={"n": 3, "deep": {"list": [1, None, "x"], "": {}}},
            lm=LM(model="openai/gpt-4o-mini", secret="OPENAI_API_KEY", parameters=parameters),
        )
        callback = Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET", thin=True)
        created = programs.create(
            connection,
            program_id,
            name="a ü '",
            signature_id=signature_id,
            adapter_type="native",
            configuration=configuration,
            policy=ExecutionPolicy(max_attempts=7, time_limit=60),
            callback=callback,
        )
        assert created == programs.get(connection, program_id)
        assert created == programs.Program(
            id=program_id,
            name="a ü '",
            signature_id=signature_id,
            signature=SIGNATURE,
            adapter_type="native",
            configuration=configuration,
            policy=ExecutionPolicy(max_attempts=7, time_limit=60),
            callback=callback,
            status=ProgramStatus.DRAFT,
            backend_id=None,
            error=None,
            lock_version=1,
            tenant="default",
            inserted_at=created.inserted_at,
            updated_at=created.updated_at,
            execution_count=0,
            last_executed_at=None,
        )

    def test_again_changes_nothing_whatever_has_become_of_it(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        before = programs.get(connection, program_id)
        again = programs.create(
            connection,
            program_id,
            name=before.name,
            signature_id=before.signature_id,
            adapter_type=before.adapter_type,
            configuration=before.configuration,
        )
        assert again == before
        assert again.status == ProgramStatus.READY

    @pytest.mark.parametrize(
        "change", [{"name": "b"}, {"adapter_type": "native"}, {"configuration": Configuration(module="ReAct")}]
    )
    def test_the_id_of_another_is_a_conflict(self, connection: Connection, change: dict[str, Any]) -> None:
        program_id = keep_program(connection)
        before = programs.get(connection, program_id)
        asked: dict[str, Any] = {
            "name": before.name,
            "signature_id": before.signature_id,
            "adapter_type": before.adapter_type,
            "configuration": before.configuration,
        }
        with pytest.raises(Conflict, match=str(program_id)):
            programs.create(connection, program_id, **(asked | change))
        with pytest.raises(Conflict, match=str(program_id)):
            programs.create(connection, program_id, **{**asked, "signature_id": keep_signature(connection)})
        assert programs.get(connection, program_id) == before

    def test_without_its_signature_it_is_not_kept(self, connection: Connection) -> None:
        unknown, program_id = uuid7(), uuid7()
        with pytest.raises(NotFound, match=f"signature_id: .*{unknown}"):
            programs.create(
                connection,
                program_id,
                name="a",
                signature_id=unknown,
                adapter_type="mock",
                configuration=Configuration(),
            )
        with pytest.raises(NotFound, match=f"program_id: .*{program_id}"):
            programs.get(connection, program_id)

    def test_initialize(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        begun = programs.begin_initialize(connection, program_id)
        assert (begun.status, begun.lock_version, begun.backend_id) == (ProgramStatus.INITIALIZING, 2, None)
        ready = programs.end_initialize(connection, begun, "backend-1")
        assert ready is not None
        assert (ready.status, ready.lock_version, ready.backend_id) == (ProgramStatus.READY, 3, "backend-1")
        assert ready == programs.get(connection, program_id)

    def test_initialize_what_is_ready_changes_nothing(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        ready = programs.get(connection, program_id)
        assert programs.begin_initialize(connection, program_id) == ready
        assert programs.end_initialize(connection, ready, "backend-2") is None
        assert programs.get(connection, program_id) == ready

    def test_who_takes_over_fences_the_first(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        first = programs.begin_initialize(connection, program_id)
        second = programs.begin_initialize(connection, program_id)
        assert programs.end_initialize(connection, first, "of the first") is None
        assert programs.end_initialize(connection, first, ERROR) is None
        ready = programs.end_initialize(connection, second, "of the second")
        assert ready is not None
        assert ready.backend_id == "of the second"
        assert programs.end_initialize(connection, second, "again") is None
        assert programs.get(connection, program_id) == ready

    def test_after_an_error_it_can_be_initialized_again(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        begun = programs.begin_initialize(connection, program_id)
        wrong = programs.end_initialize(connection, begun, ErrorDetail(code="auth", message="no key\x00"))
        assert wrong is not None
        assert (wrong.status, wrong.backend_id) == (ProgramStatus.ERROR, None)
        assert wrong.error == ErrorDetail(code="auth", message="no key\ufffd")
        ready = programs.end_initialize(connection, programs.begin_initialize(connection, program_id), "b")
        assert ready is not None
        assert (ready.status, ready.backend_id, ready.error) == (ProgramStatus.READY, "b", None)

    def test_of_a_draft_signature_it_is_not_initialized(self, connection: Connection) -> None:
        signature_id = keep_signature(connection, activate=False)
        program_id = keep_program(connection, signature_id)
        before = programs.get(connection, program_id)
        with pytest.raises(IllegalTransition, match="activate it"):
            programs.begin_initialize(connection, program_id)
        assert programs.get(connection, program_id) == before
        signatures.activate(connection, signature_id)
        assert programs.begin_initialize(connection, program_id).status == ProgramStatus.INITIALIZING

    def test_archived_is_the_end(self, connection: Connection) -> None:
        for program_id in (keep_program(connection), ready_program(connection)):
            archived = programs.archive(connection, program_id)
            assert archived.status == ProgramStatus.ARCHIVED
            with pytest.raises(IllegalTransition, match="it is archived"):
                programs.begin_initialize(connection, program_id)
            with pytest.raises(IllegalTransition, match="it is archived"):
                programs.archive(connection, program_id)
            assert programs.get(connection, program_id) == archived

    def test_what_is_archived_is_restored_as_it_was(self, connection: Connection) -> None:
        draft, wrong = keep_program(connection), keep_program(connection)
        ready = ready_program(connection)
        error = ErrorDetail(code="auth", message="no key")
        programs.end_initialize(connection, programs.begin_initialize(connection, wrong), error)
        for program_id in (draft, wrong, ready):
            before = programs.get(connection, program_id)
            restored = programs.restore(connection, programs.archive(connection, program_id))
            same = replace(restored, lock_version=before.lock_version, updated_at=before.updated_at)
            assert same == before
            assert restored.lock_version == before.lock_version + 2
            with pytest.raises(IllegalTransition, match=f"cannot be restored: it is {before.status}"):
                programs.restore(connection, restored)

    def test_what_was_built_again_has_its_new_backend_id(self, connection: Connection) -> None:
        archived = programs.archive(connection, ready_program(connection))
        assert programs.restore(connection, archived, backend_id="new").backend_id == "new"
        draft = programs.archive(connection, keep_program(connection))
        restored = programs.restore(connection, draft, backend_id="new")
        assert (restored.status, restored.backend_id) == (ProgramStatus.DRAFT, None)

    def test_it_is_restored_only_as_it_was_read(self, connection: Connection) -> None:
        read = programs.archive(connection, ready_program(connection))
        again = programs.archive(connection, programs.restore(connection, read).id)
        with pytest.raises(Conflict, match=f"lock_version {again.lock_version}"):
            programs.restore(connection, read)
        assert programs.get(connection, read.id) == again

    def test_what_is_initializing_is_not_archived(self, connection: Connection) -> None:
        begun = programs.begin_initialize(connection, keep_program(connection))
        with pytest.raises(IllegalTransition, match="it is initializing"):
            programs.archive(connection, begun.id)
        assert programs.get(connection, begun.id) == begun

    def test_not_found(self, connection: Connection) -> None:
        unknown = uuid7()
        for function in (programs.get, programs.begin_initialize, programs.archive, programs.destroy):
            with pytest.raises(NotFound, match=str(unknown)):
                function(connection, unknown)
        with pytest.raises(NotFound, match=str(unknown)):
            programs.update(connection, unknown, configuration=Configuration())


OTHER = Configuration(module="ChainOfThought")


class TestUpdate:
    def test_of_a_draft(self, connection: Connection) -> None:
        before = programs.get(connection, keep_program(connection))
        after = programs.update(connection, before.id, configuration=OTHER, backend_id="not kept")
        assert (after.configuration, after.status, after.backend_id) == (OTHER, ProgramStatus.DRAFT, None)
        assert after.lock_version == before.lock_version + 1
        assert after == programs.get(connection, before.id)

    def test_of_one_that_is_ready_takes_its_new_backend_id(self, connection: Connection) -> None:
        before = programs.get(connection, ready_program(connection))
        with pytest.raises(IllegalTransition, match="it is ready, and needs the backend id"):
            programs.update(connection, before.id, configuration=OTHER)
        asked = request(before.id)
        assert take(connection, asked).backend_id == "backend-1"
        after = programs.update(
            connection, before.id, configuration=OTHER, backend_id="backend-2", lock_version=before.lock_version
        )
        assert (after.configuration, after.status, after.backend_id) == (OTHER, ProgramStatus.READY, "backend-2")
        assert take(connection, request(before.id)).backend_id == "backend-2"
        assert executions.get(connection, [asked.id])[0].backend_id == "backend-1"

    def test_of_what_has_been_changed_meanwhile_is_a_conflict(self, connection: Connection) -> None:
        before = programs.get(connection, ready_program(connection))
        after = programs.update(connection, before.id, configuration=OTHER, backend_id="backend-2")
        with pytest.raises(Conflict, match=f"it is at lock_version {after.lock_version}"):
            programs.update(
                connection,
                before.id,
                configuration=Configuration(),
                backend_id="backend-3",
                lock_version=before.lock_version,
            )
        assert programs.get(connection, before.id) == after

    def test_one_of_many_at_once_wins(self, engine: Engine) -> None:
        with engine.begin() as connection:
            before = programs.get(connection, ready_program(connection))
        won = list[str]()

        def change(backend_id: str) -> Callable[[], None]:
            def run() -> None:
                with engine.begin() as connection, suppress(Conflict):
                    programs.update(
                        connection,
                        before.id,
                        configuration=OTHER,
                        backend_id=backend_id,
                        lock_version=before.lock_version,
                    )
                    won.append(backend_id)

            return run

        at_once([change(f"backend-{number}") for number in range(2, 10)])
        with engine.begin() as connection:
            assert won == [programs.get(connection, before.id).backend_id]

    def test_of_what_is_initializing_or_archived_is_refused(self, connection: Connection) -> None:
        begun = programs.begin_initialize(connection, keep_program(connection))
        archived = programs.archive(connection, ready_program(connection))
        for program in (begun, archived):
            with pytest.raises(IllegalTransition, match=f"cannot be updated: it is {program.status}$"):
                programs.update(connection, program.id, configuration=OTHER, backend_id="b")
            assert programs.get(connection, program.id) == program

    def test_after_an_error_it_has_the_new_configuration_when_it_is_initialized(self, connection: Connection) -> None:
        begun = programs.begin_initialize(connection, keep_program(connection))
        programs.end_initialize(connection, begun, ERROR)
        after = programs.update(connection, begun.id, configuration=OTHER)
        assert after.status == ProgramStatus.ERROR
        assert programs.begin_initialize(connection, begun.id).configuration == OTHER


class TestDestroy:
    def test_what_was_never_executed(self, connection: Connection) -> None:
        for program_id in (keep_program(connection), programs.archive(connection, ready_program(connection)).id):
            programs.destroy(connection, program_id)
            with pytest.raises(NotFound):
                programs.get(connection, program_id)

    def test_what_is_in_use_must_be_archived_first(self, connection: Connection) -> None:
        begun = programs.begin_initialize(connection, keep_program(connection))
        executed = keep_program(connection)
        asked = request(executed)
        executions.finish(connection, 0, [failed(asked, take(connection, asked))])
        for program_id in (begun.id, ready_program(connection), executed):
            with pytest.raises(IllegalTransition, match="archive it first"):
                programs.destroy(connection, program_id)

    def test_keeps_its_executions_and_counters(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        claimed = take(connection, asked)
        programs.archive(connection, program_id)
        for _ in range(2):
            with pytest.raises(IllegalTransition, match="1 of its executions have not ended"):
                programs.destroy(connection, program_id)
        executions.finish(connection, 0, [completed(asked, claimed)])
        programs.destroy(connection, program_id)
        assert [item.id for item in executions.page(connection, program_id=program_id).items] == [asked.id]
        assert counted_by_status(connection, program_id) == ended_by_status(connection, program_id)
        assert claim_now(connection, ALICE, [asked]) == [Ended(get(connection, asked.id))]
        another = request(program_id)
        assert claim_now(connection, ALICE, [another]) == [NoProgram(another.id)]


class TestCounts:
    def test_come_with_the_program(self, connection: Connection) -> None:
        program_id, other = ready_program(connection), ready_program(connection)
        for shard, end in enumerate(ENDS):
            asked = request(program_id)
            executions.finish(connection, shard, [end(asked, take(connection, asked))])
        last = counters.totals(connection, program_id).last_executed_at
        assert last is not None
        found = {program.id: program for program in programs.page(connection).items}
        assert found == {key: programs.get(connection, key) for key in (program_id, other)}
        assert (found[program_id].execution_count, found[program_id].last_executed_at) == (len(ENDS), last)
        assert (found[other].execution_count, found[other].last_executed_at) == (0, None)

    def test_a_page_is_one_statement(self, connection: Connection) -> None:
        for _ in range(5):
            ready_program(connection)
        statements = list[str]()
        event.listen(connection, "before_cursor_execute", lambda *a: statements.append(a[2]))
        assert len(programs.page(connection).items) == 5
        assert len(statements) == 1
