"""What of DSPy's insides the adapter leans on (insides.py and http_client.py), tried against the DSPy installed."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import dspy
import pytest
from dspy.adapters.utils import format_field_value
from dspy.clients.backend_selection import select_backend
from dspy.clients.costs import estimate_cost
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.signatures.signature import make_signature
from dspy.utils.callback import BaseCallback
from dspy.utils.usage_tracker import UsageTracker

from adapters.native import calls, media
from adapters.native.http_client import (
    CONNECT_SECONDS,
    Transport,
    _Connection,
    calls_through,
    carries,
    not_sent,
    reasons,
)
from adapters.native.insides import (
    extraction_signature,
    fixed_temperature,
    headers_of,
    raw_answer,
    rebound,
    user_message_content,
    value_of_elements,
)
from adapters.native.lms import VARIED
from adapters.native.wire import UNBOUNDED, Wire
from dspex import Signature


class Sent(Exception):
    """The transport was asked to send."""


class Refusing:
    """A transport that tells what it is asked to send."""

    def stream(self, request: Any) -> Any:
        raise Sent(request.url)


class Ended(BaseException):
    """No `Exception`."""


class EndsTheCall(BaseCallback):  # type: ignore[misc]  # DSPy has no type information
    """Ends every LM call before it begins."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        raise Ended(inputs["messages"][-1]["role"])


def test_a_callback_ends_an_lm_call_before_it_is_made() -> None:
    """`adapters/native/first_prompt.py`: neither the callbacks' guard nor a second prompt adapter goes on after it."""
    lm = dspy.LM("openai/gpt-4o-mini", cache=False, num_retries=0, engine="lm15", api_key="sk-local")
    assert calls_through(lm, Refusing(), "sk-local", None)
    with dspy.context(lm=lm, callbacks=[EndsTheCall()]), pytest.raises(Ended, match="user"):
        dspy.Predict("question -> answer")(question="why")


def test_the_http_client_takes_a_bound_on_connections_and_waits_ten_seconds_for_one() -> None:
    assert Transport(max_connections=UNBOUNDED).max_connections == UNBOUNDED
    assert vars(Transport())["_connect_timeout"] == CONNECT_SECONDS
    Wire().close()


def test_a_connection_is_not_used_again_once_the_other_side_has_closed_it_or_said_something() -> None:
    ends: list[Callable[[socket.socket], object]] = [lambda other: other.close(), lambda other: other.send(b"x")]
    for end in ends:
        ours, others = socket.socketpair()
        with ours, others:
            connection: Any = _Connection(("http", "local", 80), ours)
            assert not connection.is_stale()
            end(others)
            assert connection.is_stale()
        assert connection.is_stale()
        connection.close()
        assert connection.is_stale()


@pytest.mark.parametrize("timeout", [None, 3.0])
@pytest.mark.parametrize(
    "model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "openrouter/a/b"]
)
def test_an_lm_calls_through_the_transport_it_is_given(model: str, timeout: float | None) -> None:
    lm = dspy.LM(model, cache=False, num_retries=0, engine="lm15", api_key="sk-local")
    assert calls_through(lm, Refusing(), "sk-local", None)
    options = {} if timeout is None else {"timeout": timeout}
    with pytest.raises(dspy.LMError) as caught:
        lm("hello", **options)
    assert isinstance(caught.value.__cause__, Sent)
    lm.close()


def test_what_the_client_does_not_serve_is_left_to_litellm() -> None:
    lm = dspy.LM("bedrock/anthropic.claude-v2", cache=False, engine="lm15", api_key="sk-local")
    assert not calls_through(lm, Refusing(), "sk-local", None)


def test_an_answer_keeps_the_providers_own_json() -> None:
    message = Message(role="assistant", parts=(TextPart("x"),))
    body: dict[str, Any] = {"choices": [{"finish_reason": "error"}]}
    response = Response(id=None, model="m", message=message, finish_reason="stop", usage=Usage(), provider_data=body)
    assert raw_answer(response) == body
    assert raw_answer(object()) is None


def test_litellm_keeps_the_headers_of_an_answer() -> None:
    response = SimpleNamespace(_hidden_params={"additional_headers": {"llm_provider-x-request-id": "r", "x-r": "1"}})
    assert headers_of(response) == [("x-request-id", "r"), ("x-r", "1")]
    assert headers_of(object()) == []


