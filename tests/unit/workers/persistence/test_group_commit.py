"""The writer: every call gets its own answer, once it is committed; what cannot be written fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from deploy.processes import wait_until
from dspex.errors import Conflict, DatabaseUnavailable
from store.database.batch import ALONE
from store.database.engine import make_engine
from workers.persistence.group_commit import MAX_BATCH, Writer, WriterClosed

numbers = Table("numbers", MetaData(), Column("id", Integer, primary_key=True))


def add(connection: Connection, items: Sequence[int]) -> list[str]:
    connection.execute(insert(numbers), [{"id": item} for item in items])
    return [f"added {item}" for item in items]


def double(_connection: Connection, items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{tmp_path / 'writer.db'}")
    numbers.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    writer = Writer(engine)
    writer.start()
    yield writer
    writer.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def kept(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(select(numbers.c.id).order_by(numbers.c.id)).scalars())


class Told:
    """What follows a write: its result or its error, and the thread that said so."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.thread = ""
        self._told = threading.Event()

    def __call__(self, result: Any, error: Exception | None) -> None:
        self.result, self.error, self.thread = result, error, threading.current_thread().name
        self._told.set()

    def wait(self) -> Told:
        assert self._told.wait(30)
        return self


class Gate:
    """An operation that holds the writer until it is opened, while others gather behind it."""

    def __init__(self, writer: Writer, pool: ThreadPoolExecutor) -> None:
        self._writer = writer
        self._pool = pool
        self._entered = threading.Event()
        self._open = threading.Event()
        self._passed = pool.submit(writer.call, self._hold, None)
        assert self._entered.wait(30)

    def _hold(self, _connection: Connection, items: Sequence[None]) -> Sequence[None]:
        self._entered.set()
        assert self._open.wait(30)
        return items

    def gather(self, operation: Callable[..., Any], items: Sequence[Any]) -> list[Future[Any]]:
        """Call with each item, one after the other, without waiting for answers."""
        futures = []
        for item in items:
            before = len(self._writer._waiting)
            futures.append(self._pool.submit(self._writer.call, operation, item))
            assert wait_until(lambda before=before: len(self._writer._waiting) > before, 30)  # type: ignore[misc]
        return futures

    def open(self) -> None:
        self._open.set()
        self._passed.result(30)


def test_a_call_returns_its_answer_when_it_is_committed(writer: Writer, engine: Engine) -> None:
    assert writer.call(add, 1) == "added 1"
    assert kept(engine) == [1]


def test_what_waits_is_one_transaction(writer: Writer, engine: Engine, pool: ThreadPoolExecutor) -> None:
    commits: list[Connection] = []
    batches: list[list[int]] = []

    def note(connection: Connection, items: Sequence[int]) -> list[str]:
        batches.append(list(items))
        return add(connection, items)

    gate = Gate(writer, pool)
    event.listen(engine, "commit", commits.append)
    added, doubled = gate.gather(note, range(20)), gate.gather(double, range(20))
    gate.open()
    assert [future.result(30) for future in added] == [f"added {number}" for number in range(20)]
    assert [future.result(30) for future in doubled] == [2 * number for number in range(20)]
    assert batches == [list(range(20))]
    assert len(commits) == 2  # the gate's own, and the batch


def test_a_write_that_is_alone_is_told_so(writer: Writer, pool: ThreadPoolExecutor) -> None:
    """A statement that is all of it may be committed by itself; beside others it must not."""

    def told(connection: Connection, items: Sequence[int]) -> list[bool]:
        return [connection.info[ALONE]] * len(items)

    assert writer.call(told, 1) is True
    gate = Gate(writer, pool)
    beside = [*gate.gather(told, [2]), *gate.gather(double, [3])]
    gate.open()
    assert [future.result(30) for future in beside] == [False, 6]
    assert writer.call(told, 4) is True


