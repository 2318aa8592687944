"""The native adapter against an LM on this machine: what it sends, what it reads, and how it fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.port import MAX_QUOTE, AdapterError, Outcome, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, LMParameters, Signature
from dspex.signatures.field import RESERVED_NAMES
from tests import lm_server
from tests.lm_server import Answer, LMServer

pytestmark = [  # pytest brings filters of its own in the place of those that the adapter sets
    pytest.mark.filterwarnings("ignore:Field name .* shadows:UserWarning"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
SECRET = "sk-of-the-operator"


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture
def secrets() -> dict[str, str]:
    return {"LOCAL_KEY": SECRET}


@pytest.fixture
def native(server: LMServer, secrets: dict[str, str]) -> Iterator[NativeAdapter]:
    aliases = {
        "local": LMAlias("openai/gpt-4o-mini", api_base=server.url, secret="LOCAL_KEY"),
        "reasoning": LMAlias("openai/o3", api_base=server.url, secret="LOCAL_KEY"),
    }
    adapter = NativeAdapter(LMCatalog(aliases, secrets.get))
    yield adapter
    adapter.close()


def spec(signature: Any = "question -> answer", **given: Any) -> ProgramSpec:
    given.setdefault("lm", LM(model="local"))
    return ProgramSpec("native", Signature.parse(signature), Configuration(**given))


def run(adapter: NativeAdapter, program: ProgramSpec, /, **inputs: Any) -> Outcome:
    backend_id = adapter.create_program(program)
    given = program.signature.validate_inputs(inputs or {"question": "why"})
    return adapter.execute_program(backend_id, given, RunOptions("run"))


def failure(adapter: NativeAdapter, program: ProgramSpec, /, **inputs: Any) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        run(adapter, program, **inputs)
    return caught.value


# What is sent


def test_the_prompt_tells_of_types_constraints_and_descriptions(native: NativeAdapter, server: LMServer) -> None:
    signature = {
        "instructions": "Judge the ticket.",
        "inputs": [{"name": "ticket", "type": "str", "description": "what the customer wrote"}],
        "outputs": [
            {"name": "sure", "type": {"type": "number", "minimum": 0, "maximum": 1}, "description": "how sure"},
            {"name": "team", "type": "Literal['billing', 'bugs']"},
        ],
    }
    run(native, spec(signature), ticket="It broke.")
    prompt = server.requests[0].prompt
    assert "Judge the ticket." in prompt.system
    assert "what the customer wrote" in prompt.system
    assert "how sure" in prompt.system
    assert prompt.inputs == {"ticket": "It broke."}
    assert prompt.outputs == {
        "sure": {"type": "number", "minimum": 0.0, "maximum": 1.0},
        "team": {"enum": ["billing", "bugs"]},
    }


def test_parameters_seed_and_key_are_sent_and_nothing_that_was_not_set(native: NativeAdapter, server: LMServer) -> None:
    run(native, spec())
    assert set(server.requests[0].body) == {"model", "messages"}
    assert server.requests[0].authorization == f"Bearer {SECRET}"
    parameters = LMParameters(temperature=0.5, top_p=0.9, max_tokens=50, stop=("END",), timeout=30)
    backend_id = native.create_program(spec(lm=LM(model="local", parameters=parameters)))
    native.execute_program(backend_id, {"question": "why"}, RunOptions("run", seed=11))
    sent = {key: value for key, value in server.requests[1].body.items() if key not in ("model", "messages")}
    tokens = sent.pop("max_tokens", None) or sent.pop("max_completion_tokens")
    assert tokens == 50
    assert sent == {"temperature": 0.5, "top_p": 0.9, "stop": ["END"], "seed": 11}


def test_the_environment_decides_neither_key_nor_address(
    native: NativeAdapter, server: LMServer, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/of-the-environment")
    adapter = NativeAdapter(LMCatalog({"keyless": LMAlias("openai/local-model", api_base=server.url)}))
    run(adapter, spec(lm=LM(model="keyless")))
    run(native, spec())
    assert [request.authorization for request in server.requests] == ["Bearer none", f"Bearer {SECRET}"]


def test_a_key_that_changed_is_used_once_the_program_is_created_again(
    native: NativeAdapter, server: LMServer, secrets: dict[str, str]
) -> None:
    run(native, spec())
    secrets["LOCAL_KEY"] = "sk-new"
    run(native, spec())
    assert [request.authorization for request in server.requests] == [f"Bearer {SECRET}", "Bearer sk-new"]


def test_an_input_gives_dspy_no_orders(native: NativeAdapter, server: LMServer) -> None:
    backend_id = native.create_program(spec())
    inputs = {"question": "why", "config": {"api_base": "http://127.0.0.1:9"}, "lm": "x", "signature": "a -> b"}
    native.execute_program(backend_id, inputs, RunOptions("run"))
    assert server.requests[0].prompt.inputs == {"question": "why"}


def test_an_input_named_prediction_is_an_input(native: NativeAdapter, server: LMServer) -> None:
    program = spec("prediction: dict[str, str] -> answer")
    run(native, program, prediction={"type": "other", "content": "x"})
    assert "other" in server.requests[0].prompt.inputs["prediction"]
    error = failure(native, program, prediction={"type": "content", "content": "x"})
    assert error.code is ErrorCode.INVALID_INPUT


ORDINARY = (
    "class from import lambda None True print id type input output name copy json schema dict values keys items get "
    "model_name model prompt messages n temperature cache request response history trace tools text reasoning "
    "prediction completed demo args kwargs call_id callbacks cls fn"
)


@pytest.mark.parametrize("module", ["Predict", "MultiChainComparison"])
def test_ordinary_names_are_fields_on_both_sides(native: NativeAdapter, server: LMServer, module: str) -> None:
    for name in ORDINARY.split():
        if module != "Predict" and name == "reasoning":
            continue
        field = {"name": name, "type": "str"}
        outcome = run(
            native,
            spec({"inputs": [field], "outputs": [{"name": "b", "type": "str"}]}, module=module),
            **{name: "the value"},
        )
        assert set(outcome.outputs) == {"b"}
        assert server.requests[-1].prompt.inputs[name] == "the value"
        outcome = run(
            native, spec({"inputs": [{"name": "question", "type": "str"}], "outputs": [field]}, module=module)
        )
        assert outcome.outputs == {name: "an answer"}


def test_reserved_names_are_those_that_dspy_cannot_take(
    native: NativeAdapter, server: LMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.signatures.field.RESERVED_NAMES", frozenset())
    # Pydantic's other methods would do no harm today; their prefix is pydantic's to use.
    for name in sorted(name for name in RESERVED_NAMES if not name.startswith("model_") or name == "model_config"):
        signature = {"inputs": [{"name": name, "type": "str"}], "outputs": [{"name": "b", "type": "str"}]}
        try:
            run(native, spec(signature), **{name: "the value"})
        except AdapterError:
            continue
        assert server.requests[-1].prompt.inputs.get(name) != "the value", f"{name} need not be reserved"


# What is read


def test_chain_of_thought_reasons_and_keeps_it_to_itself(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.fields(reasoning="for this", answer="that")
    assert run(native, spec(module="ChainOfThought")).outputs == {"answer": "that"}
    assert list(server.requests[0].prompt.outputs) == ["reasoning", "answer"]


def test_multi_chain_comparison_makes_its_chains_and_compares_them(native: NativeAdapter, server: LMServer) -> None:
    chains = [lm_server.fields(reasoning=f"way {n}", answer=f"answer {n}") for n in range(4)]
    server.script = lm_server.in_turn(*chains, lm_server.fields(rationale="the third", answer="answer 2"))
    outcome = run(native, spec(module="MultiChainComparison", parameters={"M": 4, "temperature": 0.9}))
    assert outcome.outputs == {"answer": "answer 2"}
    assert outcome.usage.calls == len(server.requests) == 5
    assert {request.body["temperature"] for request in server.requests} == {0.9}
    compared = server.requests[4].prompt.inputs
    assert "way 3" in compared["reasoning_attempt_4"]
    assert "answer 3" in compared["reasoning_attempt_4"]


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        ("int", "42", 42),
        ("int", "42.0", 42),
        ("float", "3", 3.0),
        ("bool", "True", True),
        ("bool", "no", False),
        ("Literal['a', 'b']", '"b"', "b"),
        ("Literal[1, 2]", "2", 2),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict[str, float]", "{'a': 1}", {"a": 1.0}),
        ("Optional[str]", "None", None),
        ("Optional[str]", "null", None),
        ("Optional[str]", "12", "12"),
        ("Optional[int]", "null", None),
        ({"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]}, "2024", "2024"),
        ({"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]}, "None", None),
        ({"type": "string", "maxLength": 9}, "2024", "2024"),
    ],
)
def test_what_the_lm_writes_is_read(
    native: NativeAdapter, server: LMServer, kind: Any, written: str, value: Any
) -> None:
    server.script = lm_server.text(f"[[ ## answer ## ]]\n{written}\n\n[[ ## completed ## ]]")
    signature = {"inputs": [{"name": "question", "type": "str"}], "outputs": [{"name": "answer", "type": kind}]}
    outputs = run(native, spec(signature)).outputs
    assert outputs == {"answer": value}
    assert type(outputs["answer"]) is type(value)


def test_a_null_for_a_property_that_may_be_left_out_leaves_it_out(native: NativeAdapter, server: LMServer) -> None:
    kind = {
        "type": "object",
        "properties": {
            "model_config": {"type": "string"},
            "nick": {"type": "string"},
            "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["model_config"],
        "additionalProperties": False,
    }
    outputs = [{"name": "one", "type": kind}, {"name": "all", "type": {"type": "array", "items": kind}}]
    person = {"model_config": "x", "nick": None, "age": None}
    server.script = lm_server.fields(one=person, all=[person])
    signature = {"inputs": [{"name": "question", "type": "str"}], "outputs": outputs}
    expected = {"model_config": "x", "age": None}
    assert run(native, spec(signature)).outputs == {"one": expected, "all": [expected]}


def test_an_answer_that_is_not_in_sections_is_asked_for_again_as_json(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.in_turn(lm_server.text("It depends."), lm_server.fields(answer="blue"))
    outcome = run(native, spec())
    assert outcome.outputs == {"answer": "blue"}
    assert outcome.usage.calls == 2
    assert "response_format" in server.requests[1].body


# How it fails

ERRORS: list[tuple[str, lm_server.Script, ErrorCode, dict[str, Any]]] = [
    ("401", lm_server.unauthorized, ErrorCode.AUTH, {"provider_code": "invalid_api_key"}),
    ("403", lm_server.error(403), ErrorCode.AUTH, {}),
    ("402", lm_server.error(402), ErrorCode.BILLING, {}),
    ("429", lm_server.rate_limited(), ErrorCode.RATE_LIMITED, {"retry_after": None}),
    ("429 wait", lm_server.rate_limited(7), ErrorCode.RATE_LIMITED, {"retry_after": 7.0}),
    ("429 quota", lm_server.out_of_quota, ErrorCode.BILLING, {"provider_code": "insufficient_quota"}),
    ("too long", lm_server.context_too_long, ErrorCode.CONTEXT_WINDOW, {}),
    ("400", lm_server.bad_request, ErrorCode.PERMANENT, {"provider_code": "invalid_value"}),
    ("400 filter", lm_server.filtered, ErrorCode.REFUSED, {"provider_code": "content_filter"}),
    ("404", lm_server.unknown_model, ErrorCode.PERMANENT, {"provider_code": "model_not_found"}),
    ("408", lm_server.error(408), ErrorCode.TIMEOUT, {}),
    ("422", lm_server.error(422), ErrorCode.PERMANENT, {}),
    ("500", lm_server.server_error, ErrorCode.TRANSIENT, {}),
    ("503", lm_server.error(503, headers={"x-request-id": "r-1"}), ErrorCode.TRANSIENT, {"request_id": "r-1"}),
    ("cut", lm_server.cut_off, ErrorCode.TRANSIENT, {}),
    ("malformed", lm_server.malformed, ErrorCode.TRANSIENT, {}),
    ("text", lm_server.text("It depends."), ErrorCode.PARSE_FAILURE, {}),
    ("nothing", lm_server.text(""), ErrorCode.PARSE_FAILURE, {}),
    ("too short", lm_server.text("[[ ## ans", finish_reason="length"), ErrorCode.TRUNCATED, {}),
    ("filter", lm_server.text("", finish_reason="content_filter"), ErrorCode.REFUSED, {}),
    ("other fields", lm_server.text("[[ ## reply ## ]]\nyes"), ErrorCode.PARSE_FAILURE, {}),
]


@pytest.mark.parametrize(("script", "code", "details"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
def test_each_failure_has_its_code(
    native: NativeAdapter, server: LMServer, script: lm_server.Script, code: ErrorCode, details: dict[str, Any]
) -> None:
    server.script = script
    error = failure(native, spec())
    assert error.code is code
    assert {name: getattr(error, name) for name in details} == details
    assert SECRET not in f"{error} {vars(error)}"
    assert "\n" not in error.message
    assert error.usage.calls == len(server.requests) == (2 if code is ErrorCode.PARSE_FAILURE else 1)


def test_a_refusal_is_told_from_an_answer(native: NativeAdapter, server: LMServer) -> None:
    def refuse(request: lm_server.Request) -> Answer:
        body = lm_server.completion(request, Answer())
        body["choices"][0]["message"] |= {"refusal": "I cannot help with that."}
        return Answer(body=body)

    server.script = refuse
    assert failure(native, spec()).code is ErrorCode.REFUSED


def test_a_slow_answer_is_a_timeout(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.slow(1)
    error = failure(native, spec(lm=LM(model="local", parameters=LMParameters(timeout=0.1))))
    assert error.code is ErrorCode.TIMEOUT


def test_nobody_there_is_transient() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=address)}))
        assert failure(native, spec()).code is ErrorCode.TRANSIENT


def test_a_quote_of_the_answer_is_short_and_the_prompt_is_not_quoted(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.text("blah " * 1_000)
    error = failure(native, spec(), question="a very private question")
    assert "blah" in error.message
    assert len(error.message) <= MAX_QUOTE
    assert "private" not in error.message


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ({"type": "number", "maximum": 1}, 7.5),
        ({"type": "integer", "minimum": 3}, 2),
        ({"type": "string", "maxLength": 3}, "four"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"]),
        ({"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]}, 2),
        ({"type": "number"}, "NaN"),
        ({"type": "number"}, "Infinity"),
        ({"type": "string"}, "a\x00b"),
    ],
    ids=repr,
)
def test_an_output_beyond_its_constraints_is_invalid(
    native: NativeAdapter, server: LMServer, kind: dict[str, Any], value: Any
) -> None:
    server.script = lm_server.fields(answer=value, other="fine")
    outputs = [{"name": "answer", "type": kind}, {"name": "other", "type": "str"}]
    error = failure(native, spec({"inputs": [{"name": "question", "type": "str"}], "outputs": outputs}))
    assert error.code is ErrorCode.INVALID_OUTPUT
    assert error.message.startswith("answer: ")
    assert error.usage.calls == 1
    assert error.usage.output_tokens


def test_what_was_used_before_a_failure_is_reported(native: NativeAdapter, server: LMServer) -> None:
    good = lm_server.fields(reasoning="because", answer="this")
    server.script = lm_server.in_turn(good, good, lm_server.server_error)
    error = failure(native, spec(module="MultiChainComparison", parameters={"M": 3}))
    assert error.code is ErrorCode.TRANSIENT
    assert error.usage.calls == 3
    assert error.usage.input_tokens
    assert error.usage.cost is not None


def test_usage_is_that_of_the_provider_with_its_price(native: NativeAdapter, server: LMServer) -> None:
    def answer(request: lm_server.Request) -> Answer:
        body = lm_server.completion(request, Answer("[[ ## answer ## ]]\nyes"))
        body["usage"] = {"prompt_tokens": 1_000_000, "completion_tokens": 2_000_000, "total_tokens": 3_000_000}
        return Answer(body=body)

    server.script = answer
    usage = run(native, spec()).usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens) == (1, 1_000_000, 2_000_000)
    assert usage.cost == pytest.approx(0.15 + 2 * 0.60)  # gpt-4o-mini, in DSPy's own list of prices


def test_the_cost_of_a_model_without_a_price_is_unknown_not_nothing(server: LMServer) -> None:
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/home-grown", api_base=server.url)}))
    usage = run(native, spec()).usage
    assert usage.input_tokens
    assert usage.cost is None


# Building


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"lm": None}, ErrorCode.PERMANENT, "lm: the adapter runs an LM: give its model"),
        ({"lm": LM(model="nowhere")}, ErrorCode.PERMANENT, "model: 'nowhere'"),
        ({"lm": LM(model="openai/gpt-4o-mini")}, ErrorCode.AUTH, "secret: 'OPENAI_API_KEY' is not known"),
        ({"lm": LM(model="bedrock/some.model")}, ErrorCode.PERMANENT, "'bedrock' is not one of"),
        ({"lm": LM(model="local", secret="OTHER_KEY")}, ErrorCode.AUTH, "secret: the alias 'local' has its own"),
        ({"lm": LM(model="claude-code:x/y")}, ErrorCode.PERMANENT, "'claude-code:x' is not one of"),
        ({"lm": LM(model="openai/")}, ErrorCode.PERMANENT, "'openai/' is neither"),
        (
            {"lm": LM(model="reasoning", parameters=LMParameters(temperature=0.2))},
            ErrorCode.PERMANENT,
            "takes no temperature but its own",
        ),
        ({"module": "CodeAct"}, ErrorCode.PERMANENT, "module: 'CodeAct' is not one of Predict"),
        ({"module": "Predict", "parameters": {"n": 3}}, ErrorCode.PERMANENT, "parameters.n: is not a known field"),
        ({"module": "ChainOfThought", "parameters": {"lm": "x"}}, ErrorCode.PERMANENT, "parameters.lm: "),
        ({"module": "MultiChainComparison", "parameters": {"M": 0}}, ErrorCode.PERMANENT, "parameters.M: "),
        ({"module": "MultiChainComparison", "parameters": {"M": "3"}}, ErrorCode.PERMANENT, "parameters.M: "),
    ],
    ids=repr,
)
def test_what_cannot_be_built_is_refused(
    native: NativeAdapter, given: dict[str, Any], code: ErrorCode, message: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        native.create_program(spec(**given))
    assert caught.value.code is code
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("module", "signature"),
    [
        ("ChainOfThought", "reasoning -> answer"),  # as an output, it replaces the module's own
        ("MultiChainComparison", "question -> rationale"),
        ("MultiChainComparison", "reasoning_attempt_1 -> answer"),
    ],
)
def test_a_field_that_the_module_adds_is_refused(native: NativeAdapter, module: str, signature: str) -> None:
    with pytest.raises(AdapterError, match="rename yours") as caught:
        native.create_program(spec(signature, module=module))
    assert caught.value.code is ErrorCode.PERMANENT


# The process


def test_nothing_grows_and_nothing_is_printed(
    native: NativeAdapter, server: LMServer, capfd: pytest.CaptureFixture[str]
) -> None:
    backend_id = native.create_program(spec("question, n: int -> answer"))
    trace, before = len(dspy.settings.trace), len(GLOBAL_HISTORY)  # tests that run DSPy itself leave some there
    for number in range(30):
        server.script = lm_server.fields(answer="x")
        native.execute_program(backend_id, {"question": "why", "n": number}, RunOptions("run"))
        server.script = lm_server.text("?", finish_reason="length")
        with pytest.raises(AdapterError):
            native.execute_program(backend_id, {"question": "why", "n": "of another type"}, RunOptions("run"))
    program = native._programs.get(backend_id)
    histories = [len(GLOBAL_HISTORY), len(program.lms["lm"].history), len(program.module.history)]
    assert histories == [before, 0, 0]
    assert len(dspy.settings.trace) == trace
    assert capfd.readouterr() == ("", "")


def test_a_connection_is_kept_between_runs(native: NativeAdapter, server: LMServer) -> None:
    for _ in range(5):
        run(native, spec())
    assert server.connections == 1


def test_many_threads_with_many_lms_do_not_mix(server: LMServer) -> None:
    aliases = {f"lm{n}": LMAlias(f"openai/model-{n}", api_base=server.url, secret=f"KEY_{n}") for n in range(8)}
    native = NativeAdapter(LMCatalog(aliases, {f"KEY_{n}": f"sk-{n}" for n in range(8)}.get))

    def answer(request: lm_server.Request) -> Answer:
        model, key, question = request.body["model"], request.authorization, request.prompt.inputs["question"]
        answer = Answer(f"[[ ## answer ## ]]\n{model} {key} {question}")
        number = int(question.removeprefix("q"))
        body = lm_server.completion(request, answer)
        return Answer(body=body | {"usage": {"prompt_tokens": number, "completion_tokens": 1, "total_tokens": 0}})

    server.script = answer
    ids = [native.create_program(spec(lm=LM(model=f"lm{n}"))) for n in range(8)]

    def execute(number: int) -> None:
        outcome = native.execute_program(ids[number % 8], {"question": f"q{number}"}, RunOptions("run"))
        lm = number % 8
        assert outcome.outputs == {"answer": f"model-{lm} Bearer sk-{lm} q{number}"}
        assert (outcome.usage.calls, outcome.usage.input_tokens) == (1, number)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(execute, range(400)))


def in_a_new_process(program: str, **environment: str) -> str:
    """What a Python program prints that has the adapter, and may connect to this machine only."""
    guard = """
        import sys, socket
        def only_here(event, arguments):
            if event == "socket.connect" and arguments[1][0] != "127.0.0.1" or event == "socket.getaddrinfo" and (
                arguments[0] not in ("127.0.0.1", "localhost")
            ):
                print("CONNECTED TO", arguments)
        sys.addaudithook(only_here)
        from adapters.lm import LMAlias, LMCatalog
        from adapters.registry import AdapterRegistry
        from adapters.port import AdapterError, ProgramSpec, RunOptions
        from dspex import LM, Configuration, LMParameters, Signature
    """
    source = textwrap.dedent(guard) + textwrap.dedent(program)
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    return done.stdout


def test_a_run_needs_no_litellm_and_no_network_but_the_lm(server: LMServer, tmp_path: Path) -> None:
    printed = in_a_new_process(
        f"""
        for provider in ("openai", "openrouter", "groq", "deepseek", "hosted_vllm", "anthropic"):
            catalog = LMCatalog({{"local": LMAlias(provider + "/gpt-4o-mini", {server.url!r}, "K")}}, {{"K": "k"}}.get)
            adapter = AdapterRegistry(catalog).get("native")
            spec = ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=LM(model="local")))
            backend_id = adapter.create_program(spec)
            try:
                outcome = adapter.execute_program(backend_id, {{"question": "why"}}, RunOptions("run"))
                print(provider, outcome.outputs["answer"], outcome.usage.cost is not None)
            except AdapterError as error:
                print(provider, error.code)
        print(sorted(name for name in sys.modules if name == "litellm"))
        """,
        OPENAI_BASE_URL="http://127.0.0.1:9",
        HOME=str(tmp_path),
        DSPY_CACHEDIR=str(tmp_path / "cache"),
    )
    lines = printed.splitlines()
    assert lines[0] == "openai an answer True"
    assert lines[5] == "anthropic permanent"  # the server has no such path: it was DSPy's own client that asked
    assert lines[6] == "[]"
    assert "CONNECTED" not in printed
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").rglob("*.db"))


LITELLM_ERRORS: list[tuple[lm_server.Script, ErrorCode]] = [
    (lm_server.unauthorized, ErrorCode.AUTH),
    (lm_server.rate_limited(), ErrorCode.RATE_LIMITED),
    (lm_server.out_of_quota, ErrorCode.BILLING),
    (lm_server.context_too_long, ErrorCode.CONTEXT_WINDOW),
    (lm_server.filtered, ErrorCode.REFUSED),
    (lm_server.unknown_model, ErrorCode.PERMANENT),
    (lm_server.server_error, ErrorCode.TRANSIENT),
    (lm_server.cut_off, ErrorCode.TRANSIENT),
    (lm_server.slow(1), ErrorCode.TIMEOUT),
]


def test_a_provider_that_only_litellm_knows_is_called_by_it(
    server: LMServer, capfd: pytest.CaptureFixture[str]
) -> None:
    catalog = LMCatalog({"local": LMAlias("together_ai/a/b", server.url, "LOCAL_KEY")}, {"LOCAL_KEY": SECRET}.get)
    native = NativeAdapter(catalog)
    lm = LM(model="local", parameters=LMParameters(timeout=0.5))
    backend_id = native.create_program(spec(lm=lm))
    server.script = lambda _: Answer("[[ ## answer ## ]]\nan answer", headers={"X-Request-Id": "req-42"})
    outcome = native.execute_program(backend_id, {"question": "why"}, RunOptions("run", seed=1))
    assert outcome.outputs == {"answer": "an answer"}
    assert outcome.usage.input_tokens
    assert outcome.usage.lm_calls[0].request_id == "req-42"
    assert server.requests[0].authorization == f"Bearer {SECRET}"
    for script, code in LITELLM_ERRORS:
        server.requests.clear()
        server.script = script
        error = failure(native, spec(lm=lm))
        assert error.code is code, error.message
        assert SECRET not in f"{error} {vars(error)}"
        assert len(server.requests) == error.usage.calls == 1
    assert capfd.readouterr().out == ""


def test_importing_the_adapter_changes_nothing() -> None:
    printed = in_a_new_process(
        """
        import os
        before = dict(os.environ)
        import adapters.native
        import dspy
        print(os.environ == before, dspy.settings.lm)
        """,
        HOME="/nonexistent",
    )
    assert printed == "True None\n"


# A real task


def test_every_row_of_the_example_is_answered_right(native: NativeAdapter, server: LMServer) -> None:
    folder = ROOT / "examples" / "debian_sections"
    rows = [json.loads(line) for line in (folder / "packages.jsonl").read_text("utf-8").splitlines()]
    right: Mapping[str, str] = {row["package"]: row["section"] for row in rows}
    server.script = lm_server.answers_by(lambda inputs: {"section": right[inputs["package"]], "confidence": 0.9})
    signature = Signature.parse(json.loads((folder / "signature.json").read_text("utf-8")))
    program = ProgramSpec("native", signature, Configuration(lm=LM(model="local")))
    backend_id = native.create_program(program)

    def execute(row: Mapping[str, Any]) -> Mapping[str, Any]:
        inputs = signature.validate_inputs({"package": row["package"], "description": row["description"]})
        return native.execute_program(backend_id, inputs, RunOptions("run")).outputs

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(execute, rows))
    assert len(answers) == 360
    assert answers == [{"section": row["section"], "confidence": 0.9} for row in rows]
    assert {request.prompt.inputs["description"] for request in server.requests} == {row["description"] for row in rows}
    assert len(server.requests) == len(rows)
