"""The threads in which the verbs of an `AsyncClient` run. They are its own: the loop's serve DNS, files and others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dspex.client.deadline import within
from dspex.errors import BrokerUnavailable
from dspex.forks import renew_in_child

Result = TypeVar("Result")

THREADS = 32
"""Verbs that run at a time; an execution is not waited for in a thread."""


class CallThreads:
    """Runs calls, each within its time: what it waits for a free thread is part of it."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._closed = False
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="dspex-call")

    async def run(self, call: Callable[[], Result], timeout: float) -> Result:
        """The result of a call.

        A task that is cancelled does not wait for it any more; where it has not begun, it never does.

        Raises:
            BrokerUnavailable: no thread was free in time, or all is closed: the call was not made.
        """
        deadline = time.monotonic() + timeout

        def begin() -> Result:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._busy(timeout)
            with within(left):
                return call()

        if self._closed:
            raise BrokerUnavailable("the client is closed: make a new one")
        made = self._executor.submit(begin)
        waiting = asyncio.wrap_future(made)
        try:
            await asyncio.wait([waiting], timeout=timeout)
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        if made.cancel():  # it has not begun
            raise self._busy(timeout)
        return await waiting  # its own time is over: it ends

    async def close(self, last: Callable[[], None]) -> None:
        """Make a last call, which does not wait for a free thread, and end the threads."""
        self._closed = True
        closing = ThreadPoolExecutor(1, thread_name_prefix="dspex-close")
        try:
            await asyncio.get_running_loop().run_in_executor(closing, last)
        finally:
            closing.shutdown(wait=False)
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _busy(self, timeout: float) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"nothing was sent: all {self._threads} threads of this client were waiting for {timeout:g} s"
        )