def test_a_batch_is_bounded(writer: Writer, engine: Engine) -> None:
    sizes: list[int] = []

    def note(_connection: Connection, items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        return items

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(MAX_BATCH + 50) as many:
        gate = Gate(writer, one)
        futures = [many.submit(writer.call, note, number) for number in range(MAX_BATCH + 50)]
        assert wait_until(lambda: len(writer._waiting) == MAX_BATCH + 50, 30)
        gate.open()
        assert sorted(future.result(30) for future in futures) == list(range(MAX_BATCH + 50))
    assert sorted(sizes) == [50, MAX_BATCH]


def test_writes_that_may_wait_are_gathered(writer: Writer, engine: Engine) -> None:
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(1))
    told: list[str] = []

    def then(result: str, error: Exception | None) -> None:
        assert error is None
        told.append(result)

    for number in range(3):
        writer.submit(add, number, then, within=0.05)
    wait_until(lambda: len(told) == 3, 30)
    assert (kept(engine), len(commits)) == ([0, 1, 2], 1)


def test_a_write_is_made_in_its_own_thread_while_nothing_else_is_written(writer: Writer, engine: Engine) -> None:
    told = Told()
    writer.submit(add, 1, told, here=True)
    assert (told.result, told.thread, kept(engine)) == ("added 1", threading.current_thread().name, [1])


def test_a_write_that_would_wait_goes_to_the_writer(writer: Writer, engine: Engine, pool: ThreadPoolExecutor) -> None:
    gate, told = Gate(writer, pool), Told()
    writer.submit(add, 1, told, here=True)
    assert told.thread == ""
    gate.open()
    assert (told.wait().result, told.thread, kept(engine)) == ("added 1", "writer", [1])


def test_what_comes_while_a_caller_writes_is_one_transaction_of_the_writer(writer: Writer, engine: Engine) -> None:
    batches: list[list[int]] = []
    inside = [Told() for _ in range(3)]

    def note(connection: Connection, items: Sequence[int]) -> list[str]:
        batches.append(list(items))
        return add(connection, items)

    def while_it_is_written(connection: Connection, items: Sequence[int]) -> list[str]:
        writer.post(note, 5)
        for number, told in enumerate(inside, 2):
            writer.submit(note, number, told, here=True)
        return add(connection, items)

    first = Told()
    writer.submit(while_it_is_written, 1, first, here=True)
    assert first.result == "added 1"
    assert [told.wait().thread for told in inside] == ["writer"] * 3
    assert wait_until(lambda: kept(engine) == [1, 2, 3, 4, 5], 30)
    assert batches[0][:3] == [2, 3, 4]


def test_what_fails_in_its_own_thread_is_tried_again_by_the_writer(writer: Writer, engine: Engine) -> None:
    tries: list[str] = []

    def break_once(_connection: Connection) -> None:
        tries.append(threading.current_thread().name)
        if len(tries) == 1:
            raise OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)

    event.listen(engine, "commit", break_once)
    told, twice = Told(), Told()
    writer.submit(add, 1, told, here=True)
    assert (told.wait().result, told.thread, kept(engine)) == ("added 1", "writer", [1])
    assert tries == [threading.current_thread().name, "writer"]
    writer.submit(add, 1, twice, here=True)
    assert isinstance(twice.wait().error, IntegrityError)


def test_a_writer_that_closes_waits_for_the_caller_that_writes(engine: Engine) -> None:
    writer, told = Writer(engine), Told()
    writer.start()
    closing = threading.Thread(target=writer.close)

    def while_it_is_written(connection: Connection, items: Sequence[int]) -> list[str]:
        closing.start()
        assert wait_until(writer._closing.is_set, 30)
        return add(connection, items)

    writer.submit(while_it_is_written, 1, told, here=True)
    closing.join(30)
    assert (told.result, kept(engine), writer.threads[0].is_alive()) == ("added 1", [1], False)
    with pytest.raises(WriterClosed):
        writer.submit(add, 2, told, here=True)


def test_a_write_that_may_not_wait_takes_along_those_that_may(writer: Writer, engine: Engine) -> None:
    writer.submit(add, 1, lambda *_: None, within=3600)
    assert writer.call(add, 2) == "added 2"
    assert kept(engine) == [1, 2]


