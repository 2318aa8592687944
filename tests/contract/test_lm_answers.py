"""The adapters that call an LM, and everything that an LM's server may answer with: the same from each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.contract import wait_until
from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.port import Adapter, AdapterError, Outcome, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, Signature
from tests import lm_server
from tests.lm_server import LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

SECRET = "sk-not-to-be-told"
SPEC = ProgramSpec("any", Signature.parse("question -> answer"), Configuration(lm=LM(model="local")))


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", server.url, "LOCAL_KEY")}, {"LOCAL_KEY": SECRET}.get)
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


def run(adapter: Adapter, options: RunOptions | None = None) -> Outcome:
    return adapter.execute_program(adapter.create_program(SPEC), {"question": "why"}, options or RunOptions("run"))


ERRORS = {
    "401": (lm_server.unauthorized, ErrorCode.AUTH, None, "invalid_api_key"),
    "402": (lm_server.error(402), ErrorCode.BILLING, None, None),
    "403": (lm_server.error(403), ErrorCode.AUTH, None, None),
    "404": (lm_server.unknown_model, ErrorCode.PERMANENT, None, "model_not_found"),
    "408": (lm_server.error(408), ErrorCode.TIMEOUT, None, None),
    "429": (lm_server.rate_limited(), ErrorCode.RATE_LIMITED, None, "rate_limit_exceeded"),
    "429 with Retry-After": (lm_server.rate_limited(7), ErrorCode.RATE_LIMITED, 7.0, "rate_limit_exceeded"),
    "429 without money": (lm_server.out_of_quota, ErrorCode.BILLING, None, "insufficient_quota"),
    "500": (lm_server.server_error, ErrorCode.TRANSIENT, None, None),
    "503": (lm_server.error(503), ErrorCode.TRANSIENT, None, None),
    "a prompt that is too long": (lm_server.context_too_long, ErrorCode.CONTEXT_WINDOW, None, None),
    "a filter": (lm_server.filtered, ErrorCode.REFUSED, None, "content_filter"),
    "a connection that is cut": (lm_server.cut_off, ErrorCode.TRANSIENT, None, None),
    "malformed JSON": (lm_server.malformed, ErrorCode.TRANSIENT, None, None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_its_code_and_is_not_retried(adapter: Adapter, server: LMServer, name: str) -> None:
    server.script, code, retry_after, provider_code = ERRORS[name]
    with pytest.raises(AdapterError) as caught:
        run(adapter)
    error = caught.value
    assert (error.code, error.retry_after) == (code, retry_after)
    assert provider_code in (None, error.provider_code)
    assert error.usage.calls == len(server.requests) == 1
    assert SECRET not in f"{error} {vars(error)}"
    server.script = lm_server.fitting
    assert run(adapter).outputs["answer"]


def test_an_answer_that_comes_slowly_is_read(adapter: Adapter, server: LMServer) -> None:
    server.script = lm_server.streamed(pieces=20, pause=0.01)
    assert run(adapter).outputs["answer"]


def test_an_answer_of_10_mb_is_read(adapter: Adapter, server: LMServer) -> None:
    server.script = lm_server.large(10_000_000)
    outcome = run(adapter)
    assert len(outcome.outputs["answer"]) == 10_000_000
    assert outcome.usage.output_tokens


def test_10_mb_that_cannot_be_read_are_quoted_in_part(adapter: Adapter, server: LMServer) -> None:
    server.script = lm_server.text("x" * 10_000_000)
    with pytest.raises(AdapterError) as caught:
        run(adapter)
    assert caught.value.code is ErrorCode.PARSE_FAILURE
    assert len(caught.value.message) < 1_000


UNREADABLE = {
    "braces": "{" * 50_000,
    "brackets": "[" * 50_000,
    "braces in an object": '{"answer": ' * 10_000,
    "both in turn": "{[(" * 20_000,
    "both, closed by the other": "{]1true" * 10_000,
    "words between braces": "{x " * 20_000,  # these took 96 s
    "quotes between braces": "{'" * 20_000,
    "closed at last": "{" * 20_000 + "}" * 20_000,
    "small objects, many": ("{x " * 60 + "}" * 60) * 2_000,
    "quotes": '"' * 100_000,
    "quotes in quotes": '["```' * 20_000,
    "a number": "9" * 1_000_000,
    "a number in an object": '{"answer": "x", "counts": ' + "9" * 1_000_000 + "}",
    "minuses": "-" * 50_000,
    "escape sequences": "\x1b[31m" * 50_000,
    "comments": "{" + "/*" * 50_000,
    "smart quotes": "{" + "\u201c" * 50_000,
    "headers": "[[ ## answer ## ]]\n" * 20_000,
    "nothing": "",
}


@pytest.mark.parametrize("section", [False, True], ids=["alone", "in its section"])
@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_no_answer_is_read_for_long(adapter: Adapter, server: LMServer, text: str, section: bool) -> None:
    spec = ProgramSpec("any", Signature.parse("question -> answer, counts: dict[str, list[int]]"), SPEC.configuration)
    head = "[[ ## answer ## ]]\nx\n[[ ## counts ## ]]\n" if section else ""
    server.script = lm_server.text(head + text)
    backend_id = adapter.create_program(spec)
    started = time.monotonic()
    with pytest.raises(AdapterError) as caught:
        adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run"))
    assert caught.value.code is ErrorCode.PARSE_FAILURE
    assert caught.value.usage.calls == len(server.requests) == 2
    assert len(caught.value.message) < 1_000
    assert time.monotonic() - started < 30  # most take milliseconds, and none two seconds


def test_json_that_is_clear_is_read(adapter: Adapter, server: LMServer) -> None:
    spec = ProgramSpec("any", Signature.parse("question -> answer, counts: dict[str, list[int]]"), SPEC.configuration)
    right = {"answer": "x", "counts": {"a": [1, 2]}}
    for told in (
        '{"answer": "x", "counts": {"a": [1, 2]}}',
        'Here it is:\n```json\n{"answer": "x", "counts": {"a": [1, 2]}}\n```\nAnything else?',
        "{'answer': 'x', 'counts': {'a': [1, 2]},}",
        '[1] {"answer": "x", "counts": {"a": [1, 2]}}',
        "[[ ## answer ## ]]\nx\n[[ ## counts ## ]]\n{'a': (1, 2)}",
    ):
        server.script = lm_server.text(told)
        outcome = adapter.execute_program(adapter.create_program(spec), {"question": "why"}, RunOptions("run"))
        assert outcome.outputs == right, told


def test_an_answer_that_never_ends_is_ended_where_runs_can_be_stopped(adapter: Adapter, server: LMServer) -> None:
    server.script = lm_server.dripping()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, adapter, RunOptions("run", timeout=2))
        wait_until(lambda: len(server.requests) == 1 or future.done())
        if isinstance(adapter, NativeAdapter):
            server.closing.set()  # its timeout is advisory: every byte came in time
        error = future.exception(60)
    assert isinstance(error, AdapterError)
    assert error.code is (ErrorCode.TRANSIENT if isinstance(adapter, NativeAdapter) else ErrorCode.TIMEOUT)
    assert error.usage.calls >= len(server.requests)
