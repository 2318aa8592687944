"""What DSPy saves after each of its optimizers is deployed as it is, and sends the same requests."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.setup import prepare_dspy
from adapters.own_modules import OwnModules
from adapters.port import AdapterError, ProgramSpec, RunOptions
from dspex import Configuration, Signature, state_of
from dspex.signatures.dspy_class import signature_of
from tests import lm_server
from tests.lm_server import LMServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MODEL = "openai/gpt-4o-mini"
TRAINSET = [
    dspy.Example(ticket=f"ticket {number}", label=label, dspy_split="train", row=number).with_inputs("ticket")
    for number, label in enumerate(["low", "high", "low", "high", "low", "high"])
]


class Triage(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Judge how urgent a ticket is."""

    ticket: str = dspy.InputField()
    label: str = dspy.OutputField(desc="low or high")


SIGNATURE = Signature.parse(
    {
        "instructions": "Judge how urgent a ticket is.",
        "inputs": [{"name": "ticket", "type": "str"}],
        "outputs": [{"name": "label", "type": "str", "description": "low or high"}],
    }
)


BETTER = "Every second ticket is high."


def better_when_told(request: lm_server.Request) -> lm_server.Answer:
    """Judges rightly once it has the better instructions, which it writes when it is asked for any."""
    inputs = request.prompt.inputs
    number = inputs.get("ticket", "").rpartition(" ")[2]
    is_high = BETTER in request.prompt.system and number in ("1", "3", "5")
    label = "high" if is_high else "low"
    told = dict.fromkeys(("proposed_instruction", "improved_instruction", "new_instruction"), BETTER)
    return lm_server.fields(label=label, reasoning="as told", **told)(request)


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture
def lm(server: LMServer) -> Iterator[dspy.LM]:
    """An LM as a notebook has it."""
    server.script = better_when_told
    prepare_dspy()
    lm = dspy.LM(MODEL, api_base=server.url, api_key="none", cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        yield lm


@pytest.fixture
def native(server: LMServer) -> Iterator[NativeAdapter]:
    adapter = NativeAdapter(LMCatalog({"local": LMAlias(MODEL, api_base=server.url)}))
    yield adapter
    adapter.close()


def is_right(example: dspy.Example, prediction: Any, *_: Any) -> float:
    return float(example.label == prediction.label)


def labeled(program: Any, _: dspy.LM) -> Any:
    return dspy.LabeledFewShot(k=4).compile(program, trainset=TRAINSET)


def bootstrapped(program: Any, _: dspy.LM) -> Any:
    optimizer = dspy.BootstrapFewShot(metric=is_right, max_bootstrapped_demos=2, max_labeled_demos=3)
    return optimizer.compile(program, trainset=TRAINSET)


def proposed(program: Any, lm: dspy.LM) -> Any:
    optimizer = dspy.MIPROv2(
        metric=is_right,
        prompt_model=lm,
        task_model=lm,
        auto=None,
        num_candidates=2,
        max_bootstrapped_demos=1,
        max_labeled_demos=1,
        num_threads=1,
    )
    return optimizer.compile(
        program,
        trainset=TRAINSET[:3],
        valset=TRAINSET[3:],
        num_trials=2,
        minibatch=False,
    )


def reflected(program: Any, lm: dspy.LM) -> Any:
    optimizer = dspy.GEPA(
        metric=lambda example, prediction, *_: dspy.Prediction(score=is_right(example, prediction), feedback="Say it."),
        max_metric_calls=13,  # enough for one proposal
        reflection_lm=lm,
        num_threads=1,
    )
    return optimizer.compile(program, trainset=TRAINSET[:3], valset=TRAINSET[3:])


def deployed(path: Path, module: str) -> ProgramSpec:
    given = {"module": module, "lm": {"model": "local"}, "state": state_of(path)}
    return ProgramSpec("native", SIGNATURE, Configuration.model_validate(given).bound_to(SIGNATURE))


@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
@pytest.mark.parametrize("optimized", [labeled, bootstrapped, proposed, reflected])
def test_what_an_optimizer_found_sends_the_same_requests(
    native: NativeAdapter,
    server: LMServer,
    lm: dspy.LM,
    tmp_path: Path,
    module: str,
    optimized: Callable[[Any, dspy.LM], Any],
) -> None:
    program = optimized(getattr(dspy, module)(Triage), lm)
    path = tmp_path / "optimized.json"
    program.save(path)
    server.requests.clear()
    program(ticket="The server is on fire.")
    backend_id = native.create_program(deployed(path, module))
    native.execute_program(backend_id, {"ticket": "The server is on fire."}, RunOptions("run"))
    ours, theirs = (server.requests[number].body for number in (1, 0))
    assert json.dumps(ours) == json.dumps(theirs)
    assert len(server.requests) == 2
    plain = getattr(dspy, module)(Triage)
    plain(ticket="The server is on fire.")
    assert server.requests[-1].body["messages"] != ours["messages"]  # it was optimized


def test_the_state_of_the_object_is_that_of_its_file(lm: dspy.LM, tmp_path: Path) -> None:
    program = labeled(dspy.ChainOfThought(Triage), lm)
    program.save(tmp_path / "state.json")
    of_object, of_file = state_of(program), state_of(tmp_path / "state.json")
    assert of_object.predictors == of_file.predictors
    assert of_object.metadata == of_file.metadata
    assert (of_object.module, of_file.module) == ("ChainOfThought", None)


def test_the_lm_of_a_program_that_has_one_is_its_programs(lm: dspy.LM) -> None:
    program = dspy.ChainOfThought(Triage)
    program.set_lm(lm)
    given = {"module": "ChainOfThought", "lm": {"model": MODEL}, "state": state_of(program)}
    kept = Configuration.model_validate(given).model_dump_json()
    assert "127.0.0.1" not in kept


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (
            [("Label:", "${label}"), ("Ticket:", "${ticket}")],
            ".0: is of a field 'label', and the predictor has 'ticket'",
        ),
        ([("Label:", "low or high"), ("Ticket:", "it")], ".0: is of a field 'label', and the predictor has 'ticket'"),
        (
            [("Ticket:", "${ticket}"), ("Answer:", "${answer}")],
            ".1: is of a field 'answer', and the predictor has 'label'",
        ),
        ([("Ticket:", "${ticket}")], ": there are 1, for the 2 fields ticket, label"),
        ([("A ticket:", "it"), ("Its label:", "low or high")], None),
    ],
)
def test_texts_of_other_fields_are_refused(
    native: NativeAdapter, texts: list[tuple[str, str]], problem: str | None
) -> None:
    fields = [{"prefix": prefix, "description": description} for prefix, description in texts]
    state = {"self": {"demos": [], "signature": {"instructions": "x", "fields": fields}}}
    configuration = Configuration.model_validate({"lm": {"model": "local"}, "state": state})
    spec = ProgramSpec("native", SIGNATURE, configuration)
    if problem is None:
        assert native.create_program(spec)
        return
    with pytest.raises(AdapterError) as caught:
        native.create_program(spec)
    assert caught.value.message.startswith(f"state.predictors.self.signature.fields{problem}")


