"""What a call came to: its price, and what the provider said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.own_modules import OwnModules
from adapters.port import Adapter, Outcome, ProgramSpec, RunOptions
from adapters.prices import Prices
from dspex import LM, Configuration, LMParameters, Signature
from tests import lm_server
from tests.lm_server import Answer, LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

SECRET = "sk-not-to-be-told"
USED: dict[str, Any] = {
    "prompt_tokens": 1_000_000,
    "completion_tokens": 500_000,
    "total_tokens": 1_500_000,
    "prompt_tokens_details": {"cached_tokens": 400_000, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 100_000, "audio_tokens": 0},
}


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    aliases = {
        "priced": LMAlias("openai/gpt-4o-mini", server.url, prices=Prices(input=2.0, output=8.0, cached=0.5)),
        "plain": LMAlias("openai/home-grown", server.url, prices=Prices(input=2.0, output=8.0)),
        "free": LMAlias("openai/home-grown", server.url, prices=Prices(input=0, output=0)),
        "listed": LMAlias("openai/gpt-4o-mini", server.url),
        "unknown": LMAlias("openai/home-grown", server.url),
        "keyed": LMAlias("openai/gpt-4o-mini", server.url, secret="LOCAL_API_KEY"),
    }
    catalog = LMCatalog(aliases, {"LOCAL_API_KEY": SECRET}.get)
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


def run(adapter: Adapter, model: str | LM, **options: Any) -> Outcome:
    lm = LM(model=model) if isinstance(model, str) else model
    program = ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=lm))
    return adapter.execute_program(adapter.create_program(program), {"question": "why"}, RunOptions("run", **options))


def using(usage: Any, model: str = "gpt-4o-mini-2024-07-18") -> lm_server.Script:
    def script(request: lm_server.Request) -> Answer:
        body = lm_server.completion(request, Answer("[[ ## answer ## ]]\nyes"))
        body |= {"usage": usage, "id": "chatcmpl-7", "model": model}
        return Answer(body=body, headers={"X-Request-Id": "req-42"})

    return script


def test_the_price_is_the_aliass_or_else_that_of_dspys_list_or_else_unknown(adapter: Adapter, server: LMServer) -> None:
    server.script = using(USED)
    costs = {model: run(adapter, model).usage.cost for model in ("priced", "plain", "free", "listed")}
    assert costs == {
        "priced": pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8),
        "plain": pytest.approx(1 * 2 + 0.5 * 8),
        "free": 0,
        "listed": pytest.approx(0.6 * 0.15 + 0.4 * 0.075 + 0.5 * 0.60, rel=1e-3),
    }
    server.script = using(USED, "home-grown")
    unknown = run(adapter, "unknown").usage
    assert (unknown.cost, unknown.input_tokens) == (None, 1_000_000)
    for missing in (None, {}, {"prompt_tokens": 5}):
        server.script = using(missing)
        assert run(adapter, "priced").usage.cost is None


TOLD = {
    "input_tokens": 1_000_000,
    "output_tokens": 500_000,
    "cost": pytest.approx(5.4),
    "cached_tokens": 400_000,
    "reasoning_tokens": 100_000,
    "finish_reason": "stop",
    "input_audio_tokens": 7,
    "output_audio_tokens": 0,
    "request_id": "req-42",
    "model_version": "gpt-4o-mini-2024-07-18",
}


def test_usage_and_trace_tell_what_the_provider_said_of_each_call(adapter: Adapter, server: LMServer) -> None:
    server.script = using(USED)
    outcome = run(adapter, "priced", trace=True)
    (step,) = [step.details["call"] for step in outcome.trace or () if step.kind == "lm_call"]
    (call,) = outcome.usage.lm_calls
    assert step == TOLD
    assert call.model_dump(exclude_none=True) == {"model": "openai/gpt-4o-mini", "cached": False, **TOLD}


def test_each_of_several_completions_has_the_providers_name(adapter: Adapter, server: LMServer) -> None:
    def script(request: lm_server.Request) -> Answer:
        return replace(using(USED)(request), headers={"request-id": f"req-{len(server.requests)}"})

    server.script = script
    lm = LM(model="priced", parameters=LMParameters(n=3, temperature=1.0))
    assert [call.request_id for call in run(adapter, lm).usage.lm_calls] == ["req-1", "req-2", "req-3"]


STREAMING = """
import dspy

