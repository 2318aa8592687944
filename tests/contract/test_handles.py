"""Executions that are submitted and not waited for, one suite: in process and over RabbitMQ, threads and asyncio."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

import pydantic
import pytest

from dspex import Configuration, DspexError, ExecutionStatus, uuid7
from dspex.aio import AsyncClient, AsyncHandle
from dspex.aio import as_completed as async_as_completed
from dspex.client.completion import as_completed
from dspex.client.interface import Interface
from dspex.contract.results import ExecutionError
from dspex.errors import (
    InvalidInput,
    InvalidMessage,
    InvalidOutput,
    InvalidValues,
    NoAnswer,
    RequestFailed,
)
from tests.contract.interface import ARROW, SLOW, code_of, ready
from tests.waiting import wait_until

PATIENCE = 60.0

Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run it in an event loop, and not for ever."""

    async def bounded() -> Result:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    return asyncio.run(bounded())


def broken_rows() -> Iterator[dict[str, Any]]:
    """Six rows, and then an error where the others should be."""
    for number in range(6):
        yield {"question": f"{number}"}
    raise OSError("there are no more rows")


class Scored(pydantic.BaseModel):
    """The outputs of `ARROW`, as a caller would write them."""

    answer: str
    score: float


class TestHandles:
    def test_it_is_there_at_once_and_its_result_later(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 300}))
        handle = dspex.submit_program(program.program_id, {"question": "why?"})
        assert not handle.done()
        assert handle.status() in (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
        outputs = handle.result(timeout=PATIENCE)
        assert set(outputs) == {"answer", "score"}
        assert handle.done()
        assert handle.status() == ExecutionStatus.COMPLETED
        assert handle.inputs == {"question": "why?"}
        assert handle.execution() == dspex.get_execution(handle.execution_id)

    def test_who_does_not_wait_long_enough_can_wait_again(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 500}))
        handle = dspex.submit_program(program.program_id, {"question": "why?"})
        with pytest.raises(NoAnswer, match=str(handle.execution_id)):
            handle.result(timeout=0.01)
        assert handle.result(timeout=PATIENCE)

    def test_a_failure_is_raised_with_its_code(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"fail": {"refused": "always"}}))
        handle = dspex.submit_program(program.program_id, {"question": "?"})
        with pytest.raises(ExecutionError, match=str(handle.execution_id)) as failed:
            handle.result(timeout=PATIENCE)
        assert failed.value.code == "refused"
        assert failed.value.execution == handle.execution()
        assert handle.status() == ExecutionStatus.FAILED

    def test_it_is_cancelled(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=SLOW)
        handle = dspex.submit_program(program.program_id, {"question": "?"})
        wait_until(lambda: handle.status() == ExecutionStatus.RUNNING, "it runs")
        assert handle.cancel().cancel_requested
        assert code_of(lambda: handle.result(timeout=PATIENCE)) == "cancelled"

    def test_another_handle_is_had_by_the_id(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 200}))
        execution_id = dspex.submit_program(program.program_id, {"question": "?"}).execution_id
        gc.collect()  # the first handle is forgotten
        wait_until(lambda: bool(dspex.list_executions(program_id=program.program_id).items), "a worker has it")
        again = dspex.handle(execution_id)
        assert again.inputs == {"question": "?"}
        outputs = again.result(timeout=PATIENCE)
        assert dspex.handle(execution_id).result(timeout=PATIENCE) == outputs  # it has ended

    def test_one_of_no_execution_says_so(self, dspex: Interface) -> None:
        handle = dspex.handle(uuid7())
        assert code_of(handle.status) == "not_found"
        assert code_of(handle.cancel) == "not_found"
        with pytest.raises(NoAnswer, match="is there one"):
            handle.result(timeout=0.1)

    def test_a_duplicate_of_one_that_runs_gets_the_same_result(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 500}))
        execution_id = uuid7()
        handles = [
            dspex.submit_program(program.program_id, {"question": "?"}, execution_id=execution_id) for _ in range(3)
        ]
        assert len({str(handle.result(timeout=PATIENCE)) for handle in handles}) == 1
        assert dspex.get_stats(program.program_id).execution_count == 1

    def test_an_idempotency_key_leads_to_the_first_execution(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 200}))
        key = f"order {uuid4()}"
        first = dspex.submit_program(program.program_id, {"question": "?"}, idempotency_key=key)
        second = dspex.submit_program(program.program_id, {"question": "?"}, idempotency_key=key)
        third = dspex.handle(idempotency_key=key)
        views = [handle.execution(timeout=PATIENCE) for handle in (first, second, third)]
        assert views[0] == views[1] == views[2]
        assert {handle.execution_id for handle in (first, second, third)} == {views[0].execution_id}
        other = dspex.submit_program(program.program_id, {"question": "other"}, idempotency_key=key)
        assert code_of(lambda: other.result(timeout=PATIENCE)) == "conflict"

    def test_what_is_refused_is_raised_when_it_is_waited_for(self, dspex: Interface) -> None:
        handle = dspex.submit_program(uuid4(), {"question": "?"}, validate=False)
        with pytest.raises(RequestFailed):
            handle.result(timeout=PATIENCE)
        assert handle.done()
        assert code_of(handle.execution) == "not_found"

    def test_inputs_that_do_not_fit_are_not_sent(self, dspex: Interface) -> None:
        program = ready(dspex)
        with pytest.raises(InvalidInput) as refused:
            dspex.submit_program(program.program_id, {"question": 1, "k": "3", "extra": True})
        assert {problem.field for problem in refused.value.problems} == {"question", "k", "extra"}
        assert code_of(lambda: dspex.execute_program(program.program_id, {})) == "invalid_input"
        assert code_of(lambda: dspex.submit_program(uuid4(), {"question": "?"})) == "not_found"
        with pytest.raises(InvalidInput, match="inputs"):
            dspex.submit_program(program.program_id, {"question": object()}, validate=False)
        assert not dspex.list_executions(program_id=program.program_id).items

    @pytest.mark.parametrize("inputs", [None, "why?", ["why?"]])
    def test_inputs_that_are_no_mapping_are_not_sent(self, dspex: Interface, inputs: Any) -> None:
        program = ready(dspex)
        for validate in (True, False):
            with pytest.raises(InvalidInput, match=f"inputs: must be a mapping .*{type(inputs).__name__}"):
                dspex.submit_program(program.program_id, inputs, validate=validate)
        asked = list(dspex.map(program.program_id, [inputs, {"question": "?"}]))
        assert [code_of(asked[0].result), len(asked[1].result())] == ["invalid_input", 2]
        assert code_of(lambda: asked[0].inputs) == "invalid_input"

    def test_text_that_is_not_unicode_is_not_sent(self, dspex: Interface) -> None:
        program = ready(dspex)
        inputs = {"question": "half of a pair: \ud83d"}
        assert code_of(lambda: dspex.submit_program(program.program_id, inputs)) == "invalid_input"
        assert code_of(lambda: dspex.submit_program(program.program_id, inputs, validate=False)) == "invalid_message"
        asked = list(dspex.map(program.program_id, [inputs, {"question": "?"}], validate=False))
        assert [code_of(asked[0].result), len(asked[1].result())] == ["invalid_message", 2]

    def test_many_threads_share_a_client(self, dspex: Interface) -> None:
        program = ready(dspex)

        def ask(number: int) -> dict[str, Any]:
            return dspex.submit_program(program.program_id, {"question": f"{number % 50}"}).result(timeout=PATIENCE)

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(ask, range(200)))
        assert answers[:50] * 4 == answers
        assert dspex.get_stats(program.program_id).execution_count == 200


