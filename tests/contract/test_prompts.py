"""A deployed signature sends what DSPy sends for its class, byte for byte."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.utils.exceptions import AdapterParseError
from pydantic_core import to_jsonable_python

from adapters import plugins
from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.setup import prepare_dspy
from adapters.port import Adapter, AdapterError, ProgramSpec, RunOptions
from adapters.python_port.server import Server
from dspex import Configuration, Signature
from dspex.signatures.dspy_class import signature_of
from tests import notebook
from tests.lm_server import LMServer, Script, fields, in_turn, text
from tests.on_an_lm import ON_AN_LM, adapter_of

TEXT: Mapping[str, Any] = {"text": "Ann and Bob"}
SIGNATURES: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "a class of people": (notebook.Extract, TEXT),
    "no instructions": (notebook.Undocumented, TEXT),
    "scalars": (notebook.Scalars, {"note": None, "count": 3}),
    "an enum of numbers, a class that is there twice": (notebook.Rated, TEXT),
    "dates, ids, any value": (notebook.Events, notebook.SINCE),
    "generic, nested and derived classes": (notebook.Kinds, {"parcel": notebook.PARCEL}),
    "unions, tuples, sets": (notebook.Unions, notebook.APART),
    "classes with rules of their own": (notebook.Ruled, notebook.RULED),
    "classes that contain themselves": (notebook.Outline, notebook.OUTLINE),
    "typed inputs": (notebook.Typed, notebook.TYPED),
    "images": (notebook.Seen, notebook.SEEN),
    "turns": (notebook.Talk, notebook.TALK),
}
UNREADABLE: Script = text("I do not know.")
PROMPT_ADAPTERS: Mapping[str, Callable[[Any], Any]] = {
    "chat": lambda _: dspy.ChatAdapter(),
    "json": lambda _: dspy.JSONAdapter(),
    "xml": lambda _: dspy.XMLAdapter(),
    "baml": lambda _: BAMLAdapter(),
    "two_step": dspy.TwoStepAdapter,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=ON_AN_LM, scope="module")
def deployed(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    models = {"local": "openai/gpt-4o-mini", "second": "openai/gpt-4.1-nano"}
    catalog = LMCatalog({name: LMAlias(model, api_base=server.url) for name, model in models.items()})

    def children() -> Server:
        made: Server = request.getfixturevalue("server_of_children")
        return made

    with adapter_of(request.param, catalog, children) as adapter:
        yield adapter


def asked(server: LMServer, run: Callable[[], object], script: Script = UNREADABLE) -> list[str]:
    """The bodies of the requests of a run, which may fail."""
    server.script = script
    server.requests.clear()
    with contextlib.suppress(AdapterParseError, AdapterError):
        run()
    return [json.dumps(request.body) for request in server.requests]


def in_the_notebook(
    server: LMServer,
    module: Callable[[], Any],
    inputs: Mapping[str, Any],
    adapter: str = "chat",
    script: Callable[[], Script] = lambda: UNREADABLE,
) -> list[str]:
    prepare_dspy()
    lms = [
        dspy.LM(name, api_base=server.url, api_key="none", cache=False, num_retries=0)
        for name in ("openai/gpt-4o-mini", "openai/gpt-4.1-nano")
    ]
    with dspy.context(lm=lms[0], adapter=PROMPT_ADAPTERS[adapter](lms[1])):
        return asked(server, lambda: module()(**inputs), script())


def as_deployed(
    server: LMServer,
    adapter: Adapter,
    signature: Any,
    inputs: Mapping[str, Any],
    script: Callable[[], Script] = lambda: UNREADABLE,
    **configuration: Any,
) -> list[str]:
    read = as_data(signature)
    given = Configuration.model_validate({"lm": {"model": "local"}} | configuration)
    backend_id = adapter.create_program(ProgramSpec("any", read, given))
    valid = read.validate_inputs(as_json(inputs))
    return asked(server, lambda: adapter.execute_program(backend_id, valid, RunOptions("run")), script())


def as_json(value: Any) -> Any:
    """The inputs as they are in a message."""
    match value:
        case dspy.Image():
            return value.url
        case dspy.Audio():
            return f"data:audio/{value.audio_format};base64,{value.data}"
        case dspy.File():
            name = f";name={quote(value.filename)}" if value.filename else ""
            return str(value.file_data).replace(";base64,", f"{name};base64,")
        case dspy.History():
            return {"messages": as_json(value.messages)}
        case list():
            return [as_json(item) for item in value]
        case dict():
            return {key: as_json(item) for key, item in value.items()}
        case _:
            return to_jsonable_python(value, by_alias=True)


def readable() -> Script:
    """The first answer cannot be read; an agent calls its tool, and then no other."""
    tool = fields(next_tool_name="capital_of", next_tool_args={"country": "France"})
    return in_turn(UNREADABLE, tool, fields(next_tool_name="finish", next_tool_args={}))


def as_data(signature: Any) -> Signature:
    """What is deployed of a class: JSON."""
    return Signature.parse(json.loads(signature_of(signature, name="of_a_class").model_dump_json()))


NOT_DSPYS = {
    # BAMLAdapter takes a class that is there twice for one that contains itself.
    ("an enum of numbers, a class that is there twice", "baml"),
    ("generic, nested and derived classes", "baml"),
    ("unions, tuples, sets", "baml"),
    ("classes with rules of their own", "baml"),
    # TwoStepAdapter writes them as text.
    ("images", "two_step"),
    ("turns", "two_step"),
    ("classes that contain themselves", "baml"),
}


@pytest.mark.parametrize(
    ("name", "prompt_adapter"), sorted({(name, by) for name in SIGNATURES for by in PROMPT_ADAPTERS} - NOT_DSPYS)
)
def test_every_type_in_every_format(server: LMServer, deployed: Adapter, name: str, prompt_adapter: str) -> None:
    signature, inputs = SIGNATURES[name]
    given: dict[str, Any] = {"module": "ChainOfThought", "prompt_adapter": prompt_adapter}
    if prompt_adapter == "two_step":
        given["extraction_lm"] = {"model": "second"}
    sent = in_the_notebook(server, lambda: dspy.ChainOfThought(signature), inputs, prompt_adapter)
    assert len(sent) == {"json": 1, "baml": 1, "two_step": 3}.get(prompt_adapter, 2)
    assert as_deployed(server, deployed, signature, inputs, **given) == sent


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [(notebook.Heard, notebook.HEARD), (notebook.Filed, notebook.FILED), (notebook.Filed, notebook.NAMED)],
    ids=["audio", "a file", "a file with a name"],
)
def test_audio_and_files(server: LMServer, signature: Any, inputs: Mapping[str, Any]) -> None:
    """DSPy's own HTTP client does not send them to this provider, but LiteLLM does, as it does in the notebook."""
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    sent = in_the_notebook(server, lambda: dspy.Predict(signature), inputs)
    assert any(kind in sent[0] for kind in ("input_audio", "file_data"))
    assert as_deployed(server, native, signature, inputs) == sent
    native.close()


