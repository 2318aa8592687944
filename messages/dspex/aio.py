"""The interface for asyncio: wraps the synchronous client, whose threads and one connection it shares.

    async with AsyncClient.connect("amqp://...", source="/orders") as dspex:
        handle = await dspex.submit_program(program_id, {"question": "..."})
        outputs = await handle.result(timeout=60)

The verbs are those of the synchronous client, run in a thread pool of its own (`dspex.client.async_verbs`). Waiting for
an execution takes no thread: it awaits a future. One `AsyncClient` serves a whole process. A task that is cancelled
stops waiting; the execution goes on.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from dspex.blobs.values import BLOBS
from dspex.client import completion
from dspex.client.async_verbs import AsyncVerbs
from dspex.client.call_threads import THREADS, CallThreads
from dspex.client.execution_verbs import IN_FLIGHT
from dspex.client.handles import Handle, Model, result_of
from dspex.client.interface import Interface
from dspex.contract.callback import Callback
from dspex.contract.options import ExecutionOptions
from dspex.contract.results import ExecutionView
from dspex.contract.status import ExecutionStatus

Result = TypeVar("Result")


class AsyncClient(AsyncVerbs):
    """The verbs of `dspex.client.interface.Interface`, to be awaited. For one event loop at a time.

    Args:
        client: carries the verbs out; `close` closes it, too.
        threads: how many verbs run at a time. Further ones wait for a thread; the wait counts towards their timeout.
    """

    def __init__(self, client: Interface, *, threads: int = THREADS) -> None:
        self.client = client
        self._threads = CallThreads(threads)

    @classmethod
    def connect(cls, url: str, *, source: str, threads: int = THREADS, **options: Any) -> Self:
        """A client over the broker; the other arguments are those of `dspex.client.RemoteClient`."""
        from dspex.client.remote import RemoteClient

        return cls(RemoteClient(url, source=source, **options), threads=threads)

    async def close(self) -> None:
        """Disconnect. Every wait fails; the executions themselves go on."""
        await self._threads.close(self.client.close)

    async def _run(self, call: Callable[[], Result], timeout: float | None = None) -> Result:
        return await self._threads.run(call, self.client.timeout if timeout is None else timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def submit_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> AsyncHandle:
        """See `ExecutionVerbs.submit_program`."""
        handle = await self.start_program(
            program_id,
            inputs,
            options=options,
            execution_id=execution_id,
            idempotency_key=idempotency_key,
            callback=callback,
            metadata=metadata,
            traceparent=traceparent,
            validate=validate,
            timeout=timeout,
        )
        await _done(handle.handle.pending.published)
        return handle

    async def start_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> AsyncHandle:
        """See `ExecutionVerbs.start_program`."""
        start = functools.partial(
            self.client.start_program,
            options=options,
            execution_id=execution_id,
            idempotency_key=idempotency_key,
            callback=callback,
            metadata=metadata,
            traceparent=traceparent,
            validate=validate,
            timeout=timeout,
        )
        return self._handle(await self._run(lambda: start(program_id, inputs), timeout))

    async def execute_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> ExecutionView:
        """See `ExecutionVerbs.execute_program`."""
        timeout = self.client.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        handle = await self.submit_program(
            program_id,
            inputs,
            options=options,
            execution_id=execution_id,
            idempotency_key=idempotency_key,
            callback=callback,
            metadata=metadata,
            traceparent=traceparent,
            validate=validate,
            timeout=timeout,
        )
        view = await handle.execution(deadline - time.monotonic())
        return await self._run(lambda: self.client.whole(view, inputs=False), timeout)

    async def handle(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> AsyncHandle:
        """See `ExecutionVerbs.handle`."""
        attach = functools.partial(self.client.handle, execution_id, idempotency_key=idempotency_key)
        return self._handle(await self._run(attach))

    def _handle(self, handle: Handle) -> AsyncHandle:
        return AsyncHandle(handle, self._run)

    async def map(
        self,
        program_id: UUID,
        rows: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
        options: ExecutionOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncHandle]:
        """See `ExecutionVerbs.map`. The rows may be asynchronous, too."""
        if in_flight < 1:
            raise ValueError("in_flight must be at least 1")
        window: deque[AsyncHandle] = deque()
        on_their_way: deque[Future[None]] = deque()
        finished: asyncio.Queue[AsyncHandle] = asyncio.Queue()

        async def take() -> AsyncHandle:
            handle = window[0] if ordered else await finished.get()
            await handle.wait()
            window.remove(handle)
            return handle

        try:
            async for row in _each(rows):
                handle = await self.start_program(
                    program_id,
                    row,
                    options=options,
                    metadata=metadata,
                    traceparent=traceparent,
                    validate=validate,
                    timeout=timeout,
                )
                window.append(handle)
                on_their_way.append(handle.handle.pending.published)
                if len(on_their_way) == completion.UNSTORED:
                    await _settled(on_their_way.popleft())
                if not ordered:
                    _tell(handle, finished)
                if len(window) == in_flight:
                    yield await take()
        except Exception:
            while window:
                yield await take()
            raise
        while window:
            yield await take()

    async def list_active_signatures(self) -> AsyncIterator[Any]:
        """See `Interface.list_active_signatures`."""
        pages = self.client.list_active_signatures()
        while (found := await self._run(lambda: next(pages, None))) is not None:
            yield found


class AsyncHandle:
    """See `dspex.client.handles.Handle`.

    Attributes:
        handle: the same, for threads.
    """

    def __init__(self, handle: Handle, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self.handle = handle
        self._run = run

    def __repr__(self) -> str:
        return repr(self.handle)

    @property
    def execution_id(self) -> UUID:
        """See `Handle.execution_id`."""
        return self.handle.execution_id

    def done(self) -> bool:
        """See `Handle.done`."""
        return self.handle.done()

    async def inputs(self) -> dict[str, Any]:
        """See `Handle.inputs`."""
        inputs: dict[str, Any] = await self._run(lambda: self.handle.inputs)
        return inputs

    async def status(self) -> ExecutionStatus:
        """See `Handle.status`."""
        status: ExecutionStatus = await self._run(self.handle.status)
        return status

    async def execution(self, timeout: float | None = None) -> ExecutionView:
        """See `Handle.execution`."""
        await self.wait(timeout)
        return self.handle.execution(0)

    @overload
    async def result(self, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    async def result(self, timeout: float | None = None, *, result_type: type[Model]) -> Model: ...
    async def result(
        self, timeout: float | None = None, *, result_type: type[Model] | None = None
    ) -> dict[str, Any] | Model:
        """See `Handle.result`."""
        view = await self.execution(timeout)
        if view.outputs is not None and BLOBS in view.outputs:
            whole = functools.partial(self.handle.result, 0)
            read: dict[str, Any] | Model = await self._run(
                whole if result_type is None else lambda: whole(result_type=result_type)
            )
            return read
        return result_of(view, result_type)

    async def cancel(self, *, traceparent: str | None = None) -> ExecutionView:
        """See `Handle.cancel`."""
        view: ExecutionView = await self._run(lambda: self.handle.cancel(traceparent=traceparent))
        return view

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the execution has ended, successfully or not.

        Raises:
            NoAnswer, PublishError: it has not ended in time; see `Handle.execution`.
        """
        ended = asyncio.wrap_future(self.handle.pending.ended)
        try:
            await asyncio.wait([ended], timeout=timeout)
        finally:
            late = ended.cancel()  # cancels only the wait: the future behind it cannot be cancelled
        if late:
            raise self.handle.pending.late(timeout)
        ended.exception()  # marks it as retrieved: it is raised where the result is asked for