def test_one_that_may_wait_less_is_not_late(writer: Writer, engine: Engine) -> None:
    told = threading.Event()
    writer.submit(add, 1, lambda *_: None, within=3600)
    writer.submit(add, 2, lambda *_: told.set(), within=0.01)
    assert told.wait(30)
    assert kept(engine) == [1, 2]


def test_close_writes_what_may_wait(writer: Writer, engine: Engine) -> None:
    writer.submit(add, 1, lambda *_: None, within=3600)
    writer.close()
    assert kept(engine) == [1]


def test_what_nobody_waits_for_is_written_together_and_holds_nobody_up(writer: Writer, engine: Engine) -> None:
    batches: list[list[int]] = []

    def note(connection: Connection, items: Sequence[int]) -> list[str]:
        batches.append(list(items))
        return add(connection, items)

    for number in range(20):
        writer.post(note, number)
    assert writer.call(add, 20) == "added 20"
    assert wait_until(lambda: len(kept(engine)) == 21, 30)
    # Where the machine halts in between, the time of the first is up before the last comes.
    assert [item for batch in batches for item in batch] == list(range(20))
    assert len(batches) < 20


def test_close_writes_what_nobody_waits_for(writer: Writer, engine: Engine) -> None:
    for number in range(MAX_BATCH + 50):
        writer.post(add, number)
    writer.close()
    assert kept(engine) == list(range(MAX_BATCH + 50))
    with pytest.raises(WriterClosed):
        writer.post(add, MAX_BATCH + 50)


def test_poison_fails_alone(writer: Writer, engine: Engine, pool: ThreadPoolExecutor) -> None:
    def refuse_seven(connection: Connection, items: Sequence[int]) -> list[str]:
        if 7 in items:
            raise Conflict("seven")
        return add(connection, items)

    writer.call(add, 3)  # a second 3 is a duplicate
    gate = Gate(writer, pool)
    futures = gate.gather(refuse_seven, range(10))
    gate.open()
    errors = [type(future.exception(30)) for future in futures]
    assert errors[3] is IntegrityError
    assert errors[7] is Conflict
    assert [number for number, error in enumerate(errors) if error is not type(None)] == [3, 7]
    assert kept(engine) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert writer.call(add, 10) == "added 10"


def test_an_operation_that_answers_for_too_few_is_undone(writer: Writer, engine: Engine) -> None:
    def forgetful(connection: Connection, items: Sequence[int]) -> list[str]:
        return add(connection, items)[1:]

    with pytest.raises(ValueError, match="shorter"):
        writer.call(forgetful, 1)
    assert kept(engine) == []