@pytest.mark.usefixtures("example_plugin")
def test_a_module_of_ones_own_sends_what_its_saved_file_says(
    native: NativeAdapter, server: LMServer, lm: dspy.LM, tmp_path: Path
) -> None:
    made = import_module("dspex_example.programs").RAG(k=2)
    examples = [
        dspy.Example(question=f"what is {name}", answer=f"{name} it is", row=number).with_inputs("question")
        for number, name in enumerate(["apt", "dpkg", "ssh"])
    ]
    program = dspy.LabeledFewShot(k=3).compile(made, trainset=examples)
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions("As the optimizer says.")
    program.save(tmp_path / "rag.json")
    server.script = lm_server.fields(query="installs packages", reasoning="so", answer="a tool")
    server.requests.clear()
    program(question="what installs?")
    configuration = {"module": "dspex_example.programs:RAG", "parameters": {"k": 2}, "lm": {"model": "local"}}
    given = Configuration.model_validate(configuration | {"state": state_of(tmp_path / "rag.json")})
    signature = Signature.parse("question -> answer")
    spec = ProgramSpec("native", signature, given.bound_to(signature))
    spec = replace(spec, code=OwnModules(("dspex_example.programs:*",)).find("dspex_example.programs:RAG"))
    found = native.execute_program(native.create_program(spec), {"question": "what installs?"}, RunOptions("run"))
    assert found.outputs == {"answer": "a tool"}
    bodies = [json.dumps(request.body) for request in server.requests]
    assert bodies[2:] == bodies[:2]
    assert "As the optimizer says." in bodies[0]
    assert "apt it is" in bodies[1]


class Event(pydantic.BaseModel):
    """Something in a calendar."""

    title: str
    day: datetime.date
    seats: int | None = None


class Extract(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
    """Find the events."""

    mail: str = dspy.InputField()
    sent: datetime.date = dspy.InputField()
    events: list[Event] = dspy.OutputField()
    urgency: Literal["low", "high"] = dspy.OutputField()


@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
def test_demos_of_any_type_are_those_of_the_file(
    native: NativeAdapter, server: LMServer, lm: dspy.LM, tmp_path: Path, module: str
) -> None:
    day = datetime.date(2026, 1, 2)
    example = dspy.Example(mail="Come.", sent=day, events=[Event(title="tea", day=day)], urgency="low")
    made = getattr(dspy, module)(Extract)
    program = dspy.LabeledFewShot(k=1).compile(made, trainset=[example.with_inputs("mail", "sent")])
    program.save(tmp_path / "extract.json")
    loaded = getattr(dspy, module)(Extract)
    loaded.load(tmp_path / "extract.json")
    server.script = lm_server.fields(events=[{"title": "tea", "day": "2026-01-02"}], urgency="low", reasoning="so")
    server.requests.clear()
    loaded(mail="Go.", sent=day)
    signature = Signature.parse(signature_of(Extract, name="Extract").model_dump(mode="json"))
    state = state_of(tmp_path / "extract.json")
    given = {"module": module, "lm": {"model": "local"}, "state": state}
    spec = ProgramSpec("native", signature, Configuration.model_validate(given).bound_to(signature))
    inputs = signature.validate_inputs({"mail": "Go.", "sent": "2026-01-02"})
    native.execute_program(native.create_program(spec), inputs, RunOptions("run"))
    theirs, ours = (json.dumps(request.body) for request in server.requests)
    assert ours == theirs
    assert "tea" in ours
    (predictor,) = state.predictors.values()
    demo: Any = predictor.demos[0]
    demo["events"][0]["day"] = "never"
    wrong = ProgramSpec("native", signature, Configuration.model_validate(given).bound_to(signature))
    with pytest.raises(AdapterError, match=r"demos\.0\.events\.0\.day: input should be a valid date"):
        native.create_program(wrong)
