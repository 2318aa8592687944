"""What an LM wrote, and what becomes of it: the same by each adapter that calls one, asked from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex import LM, Configuration, LMParameters
from dspex.contract.configuration import Fallback
from dspex.contract.results import ExecutionView
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import ErrorCode, ExecutionStatus
from tests import lm_server
from tests.lm_server import Answer, LMServer
from workers.local import LocalClient, embedded
from workers.settings import load_settings

SECRET = "sk-not-to-be-told"


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(scope="module", params=["native", "python_port"])
def adapter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def dspex(tmp_path_factory: pytest.TempPathFactory, server: LMServer) -> Iterator[LocalClient]:
    file: Path = tmp_path_factory.mktemp("readings") / "dspex.db"
    alias = f'{{"model": "openai/gpt-4o-mini", "api_base": "{server.url}", "secret": "LOCAL_API_KEY"}}'
    environment = {
        "DSPEX_DATABASE_URL": f"sqlite:///{file}",
        "DSPEX_LMS": f'{{"local": {alias}, "other": {alias}, "o": {alias.replace("gpt-4o-mini", "o3-mini")}}}',
        "LOCAL_API_KEY": SECRET,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with embedded(load_settings()) as client:
            yield client


class Asked:
    """Runs a program once, and counts its calls."""

    def __init__(self, client: LocalClient, server: LMServer, adapter: str) -> None:
        self.client = client
        self.server = server
        self.adapter = adapter

    def __call__(self, signature: str, script: lm_server.Script, **configuration: Any) -> ExecutionView:
        self.server.script = script
        self.server.requests.clear()
        policy = ExecutionPolicy(**configuration.pop("policy", {"repair": False, "max_attempts": 1}))
        program = self.client.create_program(
            f"program-{time.perf_counter_ns()}",
            signature,
            adapter_type=self.adapter,
            configuration=Configuration.model_validate({"lm": LM(model="local")} | configuration),
            policy=policy,
        )
        self.client.initialize_program(program.program_id)
        return self.client.execute_program(program.program_id, {"q": "which?"}, timeout=60)


@pytest.fixture
def asked(dspex: LocalClient, server: LMServer, adapter: str) -> Asked:
    return Asked(dspex, server, adapter)


M = "[[ ## answer ## ]]"
END = "[[ ## completed ## ]]"

READ = {
    "as asked": f"{M}\nParis\n\n{END}",
    "indented, in one line": f"  {M} Paris\n\n{END}",
    "in a draft, then outside": f"<think>\n{M}\nLyon? no\n</think>\n\n{M}\nParis\n\n{END}",
    "in each kind of draft": "".join(
        f"<{tag}>\n{M}\nLyon\n</{tag}>\n" for tag in ("thinking", "reasoning", "scratchpad", "reflection")
    )
    + f"{M}\nParis",
    "a draft whose beginning is in the prompt": f"Lyon?\n{M}\nLyon\n</think>\n{M}\nParis",
    "a draft in capitals": f"[THINK]{M} Lyon[/THINK]\n{M}\nParis",
    "a draft at the beginning of a section": f"{M}\n<think>Lyon?</think>Paris\n{END}",
    "a draft at the end of a section": f"{M}\nParis\n<think>\nLyon?\n</think>\n{END}",
    "a draft between": f"{M}\nParis\n\n<thinking>done {M} x</thinking>\n\n{END}",
    "a draft after all": f"{M}\nParis\n{END}\n<think>\n{M}\nLyon",
    "channels": f"<|channel|>analysis<|message|>{M} Lyon<|end|><|start|>assistant<|channel|>final<|message|>{M}\nParis",
    "bold": f"**{M}**\nParis\n\n**{END}**",
    "bold with a colon": f"**{M}:** Paris",
    "bold around both": f"**{M} Paris**",
    "a heading": f"### {M}\nParis\n\n### {END}",
    "a list": f"- {M}\n  Paris\n- {END}",
    "numbered": f"1. {M} Paris\n2. {END}",
    "a quotation": f"> {M}\n> Paris\n> {END}",
    "code": f"`{M}`\nParis\n`{END}`",
    "escaped brackets": "\\[\\[ ## answer ## \\]\\]\nParis",
    "less white space": "[[##answer##]]\nParis\n[[##completed##]]",
    "another case": "[[ ## Answer ## ]]\nParis",
    "on the value's line": f"{M}\nParis {END}",
    "all in one line": f"{M} Paris {END}",
    "doubled": f"{M}\n{M}\nParis\n{END}",
    "twice, the last counts": f"{M}\nLyon\n\n{M}\nParis\n{END}",
    "as a closing tag": f"{M} Paris {M}",
    "words before": f"Sure! Here it is:\n\n{M}\nParis\n{END}\nAnything else?",
    "the whole in a fence": f"```\n{M}\nParis\n{END}\n```",
    "the whole in a fence, without an end": f"```text\n{M}\nParis\n```",
    "another section": f"[[ ## confidence ## ]]\nhigh\n{M}\nParis\n[[ ## note ## ]]\nnone",
    "the input again": f"[[ ## q ## ]]\nwhich?\n{M}\nParis\n{END}",
    "a task of its own": f"{M}\nParis\n{END}\n\n[[ ## q ## ]]\nand Italy?\n\n{M}\nRome\n{END}",
    "the template's end": f"{M}\nParis<|im_end|>",
    "carriage returns": f"{M}\r\nParis\r\n\r\n{END}\r\n",
    "an object": '{"answer": "Paris"}',
    "an object in a fence": '```json\n{"answer": "Paris"}\n```',
    "an object with text around": 'Here: {"answer": "Paris"} I hope that helps.',
    "an object after a draft": '<think>{"answer": "Lyon"}</think>{"answer": "Paris"}',
    "an object twice": '{"answer": "Paris"}\n{"answer": "Paris"}',
    "a trailing comma": '{"answer": "Paris",}',
    "a comment": '{"answer": "Paris" // the capital\n}',
    "an object of Python": "{'answer': 'Paris'}",
    "an element": "<answer>Paris</answer>",
    "an element with text around": "It is\n<answer>\nParis\n</answer>\n.",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ.keys())
def test_what_is_clear_is_read(asked: Asked, text: str) -> None:
    execution = asked("q -> answer", lm_server.text(text))
    assert (execution.status, execution.outputs) == (ExecutionStatus.COMPLETED, {"answer": "Paris"}), execution.error
    assert len(asked.server.requests) == 1


UNCLEAR = {
    "a draft that does not end": f"<think>\n{M}\nLyon",
    "all draft": f"{M}\n<think>\nLyon\n{END}",
    "a marker that is spoken of": f"{M}\nI write it under {M}, as asked.",
    "another's marker in the value": f"{M}\nParis, see [[ ## source ## ]] for more",
    "half a marker": f"{M}\nParis\n[[ ## compl",
    "the end of one": f"{M}\n## ]] Paris",
    "brackets": f"{M}\n]] Paris",
    "the end of a draft": f"{M}\nParis\n</think>",
    "the end of a draft within": f"{M}\nLyon?\n</think>\nParis",
    "no marker": "Paris",
    "two objects": '{"answer": "Lyon"} {"answer": "Paris"}',
    "a key twice": '{"answer": "Lyon", "answer": "Paris"}',
    "an object that is not finished": '{"answer": "Par',
    "null": '{"answer": null}',
    "an element that is not closed": "<answer>Paris</answe",
    "another object": '{"reply": "Paris"}',
    "a marker in an object": f'{{"answer": "Paris {END}"}}',
    "an escaped marker in an object": '{"answer": "Paris [[ \\u0023# completed ## ]]"}',
}


@pytest.mark.parametrize("text", UNCLEAR.values(), ids=UNCLEAR.keys())
def test_what_is_not_clear_is_a_parse_failure(asked: Asked, text: str) -> None:
    execution = asked("q -> answer", lm_server.text(text))
    assert execution.error is not None, execution.outputs
    assert (execution.status, execution.error.code) == (ExecutionStatus.FAILED, ErrorCode.PARSE_FAILURE)
    assert len(asked.server.requests) == 2  # DSPy asks once more, for JSON


KEPT = [
    "Use the `<think>` tag.",
    "Close it with </think> and go on.",
    "| a | b |\n|---|---|\n| [[wiki]] | [[#Heading]] |",
    "```python\nif x:\n    print('#')\n```",
    "**Paris** is **big**",
    "# Heading\n\n- one\n- two",
    'He said "{not JSON}".',
    "a\u2028b\x0bc",
    "matrix = [[1, 2], [3, 4]]",
    "<report>\n<analysis>fine</analysis>\n</report>",
]


@pytest.mark.parametrize("value", KEPT)
def test_a_value_stays_as_it_was_written(asked: Asked, value: str) -> None:
    execution = asked("q -> answer", lm_server.text(f"{M}\n{value}\n\n{END}"))
    assert execution.outputs == {"answer": value}


TYPED: list[tuple[str, str, Any]] = [
    ("list[str]", '["a", "b",]', ["a", "b"]),
    ("list[str]", "['a', 'b']", ["a", "b"]),
    ("list[str]", '```json\n["a", "b"]\n```', ["a", "b"]),
    ("list[str]", 'The list is ["a", "b"].', ["a", "b"]),
    ("dict[str, int]", '{"a": 1, // one\n "b": 2}', {"a": 1, "b": 2}),
    ("int", "42", 42),
    ("float", "0.5", 0.5),
    ("bool", "True", True),
    ("Literal['a', 'b']", "'a'", "a"),
    ("Literal[1, 2]", "1.0", 1),
    ("Literal[1, 2]", "true", None),
    ("Literal[True, 2]", "1", None),
    ("Decimal", "12.50", "12.50"),
    ("Decimal", "12345678901234567.89", "12345678901234567.89"),
    ("Optional[Decimal]", "0.10", "0.10"),
    ("Optional[Decimal]", "null", None),
    ("Decimal", "12.50 EUR", None),
    ("list[Decimal]", "[0.123456789012345678, 12.50]", ["0.123456789012345678", "12.50"]),
    ("Union[Decimal, bool]", "12345678901234567.89", "12345678901234567.89"),
    ("Any", "[1.50, 1e3]", [1.5, 1000.0]),
    ("Optional[int]", "null", None),
    ("Optional[list[str]]", '["x"]', ["x"]),
    ("list[str]", '["alpha", "beta", "gam', None),
    ("list[str]", '["a"] or ["b"]', None),
    ("dict[str, int]", '{"a": 1, "a": 2}', None),
    ("dict[str, int]", "{'a': 1, 'a': 2}", None),
    ("dict[str, int]", '{"a": 1 "b": 2}', None),
    ("list[str]", f'["a", "{END}"]', None),
    ("int", "about 42", None),
]


@pytest.mark.parametrize(("kind", "text", "value"), TYPED)
def test_a_value_of_a_type_is_read_without_guessing(asked: Asked, kind: str, text: str, value: Any) -> None:
    execution = asked(f"q -> answer: {kind}", lm_server.text(f"{M}\n{text}\n\n{END}"))
    if value is None and not kind.startswith("Optional"):
        assert execution.error is not None, execution.outputs
        assert execution.error.code == ErrorCode.PARSE_FAILURE
    else:
        assert execution.outputs == {"answer": value}, execution.error


def test_numbers_of_an_object_keep_their_digits_where_they_count(asked: Asked) -> None:
    text = '{"total": 12345678901234567.890, "share": 0.50, "answer": 1.50, "rest": {"a": 1.50}}'
    execution = asked(
        "q -> total: Decimal, share: float, answer, rest: Any", lm_server.text(text), prompt_adapter="json"
    )
    assert execution.outputs == {
        "total": "12345678901234567.890",
        "share": 0.5,
        "answer": "1.5",
        "rest": {"a": 1.5},
    }


def test_the_order_of_sections_does_not_matter(asked: Asked) -> None:
    text = "[[ ## n ## ]]\n3\n\n[[ ## answer ## ]]\nParis [[ ## completed ## ]]"
    assert asked("q -> answer, n: int", lm_server.text(text)).outputs == {"answer": "Paris", "n": 3}
    text = "[[ ## answer ## ]] Paris [[ ## n ## ]] 3 [[ ## completed ## ]]"
    assert asked("q -> answer, n: int", lm_server.text(text)).outputs == {"answer": "Paris", "n": 3}


def test_the_second_format_is_read_by_the_same_rules(asked: Asked) -> None:
    script = lm_server.in_turn(lm_server.text("Hm."), lm_server.text('```json\n{"answer": "Paris",}\n```'))
    execution = asked("q -> answer", script)
    assert execution.outputs == {"answer": "Paris"}
    assert execution.usage.calls == 2


# How an answer ended

CUT = f"{M}\nThe contract ends on 31 March unless it is"


@pytest.mark.parametrize(
    ("signature", "text", "ended", "code", "told"),
    [
        ("q -> answer", CUT, "length", "truncated", "length"),
        ("q -> answer: list[str]", f'{M}\n["alpha", "beta", "gam', "length", "truncated", "length"),
        ("q -> answer: list[str]", f'{M}\n["alpha"]\n\n{END}', "length", "truncated", "length"),
        ("q -> answer", "", "length", "truncated", "length"),
        ("q -> answer", CUT, "max_tokens", "truncated", "length"),
        ("q -> answer", CUT, "model_length", "truncated", "length"),
        ("q -> answer", CUT, "content_filter", "refused", "content_filter"),
        ("q -> answer", CUT, "SAFETY", "refused", "content_filter"),
        ("q -> answer", CUT, "error", "transient", "error"),
        ("q -> answer", CUT, "abort", "transient", "error"),
    ],
)
def test_how_an_answer_ended_decides(asked: Asked, signature: str, text: str, ended: str, code: str, told: str) -> None:
    execution = asked(signature, lm_server.text(text, finish_reason=ended))
    assert execution.error is not None, execution.outputs
    assert (execution.status, execution.error.code) == (ExecutionStatus.FAILED, code)
    assert len(asked.server.requests) == 1
    assert [call.finish_reason for call in execution.usage.lm_calls] == [told]


def test_what_was_cut_off_is_not_repaired_and_is_open_to_a_fallback(asked: Asked) -> None:
    policy = {"repair": True, "max_attempts": 3}
    execution = asked("q -> answer", lm_server.text(CUT, finish_reason="length"), policy=policy)
    assert len(asked.server.requests) == execution.usage.calls == 1
    script = lm_server.in_turn(lm_server.text(CUT, finish_reason="length"), lm_server.fields(answer="Paris"))
    fallback = Fallback(lm=LM(model="other"), on=(ErrorCode.TRUNCATED,))
    execution = asked("q -> answer", script, fallbacks=(fallback,))
    assert execution.outputs == {"answer": "Paris"}
    assert [told.error for told in execution.usage.tries] == ["truncated", None]


def test_a_call_in_the_middle_that_was_cut_off_ends_the_run(asked: Asked) -> None:
    script = lm_server.in_turn(
        lm_server.fields(answer="Paris"), lm_server.text(CUT, finish_reason="length"), lm_server.fields(answer="Rome")
    )
    execution = asked("q -> answer", script, module="MultiChainComparison", parameters={"M": 3})
    assert execution.error is not None
    assert execution.error.code == "truncated"
    assert [call.finish_reason for call in execution.usage.lm_calls] == ["stop", "length"]


def test_a_refusal_is_none_whatever_was_written(asked: Asked) -> None:
    message = {"role": "assistant", "content": f"{M}\nParis", "refusal": "I cannot help with that."}
    body = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    execution = asked("q -> answer", lambda _: Answer(body=body))
    assert execution.error is not None
    assert execution.error.code == "refused"


# What a provider does not say


def test_what_a_provider_does_not_say_is_not_known(asked: Asked) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"{M}\nParis"}, "finish_reason": "stop"}
    execution = asked("q -> answer", lambda _: Answer(body={"model": "m", "choices": [choice]}))
    usage = execution.usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cost) == (1, None, None, None)
    (call,) = usage.lm_calls
    assert (call.input_tokens, call.output_tokens, call.cost, call.request_id) == (None, None, None, None)
    details: dict[str, Any] = {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 12},
        "completion_tokens_details": {"reasoning_tokens": 32},
    }
    body = {"model": "gpt-4o-mini-2024-07-18", "choices": [choice], "usage": details}
    answer = Answer(body=body, headers={"x-request-id": "req-7"})
    (call,) = asked("q -> answer", lambda _: answer).usage.lm_calls
    assert (call.input_tokens, call.output_tokens) == (100, 40)
    assert (call.cached_tokens, call.reasoning_tokens) == (64, 32)
    assert (call.input_audio_tokens, call.output_audio_tokens) == (12, None)
    assert (call.request_id, call.model_version) == ("req-7", "gpt-4o-mini-2024-07-18")


# Waits


def test_a_wait_that_the_provider_asks_for_is_kept(asked: Asked) -> None:
    times: list[float] = []

    def script(request: lm_server.Request) -> Answer:
        times.append(time.monotonic())
        if len(times) == 1:
            return Answer(status=503, body={"error": {"message": "busy"}}, headers={"Retry-After": "3"})
        return lm_server.fields(answer="Paris")(request)

    execution = asked("q -> answer", script, policy={"max_attempts": 3})
    assert execution.outputs == {"answer": "Paris"}
    assert times[1] - times[0] >= 3


def test_a_fallback_on_the_context_window_is_tried_whoever_says_it(asked: Asked) -> None:
    fallback = Fallback(lm=LM(model="other"), on=(ErrorCode.CONTEXT_WINDOW,))
    message = "the request exceeds the available context size"
    error = {"code": 400, "type": "exceed_context_size_error", "message": message}
    script = lm_server.in_turn(lambda _: Answer(status=400, body={"error": error}), lm_server.fields(answer="Paris"))
    execution = asked("q -> answer", script, fallbacks=(fallback,))
    assert execution.outputs == {"answer": "Paris"}


# What a model refuses


@pytest.mark.parametrize(("module", "parameters"), [("MultiChainComparison", {"M": 2}), ("Predict", {})])
def test_a_modules_temperature_is_not_sent_to_a_model_that_takes_none(
    asked: Asked, module: str, parameters: dict[str, Any]
) -> None:
    asked_of = {"module": module, "parameters": parameters}
    execution = asked("q -> answer", lm_server.fields(answer="Paris"), lm=LM(model="o"), **asked_of)
    assert execution.outputs == {"answer": "Paris"}, execution.error
    assert all("temperature" not in request.body for request in asked.server.requests)
    asked("q -> answer", lm_server.fields(answer="Paris"), **asked_of)
    sent = {request.body.get("temperature") for request in asked.server.requests}
    assert sent == {0.7 if module == "MultiChainComparison" else None}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"module": "MultiChainComparison", "parameters": {"temperature": 0.5}}, "parameters.temperature"),
        ({"lm": LM(model="o", parameters=LMParameters(temperature=0.5))}, "lm.parameters.temperature"),
    ],
)
def test_initialize_refuses_a_temperature_that_the_model_does_not_take(
    asked: Asked, given: dict[str, Any], field: str
) -> None:
    execution = asked("q -> answer", lm_server.fitting, **{"lm": LM(model="o")} | given)
    assert execution.error is not None
    assert execution.error.code == "program_not_ready"
    assert f"({field}: 'openai/o3-mini' takes no temperature but its own: remove 0.5)" in execution.error.message
    assert not asked.server.requests