async def as_completed(handles: Iterable[AsyncHandle], timeout: float | None = None) -> AsyncIterator[AsyncHandle]:
    """See `dspex.client.completion.as_completed`."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    held = set(handles)
    total = len(held)
    finished: asyncio.Queue[AsyncHandle] = asyncio.Queue()
    for handle in held:
        _tell(handle, finished)
    while held:
        left = None if deadline is None else max(0.0, deadline - loop.time())
        try:
            handle = await asyncio.wait_for(finished.get(), left)
        except TimeoutError:
            raise completion.late([handle.handle for handle in held], total, timeout) from None
        held.remove(handle)
        yield handle


def _tell(handle: AsyncHandle, finished: asyncio.Queue[AsyncHandle]) -> None:
    """Put the handle into the queue when its execution is done."""

    def tell(ended: asyncio.Future[ExecutionView]) -> None:
        ended.exception()  # marks it as retrieved: it is raised where the result is asked for
        finished.put_nowait(handle)

    asyncio.wrap_future(handle.handle.pending.ended).add_done_callback(tell)


async def _done(future: Future[Result]) -> Result:
    """Wait for a future. Cancelling the wait does not cancel the future."""
    return await asyncio.shield(asyncio.wrap_future(future))


async def _settled(future: Future[None]) -> None:
    """Wait until a future is done; its exception is not raised."""
    waiting = asyncio.wrap_future(future)
    await asyncio.wait([waiting])
    waiting.exception()  # marks it as retrieved: it is raised where the result is asked for


async def _each(rows: Iterable[Result] | AsyncIterable[Result]) -> AsyncIterator[Result]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