WRONG: dict[str, Callable[[Any], object]] = {
    "program_id: ": lambda dspex: dspex.submit_program("qa", {"question": "?"}),
    "execution_id: ": lambda dspex: dspex.submit_program(uuid4(), {}, execution_id="first", validate=False),
    "give execution_id or idempotency_key": lambda dspex: dspex.handle(),
    "colour: is not a known field": lambda dspex: dspex.list_executions(colour="red"),
    "limit: ": lambda dspex: dspex.list_executions(limit=10**6),
    "name: ": lambda dspex: dspex.create_program("", ARROW),
    "lock_version: ": lambda dspex: dspex.update_program(uuid4(), Configuration(), lock_version=0),
    "url: ": lambda dspex: dspex.register_endpoint({"url": "ftp://orders", "secret": "ORDERS_WEBHOOK_SECRET"}),
}


@pytest.mark.parametrize("problem", WRONG)
def test_an_argument_that_cannot_be_is_named(dspex: Interface, problem: str) -> None:
    with pytest.raises(InvalidValues, match=problem) as caught:
        WRONG[problem](dspex)
    assert caught.value.code == "invalid_values"

    async def main() -> None:
        client = AsyncClient(dspex)
        with pytest.raises(InvalidValues, match="program_id: "):
            await client.get_program("qa")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    run(main())