class Chains(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """How `dspy.MultiChainComparison` is used."""

    def __init__(self, signature: Any) -> None:
        super().__init__()
        config: Any = {"temperature": 0.7}
        self.chain = dspy.ChainOfThought(signature, **config)
        self.compare = dspy.MultiChainComparison(signature, M=2)

    def forward(self, **inputs: Any) -> Any:
        return self.compare([self.chain(**inputs) for _ in range(2)], **inputs)


def reward(arguments: Any, prediction: Any) -> float:
    return 0.5


def capital_of(country: str) -> str:
    """The capital of a country."""
    return {"france": "Paris", "italy": "Rome"}[country.lower()]


MODULES: Mapping[str, tuple[Callable[[Any], Any], Mapping[str, Any]]] = {
    "Predict": (dspy.Predict, {}),
    "MultiChainComparison": (Chains, {"M": 2}),
    "ReAct": (lambda signature: dspy.ReAct(signature, [capital_of]), {"tools": ["capital_of"]}),
    "BestOfN": (
        lambda signature: dspy.BestOfN(dspy.Predict(signature), 3, reward, 1.0),
        {"N": 3, "reward": "half", "threshold": 1.0},
    ),
}


@pytest.mark.parametrize("name", ["a class of people", "typed inputs", "images", "turns"])
@pytest.mark.parametrize("module", MODULES)
def test_every_module(server: LMServer, module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = {"half": reward, "capital_of": capital_of}
    monkeypatch.setattr(plugins, "load", lambda _, name, **__: registered[name])
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    signature, inputs = SIGNATURES[name]
    make, parameters = MODULES[module]
    sent = in_the_notebook(server, lambda: make(signature), inputs, script=readable)
    assert len(sent) > 1
    given = {"module": module, "parameters": parameters}
    assert as_deployed(server, native, signature, inputs, readable, **given) == sent
    native.close()


def test_with_a_state(server: LMServer, deployed: Adapter) -> None:
    """What an optimizer found and `dump_state` wrote, loaded in the notebook and deployed."""
    found = dspy.ChainOfThought(notebook.Extract)
    people = [notebook.ANN, notebook.BOB]
    first = {"text": "Ann", "reasoning": "so", "people": people, "severity": notebook.Severity.HIGH, "confidence": 0.5}
    found.predict.demos = [dspy.Example(augmented=True, **first), dspy.Example(text="Bob", severity="low")]
    task: Any = found.predict.signature
    found.predict.signature = task.with_instructions("Find them.\nAll of them.")
    state = to_jsonable_python(found.dump_state())

    def loaded() -> Any:
        module = dspy.ChainOfThought(notebook.Extract)
        module.load_state(state)
        return module

    sent = in_the_notebook(server, loaded, TEXT)
    given = {"signature_digest": as_data(notebook.Extract).digest, "module": "ChainOfThought", "predictors": state}
    assert "bobby" in sent[0]
    assert as_deployed(server, deployed, notebook.Extract, TEXT, module="ChainOfThought", state=given) == sent


def test_with_images_in_a_state(server: LMServer) -> None:
    """DSPy dumps an image as it stands in a prompt."""
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    found = dspy.Predict(notebook.Seen)
    found.demos = [dspy.Example(augmented=True, **notebook.SEEN, answer="a cat"), dspy.Example(**notebook.SEEN)]
    state = json.loads(json.dumps(to_jsonable_python(found.dump_state())))

    def loaded() -> Any:
        module = dspy.Predict(notebook.Seen)
        module.load_state(state)
        return module

    sent = in_the_notebook(server, loaded, notebook.SEEN)
    assert "a cat" in sent[0]
    assert sent[0].count("image_url") > 6
    given: dict[str, Any] = {"signature_digest": as_data(notebook.Seen).digest, "predictors": {"self": state}}
    assert as_deployed(server, native, notebook.Seen, notebook.SEEN, state=given) == sent
    for wrong in ("https://example.org/a.png", "/etc/passwd", "<<CUSTOM-TYPE-START-IDENTIFIER>>[]", 3):
        state["demos"][0]["image"] = wrong
        configuration = Configuration.model_validate({"lm": {"model": "local"}, "state": given})
        spec = ProgramSpec("any", as_data(notebook.Seen), configuration)
        with pytest.raises(AdapterError, match=r"^state.predictors.self.demos.0.image: is no "):
            native.create_program(spec)
    native.close()
