"""A child that is forked while threads of its parent hold locks waits for none of them."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable

from dspex import Signature, model
from dspex.cached import cached
from dspex.client.call_threads import CallThreads


def in_child(call: Callable[[], object]) -> None:
    """Make a call in a forked child; it must end."""
    child = multiprocessing.get_context("fork").Process(target=call)
    child.start()
    child.join(30)
    ended = child.exitcode
    child.kill()
    assert ended == 0


class _Slow:
    begun = threading.Event()
    free = threading.Event()

    def __init__(self, slow: bool) -> None:
        self.slow = slow

    @cached
    def value(self) -> int:
        if self.slow:
            self.begun.set()
            self.free.wait(30)
        return 1


def test_a_value_that_another_thread_computes() -> None:
    thread = threading.Thread(target=lambda: _Slow(slow=True).value)
    thread.start()
    _Slow.begun.wait(30)
    in_child(lambda: _Slow(slow=False).value)
    _Slow.free.set()
    thread.join()


def _validate() -> None:
    signature = Signature.parse("only_in_this_test -> answer: list[int]")
    signature.validate_inputs({"only_in_this_test": "?"})


def test_a_model_that_another_thread_builds() -> None:
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with model._building:
            held.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)

    def build() -> None:
        class Own(model.Frozen):
            number: int

        assert Own(number=1).number == 1
        _validate()

    in_child(build)
    free.set()
    thread.join()


def test_the_threads_of_an_async_client() -> None:
    threads = CallThreads(1)

    async def ask() -> int:
        return await threads.run(lambda: 1, 30)

    assert asyncio.run(ask()) == 1
    in_child(lambda: asyncio.run(ask()))
