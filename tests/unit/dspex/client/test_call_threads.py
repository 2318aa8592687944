"""The threads of an `AsyncClient`: its own, bounded, and each call within its time, also while it waits for one."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from deploy.processes import free_port
from dspex.aio import AsyncClient
from dspex.client.call_threads import CallThreads
from dspex.client.deadline import left, within
from dspex.errors import BrokerUnavailable


def test_what_is_inside_has_no_more_time_than_what_is_around_it() -> None:
    assert left(5) == 5
    with within(60):
        assert 50 < left(100) <= 60
        assert left(5) == 5
        with within(1000):
            assert left(100) <= 60
        with within(0):
            assert left(5) == 0
        assert left(100) > 50
    assert left(100) == 100


def test_sixty_requests_without_a_broker_end_in_their_time_and_hold_up_nobody_else() -> None:
    async def main() -> tuple[float, float]:
        url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        began = time.monotonic()
        async with AsyncClient.connect(url, source="/tests", timeout=3) as client:
            asked: list[asyncio.Future[Any]] = [asyncio.ensure_future(client.get_program(uuid4())) for _ in range(30)]
            asked += [asyncio.ensure_future(client.execute_program(uuid4(), {}, timeout=3)) for _ in range(30)]
            await asyncio.sleep(0.2)
            looked_up = time.monotonic()
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            looked_up = time.monotonic() - looked_up
            errors = await asyncio.gather(*asked, return_exceptions=True)
            ended = time.monotonic() - began
        assert {type(error) for error in errors} == {BrokerUnavailable}
        return ended, looked_up

    ended, looked_up = asyncio.run(main())
    assert ended < 10  # with the loop's executor of this machine's size: 30 s
    assert looked_up < 2


def test_a_call_that_gets_no_thread_in_time_is_not_made() -> None:
    async def main() -> list[str]:
        made: list[str] = []
        free = threading.Event()
        threads = CallThreads(1)
        first = asyncio.ensure_future(threads.run(lambda: free.wait(30), 30))
        await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable, match="nothing was sent: all 1 threads"):
            await threads.run(lambda: made.append("late"), 0.1)
        cancelled = asyncio.ensure_future(threads.run(lambda: made.append("cancelled"), 30))
        waiting = asyncio.ensure_future(threads.run(lambda: made.append(f"{left(100) < 60}"), 60))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        free.set()
        assert await first
        await waiting
        return made

    assert asyncio.run(main()) == ["True"]


async def held(threads: CallThreads, free: threading.Event) -> asyncio.Future[bool]:
    """A call that has begun, and waits for the event."""
    begun = threading.Event()

    def wait() -> bool:
        begun.set()
        return free.wait(30)

    waiting = asyncio.ensure_future(threads.run(wait, 30))
    assert await asyncio.to_thread(begun.wait, 30)
    return waiting


def test_it_closes_and_leaves_behind_a_call_that_goes_on() -> None:
    async def main() -> None:
        free, threads = threading.Event(), CallThreads(1)
        waiting = await held(threads, free)
        in_time = threading.Timer(10, free.set)  # or this would hang, and not fail
        in_time.start()
        await threads.close(lambda: None)
        assert not free.is_set()
        in_time.cancel()
        free.set()
        assert await waiting

    asyncio.run(main())


def test_it_closes_while_all_threads_wait_and_takes_nothing_more() -> None:
    async def main() -> None:
        free, threads = threading.Event(), CallThreads(1)
        waiting = await held(threads, free)
        await threads.close(free.set)
        assert await waiting
        with pytest.raises(BrokerUnavailable, match="closed"):
            await threads.run(lambda: None, 1)

    asyncio.run(main())
