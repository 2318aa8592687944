"""Gates in a choice: what is paused is not chosen, what is limited never runs beyond its limit."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, update

from dspex import ErrorDetail, Usage, uuid7
from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT
from store import executions, gates, programs
from store.column_types import database_now, seconds_until
from store.database.identity import Identity
from store.database.tenancy import ALL
from store.executions import Carried, Finish, Retry
from store.executions.grouping import group_new, group_waiting
from store.gates import Gate, GateKey, KnownGates, Limits, Subject
from store.tables import executions as executions_table
from store.tables import gates as gates_table
from store.tables import programs as programs_table
from store.tables import queues, slots
from tests.contract.store.choosing import choose, ends, holders, program_of, running, waits
from tests.contract.store.rows import ALICE
from workers.persistence import gates as gates_of_workers

LM, EVERYTHING, BULK = GateKey("lm", "openai/gpt-4o-mini"), GateKey("everything"), GateKey("lane", "bulk")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownGates:
    """The gates of one process, which reads them each time."""
    monkeypatch.setattr("store.gates.known.SECONDS", 0.0)
    return KnownGates("alice")


def key_of_program(program_id: object, tenant: str = DEFAULT_TENANT) -> GateKey:
    return GateKey("program", str(program_id), tenant)


class TestPauses:
    @pytest.mark.parametrize("kind", ["tenant", "program", "lm"])
    def test_it_is_held_until_it_is_resumed(self, connection: Connection, known: KnownGates, kind: str) -> None:
        mine, other = program_of(connection, LM.name), program_of(connection, "openai/other", "other")
        waits(connection, mine, 3)
        waits(connection, other, 2, tenant="other")
        key = {"tenant": GateKey("tenant", "default", "default"), "program": key_of_program(mine), "lm": LM}[kind]
        gates.pause(connection, key, by="anna")
        assert {identity.tenant for identity, _ in choose(connection, known)} == {"other"}
        assert holders(connection) == [None, key.text]
        assert choose(connection, known) == []
        gates.resume(connection, key, by="anna")
        assert len(choose(connection, known)) == 3

    def test_what_is_archived_meanwhile_stays_so(self, connection: Connection, known: KnownGates) -> None:
        """A process that has found the queue before does not take it from those who end what waits there."""
        program_id = program_of(connection)
        waits(connection, program_id)
        gates.pause(connection, key_of_program(program_id), by="anna")
        known.refresh(connection)
        programs.archive(connection, program_id)
        assert gates.Choice(connection, known).admit([(Subject(DEFAULT_TENANT, program_id, 1), 1)]) == [0]
        assert holders(connection) == ["archived"]

    def test_a_lane(self, connection: Connection, known: KnownGates) -> None:
        program_id = program_of(connection)
        waits(connection, program_id, 3, lane=Lane.BULK)
        waits(connection, program_id, 2)
        gates.pause(connection, BULK, by="anna")
        assert len(choose(connection, known)) == 2
        assert known.lanes_paused == {2}
        gates.resume(connection, BULK, by="anna")
        assert len(choose(connection, known)) == 3

    @pytest.mark.parametrize("key", [EVERYTHING, GateKey("worker", "alice")])
    def test_all_of_a_process(self, connection: Connection, known: KnownGates, key: GateKey) -> None:
        program_id = program_of(connection)
        waits(connection, program_id, 3)
        gates.pause(connection, key, by="anna")
        assert choose(connection, known) == []
        assert holders(connection) == [""]
        assert not known.may_begin(Subject("default", program_id, 1))
        gates.resume(connection, key, by="anna")
        assert len(choose(connection, known)) == 3

    def test_of_another_worker_it_is_nothing(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection), 3)
        gates.pause(connection, GateKey("worker", "bob"), by="anna")
        assert len(choose(connection, known)) == 3

    def test_of_another_tenant_it_is_nothing(self, connection: Connection, known: KnownGates) -> None:
        """Two tenants may use the same id."""
        waits(connection, program_id := program_of(connection), 3)
        gates.pause(connection, key_of_program(program_id, "other"), by="eve")
        gates.pause(connection, GateKey("tenant", "other", "other"), by="eve")
        gates.pause(connection, GateKey("everything", "", "other"), by="eve")
        assert len(choose(connection, known)) == 3

    @pytest.mark.parametrize(
        "configuration",
        [
            {"lms": {"judge.*": {"model": "fast"}}},
            {"modules": {"judge": {"module": "Predict", "lm": "fast"}}},
            {"prompt_adapter": "two_step", "extraction_lm": {"model": "fast"}},
            {"fallbacks": [{"on": ["transient"], "lm": {"model": "fast"}}]},
        ],
    )
    def test_an_lm_wherever_a_program_names_it(
        self, connection: Connection, known: KnownGates, configuration: dict[str, Any]
    ) -> None:
        waits(connection, program_of(connection, LM.name, **configuration), 2)
        gates.pause(connection, GateKey("lm", "fast"), by="anna")
        assert choose(connection, known) == []

    def test_a_program_that_is_gone_is_not_held_by_its_lm(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_id := program_of(connection, LM.name), 2)
        gates.pause(connection, LM, by="anna")
        connection.execute(programs_table.delete().where(programs_table.c.id == program_id))
        assert len(choose(connection, known)) == 2


class TestLabels:
    CUSTOMER = GateKey("label", "customer=7", DEFAULT_TENANT)

    def test_new_ones_wait_in_a_queue_of_their_own(self, connection: Connection, known: KnownGates) -> None:
        gates.pause(connection, self.CUSTOMER, by="anna")
        known.refresh(connection)
        program_id, labels = program_of(connection), {"customer": "7", "note": "x"}
        assert not known.may_begin(Subject("default", program_id, 1), labels)
        assert known.may_begin(Subject("default", program_id, 1), {"customer": "8"})
        theirs = waits(connection, program_id, 3, metadata=labels)
        others = waits(connection, program_id, 2, metadata={"customer": "8"})
        group_new(connection, known, [(identity, labels) for identity in theirs])
        assert {identity for identity, _ in choose(connection, known)} == set(others)
        assert choose(connection, KnownGates("another process")) == []
        gates.resume(connection, self.CUSTOMER, by="anna")
        assert {identity for identity, _ in choose(connection, known)} == set(theirs)

    def test_what_waited_before_is_grouped_once(self, connection: Connection, known: KnownGates) -> None:
        program_id = program_of(connection)
        theirs = waits(connection, program_id, 3, metadata={"customer": "7"})
        others = waits(
            connection, program_of(connection, tenant="other"), 2, tenant="other", metadata={"customer": "7"}
        )
        gates.set_limit(connection, self.CUSTOMER, Limits(in_flight=2), by="anna")
        known.refresh(connection)
        group_waiting(connection, known)
        chosen = {identity for identity, _ in choose(connection, known)}
        assert len(chosen & set(theirs)) == 2
        assert chosen >= set(others)
        assert choose(connection, known) == []

    def test_several_labels_hold_each(self, connection: Connection, known: KnownGates) -> None:
        program_id, both = program_of(connection), {"customer": "7", "job": "a"}
        gates.set_limit(connection, self.CUSTOMER, Limits(in_flight=3), by="anna")
        gates.set_limit(connection, GateKey("label", "job=a", ALL), Limits(in_flight=1), by="anna")
        known.refresh(connection)
        for metadata in (both, {"customer": "7"}):
            identities = waits(connection, program_id, 5, metadata=metadata)
            group_new(connection, known, [(identity, metadata) for identity in identities])
        assert len([*choose(connection, known), *choose(connection, known)]) == 3
        assert {gate.key.name: gate.running for gate in gates.listing(connection)}["customer=7"] == 3
        assert max(gate.running for gate in gates.listing(connection) if gate.key.name == "job=a") <= 1

    def test_a_retry_stays_in_its_queue(self, connection: Connection, known: KnownGates) -> None:
        gates.set_limit(connection, self.CUSTOMER, Limits(in_flight=1), by="anna")
        known.refresh(connection)
        identities = waits(connection, program_of(connection), 2, metadata={"customer": "7"})
        group_new(connection, known, [(identity, {"customer": "7"}) for identity in identities])
        ((first, version),) = choose(connection, known)
        again = Retry(first.id, version, 0.0, 0, ErrorDetail(code="transient", message=""), Usage(), Carried())
        assert executions.retry(connection, [again]) == [True]
        gates.settle(connection, [gates.Used(first, version, "failed")])
        assert len(choose(connection, known)) == 1
        assert choose(connection, known) == []


class TestClaims:
    """What may run at once, without being chosen."""

    def test_only_what_no_gate_is_known_for(self, connection: Connection, known: KnownGates) -> None:
        mine, other = program_of(connection, LM.name), program_of(connection, "openai/other")
        assert known.may_begin(Subject("default", mine, 1))
        gates.pause(connection, key_of_program(mine), by="anna")
        known.refresh(connection)
        assert not known.may_begin(Subject("default", mine, 1))
        assert known.may_begin(Subject("default", other, 1))

    def test_where_an_lm_has_a_gate_its_programs_are_to_be_known(
        self, connection: Connection, known: KnownGates
    ) -> None:
        mine, other = program_of(connection, LM.name), program_of(connection, "openai/other")
        waits(connection, mine)
        waits(connection, other)
        gates.set_limit(connection, LM, Limits(in_flight=5), by="anna")
        known.refresh(connection)
        assert [known.may_begin(Subject("default", one, 1)) for one in (mine, other)] == [False, False]
        choose(connection, known)
        assert [known.may_begin(Subject("default", one, 1)) for one in (mine, other)] == [False, True]

    def test_a_change_is_known_although_no_gate_was_added(self, connection: Connection, known: KnownGates) -> None:
        gates.set_limit(connection, EVERYTHING, Limits(in_flight=5), by="anna")
        known.refresh(connection)
        assert not known.stopped
        gates.pause(connection, EVERYTHING, by="anna")
        known.refresh(connection)
        assert known.stopped


class TestInFlight:
    def test_no_more_than_the_limit_and_the_rest_as_they_end(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 3)
        waits(connection, program_of(connection, LM.name), 3)
        gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
        first = choose(connection, known)
        assert len(first) == 2
        assert choose(connection, known) == []
        assert [gate.running for gate in gates.listing(connection)] == [2]
        ends(connection, *first[0], known)
        (third,) = choose(connection, known)
        ends(connection, *first[1], known)
        ends(connection, *third, known)
        assert len(choose(connection, known)) == 2
        assert running(connection) == 2

    def test_who_lets_some_begin_looks_again_when_they_end(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 3)
        gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
        first, _ = choose(connection, known)
        ends(connection, *first, known)
        assert known.let_go
        assert len(choose(connection, known)) == 1

    def test_each_of_several_limits_holds(self, connection: Connection, known: KnownGates) -> None:
        program_id = program_of(connection, LM.name)
        waits(connection, program_id, 5)
        waits(connection, program_of(connection, LM.name), 5)
        gates.set_limit(connection, LM, Limits(in_flight=4), by="anna")
        gates.set_limit(connection, key_of_program(program_id), Limits(in_flight=1), by="anna")
        chosen = [*choose(connection, known), *choose(connection, known)]
        assert len(chosen) == 4
        mine = select(executions_table.c.id).where(
            executions_table.c.program_id == program_id, executions_table.c.status == "running"
        )
        assert len(connection.execute(mine).all()) == 1

    def test_the_slots_of_the_dead_come_back(self, connection: Connection, known: KnownGates) -> None:
        """Whatever took the execution from its worker, and without a word of it."""
        waits(connection, program_of(connection, LM.name), 3)
        gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
        first = choose(connection, known)
        ends(connection, *first[0], None)
        assert choose(connection, known) == []
        connection.execute(update(gates_table).values(swept_at=database_now(-2)))
        assert len(choose(connection, known)) == 1

    def test_what_is_given_back_is_chosen_again_at_once(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 2)
        gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
        first = choose(connection, known)
        executions.release(connection, ALICE, [first[0][0]])
        gates.set_limit(connection, LM, Limits(in_flight=3), by="anna")
        ((again, version),) = choose(connection, known)
        assert (again, version) == (first[0][0], first[0][1] + 2)
        assert [gate.running for gate in gates.listing(connection)] == [2]

    def test_a_zombie_gives_back_no_slot_of_the_next_attempt(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 1)
        gates.set_limit(connection, LM, Limits(in_flight=1), by="anna")
        ((identity, version),) = choose(connection, known)
        taken_over = update(executions_table).values(lock_version=version + 1)
        connection.execute(taken_over)
        connection.execute(update(slots).values(lock_version=version + 1))
        assert gates.settle(connection, [gates.Used(identity, version, "ok")]) == set()
        assert [gate.running for gate in gates.listing(connection)] == [1]

    def test_what_has_no_limit_takes_no_slot(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 3)
        gates.set_limit(connection, GateKey("lm", "another"), Limits(in_flight=2), by="anna")
        assert len(choose(connection, known)) == 3
        assert connection.execute(select(slots)).all() == []

    def test_a_higher_limit_is_used_and_a_removed_one_is_none(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
        assert len(choose(connection, known)) == 2
        gates.set_limit(connection, LM, Limits(in_flight=5), by="anna")
        assert len(choose(connection, known)) == 3
        gates.remove_limit(connection, LM, by="anna")
        assert len(choose(connection, known)) == 4


class TestAMinute:
    def test_requests(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.set_limit(connection, LM, Limits(requests_per_minute=20), by="anna")
        assert len(choose(connection, known)) == 2
        assert choose(connection, known) == []
        connection.execute(update(gates_table).values(filled_at=database_now(-4)))
        assert len(choose(connection, known)) == 1

    def test_tokens_that_were_reserved_and_not_used_let_others_begin(
        self, connection: Connection, known: KnownGates
    ) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.set_limit(connection, LM, Limits(tokens_per_minute=600), by="anna")
        ((identity, version),) = choose(connection, known)
        assert choose(connection, known) == []
        ends(connection, identity, version, known, tokens=10)
        assert len(choose(connection, known)) == 8  # the estimate is 10 now


class TestClosures:
    def closed_since(self, connection: Connection, seconds: float) -> None:
        connection.execute(update(gates_table).values(closed_until=database_now(-seconds)))

    def test_nothing_then_one_then_all(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.close(connection, {LM: 30.0})
        assert choose(connection, known) == []
        (gate,) = gates.listing(connection)
        assert gate.closed_until is not None
        self.closed_since(connection, 0.1)
        (probe,) = choose(connection, known)
        assert choose(connection, known) == []
        ends(connection, *probe, known)
        assert len(choose(connection, known)) == 8
        assert gates.listing(connection) == []

    def test_a_probe_that_is_told_to_wait_closes_again_for_longer(
        self, connection: Connection, known: KnownGates
    ) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        lasts = list[float]()
        gates.close(connection, {LM: None})
        for _ in range(4):
            lasts.append(closed_for(connection))
            self.closed_since(connection, 0.1)
            (probe,) = choose(connection, known)
            gates.close(connection, {LM: None})
            ends(connection, *probe, known, outcome="limited")
            assert choose(connection, known) == []
        # What is left of them; SQLite reads times as days, in floating point.
        assert [math.ceil(seconds - 0.001) for seconds in lasts] == [1, 2, 4, 4]

    def test_a_probe_that_is_lost_is_followed_by_another(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.close(connection, {LM: 1.0})
        self.closed_since(connection, 0.1)
        (probe,) = choose(connection, known)
        ends(connection, *probe, None)
        connection.execute(update(gates_table).values(swept_at=database_now(-2)))
        assert len(choose(connection, known)) == 1

    def test_the_longest_wait_that_was_asked_for_holds(self, connection: Connection) -> None:
        gates.close(connection, {LM: 30.0})
        gates.close(connection, {LM: 5.0})
        gates.close(connection, {LM: None})
        assert round(closed_for(connection)) == 30
        gates.close(connection, {LM: 40.0})
        assert round(closed_for(connection)) == 40
        gates.close(connection, {LM: 1e9})
        assert round(closed_for(connection)) == 3600

    @pytest.mark.parametrize(("lm", "goes_on"), [("fast", 0), ("openai/gpt-4o-mini", 3)])
    def test_the_word_about_the_key_of_a_tenant_is_nothing_to_others(
        self, connection: Connection, known: KnownGates, lm: str, goes_on: int
    ) -> None:
        """An alias has one key for all; of `provider/model`, each tenant may have its own."""
        mine, theirs = program_of(connection, lm), program_of(connection, lm, "other")
        waits(connection, mine, 3)
        waits(connection, theirs, 3, tenant="other")
        error = ErrorDetail(code="rate_limited", message="")
        gates_of_workers.settle(
            connection, known, [Finish(uuid7(), mine, 1, None, Usage(), error=error, limited={lm: 30.0})]
        )
        chosen = choose(connection, known)
        assert [identity.tenant for identity, _ in chosen] == ["other"] * goes_on

    def test_what_falls_back_to_another_lm_goes_on(self, connection: Connection, known: KnownGates) -> None:
        falls_back: dict[str, Any] = {"fallbacks": [{"on": ["rate_limited"], "lm": {"model": "other"}}]}
        waits(connection, program_of(connection, LM.name, **falls_back), 4)
        gates.close(connection, {LM: 30.0})
        assert len(choose(connection, known)) == 4

    def test_it_keeps_the_limits(self, connection: Connection, known: KnownGates) -> None:
        waits(connection, program_of(connection, LM.name), 9)
        gates.set_limit(connection, LM, Limits(in_flight=3), by="anna")
        gates.close(connection, {LM: 30.0})
        self.closed_since(connection, 0.1)
        (probe,) = choose(connection, known)
        ends(connection, *probe, known)
        assert len(choose(connection, known)) == 3
        assert gates.listing(connection) == [Gate(LM, limits=Limits(in_flight=3), limited_by="anna", running=3)]


def closed_for(connection: Connection) -> float:
    left = connection.execute(select(seconds_until(gates_table.c.closed_until))).scalar_one()
    return float(left)


def test_each_of_many_gates_has_its_turn(connection: Connection, known: KnownGates) -> None:
    """A look is at 32 of them, and none is left out."""
    programs = [program_of(connection) for _ in range(40)]
    for program_id in programs:
        gates.set_limit(connection, key_of_program(program_id), Limits(in_flight=1), by="anna")
        waits(connection, program_id, 2)
    first = [*choose(connection, known), *choose(connection, known)]
    assert len(first) == 40
    for identity, version in first:
        ends(connection, identity, version)
    connection.execute(update(gates_table).values(swept_at=database_now(-2)))
    assert len([*choose(connection, known), *choose(connection, known)]) == 40


def test_a_choice_that_meets_a_locked_queue_leaves_it(engine: Engine) -> None:
    """Whoever offers a queue locks it, and may wait for a gate: a choice that held the gate would wait for ever."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    known = KnownGates("alice")
    with engine.begin() as connection:
        waits(connection, program_of(connection, LM.name), 3)
        gates.pause(connection, LM, by="anna")
    with engine.begin() as other, engine.begin() as connection:
        other.execute(select(queues).with_for_update())
        assert choose(connection, known) == []
        assert holders(connection) == [""]


def test_eight_choose_at_once_and_never_more_than_ten_run(engine: Engine) -> None:
    """Some executions vanish without a word, as if their worker was killed."""
    number, limit, over = 150, 10, list[int]()
    with engine.begin() as connection:
        for _ in range(3):
            waits(connection, program_of(connection, LM.name), number // 3)
        gates.set_limit(connection, LM, Limits(in_flight=limit), by="anna")
    errors, done, lock = list[BaseException](), list[Identity](), threading.Lock()

    def work(seed: int) -> None:
        known, chance = KnownGates(f"worker-{seed}"), random.Random(seed)
        try:
            while len(done) < number:
                with engine.begin() as connection:
                    chosen = choose(connection, known, 4)
                with engine.connect() as connection:
                    over.append(running(connection))
                for identity, version in chosen:
                    with engine.begin() as connection:
                        ends(connection, identity, version, None if chance.random() < 0.05 else known)
                    with lock:
                        done.append(identity)
                if not chosen:
                    time.sleep(0.01)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(set(done)) == len(done) == number
    assert max(over) <= limit
