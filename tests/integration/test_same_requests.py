"""What `native` sends and reads is what DSPy sends and reads, at the first call of a program and at later ones."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.utils.exceptions import AdapterParseError

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.prompts.baml import Baml
from adapters.native.prompts.chat import CHAT, Chat, Json
from adapters.native.prompts.xml import Xml
from adapters.native.setup import prepare_dspy
from adapters.native.signatures import dspy_signature, json_outputs
from adapters.port import ProgramSpec, RunOptions
from dspex import Configuration, Signature
from tests.lm_server import LMServer, text

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")

DEEP = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name"],
}
CORPUS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "texts": ("question -> answer", [{"question": "why"}, {"question": 'a "quoted"\n[[ ## answer ## ]]\nline é'}]),
    "numbers": ("n: int, x: float, b: bool -> m: int, y: float, c: bool", [{"n": 10**20, "x": 0.5, "b": True}]),
    "choice": ("text -> label: Literal['low', 'high']", [{"text": ""}, {"text": "None"}]),
    "lists": (
        "tags: list[str], scores: dict[str, float] -> found: list[int]",
        [{"tags": ["a", "b\nc"], "scores": {"é": 1.0}}, {"tags": [], "scores": {}}],
    ),
    "objects": (
        {
            "instructions": "Find it.\n\n    Indented.",
            "inputs": [{"name": "given", "type": DEEP, "description": "what there is"}],
            "outputs": [{"name": "found", "type": DEEP}, {"name": "sure", "type": "float"}],
        },
        [{"given": {"name": "x", "tags": ["a"]}}, {"given": {"name": ""}}],
    ),
    "optional": ("note: Optional[str], n: Optional[int] -> answer: Optional[str]", [{"note": None, "n": None}]),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


def sent(server: LMServer) -> list[str]:
    """The bodies since the last look, as text: the order of what is in them counts."""
    bodies = [json.dumps(request.body) for request in server.requests]
    server.requests.clear()
    return bodies


def own(server: LMServer) -> Any:
    """DSPy's own LM."""
    return dspy.LM("openai/gpt-4o-mini", api_base=server.url, api_key="none", cache=False, num_retries=0)


@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
@pytest.mark.parametrize("name", CORPUS)
def test_requests_and_outputs_are_dspys(server: LMServer, module: str, name: str) -> None:
    given, examples = CORPUS[name]
    signature = Signature.parse(given)
    adapter = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    configuration = Configuration.model_validate({"lm": {"model": "local"}, "module": module})
    backend_id = adapter.create_program(ProgramSpec("native", signature, configuration))
    theirs = getattr(dspy, module)(dspy_signature(signature))
    sent(server)
    for inputs in [*examples, *examples]:
        with dspy.context(lm=own(server), adapter=dspy.ChatAdapter(), disable_history=True):
            expected = json_outputs(signature, theirs(**inputs))
        asked = sent(server)
        assert len(asked) == 1
        assert adapter.execute_program(backend_id, inputs, RunOptions("run")).outputs == expected
        assert sent(server) == asked
    adapter.close()


def test_the_second_question_for_json_is_dspys_too(server: LMServer) -> None:
    signature = Signature.parse("question -> answer, n: int")
    adapter = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    configuration = Configuration.model_validate({"lm": {"model": "local"}})
    backend_id = adapter.create_program(ProgramSpec("native", signature, configuration))
    fitting, server.script = server.script, text("no sections")
    try:
        sent(server)
        with (
            dspy.context(lm=own(server), adapter=dspy.ChatAdapter(), disable_history=True),
            pytest.raises(AdapterParseError),
        ):
            dspy.Predict(dspy_signature(signature))(question="why")
        asked = sent(server)
        for _ in range(2):
            with pytest.raises(Exception, match="no outputs can be read"):
                adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run"))
            assert sent(server) == asked[:2]
    finally:
        server.script = fitting
    adapter.close()


PAIRS = [
    (Chat(), dspy.ChatAdapter()),
    (Json(), dspy.JSONAdapter()),
    (Xml(), dspy.XMLAdapter()),
    (Baml(), BAMLAdapter()),
]
DEMOS: list[dict[str, Any]] = [
    {"question": "one", "answer": "1"},
    {"question": "two", "answer": None},
    {"question": "three", "answer": "3", "augmented": True},
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["chat", "json", "xml", "baml"])
def test_what_is_kept_of_a_prompt_follows_its_signature_and_its_demos(ours: Any, theirs: Any) -> None:
    prepare_dspy()
    signature = dspy_signature(Signature.parse("question -> answer"))
    other = dspy_signature(Signature.parse("question -> answer: int"))
    demos = [dict(demo) for demo in DEMOS]
    inputs = {"question": "why"}

    def same(now: Any, shown: list[dict[str, Any]]) -> list[Any]:
        messages: list[Any] = ours.format(now, shown, inputs)
        assert messages == theirs.format(now, shown, inputs)
        return messages

    first = same(signature, demos)
    first[0]["content"] = first[1]["content"] = "changed by who got it"
    assert same(signature, demos) != first
    same(other, demos)
    same(signature, [])
    demos.append({"question": "four", "answer": "4"})
    same(signature, demos)
    demos[0] = {"question": "zero", "answer": "0"}
    same(signature, demos)
    signature.instructions = "Other instructions."
    assert "Other instructions." in same(signature, demos)[0]["content"]
    same(signature.with_instructions("Yet others."), demos)


def test_what_is_kept_goes_with_the_program() -> None:
    signature = dspy_signature(Signature.parse("question -> answer, gone: int"))
    kept = CHAT._kept
    before = len(kept)
    CHAT.format(signature, [], {"question": "why"})
    assert len(kept) == before + 1
    del signature
    gc.collect()
    assert len(kept) <= before