TRACED: dict[str, Callable[[Any, str], object]] = {
    "submit": lambda dspex, trace: dspex.submit_program(uuid4(), {}, traceparent=trace, validate=False),
    "execute": lambda dspex, trace: dspex.execute_program(uuid4(), {}, traceparent=trace, validate=False),
    "map": lambda dspex, trace: next(dspex.map(uuid4(), [{}], traceparent=trace, validate=False)).result(),
    "initialize": lambda dspex, trace: dspex.initialize_program(uuid4(), traceparent=trace),
    "update": lambda dspex, trace: dspex.update_program(uuid4(), Configuration(), traceparent=trace),
    "cancel": lambda dspex, trace: dspex.cancel_execution(uuid4(), traceparent=trace),
    "cancel a handle": lambda dspex, trace: dspex.handle(uuid4()).cancel(traceparent=trace),
    "replay executions": lambda dspex, trace: dspex.replay_executions([uuid4()], traceparent=trace),
    "discard executions": lambda dspex, trace: dspex.discard_executions([uuid4()], traceparent=trace),
    "replay messages": lambda dspex, trace: dspex.replay_messages(queue="none", traceparent=trace),
    "discard messages": lambda dspex, trace: dspex.discard_messages(queue="none", traceparent=trace),
    "replay deliveries": lambda dspex, trace: dspex.replay_deliveries(uuid4(), traceparent=trace),
    "quick": lambda dspex, trace: dspex.quick_execute(ARROW, {"question": "?"}, traceparent=trace),
}


@pytest.mark.parametrize("verb", TRACED)
def test_what_starts_something_takes_a_traceparent(dspex: Interface, verb: str) -> None:
    assert code_of(lambda: TRACED[verb](dspex, "not a traceparent")) == "invalid_message"

    async def main() -> None:
        client = AsyncClient(dspex)
        with pytest.raises(InvalidMessage):
            await client.execute_program(uuid4(), {}, traceparent="none", validate=False)
        handles = client.map(uuid4(), [{}], traceparent="none", validate=False)
        assert [type(handle.handle.pending.ended.exception()) async for handle in handles] == [InvalidMessage]

    run(main())


class TestTypedResults:
    def test_as_a_model_of_the_callers(self, dspex: Interface) -> None:
        program = ready(dspex)
        handle = dspex.submit_program(program.program_id, {"question": "?"})
        scored = handle.result(timeout=PATIENCE, result_type=Scored)
        assert scored.model_dump() == handle.result()

        class Other(pydantic.BaseModel):
            answer: int

        with pytest.raises(InvalidOutput, match="answer: "):
            handle.result(result_type=Other)

    def test_as_the_model_of_the_signature(self, dspex: Interface) -> None:
        program = ready(dspex, "question -> answer: list[str], copy: bool, class: Literal['a', 'b']")
        handle = dspex.submit_program(program.program_id, {"question": "?"})
        outputs: Any = handle.result(timeout=PATIENCE, result_type=dspex.output_model(program.program_id))
        assert isinstance(outputs.answer, list)
        assert isinstance(outputs.copy_, bool)
        assert outputs.class_ in ("a", "b")
        assert outputs.model_dump(by_alias=True) == handle.result()