def test_a_lock_of_another_is_waited_for(
    writer: Writer, engine: Engine, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 10"))
    engine.dispose()
    blocker = engine.raw_connection()
    blocker.cursor().execute("BEGIN IMMEDIATE")
    future = pool.submit(writer.call, add, 1)
    assert wait_until(lambda: "The database cannot be written" in caplog.text, 30)
    assert not future.done()
    blocker.cursor().execute("ROLLBACK")
    blocker.close()
    assert future.result(30) == "added 1"
    assert kept(engine) == [1]


def test_a_database_that_is_away_comes_back(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    folder = tmp_path / "later"
    engine = make_engine(f"sqlite:///{folder / 'writer.db'}")
    writer = Writer(engine)
    writer.start()

    def create_and_add(connection: Connection, items: Sequence[int]) -> list[str]:
        numbers.metadata.create_all(connection)
        return add(connection, items)

    with pytest.raises(TimeoutError):
        writer.call(create_and_add, 1, timeout=0.2)
    future = pool.submit(writer.call, create_and_add, 2)
    folder.mkdir()
    assert future.result(30) == "added 2"
    writer.close()
    assert kept(engine) == [1, 2]  # the one that was not waited for, too
    engine.dispose()


def test_close_writes_what_waits_and_refuses_the_rest(writer: Writer, engine: Engine, pool: ThreadPoolExecutor) -> None:
    gate = Gate(writer, pool)
    futures = gate.gather(add, range(5))
    closed = pool.submit(writer.close)
    assert wait_until(writer._closing.is_set, 30)
    with pytest.raises(WriterClosed):
        writer.call(add, 5)
    gate.open()
    closed.result(30)
    assert [future.result(30) for future in futures] == [f"added {number}" for number in range(5)]
    assert kept(engine) == list(range(5))
    writer.close()
    with pytest.raises(WriterClosed):
        writer.call(add, 6)


def test_close_while_the_database_is_away(
    tmp_path: Path, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'missing' / 'writer.db'}")
    writer = Writer(engine)
    writer.start()
    futures = [pool.submit(writer.call, add, number) for number in range(50)]
    assert wait_until(lambda: "The database cannot be written" in caplog.text and bool(writer._waiting), 30)
    writer.close()
    for future in futures:
        assert isinstance(future.exception(30), WriterClosed)
    engine.dispose()


letters = Table("letters", MetaData(), Column("id", Integer, primary_key=True))
"""Not there at first."""


def add_letter(connection: Connection, items: Sequence[int]) -> list[int]:
    connection.execute(insert(letters), [{"id": item} for item in items])
    return list(items)


def test_what_misses_a_table_waits_for_it_and_holds_nobody_up(
    writer: Writer, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    gate = Gate(writer, pool)
    [waiting] = gate.gather(add_letter, [7])
    [going_on] = gate.gather(add, [1])
    gate.open()
    assert going_on.result(30) == "added 1"
    assert not writer.fit()
    with pytest.raises(DatabaseUnavailable, match="no such table: letters"):
        writer.call(add_letter, 8, patience=0.2)
    assert writer.call(add, 2) == "added 2"
    assert not waiting.done()
    letters.metadata.create_all(engine)
    assert waiting.result(30) == 7
    assert writer.fit(30)


def test_close_tells_what_waits_for_a_table(writer: Writer, engine: Engine, pool: ThreadPoolExecutor) -> None:
    waiting = pool.submit(writer.call, add_letter, 7)
    assert wait_until(lambda: not writer.fit(), 30)
    writer.close()
    with pytest.raises(WriterClosed, match="no such table: letters"):
        waiting.result(30)


def test_an_engine_that_loses_its_connection(writer: Writer, engine: Engine) -> None:
    """The first commit fails as a broken connection does: it is made again, in a new transaction."""
    tries: list[int] = []

    def break_once(_connection: Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)

    event.listen(engine, "commit", break_once)
    assert writer.call(add, 1) == "added 1"
    assert len(tries) == 2
    assert kept(engine) == [1]


def test_while_the_database_is_away_the_pauses_grow(
    writer: Writer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float, int]] = []

    def pause(first: float, last: float, failures: int) -> float:
        asked.append((first, last, failures))
        return 0.0

    def break_often(_connection: Connection) -> None:
        if len(asked) < 4:
            raise OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr("workers.persistence.group_commit.doubled", pause)
    event.listen(engine, "commit", break_often)
    assert writer.call(add, 1) == "added 1"
    assert asked == [(0.05, 5.0, 1), (0.05, 5.0, 2), (0.05, 5.0, 3), (0.05, 5.0, 4)]


def test_thirty_two_threads_get_their_own_answers(writer: Writer, engine: Engine) -> None:
    def count(connection: Connection, items: Sequence[int]) -> list[int]:
        present = connection.execute(select(func.count()).select_from(numbers)).scalar_one()
        return [present + 0 * item for item in items]

    def work(thread: int) -> list[object]:
        answers: list[object] = []
        for call in range(200):
            number = 200 * thread + call
            match call % 4:
                case 0:
                    answers.append(writer.call(add, number) == f"added {number}")
                case 1:
                    answers.append(writer.call(double, number) == 2 * number)
                case 2:
                    answers.append(writer.call(count, number) > call // 4)
                case _:
                    try:
                        writer.call(add, number - 3)
                    except IntegrityError:
                        answers.append(True)
        return answers

    with ThreadPoolExecutor(32) as threads:
        for answers in threads.map(work, range(32)):
            assert answers == [True] * 200
    assert kept(engine) == [200 * thread + call for thread in range(32) for call in range(0, 200, 4)]
