"""Webhooks in the store: who is told of an end, what is taken by whom, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, func, select, update

from dspex import Configuration, uuid7
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.errors import Conflict, DspexError, IllegalTransition, InvalidValues, NotFound
from store import executions, programs, webhooks
from store.executions import Conflicting, Request
from store.tables import webhook_deliveries as deliveries_table
from store.tables import webhook_endpoints as endpoints_table
from store.webhooks import Delivery, Due, Endpoint, Settled
from tests.contract.store.rows import (
    ALICE,
    BOB,
    EXPIRED,
    accept,
    cancelled,
    chosen,
    claim_now,
    completed,
    failed,
    get,
    keep_signature,
    ready_program,
    request,
    take,
)

OTHER = "acme"
FOREVER = 60.0


def callback(host: str = "receiver.example", **more: Any) -> Callback:
    return Callback.model_validate({"url": f"https://{host}/hook", "secret": "A_WEBHOOK_SECRET"} | more)


def end(connection: Connection, asked: Request) -> None:
    """Run it to its end."""
    assert executions.finish(connection, 0, [completed(asked, take(connection, asked))]) == [True]


def logged(connection: Connection, execution_id: UUID | None = None) -> list[Delivery]:
    return list(webhooks.deliveries(connection, execution_id=execution_id).items)


def due(connection: Connection, *hosts: str, number: int = 10, seconds: float = FOREVER) -> list[Due]:
    places = {f"default {host}:443": number for host in hosts or ("receiver.example",)}
    return webhooks.take(connection, places, seconds)


def one(connection: Connection) -> Due:
    """A delivery that was taken."""
    end(connection, replace(request(ready_program(connection)), callback=callback()))
    (taken,) = due(connection)
    return taken


def endpoint(taken: Due) -> Endpoint:
    assert taken.endpoint is not None
    return taken.endpoint


def tried(taken: Due, **more: Any) -> Settled:
    """An attempt that failed, after which there is another."""
    given: dict[str, Any] = {
        "status": DeliveryStatus.PENDING,
        "retry_in": EXPIRED,
        "reason": "it answered with 500",
        "outcome": "failed",
        "http_status": 500,
        "duration_ms": 2.5,
        "response": "no",
        "failed": True,
    }
    return Settled(taken, **given | more)


def delivered(taken: Due) -> Settled:
    return Settled(taken, DeliveryStatus.DELIVERED, outcome="delivered", http_status=204, duration_ms=1.5)


class TestOwing:
    def test_an_end_is_told_to_the_callback_of_its_command(self, connection: Connection) -> None:
        asked = replace(request(ready_program(connection)), callback=callback(events=("completed",)))
        end(connection, asked)
        (delivery,) = logged(connection, asked.id)
        row = get(connection, asked.id)
        assert delivery.event_id == f"{asked.id}.{row.lock_version}"
        assert (delivery.status, delivery.event, delivery.host) == ("pending", "completed", "receiver.example:443")
        (taken,) = due(connection)
        assert endpoint(taken).callback == asked.callback == row.callback
        assert (endpoint(taken).registered, endpoint(taken).enabled) == (False, True)

    def test_what_is_not_wanted_is_not_told(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        for how, wanted in ((failed, ("completed", "cancelled")), (cancelled, ("failed",)), (completed, ("failed",))):
            asked = replace(request(program_id), callback=callback(events=wanted))
            executions.finish(connection, 0, [how(asked, take(connection, asked))])
        assert logged(connection) == []

    def test_a_programs_callback_is_that_of_the_claim_and_an_executions_own_goes_before_it(
        self, connection: Connection
    ) -> None:
        def make(callback: Callback | None) -> UUID:
            program = programs.create(
                connection,
                uuid7(),
                name="p",
                signature_id=keep_signature(connection),
                adapter_type="mock",
                configuration=Configuration(),
                callback=callback,
            )
            begun = programs.begin_initialize(connection, program.id)
            assert programs.end_initialize(connection, begun, "b") is not None
            return program.id

        program_id = make(callback("first.example"))
        plain, own = request(program_id), replace(request(program_id), callback=callback("own.example"))
        claims = [take(connection, asked) for asked in (plain, own)]
        changed = programs.update(
            connection, program_id, configuration=Configuration(), callback=callback("second.example"), backend_id="c"
        )
        assert changed.callback == callback("second.example")
        executions.finish(connection, 0, [completed(a, c) for a, c in zip((plain, own), claims, strict=True)])
        assert [d.host for d in logged(connection, plain.id)] == ["first.example:443"]
        assert [d.host for d in logged(connection, own.id)] == ["own.example:443"]
        # An attempt that is claimed again has the program's of then.
        again = request(program_id)
        take(connection, again)
        executions.release(connection, ALICE)
        programs.update(connection, program_id, configuration=Configuration(), remove_callback=True, backend_id="d")
        end(connection, again)
        assert logged(connection, again.id) == []
        assert programs.get(connection, program_id).callback is None

    def test_registered_endpoints_are_told_of_every_end_of_their_tenant(self, connection: Connection) -> None:
        for host, tenant in (("a.example", "default"), ("b.example", "default"), ("c.example", OTHER)):
            webhooks.register(connection, uuid7(), callback(host), tenant=tenant)
        both = replace(request(ready_program(connection)), callback=callback("own.example"))
        end(connection, both)
        hosts = {delivery.host for delivery in logged(connection)}
        assert hosts == {"a.example:443", "b.example:443", "own.example:443"}
        assert webhooks.deliveries(connection, tenant=OTHER).items == ()

    def test_what_is_cancelled_while_it_waits_is_told_too(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        waiting = replace(request(program_id), callback=callback())
        accept(connection, waiting)
        executions.cancel(connection, waiting.id, by="ann")
        webhooks.register(connection, uuid7(), callback("a.example"))
        plain = request(program_id)
        accept(connection, plain)
        executions.cancel(connection, plain.id, by="ann")
        assert [(d.event, d.host) for d in logged(connection, waiting.id)] == [("cancelled", "receiver.example:443")]
        assert [(d.event, d.host) for d in logged(connection, plain.id)] == [("cancelled", "a.example:443")]

    def test_an_end_that_is_fenced_is_not_told_and_one_that_comes_twice_is_told_once(
        self, connection: Connection
    ) -> None:
        program_id = ready_program(connection)
        done, stale = (replace(request(program_id), callback=callback()) for _ in range(2))
        ended = completed(done, take(connection, done))
        zombie = take(connection, stale, BOB)
        executions.release(connection, BOB)
        assert executions.finish(connection, 0, [ended, completed(stale, zombie)]) == [True, False]
        assert executions.finish(connection, 0, [ended]) == [True]
        assert [delivery.execution_id for delivery in logged(connection)] == [done.id]

    def test_the_same_callback_is_the_same_endpoint(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        for asked in (callback(), callback(), callback(thin=True)):
            end(connection, replace(request(program_id), callback=asked))
        end(connection, replace(request(program_id), callback=callback()))
        assert connection.execute(select(func.count()).select_from(endpoints_table)).scalar_one() == 2
        assert len({delivery.endpoint_id for delivery in logged(connection)}) == 2

    def test_what_comes_while_an_endpoint_is_disabled_is_kept_as_failed(self, connection: Connection) -> None:
        taken = one(connection)
        webhooks.disable(connection, taken.delivery.endpoint_id, "by ann")
        asked = replace(request(ready_program(connection)), callback=callback())
        end(connection, asked)
        (delivery,) = logged(connection, asked.id)
        assert (delivery.status, delivery.reason, delivery.due_at) == ("failed", "the endpoint is disabled", None)
        assert delivery.finished_at is not None

    def test_without_callbacks_an_end_costs_no_statement(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        end(connection, request(program_id))
        webhooks.register(connection, uuid7(), callback(), tenant=OTHER)
        asked = [request(program_id) for _ in range(3)]
        with watched(connection) as statements:
            claims = [take(connection, each) for each in asked]
            ends = [completed(each, claim) for each, claim in zip(asked, claims, strict=True)]
            assert executions.finish(connection, 0, ends) == [True, True, True]
        about_webhooks = [text for text in statements if "webhook_" in text]
        assert len(about_webhooks) == 1
        assert "UPDATE executions" in about_webhooks[0]
        with watched(connection) as others:
            executions.finish(connection, 0, [failed(each, take(connection, each)) for each in [request(program_id)]])
        assert len(others) == len(statements) - 2

    def test_a_callback_is_part_of_the_request(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        plain = request(program_id)
        asked = replace(plain, callback=callback())
        assert asked.digest != plain.digest
        assert asked.digest == replace(plain, callback=callback(events=("completed", "failed", "cancelled"))).digest
        take(connection, asked)
        (other,) = claim_now(connection, BOB, [replace(asked, callback=callback("other.example"))])
        assert isinstance(other, Conflicting)
        executions.release(connection, ALICE)
        (again,) = chosen(connection)
        assert (again.callback, again.digest) == (asked.callback, asked.digest)


@contextmanager
def watched(connection: Connection) -> Generator[list[str]]:
    """The statements that are executed."""
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield statements
    event.remove(connection, "before_cursor_execute", note)


class TestTaking:
    def keep(self, connection: Connection, hosts: dict[str, int]) -> None:
        program_id = ready_program(connection)
        for host, number in hosts.items():
            for _ in range(number):
                end(connection, replace(request(program_id), callback=callback(host)))

    def test_places_are_found_one_after_the_other_and_only_where_something_is_due(self, connection: Connection) -> None:
        assert not webhooks.anything_due(connection)
        assert webhooks.places(connection, "", 10) == []
        self.keep(connection, {"b.example": 3, "a.example": 2, "c.example": 1, "d.example": 1})
        assert webhooks.anything_due(connection)
        a, b, c, d = (f"default {name}.example:443" for name in "abcd")
        assert webhooks.places(connection, "", 10) == [a, b, c, d]
        assert webhooks.places(connection, "", 2) == [a, b]
        assert webhooks.places(connection, b, 10) == [c, d]
        assert len(due(connection, "c.example")) == 1
        assert webhooks.places(connection, a, 10) == [b, d]
        assert len(due(connection, "a.example", "b.example", "d.example")) == 6
        assert not webhooks.anything_due(connection)
        assert webhooks.places(connection, "", 10) == []

    def test_so_many_of_each_place_are_taken_the_oldest_first(self, connection: Connection) -> None:
        self.keep(connection, {"a.example": 3, "b.example": 1})
        order = [delivery.id for delivery in reversed(logged(connection))]
        c = deliveries_table.c
        for seconds, id_ in enumerate(order[::-1]):
            past = datetime.now(UTC) - timedelta(seconds=seconds + 5)
            connection.execute(update(deliveries_table).where(c.id == id_).values(due_at=past))
        taken = due(connection, "a.example", "b.example", number=2)
        assert {each.delivery.id for each in taken} == {order[0], order[1], order[3]}
        assert [each.delivery.id for each in due(connection, "a.example", "b.example", number=2)] == [order[2]]
        assert due(connection, "a.example") == []

    def test_what_was_taken_by_somebody_who_is_gone_is_taken_again(self, connection: Connection) -> None:
        self.keep(connection, {"receiver.example": 1})
        (first,) = due(connection, seconds=EXPIRED)
        (second,) = due(connection)
        assert second.delivery.event_id == first.delivery.event_id
        assert webhooks.settle(connection, [delivered(first)]) == [False]
        assert webhooks.attempts(connection, first.delivery.id) == []
        assert webhooks.settle(connection, [delivered(second)]) == [True]
        assert due(connection) == []

    def test_what_is_given_back_is_due_at_once(self, connection: Connection) -> None:
        self.keep(connection, {"receiver.example": 2})
        one, other = due(connection)
        assert webhooks.settle(connection, [delivered(one)]) == [True]
        assert webhooks.release(connection, [one.delivery, other.delivery]) == 1
        (again,) = due(connection)
        assert again.delivery.id == other.delivery.id
        assert webhooks.settle(connection, [delivered(other)]) == [False]

    def test_two_take_different_ones(self, engine: Engine) -> None:
        with engine.begin() as connection:
            self.keep(connection, {"receiver.example": 20})
        if engine.dialect.name == "postgresql":
            with engine.begin() as first, engine.begin() as second:
                one, other = ({t.delivery.id for t in due(c, number=10)} for c in (first, second))
        else:
            with engine.begin() as first:
                one = {t.delivery.id for t in due(first, number=10)}
            with engine.begin() as second:
                other = {t.delivery.id for t in due(second, number=10)}
        assert (len(one), len(other)) == (10, 10)
        assert not one & other


class TestSettling:
    def test_every_attempt_is_kept(self, connection: Connection) -> None:
        taken = one(connection)
        assert webhooks.settle(connection, [tried(taken, response="a\0b")]) == [True]
        (again,) = due(connection)
        assert (again.delivery.attempts, again.delivery.tries) == (1, 1)
        assert again.delivery.reason == "it answered with 500"
        assert webhooks.settle(connection, [delivered(again)]) == [True]
        found = webhooks.delivery(connection, taken.delivery.id)
        assert (found.status, found.attempts, found.due_at, found.reason) == ("delivered", 2, None, None)
        assert found.finished_at is not None
        log = webhooks.attempts(connection, found.id)
        assert [(a.number, a.outcome, a.http_status, a.duration_ms) for a in log] == [
            (1, "failed", 500, 2.5),
            (2, "delivered", 204, 1.5),
        ]
        assert log[0].response == "a\N{REPLACEMENT CHARACTER}b"

    def test_an_endpoint_fails_since_its_first_failure_and_until_its_next_success(self, connection: Connection) -> None:
        taken = one(connection)
        assert endpoint(taken).failing_for == 0.0
        webhooks.settle(connection, [tried(taken)])
        (again,) = due(connection)
        since = endpoint(again).failing_since
        assert since is not None
        webhooks.settle(connection, [tried(again)])
        c = endpoints_table.c
        connection.execute(
            update(endpoints_table).where(c.id == endpoint(again).id).values(failing_since=since - timedelta(days=2))
        )
        (third,) = due(connection)
        assert endpoint(third).failing_for == pytest.approx(2 * 86_400, abs=600)
        webhooks.settle(connection, [delivered(third)])
        assert webhooks.endpoint(connection, endpoint(third).id).failing_since is None

    def test_a_disabled_endpoint_has_nothing_pending_and_is_announced_until_somebody_was_told(
        self, connection: Connection
    ) -> None:
        taken = one(connection)
        end(connection, replace(request(ready_program(connection)), callback=callback()))
        assert not webhooks.anything_to_announce(connection)
        gone = tried(taken, status=DeliveryStatus.FAILED, outcome="gone", disable="it answered 410 Gone")
        assert webhooks.settle(connection, [gone]) == [True]
        assert {d.status for d in logged(connection)} == {DeliveryStatus.FAILED}
        assert "the endpoint was disabled: it answered 410 Gone" in {d.reason for d in logged(connection)}
        assert webhooks.anything_to_announce(connection)
        (told,) = webhooks.announcements(connection, EXPIRED, 10)
        assert (told.enabled, told.disabled_reason) == (False, "it answered 410 Gone")
        assert [e.id for e in webhooks.announcements(connection, FOREVER, 10)] == [told.id]
        webhooks.announced(connection, told)
        assert webhooks.announcements(connection, FOREVER, 10) == []
        mended = webhooks.enable(connection, told.id)
        assert (mended.enabled, mended.disabled_reason, mended.failing_since) == (True, None, None)

    def test_what_was_not_attempted_leaves_no_attempt(self, connection: Connection) -> None:
        taken = one(connection)
        webhooks.settle(connection, [Settled(taken, DeliveryStatus.FAILED, reason="gone")])
        assert webhooks.attempts(connection, taken.delivery.id) == []
        assert webhooks.delivery(connection, taken.delivery.id).attempts == 0
        assert webhooks.endpoint(connection, taken.delivery.endpoint_id).failing_since is None


class TestLog:
    def test_deliveries_are_found_by_what_is_given(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [replace(request(program_id), callback=callback(host)) for host in ("a.example", "b.example")]
        for each in asked:
            end(connection, each)
        (taken,) = due(connection, "a.example")
        webhooks.settle(connection, [tried(taken, status=DeliveryStatus.FAILED)])

        def found(**filters: Any) -> list[UUID]:
            return [d.execution_id for d in webhooks.deliveries(connection, **filters).items]

        now = datetime.now(UTC)
        assert found() == [asked[1].id, asked[0].id]
        assert found(status=DeliveryStatus.FAILED) == found(endpoint_id=endpoint(taken).id) == [asked[0].id]
        assert found(status=DeliveryStatus.PENDING) == found(execution_id=asked[1].id) == [asked[1].id]
        assert found(since=now - timedelta(hours=1)) == found()
        assert found(until=now - timedelta(hours=1)) == found(tenant=OTHER) == []
        page = webhooks.deliveries(connection, limit=1)
        assert found(cursor=page.next_cursor) == [asked[0].id]
        with pytest.raises(NotFound):
            webhooks.delivery(connection, taken.delivery.id, tenant=OTHER)

    def test_a_replay_is_the_same_delivery_with_all_its_tries(self, connection: Connection) -> None:
        taken = one(connection)
        delivery_id = taken.delivery.id
        assert webhooks.replay(connection, [delivery_id]) == 0
        webhooks.settle(connection, [tried(taken, status=DeliveryStatus.FAILED)])
        assert webhooks.replayable(connection, None, endpoint_id=endpoint(taken).id) == [delivery_id]
        assert webhooks.replayable(connection, delivery_id) == []
        assert webhooks.replay(connection, [delivery_id], tenant=OTHER) == 0
        assert webhooks.replay(connection, [delivery_id]) == 1
        (again,) = due(connection)
        assert (again.delivery.id, again.delivery.event_id) == (delivery_id, taken.delivery.event_id)
        assert (again.delivery.attempts, again.delivery.tries) == (1, 0)
        webhooks.settle(connection, [delivered(again)])
        assert [a.number for a in webhooks.attempts(connection, delivery_id)] == [1, 2]
        assert webhooks.replay(connection, [delivery_id]) == 1

    def test_what_goes_to_an_endpoint_that_is_disabled_is_not_replayed(self, connection: Connection) -> None:
        taken = one(connection)
        webhooks.disable(connection, endpoint(taken).id, "by ann")
        assert webhooks.replay(connection, [taken.delivery.id]) == 0
        webhooks.enable(connection, endpoint(taken).id)
        assert webhooks.replay(connection, [taken.delivery.id]) == 1
        webhooks.delete(connection, endpoint(taken).id)
        assert webhooks.delivery(connection, taken.delivery.id).reason == "the endpoint was deleted"
        assert webhooks.replay(connection, [taken.delivery.id]) == 0


class TestEndpoints:
    def test_the_same_again_changes_nothing_and_another_is_a_conflict(self, connection: Connection) -> None:
        given = callback(events=("failed",), headers={"X-Key": "A_WEBHOOK_TOKEN"}, thin=True)
        kept = webhooks.register(connection, uuid7(), given)
        assert (kept.callback, kept.registered, kept.enabled) == (given, True, True)
        assert webhooks.register(connection, kept.id, given) == kept
        with pytest.raises(Conflict):
            webhooks.register(connection, kept.id, callback())

    def test_a_tenant_has_a_bounded_number(self, connection: Connection) -> None:
        for _ in range(webhooks.MAX_REGISTERED):
            webhooks.register(connection, uuid7(), callback())
        with pytest.raises(InvalidValues, match="delete one"):
            webhooks.register(connection, uuid7(), callback())
        webhooks.register(connection, uuid7(), callback(), tenant=OTHER)

    def test_it_is_updated_unless_somebody_was_faster(self, connection: Connection) -> None:
        kept = webhooks.register(connection, uuid7(), callback())
        changed = webhooks.update(connection, kept.id, callback("b.example"), lock_version=kept.lock_version)
        assert changed.callback == callback("b.example")
        with pytest.raises(Conflict, match="has been changed"):
            webhooks.update(connection, kept.id, callback(), lock_version=kept.lock_version)

    def test_a_rotated_secret_signs_beside_the_one_before_for_a_while(self, connection: Connection) -> None:
        kept = webhooks.register(connection, uuid7(), callback())
        rotated = webhooks.rotate(connection, kept.id, "B_WEBHOOK_SECRET", 60.0)
        assert (rotated.callback.secret, rotated.previous_secret) == ("B_WEBHOOK_SECRET", "A_WEBHOOK_SECRET")
        assert webhooks.rotate(connection, kept.id, "B_WEBHOOK_SECRET", 0.0) == rotated
        over = webhooks.rotate(connection, kept.id, "C_WEBHOOK_SECRET", EXPIRED)
        assert (over.callback.secret, over.previous_secret) == ("C_WEBHOOK_SECRET", None)

    def test_one_that_came_with_a_callback_is_what_that_says(self, connection: Connection) -> None:
        found = endpoint(one(connection))
        changes: tuple[Callable[[], object], ...] = (
            lambda: webhooks.update(connection, found.id, callback("b.example")),
            lambda: webhooks.rotate(connection, found.id, "B_WEBHOOK_SECRET", 1.0),
        )
        for change in changes:
            with pytest.raises(IllegalTransition, match="came with a callback"):
                change()
        assert webhooks.disable(connection, found.id, "by ann").enabled is False

    def test_lists(self, connection: Connection) -> None:
        own = endpoint(one(connection))
        first, second = (webhooks.register(connection, uuid7(), callback(name)) for name in ("a.example", "b.example"))
        webhooks.disable(connection, first.id, "by ann")

        def ids(**filters: Any) -> list[UUID]:
            return [e.id for e in webhooks.endpoints(connection, **filters).items]

        assert ids() == [second.id, first.id]
        assert (ids(enabled=True), ids(enabled=False)) == ([second.id], [first.id])
        assert ids(registered=False) == [own.id]
        assert ids(tenant=OTHER) == []

    def test_another_tenants_is_not_found(self, connection: Connection) -> None:
        kept = webhooks.register(connection, uuid7(), callback())
        acts: tuple[Callable[[], object], ...] = (
            lambda: webhooks.endpoint(connection, kept.id, tenant=OTHER),
            lambda: webhooks.update(connection, kept.id, callback(), tenant=OTHER),
            lambda: webhooks.rotate(connection, kept.id, "B_WEBHOOK_SECRET", 1.0, tenant=OTHER),
            lambda: webhooks.enable(connection, kept.id, tenant=OTHER),
            lambda: webhooks.disable(connection, kept.id, "by eve", tenant=OTHER),
            lambda: webhooks.delete(connection, kept.id, tenant=OTHER),
        )
        for act in acts:
            with pytest.raises(DspexError) as raised:
                act()
            assert raised.value.code == "not_found"
        assert webhooks.endpoint(connection, kept.id) == kept