@pytest.mark.parametrize(
    ("model", "fixed"),
    [
        *[(f"openai/{name}", True) for name in ("o1", "o1-mini", "o3", "o3-mini-2025-01-31", "o4-mini", "gpt-5")],
        *[(f"openai/{name}", True) for name in ("gpt-5-mini", "gpt-5.1", "gpt-5.6-luna", "gpt-5-codex")],
        *[(f"openai/{name}", False) for name in ("gpt-4o", "gpt-4.1", "gpt-5-chat-latest", "gpt-50", "omni-1", "o200")],
        ("openrouter/openai/o3", True),
        ("azure/o4-mini", True),
        ("anthropic/claude-sonnet-4-5", False),
        ("hosted_vllm/meta-llama/Llama-3.1-8B", False),
    ],
)
def test_the_models_that_take_no_temperature(model: str, fixed: bool) -> None:
    assert fixed_temperature(model) is fixed


def test_the_second_step_takes_the_outputs_from_a_text() -> None:
    adapter = dspy.TwoStepAdapter(dspy.LM("openai/gpt-4o-mini", api_key="sk-local"))
    found = extraction_signature(adapter, make_signature("question -> answer, k: int"))
    assert list(found.input_fields) == ["text"]
    assert {name: field.annotation for name, field in found.output_fields.items()} == {"answer": str, "k": int}


def test_elements_are_values_by_their_schema() -> None:
    root = ET.fromstring("<tags><item>1</item><item>2</item></tags>")
    schema = {"type": "array", "items": {"type": "integer"}}
    assert value_of_elements([root], schema, {}) == ["1", "2"]


def test_a_chat_adapter_asks_once_more_by_what_it_makes_for_that() -> None:
    made = dspy.ChatAdapter()._make_json_adapter_fallback()
    assert type(made) is dspy.JSONAdapter


def test_a_function_finds_other_names_and_the_module_it_is_in_does_not_change() -> None:
    made = rebound(format_field_value, serialize_for_json=lambda _: "instead")
    assert made(None, "given") == "instead"
    assert format_field_value(dspy.InputField(), "given") == "given"
    with pytest.raises(TypeError, match="not_there"):
        rebound(format_field_value, not_there=None)


@pytest.mark.parametrize(
    "value", ["", 'a "b"\né', 0, 10**20, 0.5, True, None, [], ["a", "b"], {"é": [None]}, (1,), {1}]
)
def test_values_are_written_as_dspy_writes_them(value: Any) -> None:
    signature: Any = make_signature("given: dict, other -> answer")
    given = {"given": value, "other": value}
    adapter: Any = dspy.ChatAdapter()
    written = user_message_content(adapter, signature, given, main_request=True)
    assert written == adapter.format_user_message_content(signature, given, main_request=True)


class Answering:
    """An engine that answers at once."""

    def complete(self, request: Any) -> Response:
        message = Message(role="assistant", parts=(TextPart("x"),))
        usage = Usage(input_tokens=20, output_tokens=10, total_tokens=30, cache_read_tokens=5)
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)


def lm_of(model: str, **settings: Any) -> Any:
    lm = dspy.LM(model, cache=False, num_retries=0, engine="lm15", api_key="sk-local", **settings)
    assert calls_through(lm, Refusing(), "sk-local", None)
    store: Any = lm._engine_store
    store.engine = Answering()
    return lm


def test_the_engine_of_an_lm_is_selected_once_for_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    selected: list[str] = []

    def counted(lm: Any, options: Any) -> Any:
        selected.append(lm.model)
        return select_backend(lm, options)

    monkeypatch.setattr(calls, "select_backend", counted)
    lm = lm_of("openai/gpt-4o-mini")
    for _ in range(3):
        assert calls.execute(lm, "hello", None, {})[1].outputs == ["x"]
    assert selected == ["openai/gpt-4o-mini"]
    other = lm.copy(model="openai/gpt-4o")
    calls.execute(other, "hello", None, {})
    calls.execute(lm, "hello", None, {"timeout": 3.0})
    assert selected == ["openai/gpt-4o-mini", "openai/gpt-4o", "openai/gpt-4o-mini"]


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-4o-mini",
        "anthropic/claude-sonnet-4-5",
        "gemini/gemini-2.5-pro",
        "openai/nobody-knows-it",
        "openai/" + "x" * 300,
    ],
)
def test_a_price_is_dspys_own(model: str) -> None:
    lm = lm_of(model)
    response = Answering().complete(Request(model=model, messages=(Message(role="user", parts=(TextPart("hello"),)),)))
    costs = [calls.execute(lm, "hello", None, {})[1].cost for _ in range(2)]
    wire: Any = calls._select(lm, lm.kwargs).resolution
    expected, _ = estimate_cost(response, provider=wire.provider, requested_model=wire.model)
    assert costs == [expected, expected]
    assert (expected is not None) is (model in {"openai/gpt-4o-mini", "gemini/gemini-2.5-pro"})