class Streaming(dspy.Module):
    def __init__(self):
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        told = dspy.streamify(self.answer, async_streaming=False)(question=question)
        return [part for part in told if isinstance(part, dspy.Prediction)][-1]
"""


def streamed(_: lm_server.Request) -> Answer:
    def event(*choices: Any, **more: Any) -> str:
        told = {"id": "chatcmpl-7", "model": "gpt-4o-mini-2024-07-18", "choices": choices} | more
        return f"data: {json.dumps(told)}\n\n"

    body = event({"index": 0, "delta": {"role": "assistant", "content": "[[ ## answer ## ]]\nyes"}})
    body += event({"index": 0, "delta": {}, "finish_reason": "stop"}) + event(usage=USED) + "data: [DONE]\n\n"
    return Answer(body=body.encode(), headers={"X-Request-Id": "req-42", "Content-Type": "text/event-stream"})


def test_a_streamed_answer_tells_as_much(server: LMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "streaming.py").write_text(STREAMING, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    server.script = streamed
    catalog = LMCatalog({"priced": LMAlias("openai/gpt-4o-mini", server.url, prices=Prices(2.0, 8.0, 0.5))})
    configuration = Configuration(module="streaming:Streaming", lm=LM(model="priced"))
    code = OwnModules(("streaming:*",)).find("streaming:Streaming")
    program = ProgramSpec("native", Signature.parse("question -> answer"), configuration, code=code)
    with closing(NativeAdapter(catalog)) as native:
        outcome = native.execute_program(native.create_program(program), {"question": "why"}, RunOptions("run"))
    (call,) = outcome.usage.lm_calls
    assert call.model_dump(exclude_none=True) == {"model": "openai/gpt-4o-mini", "cached": False, **TOLD}


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ({"x-request-id": f"a {SECRET} b"}, {}, "a *** b"),
        ({"x-request-id": "x" * 10_000}, {}, "x" * 200),
        ({}, {"id": f"{SECRET}\0\n\ud83d\u202e"}, "***\ufffd \ufffd\ufffd"),
        ({}, {"id": ["x"]}, "['x']"),
        ({}, {"id": None}, None),
    ],
)
def test_what_a_server_calls_itself_is_short_printable_and_without_the_key(
    adapter: Adapter, server: LMServer, header: dict[str, str], body: dict[str, Any], expected: str | None
) -> None:
    def script(request: lm_server.Request) -> Answer:
        told = {"usage": USED, "id": "1"} | body | {"model": body.get("id", "m")}
        return Answer(body=lm_server.completion(request, Answer("[[ ## answer ## ]]\nyes")) | told, headers=header)

    server.script = script
    (call,) = run(adapter, "keyed").usage.lm_calls
    assert call.request_id == expected
    if not header and isinstance(body["id"], str):
        assert call.model_version == expected


def test_a_good_answer_after_which_nothing_is_left(adapter: Adapter, server: LMServer) -> None:
    told = {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "7s"}
    for left, seconds in (("0", 7.0), ("1", None)):
        answer = Answer("[[ ## answer ## ]]\nyes", headers=told | {"x-ratelimit-remaining-requests": left})
        server.script = partial(_always, answer)
        assert run(adapter, "listed").exhausted_for == seconds


def _always(answer: Answer, _: lm_server.Request) -> Answer:
    return answer


@pytest.mark.parametrize("given", [(-1, 1, None), (1, float("nan"), None), (1, 1, float("inf"))])
def test_a_price_is_a_number_of_dollars(given: tuple[float, float, float | None]) -> None:
    with pytest.raises(ValueError, match="is a price of a million tokens"):
        Prices(*given)
