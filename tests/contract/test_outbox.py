"""The outbox: what commits is published, once where nothing fails, and nothing is lost where something does."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest
from sqlalchemy import Connection, MetaData, create_engine, inspect, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dspex import InitializeProgram, uuid7
from dspex.amqp.publisher import Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, Binding
from dspex.errors import BrokerUnavailable, MessageTooLarge, NotDeclared, Unroutable
from dspex.outbox import Outbox, OutboxRelay
from dspex.outbox.relay import LAST_PAUSE
from dspex.outbox.statements import claim
from tests.contract.outbox_service import EXECUTIONS_ONLY, KeepingPublisher, Service, command, service
from tests.contract.store.rows import at_once
from tests.waiting import wait_until


@pytest.fixture
def shop(database_url: str) -> Iterator[Service]:
    with service(database_url) as shop:
        yield shop


@pytest.fixture
def postgres_shop(postgres_database_url: str) -> Iterator[Service]:
    with service(postgres_database_url) as shop:
        yield shop


@pytest.fixture
def publisher() -> KeepingPublisher:
    return KeepingPublisher()


def relay_of(shop: Service, publisher: Publisher, *, batch: int = 100, interval: float = 0.02) -> OutboxRelay:
    return OutboxRelay(shop.outbox, shop.engine, publisher, batch=batch, interval=interval)


class TestAdd:
    def test_a_command_is_published_with_the_rows_of_its_transaction(
        self, shop: Service, publisher: KeepingPublisher
    ) -> None:
        asked, traceparent = command("why?"), f"00-{'a' * 32}-{'b' * 16}-01"
        with shop.engine.begin() as connection:
            connection.execute(shop.order("1"))
            message_id = shop.outbox.add(connection, asked, traceparent=traceparent)
        assert relay_of(shop, publisher).run_once() == 1
        ((sent_as, envelope),) = publisher.taken
        assert sent_as == envelope.id == message_id
        assert (envelope.data, envelope.source, envelope.traceparent) == (asked, "/orders", traceparent)
        assert shop.rows() == []

    def test_what_rolls_back_is_not_published(self, shop: Service, publisher: KeepingPublisher) -> None:
        with Session(shop.engine) as session:
            session.execute(shop.order("1"))
            shop.outbox.add(session, command())
            session.rollback()
            shop.outbox.add(session, kept := command())
            with session.begin_nested() as savepoint:
                shop.outbox.add(session, command())
                savepoint.rollback()
            session.commit()
        with shop.engine.connect() as connection:
            shop.outbox.add(connection, command())  # and nobody commits
        assert relay_of(shop, publisher).run_once() == 1
        assert [envelope.data for _, envelope in publisher.taken] == [kept]

    def test_nothing_is_published_before_the_commit(self, postgres_shop: Service, publisher: KeepingPublisher) -> None:
        relay = relay_of(postgres_shop, publisher)
        with postgres_shop.engine.begin() as connection:
            postgres_shop.outbox.add(connection, command())
            assert relay.run_once() == 0
        assert relay.run_once() == 1

    def test_sessions_of_every_kind(self, shop: Service, publisher: KeepingPublisher) -> None:
        factory = sessionmaker(shop.engine)
        registry = scoped_session(factory)
        with factory.begin() as session:
            first = shop.outbox.add(session, command())
        second = shop.outbox.add(registry, command())
        registry.commit()
        registry.remove()
        with shop.engine.begin() as connection:
            third = shop.outbox.add(connection, command())
        relay_of(shop, publisher).run_once()
        assert publisher.ids == [first, second, third]

    def test_what_is_too_large_is_refused_at_once(self, shop: Service, publisher: KeepingPublisher) -> None:
        with Session(shop.engine) as session:
            with pytest.raises(MessageTooLarge, match="at most 1048576"):
                shop.outbox.add(session, command("x" * 1024 * 1024))
            session.execute(shop.order("1"))
            session.commit()
            assert session.execute(select(shop.orders.c.name)).all() == [("1",)]
        assert relay_of(shop, publisher).run_once() == 0

    def test_ids_of_a_thread_increase(self, shop: Service) -> None:
        ids: list[list[str]] = [[] for _ in range(4)]

        def add(number: int) -> Callable[[], None]:
            return lambda: ids[number].extend(shop.add(200))

        at_once([add(number) for number in range(4)])
        assert all(of_thread == sorted(of_thread) for of_thread in ids)
        everyone = [UUID(message_id) for of_thread in ids for message_id in of_thread]
        assert len(set(everyone)) == 800
        assert {(message_id.version, message_id.variant) for message_id in everyone} == {(7, "specified in RFC 4122")}

    def test_the_table_may_have_another_name(self, database_url: str, publisher: KeepingPublisher) -> None:
        metadata = MetaData()
        outboxes = [Outbox(metadata, source="/orders", name=name) for name in ("messages", "more_messages")]
        engine = create_engine(database_url)
        metadata.create_all(engine)
        assert sorted(inspect(engine).get_table_names()) == ["messages", "more_messages"]
        with engine.begin() as connection:
            ids = [outbox.add(connection, command()) for outbox in outboxes]
        for number, outbox in enumerate(outboxes):
            assert OutboxRelay(outbox, engine, publisher).run_once() == 1
            assert publisher.ids == ids[: number + 1]
        engine.dispose()


class TestOrder:
    def test_rows_are_published_in_the_order_of_add(self, shop: Service, publisher: KeepingPublisher) -> None:
        ids = [message_id for number in (1, 230, 5, 1, 13) for message_id in shop.add(number)]
        assert relay_of(shop, publisher, batch=50).run_once() == 250
        assert publisher.ids == ids
        assert publisher.most_in_flight == 50
        assert shop.rows() == []

    def test_row_28_no_transaction_is_skipped(self, postgres_shop: Service, publisher: KeepingPublisher) -> None:
        """The ids, and the times, of transactions that are open are older than those of what is published already."""
        shop, relay = postgres_shop, relay_of(postgres_shop, publisher)
        with ExitStack() as stack:
            connections = [stack.enter_context(shop.engine.connect()) for _ in range(10)]
            added = [(connection, shop.outbox.add(connection, command())) for connection in connections]
            random.Random(28).shuffle(added)
            for connection, message_id in added:
                connection.commit()
                assert relay.run_once() == 1
                assert publisher.ids[-1] == message_id
        assert shop.rows() == []

    def test_none_is_skipped_or_sent_twice_while_many_add(self, shop: Service, publisher: KeepingPublisher) -> None:
        added: list[str] = []

        def add() -> None:
            for _ in range(40):
                with Session(shop.engine) as session:
                    message_id = shop.outbox.add(session, command())
                    if random.random() < 0.2:
                        session.rollback()
                    else:
                        session.commit()
                        added.append(message_id)

        with relay_of(shop, publisher, batch=7), relay_of(shop, publisher, batch=7):
            at_once([add] * 4)
            wait_until(lambda: shop.left() == 0, "the outbox is empty")
        assert Counter(publisher.ids) == Counter(added)


class TestManyRelays:
    def test_each_row_is_published_once(self, shop: Service, publisher: KeepingPublisher) -> None:
        ids = shop.add(600)
        relays = [relay_of(shop, publisher, batch=11) for _ in range(4)]
        published: list[int] = []
        at_once([lambda relay=relay: published.append(relay.run_once()) for relay in relays])  # type: ignore[misc]
        assert Counter(publisher.ids) == Counter(ids)
        assert sum(published) == 600
        assert shop.rows() == []

    def test_on_an_engine_that_is_strict(self, postgres_database_url: str, publisher: KeepingPublisher) -> None:
        with service(postgres_database_url) as shop:
            shop.engine = create_engine(postgres_database_url, isolation_level="REPEATABLE READ")
            ids = shop.add(600)
            relays = [relay_of(shop, publisher, batch=11) for _ in range(4)]
            at_once([lambda relay=relay: relay.run_once() and None for relay in relays])  # type: ignore[misc]
            assert Counter(publisher.ids) == Counter(ids)
            shop.engine.dispose()

    def test_what_one_has_claimed_is_no_other_ones(self, shop: Service, publisher: KeepingPublisher) -> None:
        ids = shop.add(5)
        with shop.engine.begin() as connection:
            claimed = claim(connection, shop.outbox.table, 3, 60)
        assert [str(row.id) for row in claimed] == ids[:3]
        assert relay_of(shop, publisher).run_once() == 2
        assert publisher.ids == ids[3:]
        shop.let_time_pass()  # the one that claimed them has crashed
        assert relay_of(shop, publisher).run_once() == 3
        assert publisher.ids == [*ids[3:], *ids[:3]]

    def test_claims_run_out_by_themselves(self, shop: Service, publisher: KeepingPublisher) -> None:
        shop.add()
        with shop.engine.begin() as connection:
            claim(connection, shop.outbox.table, 1, 0.05)
        wait_until(lambda: relay_of(shop, publisher).run_once() == 1, "the claim has run out")

    def test_rows_that_are_locked_are_passed_by(self, postgres_shop: Service, publisher: KeepingPublisher) -> None:
        ids = postgres_shop.add(3)
        table = postgres_shop.outbox.table
        with postgres_shop.engine.begin() as connection:
            connection.execute(select(table).where(table.c.id == UUID(ids[1])).with_for_update())
            assert relay_of(postgres_shop, publisher).run_once() == 2
        assert relay_of(postgres_shop, publisher).run_once() == 1
        assert publisher.ids == [ids[0], ids[2], ids[1]]


class TestOutage:
    def test_nothing_is_lost_and_every_row_keeps_its_place(self, shop: Service, publisher: KeepingPublisher) -> None:
        ids = shop.add(30)
        relay = relay_of(shop, publisher, batch=20)
        publisher.room = 7
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match="no connection"):
                relay.run_once()
        assert publisher.ids == ids[:7]
        assert [str(row.id) for row in shop.rows()] == ids[7:]
        assert [row.attempts for row in shop.rows()] == [0] * 23
        assert {row.last_error for row in shop.rows()[:13]} == {
            "broker_unavailable: not confirmed in time: no connection"
        }
        publisher.room = 1000
        assert relay.run_once() == 23
        assert publisher.ids == ids

    def test_no_spinning_and_no_stopping(
        self, shop: Service, publisher: KeepingPublisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each failure is followed by a pause, and each pause is longer."""
        pauses: list[int] = []

        def pause(_first: float, last: float, failures: int) -> float:
            assert last == LAST_PAUSE
            pauses.append(failures)
            return 0.01

        monkeypatch.setattr("dspex.outbox.relay.doubled", pause)
        ids = shop.add(30)
        publisher.room = 0
        with relay_of(shop, publisher, batch=10) as relay:
            wait_until(lambda: len(pauses) >= 20, "twenty failures")
            publisher.allow(30)
            wait_until(lambda: shop.left() == 0, "the outbox is empty")
            assert publisher.ids == ids
            assert pauses == list(range(len(pauses)))
            assert publisher.submitted == 10 * len(pauses) + 30
            # Rows that come while it still looks for more would belong to the turn that has just failed.
            relay.wake()
            wait_until(lambda: not relay._woken.is_set(), "that turn has ended")
            shop.add()
            wait_until(lambda: pauses.count(0) == 2, "the next outage begins anew")

    def test_waking_does_not_shorten_a_pause(
        self, shop: Service, publisher: KeepingPublisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pausing = threading.Event()

        def pause(*_: object) -> float:
            pausing.set()
            return 1000.0

        monkeypatch.setattr("dspex.outbox.relay.doubled", pause)
        publisher.room = 0
        shop.add()
        with relay_of(shop, publisher):
            assert pausing.wait(30)
            for _ in range(100):
                with Session(shop.engine) as session:
                    shop.outbox.add(session, command())
                    session.commit()
        assert publisher.submitted == 1

    def test_a_database_that_is_not_ready(
        self, database_url: str, publisher: KeepingPublisher, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = create_engine(database_url)
        shop = Service(engine)
        with relay_of(shop, publisher):
            wait_until(lambda: "dspex_outbox" in caplog.text, "a line about it")
            shop.metadata.create_all(engine)
            shop.add()
            wait_until(lambda: len(publisher.taken) == 1, "it is published")
        line = caplog.records[0].getMessage()
        assert line.startswith("The outbox dspex_outbox waits: ")
        assert "UPDATE" not in line
        assert "\n" not in line
        engine.dispose()

    def test_a_publisher_with_a_bug(
        self,
        shop: Service,
        publisher: KeepingPublisher,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("dspex.outbox.relay.doubled", lambda *_: 0.01)
        monkeypatch.setattr(publisher, "submit", lambda *_, **__: 1 / 0)
        shop.add()
        with relay_of(shop, publisher):
            wait_until(lambda: "it goes on" in caplog.text, "the traceback")
            monkeypatch.undo()
            shop.let_time_pass()
            wait_until(lambda: len(publisher.taken) == 1, "it is published")

    @pytest.mark.parametrize("exchange", ["somewhere.else", COMMANDS_EXCHANGE])
    def test_nothing_is_declared_yet(self, shop: Service, exchange: str) -> None:
        ids = shop.add(30)
        undeclared = KeepingPublisher(exchange=exchange, bindings=())
        for _ in range(2):
            with pytest.raises((NotDeclared, Unroutable)):
                relay_of(shop, undeclared, batch=20).run_once()
        assert undeclared.submitted == 40
        assert {(row.attempts, row.waits) for row in shop.rows()} == {(0, False)}
        publisher = KeepingPublisher()
        assert relay_of(shop, publisher).run_once() == 30
        assert publisher.ids == ids


class TestRefusal:
    def test_others_are_not_held_up(self, shop: Service, publisher: KeepingPublisher) -> None:
        first = shop.add(25)
        with shop.engine.begin() as connection:
            poisoned = shop.outbox.add(connection, InitializeProgram(program_id=uuid7()))
        second = shop.add(25)
        relay = relay_of(shop, publisher, batch=10)
        assert relay.run_once() == 50
        assert publisher.ids == first + second
        (row,) = shop.rows()
        assert (str(row.id), row.attempts, row.waits) == (poisoned, 1, True)
        assert row.last_error.startswith("unroutable: no queue is bound to 'dspex.commands'")

        for attempts in (2, 3):  # alone, it is no outage
            shop.let_time_pass()
            assert relay.run_once() == 0
            assert [row.attempts for row in shop.rows()] == [attempts]
        shop.let_time_pass()
        bound = KeepingPublisher(bindings=[EXECUTIONS_ONLY, Binding(COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, "#")])
        assert relay_of(shop, bound).run_once() == 1
        assert shop.rows() == []

    def test_the_innocent_are_told_from_the_guilty(self, shop: Service, publisher: KeepingPublisher) -> None:
        """A broker that closes the connection over one message fails all that are on their way."""
        before = shop.add(4)
        guilty = command()
        publisher.fatal.add(guilty.execution_id)
        with shop.engine.begin() as connection:
            poisoned = shop.outbox.add(connection, guilty)
        after = shop.add(4)
        relay = relay_of(shop, publisher)
        assert relay.run_once() == 0
        assert [row.attempts for row in shop.rows()] == [1] * 9
        shop.let_time_pass()
        fresh = shop.add(2)
        assert relay.run_once() == 10
        assert publisher.ids == fresh + before + after
        (row,) = shop.rows()
        assert (str(row.id), row.attempts) == (poisoned, 2)
        assert row.last_error == r"publish_failed: the broker closed the connection:\n501 FRAME_ERROR \x00"

    def test_an_outage_in_the_middle_of_them(self, shop: Service, publisher: KeepingPublisher) -> None:
        guilty = command()
        publisher.fatal.add(guilty.execution_id)
        with shop.engine.begin() as connection:
            ids = [shop.outbox.add(connection, command) for command in (guilty, *(command() for _ in range(5)))]
        relay = relay_of(shop, publisher)
        relay.run_once()
        shop.let_time_pass()
        publisher.room = 2
        with pytest.raises(BrokerUnavailable):
            relay.run_once()
        assert publisher.ids == ids[1:3]
        assert publisher.submitted == 6 + 4
        found = [(str(row.id), row.attempts, row.waits) for row in shop.rows()]
        assert found == [(ids[0], 2, True), *((message_id, 1, False) for message_id in ids[3:])]


class TestThread:
    def test_a_commit_wakes_it(self, shop: Service, publisher: KeepingPublisher) -> None:
        with relay_of(shop, publisher, interval=1000), Session(shop.engine) as session:
            for number in range(1, 4):
                shop.outbox.add(session, command())
                session.commit()
                wait_until(lambda number=number: len(publisher.taken) == number, "published")  # type: ignore[misc]

    def test_so_does_who_uses_a_connection(self, shop: Service, publisher: KeepingPublisher) -> None:
        with relay_of(shop, publisher, interval=1000):
            shop.add()
            shop.outbox.wake()
            wait_until(lambda: len(publisher.taken) == 1, "published")

    def test_other_processes_are_looked_after_at_the_interval(self, shop: Service, publisher: KeepingPublisher) -> None:
        with relay_of(shop, publisher, interval=0.02):
            for number in range(1, 4):
                shop.add()  # a connection tells nobody
                wait_until(lambda number=number: len(publisher.taken) == number, "published")  # type: ignore[misc]

    def test_only_commits_that_others_can_see_wake(self, shop: Service) -> None:
        woken: list[str] = []
        shop.outbox.subscribe(lambda: woken.append("woken"))
        with Session(shop.engine) as session:
            shop.outbox.add(session, command())
            with session.begin_nested():
                shop.outbox.add(session, command())
            assert woken == []
            session.commit()
            assert woken == ["woken"]
            session.execute(shop.order("1"))
            session.commit()  # without a command
            assert woken == ["woken"]
            session.begin_nested()
            shop.outbox.add(session, command())
            session.commit()
            assert woken == ["woken"] * 2

    def test_the_database_is_free_while_messages_are_on_their_way(
        self, shop: Service, publisher: KeepingPublisher
    ) -> None:
        settle = publisher.settle

        def settle_while_others_write() -> None:
            with shop.engine.begin() as connection:
                connection.execute(shop.order(str(len(publisher.taken))))
            settle()

        publisher.settle = settle_while_others_write  # type: ignore[method-assign]
        shop.add()
        assert relay_of(shop, publisher).run_once() == 1
        with shop.engine.connect() as connection:
            assert orders(connection, shop) == ["0"]

    def test_closing(self, shop: Service, publisher: KeepingPublisher) -> None:
        relay = relay_of(shop, publisher)
        relay.start()
        shop.add()
        wait_until(lambda: len(publisher.taken) == 1, "published")
        relay.close()
        relay.close()
        assert not relay._thread.is_alive()
        shop.add()
        shop.outbox.wake()
        assert relay.run_once() == 0
        assert len(publisher.taken) == 1

    def test_closing_one_that_was_never_started(self, shop: Service, publisher: KeepingPublisher) -> None:
        relay_of(shop, publisher).close()

    def test_closing_waits_for_the_batch_in_hand(self, shop: Service, publisher: KeepingPublisher) -> None:
        begun, go_on = threading.Event(), threading.Event()
        settle = publisher.settle

        def settle_slowly() -> None:
            begun.set()
            assert go_on.wait(30)
            settle()

        publisher.settle = settle_slowly  # type: ignore[method-assign]
        shop.add(30)
        relay = relay_of(shop, publisher, batch=10)
        relay.start()
        assert begun.wait(30)
        relay.close(timeout=0.01)
        assert shop.left() == 30
        go_on.set()
        relay.close()
        assert len(publisher.taken) == 10
        assert shop.left() == 20


def orders(connection: Connection, shop: Service) -> list[str]:
    return list(connection.execute(select(shop.orders.c.name)).scalars())
