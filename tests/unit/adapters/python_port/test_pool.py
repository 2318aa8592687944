"""The pool of children: who gets which child, and how many there are. Children that are no processes stand in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import pytest

from adapters.port import AdapterError
from adapters.python_port.limits import Limits
from adapters.python_port.pool import Pool
from adapters.runs import Run
from deploy.processes import wait_until
from dspex import ErrorCode

PATIENCE = 30.0


class FakeChild:
    """What the pool sees of a child."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.environment: str | None = None
        self.programs: dict[str, None] = {}
        self.runs = 0
        self.spare_runs = 1_000
        self.grown_bytes = 0
        self.broken = False
        self.alive = True
        self.closed = False
        self.idle_since = 0.0

    def prepare(self) -> None:
        """It has nothing to forget."""

    def kill(self) -> None:
        self.broken = True

    def end(self, grace: float = 0.0) -> None:
        self.kill()

    def close(self) -> None:
        self.kill()
        self.closed = True


class FakeServer:
    """Has children at once, or fails as often as it is told to."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.failures = 0
        self.forking = 0
        self.slow = 0
        self.may_come_up = threading.Event()
        self.may_fork = threading.Event()
        self.may_fork.set()

    def fork(self, environment: str | None) -> FakeChild:
        self.forking += 1
        if environment == "slow":
            self.slow += 1
            self.may_come_up.wait(PATIENCE)
        self.may_fork.wait(PATIENCE)
        if self.failures:
            self.failures -= 1
            raise AdapterError(ErrorCode.TRANSIENT, "no room")
        self.children.append(FakeChild(len(self.children)))
        self.children[-1].environment = environment
        return self.children[-1]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def make(server: FakeServer) -> Iterator[Callable[..., Pool]]:
    with ExitStack() as ending:

        def make(**limits: Any) -> Pool:
            pool = Pool(Limits(**limits), cast("Any", server))
            ending.callback(pool.close)
            return pool

        yield make


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def taken(pool: Pool, then: Callable[[FakeChild], object] = lambda _: None, **more: Any) -> int:
    """Take a child, do something to it, and give it back."""
    with pool.child("backend", time.monotonic() + PATIENCE, Run(), **more) as child:
        fake = cast("FakeChild", child)
        then(fake)
        return fake.number


def wear_out(child: FakeChild) -> None:
    child.runs = child.spare_runs


def grow(child: FakeChild) -> None:
    child.grown_bytes = Limits().recycle_bytes


def noted(order: list[str], name: str, _child: FakeChild) -> None:
    order.append(name)


def so_many_wait(pool: Pool, number: int) -> bool:
    return pool.counts()[2] == number


@pytest.mark.parametrize("spoil", [FakeChild.kill, wear_out, grow], ids=["broken", "worn", "grown"])
@pytest.mark.parametrize("another_waits", [True, False])
def test_who_waits_gets_no_child_that_is_done_with(
    make: Callable[..., Pool],
    server: FakeServer,
    threads: ThreadPoolExecutor,
    spoil: Callable[[FakeChild], None],
    another_waits: bool,
) -> None:
    pool = make(max_children=1)
    with pool.child("backend", None, Run()) as child:
        waiting = threads.submit(taken, pool) if another_waits else None
        assert wait_until(lambda: pool.counts() == (1, 0, int(another_waits)), PATIENCE)
        spoil(cast("FakeChild", child))
    number = waiting.result(PATIENCE) if waiting else taken(pool)
    assert number == 1
    assert [child.closed for child in server.children] == [True, False]


def test_one_that_is_well_goes_to_who_waits_longest(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool, order = make(max_children=1), list[str]()
    with pool.child("backend", None, Run()):
        waiting = []
        for name in ("first", "second", "third"):
            waiting.append(threads.submit(taken, pool, partial(noted, order, name)))
            assert wait_until(partial(so_many_wait, pool, len(waiting)), PATIENCE)
    assert [one.result(PATIENCE) for one in waiting] == [0, 0, 0]
    assert order == ["first", "second", "third"]
    assert len(server.children) == 1


def test_there_are_so_many_and_some_more_to_build(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool, let_go = make(max_children=2), threading.Event()

    def hold(_child: FakeChild) -> None:
        assert let_go.wait(PATIENCE)

    runs = [threads.submit(taken, pool, hold) for _ in range(3)]
    assert wait_until(lambda: pool.counts() == (2, 0, 1), PATIENCE)
    assert not wait_until(lambda: len(server.children) > 2, 0.2)
    builds = [threads.submit(taken, pool, hold, builds=True) for _ in range(3)]
    assert wait_until(lambda: pool.counts() == (4, 0, 2), PATIENCE)
    assert not wait_until(lambda: len(server.children) > 4, 0.2)
    let_go.set()
    for one in (*runs, *builds):
        one.result(PATIENCE)
    assert wait_until(lambda: pool.counts()[0] == 0, PATIENCE)
    assert pool.counts()[1] <= 2


def test_who_is_turned_away_leaves_no_place_taken(make: Callable[..., Pool], server: FakeServer) -> None:
    """A child that cannot be started, a wait that ends, a run that fails: the next one has a child."""
    pool = make(max_children=1)
    server.failures = 2
    for _ in range(2):
        with pytest.raises(AdapterError, match="no room"):
            taken(pool)
    assert (pool.counts(), pool.failure) == ((0, 0, 0), "no room")
    with pool.child("backend", None, Run()):
        for cancelled, code in ((False, ErrorCode.TIMEOUT), (True, ErrorCode.CANCELLED)):
            run = Run()
            if cancelled:
                run.cancel()
            with pytest.raises(AdapterError) as turned_away, pool.child("backend", time.monotonic() + 0.01, run):
                pass
            assert turned_away.value.code == code
        assert pool.counts() == (1, 0, 0)
    with pytest.raises(ValueError, match="of the run"), pool.child("backend", None, Run()):
        raise ValueError("of the run")
    assert taken(pool) == 0
    assert pool.counts() == (0, 1, 0)


def test_beside_a_child_that_builds_no_run_gets_one_more(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool = make(max_children=1)
    done, built = threading.Event(), threading.Event()
    running = threads.submit(taken, pool, lambda _: done.wait(PATIENCE))
    assert wait_until(lambda: pool.counts() == (1, 0, 0), PATIENCE)
    server.may_fork.clear()
    waiting = threads.submit(taken, pool)
    assert wait_until(lambda: pool.counts() == (1, 0, 1), PATIENCE)
    building = threads.submit(taken, pool, lambda _: built.wait(PATIENCE), builds=True)
    assert wait_until(lambda: server.forking == 2, PATIENCE)
    assert pool.counts() == (1, 0, 2)
    assert pool._next() is None  # a second would go to who waits to run
    server.may_fork.set()
    assert wait_until(lambda: pool.counts() == (2, 0, 1), PATIENCE)
    built.set()
    assert building.result(PATIENCE) == 1
    assert pool.counts() == (1, 0, 1)
    done.set()
    assert running.result(PATIENCE) == waiting.result(PATIENCE) == 0
    assert len(server.children) == 2


def test_a_child_to_build_with_goes_to_no_run_when_nobody_builds_any_more(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool = make(max_children=1)
    done, builder = threading.Event(), Run()
    running = threads.submit(taken, pool, lambda _: done.wait(PATIENCE))
    assert wait_until(lambda: pool.counts() == (1, 0, 0), PATIENCE)
    server.may_fork.clear()

    def build() -> None:
        with pool.child("backend", None, builder, builds=True):
            pytest.fail("it was cancelled")

    building = threads.submit(build)
    assert wait_until(lambda: server.forking == 2, PATIENCE)
    waiting = threads.submit(taken, pool)
    assert wait_until(lambda: pool.counts() == (1, 0, 2), PATIENCE)
    builder.cancel()
    with pytest.raises(AdapterError, match="cancelled"):
        building.result(PATIENCE)
    server.may_fork.set()
    assert wait_until(lambda: len(server.children) == 2 and server.children[1].closed, PATIENCE)
    assert pool.counts() == (1, 0, 1)
    done.set()
    assert running.result(PATIENCE) == waiting.result(PATIENCE) == 0


def test_a_child_runs_in_one_environment_only(make: Callable[..., Pool], server: FakeServer) -> None:
    pool = make(max_children=3)
    assert [taken(pool, environment=name) for name in (None, "rag", None, "rag", "judge")] == [0, 1, 0, 1, 2]
    assert [child.environment for child in server.children] == [None, "rag", "judge"]


def test_where_there_is_no_room_one_that_is_idle_elsewhere_ends(make: Callable[..., Pool], server: FakeServer) -> None:
    pool = make(max_children=2)
    assert [taken(pool, environment=name) for name in ("a", "b", "b", "c")] == [0, 1, 1, 2]
    assert [child.closed for child in server.children] == [True, False, False]  # the one that was idle longest
    assert pool.counts() == (0, 2, 0)


def test_who_has_waited_longest_gets_the_room_of_another_environment(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool, order = make(max_children=1), list[str]()
    with pool.child("backend", None, Run(), "a"):
        first = threads.submit(taken, pool, partial(noted, order, "b"), environment="b")
        assert wait_until(lambda: so_many_wait(pool, 1), PATIENCE)
        second = threads.submit(taken, pool, partial(noted, order, "a"), environment="a")
        assert wait_until(lambda: so_many_wait(pool, 2), PATIENCE)
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 2)
    assert order == ["b", "a"]
    assert [child.closed for child in server.children] == [True, True, False]


def test_an_environment_that_does_not_come_up_takes_no_room_from_others(
    make: Callable[..., Pool], server: FakeServer, threads: ThreadPoolExecutor
) -> None:
    pool = make(max_children=8)
    slow = [threads.submit(taken, pool, environment="slow") for _ in range(5)]
    assert wait_until(lambda: so_many_wait(pool, 5), PATIENCE)
    assert taken(pool, environment="rag") == 0
    assert server.slow == 1
    server.may_come_up.set()
    assert len({waiting.result(PATIENCE) for waiting in slow}) >= 1
    assert pool.failure is None