class TestMany:
    def test_each_when_it_is_done(self, dspex: Interface) -> None:
        slow, fast = (
            ready(dspex, configuration=Configuration(parameters={"latency_ms": latency})) for latency in (1500, 0)
        )
        late = dspex.submit_program(slow.program_id, {"question": "?"})
        soon = [dspex.submit_program(fast.program_id, {"question": f"{n}"}) for n in range(5)]
        done = list(as_completed([late, *soon], timeout=PATIENCE))
        assert done[-1] is late
        assert set(done) == {late, *soon}
        endless = dspex.submit_program(ready(dspex, configuration=SLOW).program_id, {"question": "?"})
        with pytest.raises(NoAnswer, match="1 of 2 executions"):
            list(as_completed([late, endless], timeout=0.2))
        endless.cancel()

    def test_rows_in_their_order_and_no_more_than_may_be_in_flight(self, dspex: Interface) -> None:
        program = ready(dspex)
        taken = itertools.count()

        def rows() -> Iterator[dict[str, Any]]:
            for number in range(40):
                next(taken)
                yield {"question": f"{number}"}

        results = dspex.map(program.program_id, rows(), in_flight=8)
        assert next(taken) == 0  # nothing is taken before it is asked for
        first = next(results)
        assert first.inputs == {"question": "0"}
        assert next(taken) == 1 + 8
        others = list(results)
        assert [handle.inputs["question"] for handle in others] == [f"{number}" for number in range(1, 40)]
        assert all(handle.done() and handle.result() for handle in others)

    def test_rows_as_they_are_done_each_with_its_own_failure(self, dspex: Interface) -> None:
        fail = {"parameters": {"fail": {"refused": [{"question": "3"}]}}}
        program = ready(dspex, configuration=Configuration.model_validate(fail))
        rows: list[dict[str, Any]] = [{"question": str(number)} for number in range(10)]
        rows[5] = {"question": 5}
        codes: dict[str, str] = {}
        for handle in dspex.map(program.program_id, rows, in_flight=4, ordered=False):
            try:
                codes[str(handle.inputs["question"])] = str(len(handle.result()))
            except DspexError as error:
                codes[str(handle.inputs["question"])] = error.code
        assert codes == {str(number): "2" for number in range(10)} | {"3": "refused", "5": "invalid_input"}

    @pytest.mark.parametrize("ordered", [True, False])
    def test_where_no_more_rows_come_those_that_were_started_are_given_out_first(
        self, dspex: Interface, ordered: bool
    ) -> None:
        program = ready(dspex)
        given: list[str] = []

        def collect() -> None:
            for handle in dspex.map(program.program_id, broken_rows(), in_flight=4, ordered=ordered):
                given.append(str(handle.inputs["question"]))
                assert handle.result(timeout=PATIENCE)

        with pytest.raises(OSError, match="no more"):
            collect()
        assert sorted(given) == ["0", "1", "2", "3", "4", "5"]

    def test_who_leaves_early_leaves_nothing_half_done(self, dspex: Interface) -> None:
        program = ready(dspex)
        taken = itertools.count()
        rows = ({"question": f"{next(taken)}"} for _ in range(10_000))
        handles = dspex.map(program.program_id, rows, in_flight=8)
        first = [next(handles) for _ in range(3)]
        handles.close()  # type: ignore[attr-defined]  # what the end of a loop does
        started = next(taken)
        assert len(first) < started <= len(first) + 8
        wait_until(lambda: dspex.get_stats(program.program_id).execution_count == started, "what was started ends")


