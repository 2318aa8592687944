"""Answers of the wrong shape: read where the text of the LM is there, else a fault of the provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.port import Adapter, AdapterError, ProgramSpec, RunOptions
from dspex import LM, Configuration, Signature
from tests.lm_server import Answer, LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

SPEC = ProgramSpec("any", Signature.parse("question -> answer"), Configuration(lm=LM(model="local")))
TEXT = "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
GOOD = {"role": "assistant", "content": TEXT}


def answer(message: Any = GOOD, **more: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]} | more


NO_ANSWERS: dict[str, tuple[Any, str]] = {
    "a list": ([], "transient"),
    "a list of answers": ([answer()], "transient"),
    "a number": (5, "transient"),
    "a text": ("hello", "transient"),
    "null": (None, "transient"),
    "true": (True, "transient"),
    "choices that are text": ({"choices": "x"}, "transient"),
    "an empty object": ({}, "parse_failure"),
    "no choices": ({"id": "1", "object": "chat.completion"}, "parse_failure"),
    "choices that are null": ({"choices": None}, "parse_failure"),
    "choices that are none": ({"choices": []}, "parse_failure"),
    "choices that are an object": ({"choices": {}}, "parse_failure"),
    "a choice that is null": ({"choices": [None]}, "parse_failure"),
    "a choice that is a number": ({"choices": [1]}, "parse_failure"),
    "a choice without a message": ({"choices": [{}]}, "parse_failure"),
    "a message that is null": (answer(None), "parse_failure"),
    "a message that is text": (answer("hi"), "parse_failure"),
    "a message that is a list": (answer([]), "parse_failure"),
    "a message without content": (answer({}), "parse_failure"),
    "content that is null": (answer({"content": None}), "parse_failure"),
    "content that is a number": (answer({"content": 5}), "parse_failure"),
    "content that is true": (answer({"content": True}), "parse_failure"),
    "content that is an object": (answer({"content": {"a": 1}}), "parse_failure"),
    "content that is a list of texts": (answer({"content": ["a"]}), "parse_failure"),
    "a part without text": (answer({"content": [{"type": "text"}]}), "parse_failure"),
    "a part whose text is a number": (answer({"content": [{"type": "text", "text": 5}]}), "parse_failure"),
    "an error that is a number": ({"error": 5}, "transient"),
    "an error that is text": ({"error": "x"}, "transient"),
    "an error of odd parts": ({"error": {"code": {}, "message": [], "type": 5}}, "transient"),
    "the shape of another provider": ({"type": "message", "content": [{"type": "text", "text": "x"}]}, "parse_failure"),
}

ANSWERS: dict[str, tuple[Any, tuple[int | None, int | None]]] = {
    "usage that is text": (answer(usage="x"), (None, None)),
    "usage that is a list": (answer(usage=[1]), (None, None)),
    "tokens that are text": (answer(usage={"prompt_tokens": "many", "completion_tokens": 1}), (None, None)),
    "tokens below zero": (answer(usage={"prompt_tokens": -5, "completion_tokens": 1}), (None, None)),
    "half a token": (answer(usage={"prompt_tokens": 5, "completion_tokens": 1.5}), (None, None)),
    "more tokens than can be": (answer(usage={"prompt_tokens": 10**30, "completion_tokens": 2}), (None, 2)),
    "details that are text": (
        answer(usage={"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": "x"}),
        (None, None),
    ),
    "tool calls that are a number": (answer(GOOD | {"tool_calls": 5}), (None, None)),
    "tool calls that are null": (answer(GOOD | {"tool_calls": None}), (None, None)),
    "content in parts": (answer({"content": [{"type": "text", "text": TEXT}]}), (None, None)),
    "a model that is a number": (answer(model=5, id=None, created="x"), (None, None)),
    "a reason that is an object": ({"choices": [{"message": GOOD, "finish_reason": {}}]}, (None, None)),
    "reasoning that is a number": (answer(GOOD | {"reasoning_content": 5, "annotations": 5, "audio": 5}), (None, None)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as server:
        yield server


@pytest.fixture(scope="module", params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", server.url, "LOCAL_KEY")}, {"LOCAL_KEY": "sk-x"}.get)
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_the_providers_fault(adapter: Adapter, server: LMServer, name: str) -> None:
    body, code = NO_ANSWERS[name]
    server.script = lambda _: Answer(body=json.dumps(body).encode())
    server.requests.clear()
    with pytest.raises(AdapterError) as caught:
        adapter.execute_program(adapter.create_program(SPEC), {"question": "why"}, RunOptions("run"))
    assert caught.value.code == code, caught.value.message
    assert caught.value.message.strip()
    # DSPy asks once more, for JSON, where it cannot read what was answered.
    assert caught.value.usage.calls == len(server.requests) <= (2 if code == "parse_failure" else 1)


@pytest.mark.parametrize("name", ANSWERS)
def test_what_stands_beside_an_answer_does_not_cost_it(adapter: Adapter, server: LMServer, name: str) -> None:
    body, tokens = ANSWERS[name]
    server.script = lambda _: Answer(body=json.dumps(body).encode())
    server.requests.clear()
    outcome = adapter.execute_program(adapter.create_program(SPEC), {"question": "why"}, RunOptions("run"))
    assert outcome.outputs == {"answer": "x"}
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == tokens
    assert outcome.usage.calls == len(server.requests) == 1