@pytest.mark.parametrize(
    ("model", "settings", "sent"),
    [
        ("openai/gpt-4o-mini", {"seed": 3, "logit_bias": {"5": 1}, "max_completion_tokens": 9}, True),
        ("openai/gpt-4o-mini", {"top_k": 3}, False),
        ("openai/gpt-4o-mini", {"of_nobody": 3}, False),
        ("openai/home-grown", {"reasoning_effort": "low"}, True),
        ("openai/home-grown", {"reasoning_effort": "most"}, False),
        ("anthropic/claude-sonnet-4-5", {"temperature": 0.5, "top_k": 3}, True),
        ("anthropic/claude-sonnet-4-5", {"seed": 3}, False),
    ],
)
def test_the_client_tells_beforehand_what_it_would_not_send(model: str, settings: dict[str, Any], sent: bool) -> None:
    lm = dspy.LM(model, cache=False, num_retries=0, engine="lm15", api_key="sk-local")
    assert calls_through(lm, Refusing(), "sk-local", None)
    assert (not_sent(lm, settings) is None) is sent


def test_the_list_of_models_tells_which_reason() -> None:
    lms = [dspy.LM(f"openai/{name}", engine="lm15", api_key="k") for name in ("o3", "gpt-4o-mini", "home-grown")]
    assert [reasons(lm) for lm in lms] == [True, False, None]


def test_several_completions_get_a_temperature_by_the_lms_settings() -> None:
    lm = dspy.LM("openai/home-grown", engine="lm15", api_key="k", n=2)
    config = dspy.Predict("a -> b")._forward_preprocess(a="x", lm=lm)[1]
    assert config == {"temperature": VARIED}


def test_a_copy_of_an_lm_keeps_its_engine_and_a_deep_copy_of_dspys_does_not() -> None:
    """What `RecordingLM.__deepcopy__` is for."""
    lm = dspy.LM("openai/gpt-4o-mini", engine="lm15", api_key="x")
    assert calls_through(lm, Refusing(), "x", "http://127.0.0.1:9")
    assert vars(lm.copy(temperature=0.5))["_engine_store"] is vars(lm)["_engine_store"]
    assert vars(copy.deepcopy(lm))["_engine_store"] == {}


def test_threads_of_parallel_get_a_deep_copy_of_the_usage_tracker() -> None:
    """What `Recorder.__deepcopy__` is for."""
    tracker = UsageTracker()
    seen: list[Any] = []

    class Looks(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
        def forward(self) -> dspy.Prediction:
            seen.append(dspy.settings.usage_tracker)
            return dspy.Prediction()

    with dspy.context(usage_tracker=tracker):
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Looks(), {}), (Looks(), {})])
    assert [type(found) for found in seen] == [UsageTracker, UsageTracker]
    assert tracker not in seen


@pytest.mark.parametrize(
    "value",
    [
        dspy.Image(url="data:image/png;base64,iVBORw0KGgo="),
        dspy.Audio(data="UklGRg==", audio_format="wav"),
        dspy.File(file_data="data:application/pdf;base64,JVBERi0=", filename="a.pdf"),
        dspy.File(file_data="data:application/pdf;base64,JVBERi0="),
    ],
)
def test_a_content_block_is_what_dspy_makes_of_an_object(value: Any) -> None:
    """`adapters/native/media.py` makes it itself."""
    assert media.as_blocks(value) == value.format()


def test_the_http_client_says_which_content_blocks_it_can_send() -> None:
    lm = dspy.LM("openai/gpt-4o-mini", cache=False, num_retries=0, engine="lm15", api_key="sk-local")
    assert calls_through(lm, Refusing(), "sk-local", None)
    assert carries(lm, [{"type": "text", "text": "?"}])
    assert carries(lm, media.as_blocks(dspy.Image(url="data:image/png;base64,iVBORw0KGgo=")))
    for kind in ("audio: dspy.Audio", "file: dspy.File"):
        assert not carries(lm, media.sample_blocks(Signature.parse(f"{kind} -> answer")))
