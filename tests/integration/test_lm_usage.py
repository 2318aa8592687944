"""What a call came to: its price, and what the provider said of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.port import Adapter, Outcome, ProgramSpec, RunOptions
from adapters.prices import Prices
from dspex import LM, Configuration, Signature
from tests import lm_server
from tests.lm_server import Answer, LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

USED = {
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
    }
    with adapter_of(request.param, LMCatalog(aliases), lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


def run(adapter: Adapter, model: str, **options: Any) -> Outcome:
    program = ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=LM(model=model)))
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


def test_a_trace_tells_what_the_provider_said_of_each_call(adapter: Adapter, server: LMServer) -> None:
    server.script = using(USED)
    outcome = run(adapter, "priced", trace=True)
    (call,) = [step.details["call"] for step in outcome.trace or () if step.kind == "lm_call"]
    assert call == {
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
    (told,) = outcome.usage.lm_calls
    assert (told.cached_tokens, told.reasoning_tokens, told.finish_reason) == (400_000, 100_000, "stop")


@pytest.mark.parametrize("given", [(-1, 1, None), (1, float("nan"), None), (1, 1, float("inf"))])
def test_a_price_is_a_number_of_dollars(given: tuple[float, float, float | None]) -> None:
    with pytest.raises(ValueError, match="is a price of a million tokens"):
        Prices(*given)