class TestAsync:
    """The same by asyncio: what is tested above is the same code."""

    def test_the_whole_way(self, dspex: Interface) -> None:
        async def main() -> None:
            client = AsyncClient(dspex)
            program = await client.create_program("p", ARROW, adapter_type="mock")
            await client.initialize_program(program.program_id)
            handle = await client.submit_program(program.program_id, {"question": "?"})
            scored = await handle.result(timeout=PATIENCE, result_type=Scored)
            view = await client.execute_program(program.program_id, {"question": "?"})
            assert view.outputs == scored.model_dump()
            again = await client.handle(handle.execution_id)
            assert await again.execution(timeout=PATIENCE) == await client.get_execution(handle.execution_id)
            assert await again.status() == ExecutionStatus.COMPLETED
            assert await again.inputs() == {"question": "?"}
            with pytest.raises(InvalidInput):
                await client.submit_program(program.program_id, {})
            refused = await client.submit_program(uuid4(), {}, validate=False)
            with pytest.raises(RequestFailed):
                await refused.result(timeout=PATIENCE)

        run(main())

    def test_a_wait_that_is_cancelled_or_too_short_leaves_the_execution(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 500}))

        async def main() -> None:
            client = AsyncClient(dspex)
            handle = await client.submit_program(program.program_id, {"question": "?"})
            waiting = asyncio.ensure_future(handle.result())
            with pytest.raises(NoAnswer):
                await handle.result(timeout=0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await handle.result(timeout=PATIENCE)

        run(main())

    def test_a_running_one_is_cancelled(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=SLOW)

        async def main() -> str:
            handle = await AsyncClient(dspex).submit_program(program.program_id, {"question": "?"})
            while await handle.status() != ExecutionStatus.RUNNING:
                await asyncio.sleep(0.05)
            await handle.cancel()
            with pytest.raises(ExecutionError) as cancelled:
                await handle.result(timeout=PATIENCE)
            return cancelled.value.code

        assert run(main()) == "cancelled"

    def test_many(self, dspex: Interface) -> None:
        program = ready(dspex)

        async def rows() -> AsyncIterator[dict[str, Any]]:
            for number in range(20):
                yield {"question": f"{number}"}

        async def questions(handles: AsyncIterator[AsyncHandle]) -> list[str]:
            return [(await handle.inputs())["question"] async for handle in handles]

        async def main() -> None:
            client = AsyncClient(dspex)
            names = [f"{number}" for number in range(20)]
            assert await questions(client.map(program.program_id, rows(), in_flight=4)) == names
            listed = [{"question": name} for name in names]
            unordered = client.map(program.program_id, listed, in_flight=4, ordered=False)
            assert sorted(await questions(unordered)) == sorted(names)
            handles = [await client.submit_program(program.program_id, row) for row in listed]
            done = async_as_completed(handles, timeout=PATIENCE)
            assert {handle.execution_id async for handle in done} == {handle.execution_id for handle in handles}

        run(main())

    @pytest.mark.parametrize("ordered", [True, False])
    def test_where_no_more_rows_come_those_that_were_started_are_given_out_first(
        self, dspex: Interface, ordered: bool
    ) -> None:
        program = ready(dspex)
        given: list[str] = []

        async def main() -> None:
            handles = AsyncClient(dspex).map(program.program_id, broken_rows(), in_flight=4, ordered=ordered)
            async for handle in handles:
                inputs = await handle.inputs()
                given.append(inputs["question"])

        with pytest.raises(OSError, match="no more"):
            run(main())
        assert sorted(given) == ["0", "1", "2", "3", "4", "5"]

    def test_many_tasks_at_once(self, dspex: Interface) -> None:
        program = ready(dspex)
        before = threading.active_count()

        async def main() -> None:
            client = AsyncClient(dspex)
            ask = [
                client.execute_program(program.program_id, {"question": f"{n}"}, timeout=PATIENCE) for n in range(100)
            ]
            views = await asyncio.gather(*ask)
            assert {view.status for view in views} == {ExecutionStatus.COMPLETED}
            assert threading.active_count() < before + 50  # nothing waits in a thread

        run(main())
