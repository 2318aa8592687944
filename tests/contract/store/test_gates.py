"""Gates: pauses and limits, as operators set and see them."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, Engine, insert, select

from dspex import uuid7
from dspex.errors import InvalidValues
from store import gates
from store.gates import Gate, GateKey, Limits, steering
from store.tables import NOW, queues
from store.tables import gates as gates_table

FAST, BULK, ACME = GateKey("lm", "openai/gpt-4o-mini"), GateKey("lane", "bulk"), GateKey("tenant", "acme", "acme")


def held(connection: Connection, by: GateKey, number: int = 1) -> None:
    rows = [
        {"tenant": "acme", "program_id": uuid7(), "lane": 1, "holder": by.text, "inserted_at": NOW}
        for _ in range(number)
    ]
    for row in rows:
        connection.execute(insert(queues).values(**row))


def holders(connection: Connection) -> list[str | None]:
    return list(connection.execute(select(queues.c.holder).order_by(queues.c.holder)).scalars())


class TestPause:
    def test_tells_who_paused_it_when_and_why(self, connection: Connection) -> None:
        gate = gates.pause(connection, BULK, by="anna", reason="the provider is down\x00")
        assert (gate.key, gate.paused, gate.paused_by, gate.paused_reason) == (
            BULK,
            True,
            "anna",
            "the provider is down\N{REPLACEMENT CHARACTER}",
        )
        assert gate.paused_at is not None
        assert gates.listing(connection) == [gate]

    def test_again_changes_the_reason_alone(self, connection: Connection) -> None:
        first = gates.pause(connection, BULK, by="anna", reason="one")
        assert gates.pause(connection, BULK, by="bert") == first
        second = gates.pause(connection, BULK, by="bert", reason="another")
        assert (second.paused_by, second.paused_at, second.paused_reason) == ("anna", first.paused_at, "another")

    def test_resume_makes_ready_what_it_held(self, connection: Connection) -> None:
        gates.pause(connection, ACME, by="anna")
        held(connection, ACME)
        held(connection, BULK)
        resumed = gates.resume(connection, ACME, by="anna")
        assert resumed == Gate(ACME)
        assert holders(connection) == ["", BULK.text]
        assert gates.listing(connection) == []
        assert gates.resume(connection, ACME, by="anna") is None

    def test_what_was_never_paused_is_not_resumed(self, connection: Connection) -> None:
        gates.set_limit(connection, FAST, Limits(in_flight=3), by="anna")
        held(connection, FAST)
        assert gates.resume(connection, FAST, by="anna") is None
        assert gates.resume(connection, BULK, by="anna") is None
        assert holders(connection) == [FAST.text]

    def test_a_limit_stays_after_the_pause_and_holds_on(self, connection: Connection) -> None:
        gates.set_limit(connection, FAST, Limits(in_flight=3), by="anna")
        gates.pause(connection, FAST, by="bert")
        held(connection, FAST)
        after = gates.resume(connection, FAST, by="bert")
        assert after == Gate(FAST, limits=Limits(in_flight=3), limited_by="anna")
        assert holders(connection) == [FAST.text]

    def test_a_gate_goes_when_all_that_it_held_is_ready(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(steering.make_ready, "__defaults__", (2,))
        gates.pause(connection, ACME, by="anna")
        held(connection, ACME, 5)
        gates.resume(connection, ACME, by="anna")
        assert holders(connection) == ["", "", *[ACME.text] * 3]
        assert [steering.sweep(connection) for _ in range(3)] == [2, 1, 0]
        assert holders(connection) == [""] * 5
        assert connection.execute(select(gates_table)).all() == []

    def test_the_sweep_takes_nothing_that_has_an_effect(self, connection: Connection) -> None:
        gates.pause(connection, BULK, by="anna")
        held(connection, BULK)
        assert steering.sweep(connection) == 0
        assert holders(connection) == [BULK.text]
        assert [gate.key for gate in gates.listing(connection)] == [BULK]

    def test_one_that_is_removed_meanwhile_is_made_again(self, engine: Engine) -> None:
        """Several pause and resume it, and the sweep removes it, at the same time: nobody fails, and the last holds."""
        errors = list[BaseException]()

        def work(number: int) -> None:
            try:
                for _ in range(15):
                    with engine.begin() as connection:
                        gates.pause(connection, BULK, by=str(number))
                    with engine.begin() as connection:
                        gates.resume(connection, BULK, by=str(number))
                    with engine.begin() as connection:
                        steering.sweep(connection)
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with engine.begin() as connection:
            gates.pause(connection, BULK, by="the last")
            steering.sweep(connection)
            assert [gate.paused_by for gate in gates.listing(connection)] == ["the last"]


class TestLimits:
    def test_they_replace_those_before(self, connection: Connection) -> None:
        gates.set_limit(connection, FAST, Limits(in_flight=10, tokens_per_minute=1000), by="anna")
        gate = gates.set_limit(connection, FAST, Limits(requests_per_minute=60), by="bert")
        assert gate == Gate(FAST, limits=Limits(requests_per_minute=60), limited_by="bert")
        assert gates.listing(connection) == [gate]
        assert gates.remove_limit(connection, FAST, by="anna") == Gate(FAST)
        assert gates.remove_limit(connection, FAST, by="anna") is None
        assert gates.listing(connection) == []

    def test_the_same_again_changes_nothing(self, connection: Connection) -> None:
        first = gates.set_limit(connection, FAST, Limits(in_flight=10), by="anna")
        assert gates.set_limit(connection, FAST, Limits(in_flight=10), by="bert") == first

    def test_what_they_held_is_ready_unless_a_pause_holds_it(self, connection: Connection) -> None:
        gates.set_limit(connection, FAST, Limits(in_flight=10), by="anna")
        gates.set_limit(connection, ACME, Limits(in_flight=10), by="anna")
        gates.pause(connection, ACME, by="anna")
        held(connection, FAST)
        held(connection, ACME)
        gates.remove_limit(connection, FAST, by="anna")
        gates.remove_limit(connection, ACME, by="anna")
        assert holders(connection) == ["", ACME.text]

    def test_those_of_the_settings_hold_until_somebody_sets_others(self, connection: Connection) -> None:
        first = gates.set_default_limit(connection, FAST, Limits(in_flight=4))
        assert (first.limits, first.limited_by) == (Limits(in_flight=4), "DSPEX_LIMITS")
        assert gates.set_default_limit(connection, FAST, Limits(in_flight=5)).limits == Limits(in_flight=5)
        gates.set_limit(connection, FAST, Limits(in_flight=9), by="anna")
        assert gates.set_default_limit(connection, FAST, Limits(in_flight=5)).limits == Limits(in_flight=9)

    def test_the_listing_of_a_tenant_has_its_own_alone(self, connection: Connection) -> None:
        other = GateKey("label", "customer=7", "other")
        for key in (FAST, ACME, other):
            gates.set_limit(connection, key, Limits(in_flight=1), by="anna")
        assert [gate.key for gate in gates.listing(connection)] == [other, FAST, ACME]
        assert [gate.key for gate in gates.listing(connection, tenant="acme")] == [ACME]

    @pytest.mark.parametrize(
        ("limits", "problem"),
        [
            (Limits(), "limits: give one of in_flight, requests_per_minute, tokens_per_minute, least_in_flight"),
            (Limits(in_flight=0), "limits.in_flight: must be at least 1"),
            (Limits(tokens_per_minute=-5), "limits.tokens_per_minute: must be at least 1"),
            (Limits(least_in_flight=2), "limits.least_in_flight: needs an in_flight"),
            (Limits(in_flight=1, least_in_flight=2), "limits.least_in_flight: needs an in_flight"),
        ],
    )
    def test_some_are_none(self, connection: Connection, limits: Limits, problem: str) -> None:
        with pytest.raises(InvalidValues, match=problem):
            gates.set_limit(connection, FAST, limits, by="anna")
        assert gates.listing(connection) == []

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            (GateKey("colour", "red"), "kind: must be one of everything, lane, tenant, program, lm, worker, label"),
            (GateKey("lane"), "name: give the name of the lane"),
            (GateKey("everything", "all"), "name: everything has none"),
            (GateKey("lm", "x" * 331), "name: must be text of at most 330 characters"),
            (GateKey("lm", "a\x00b"), "name: must be text"),
            (GateKey("label", "x" * 330, "t" * 64), "name: is 1 characters too long"),
        ],
    )
    def test_some_are_of_nothing(self, connection: Connection, key: GateKey, problem: str) -> None:
        with pytest.raises(InvalidValues, match=problem):
            gates.pause(connection, key, by="anna")
