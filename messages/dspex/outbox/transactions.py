"""The transactions of a relay, which is a thread. With an `AsyncEngine`, they run on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import Connection, Engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Result = TypeVar("Result")


class Transactions(Protocol):
    """Runs work in transactions. Each commits if the work raises no error."""

    def begin_in_loop(self) -> None:
        """Remember the running event loop, if one is needed.

        Raises:
            RuntimeError: an event loop is needed, and none is running.
        """
        ...

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """Run work in a transaction, and wait for its result."""
        ...


def transactions_of(engine: Engine | AsyncEngine) -> Transactions:
    """The transactions of an engine."""
    sync = engine if isinstance(engine, Engine) else engine.sync_engine
    # With a stricter isolation level, a relay would fail if another has just changed a row.
    options = {"isolation_level": "READ COMMITTED"} if sync.dialect.name == "postgresql" else {}
    if isinstance(engine, Engine):
        return _Synchronous(engine.execution_options(**options))
    return _OnLoop(engine.execution_options(**options))


class _Synchronous:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin_in_loop(self) -> None:
        """Does nothing: no event loop is needed."""

    def run(self, work: Callable[[Connection], Result]) -> Result:
        with self._engine.begin() as connection:
            return work(connection)


class _OnLoop:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin_in_loop(self) -> None:
        self._loop = asyncio.get_running_loop()

    def run(self, work: Callable[[Connection], Result]) -> Result:
        if self._loop is None:
            raise RuntimeError("start the relay in the event loop of its AsyncEngine first")
        return asyncio.run_coroutine_threadsafe(self._run(work), self._loop).result()

    async def _run(self, work: Callable[[Connection], Result]) -> Result:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)
