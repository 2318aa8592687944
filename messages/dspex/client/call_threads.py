"""The thread pool of an `AsyncClient`. It has its own, because the event loop's pool also serves DNS and files."""

from __future__ import annotations

import abc
import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from dspex.client.deadline import within
from dspex.client.interface import Interface
from dspex.errors import BrokerUnavailable
from dspex.forks import renew_in_child

P = ParamSpec("P")
Result = TypeVar("Result")

THREADS = 32
"""How many verbs run at a time. Waiting for an execution takes no thread."""


class CallThreads:
    """Runs calls in threads. The timeout of a call includes its wait for a free thread."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._closed = False
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="dspex-call")

    async def run(self, call: Callable[[], Result], timeout: float) -> Result:
        """Run a call in a thread and return its result.

        If the task is cancelled, it stops waiting; a call that has not begun is then never made.

        Raises:
            BrokerUnavailable: the call was not made, because no thread was free in time or the client is closed.
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
        if made.cancel():  # the call has not begun
            raise self._busy(timeout)
        return await waiting  # the call has begun, and ends by its own timeout

    async def close(self, last: Callable[[], None]) -> None:
        """Make a last call, without waiting for a free thread, and end the threads."""
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


class InThreads(abc.ABC):
    """Has verbs that run in threads.

    Attributes:
        client: what carries them out.
    """

    client: Interface

    @abc.abstractmethod
    async def _run(self, call: Callable[[], Result], timeout: float | None = None) -> Result:
        """The result of a call, which is made in a thread. `timeout`: seconds; None: the client's."""


def in_thread(
    verb: Callable[Concatenate[Interface, P], Result],
) -> Callable[Concatenate[InThreads, P], Coroutine[Any, Any, Result]]:
    """A verb of the interface, in a thread."""

    async def method(self: InThreads, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        timeout: Any = kwargs.get("timeout")
        return await self._run(functools.partial(verb, self.client, *args, **kwargs), timeout)

    functools.update_wrapper(method, verb)
    return method
