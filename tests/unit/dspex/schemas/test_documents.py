"""The committed contract is that of the models and the topology, and says of messages what the decoder says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import BaseModel

from dspex import schemas, wrap
from dspex.amqp.topology import BINDINGS, EXCHANGES, QUEUES, queue_of
from dspex.contract.commands import Command
from dspex.contract.events import EVENTS, Event, Reply
from dspex.contract.requests import REQUESTS
from dspex.schemas.__main__ import main
from dspex.schemas.json_schema import ANSWERS, MESSAGES
from tests.answers import AN_ANSWER_OF_EACH
from tests.unit.dspex.contract.test_envelope import A_COMMAND_OF_EACH, AN_EVENT_OF_EACH

COMMITTED = Path(__file__).parents[4] / "messages" / "contract"
DOCUMENTS = schemas.read(COMMITTED)
SAMPLES: list[Command | Event] = [*A_COMMAND_OF_EACH, *AN_EVENT_OF_EACH]
AGAIN = "the models and the committed contract differ: run `make contract`, and commit what it writes"


def validator(path: str) -> Draft202012Validator:
    return Draft202012Validator(DOCUMENTS[f"schemas/{path}.json"], format_checker=Draft202012Validator.FORMAT_CHECKER)


def message(data: Command | Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wrap(data, source="/test").encode())
    return found


def test_what_is_committed_is_what_the_models_say() -> None:
    new = schemas.documents()
    assert schemas.broken(DOCUMENTS, new) == {}, "v1 only grows optional fields"
    assert DOCUMENTS.keys() == new.keys(), AGAIN
    for path, document in new.items():
        assert (COMMITTED / path).read_text(encoding="utf-8") == schemas.written(document), f"{path}: {AGAIN}"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.startswith("schemas/")])
def test_every_schema_is_one(path: str) -> None:
    Draft202012Validator.check_schema(DOCUMENTS[path])


@pytest.mark.parametrize("data", SAMPLES, ids=lambda data: data.type)
def test_a_message_of_each_type_fits_its_schema(data: Command | Event) -> None:
    validator(data.type).validate(message(data))


@pytest.mark.parametrize("answer", AN_ANSWER_OF_EACH, ids=lambda answer: type(answer).__name__)
def test_an_answer_of_each_kind_fits_its_schema(answer: BaseModel) -> None:
    name = next(name for name, model in ANSWERS.items() if model is type(answer))
    sent = answer.model_dump(mode="json")
    validator(f"answers/{name}").validate(sent)
    validator(Reply.type).validate(message(Reply(answer=sent)))


def test_there_is_a_sample_of_each() -> None:
    assert {type(answer) for answer in AN_ANSWER_OF_EACH} == set(ANSWERS.values())
    assert {data.type for data in SAMPLES} == set(MESSAGES)


@pytest.mark.parametrize("data", A_COMMAND_OF_EACH, ids=lambda data: data.type)
def test_a_command_is_closed(data: Command) -> None:
    sent = message(data)
    for changed in (
        sent | {"Priority": 1},
        sent | {"priority": {}},
        sent | {"priority": 1.5},
        sent | {"data": sent["data"] | {"mispelt": 1}},
        sent | {"data": None},
    ):
        with pytest.raises(ValidationError):
            validator(data.type).validate(changed)


@pytest.mark.parametrize("data", AN_EVENT_OF_EACH, ids=lambda data: data.type)
def test_an_event_is_open(data: Event) -> None:
    sent = message(data)
    validator(data.type).validate(sent | {"later": 1, "data": sent["data"] | {"later": 1}})
    with pytest.raises(ValidationError):
        validator(data.type).validate(sent | {"type": "dspex.other.v1"})


@pytest.mark.parametrize(
    ("signature", "fits"),
    [
        ("question -> answer", True),
        ({"arrow": "question -> answer", "version": "1.0.0"}, True),
        ({"inputs": [{"name": "a", "type": "list[str]"}], "outputs": [{"name": "b", "type": {"enum": [1]}}]}, True),
        ({"inputs": [{"name": "a", "type": {"type": "dragon"}}], "outputs": [{"name": "b", "type": "str"}]}, False),
        ({"inputs": [], "outputs": [{"name": "b", "type": "str"}]}, False),
        ({"arrow": "question -> answer", "inputs": []}, False),
        (3, False),
    ],
)
def test_a_signature_may_be_written_as_the_decoder_reads_it(signature: Any, fits: bool) -> None:
    sent = message(A_COMMAND_OF_EACH[0])
    sent["data"]["signature"] = signature
    assert validator("dspex.signature.create.v1").is_valid(sent) is fits


def test_asyncapi_has_every_message_where_the_topology_has_it() -> None:
    document = DOCUMENTS["asyncapi.json"]
    channels = document["channels"]
    for type_ in REQUESTS:
        binding = channels[type_]["bindings"]["amqp"]
        assert (channels[type_]["address"], binding["exchange"]["name"]) == (type_, "dspex.commands")
        assert binding["x-queue"] == queue_of(type_)
        assert type_ in channels[queue_of(type_)]["messages"]
    for type_ in EVENTS.keys() - {Reply.type}:
        assert channels[type_]["bindings"]["amqp"]["exchange"]["name"] == "dspex.events"
        assert channels[type_]["address"] == f"{{tenant}}.{type_}"
        assert channels[type_]["parameters"] == {"tenant": {"default": "default"}}
    assert channels.keys() == (MESSAGES.keys() | QUEUES.keys() | {"replies"}) - {Reply.type}
    assert document["x-bindings"] == [binding._asdict() for binding in BINDINGS]
    assert [exchange["name"] for exchange in document["x-exchanges"]] == [exchange.name for exchange in EXCHANGES]
    assert {"failures", "refusals"} == document["x-error-codes"].keys()
    assert {"not_found", "conflict", "denied"} <= document["x-error-codes"]["refusals"].keys()


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for inner in value.values():
                yield from references(inner)
        case list():
            for inner in value:
                yield from references(inner)


def test_what_asyncapi_refers_to_is_there() -> None:
    document = DOCUMENTS["asyncapi.json"]
    files = set()
    for target in references(document):
        if not target.startswith("#/"):
            files.add(target)
            continue
        found = document
        for part in target.removeprefix("#/").split("/"):
            found = found[part]
    assert files == DOCUMENTS.keys() - {"asyncapi.json", schemas.DEPLOYMENT}  # a deployment is no message


def test_it_is_written_once_and_then_the_same(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    assert main([str(tmp_path)]) == 0
    assert schemas.read(tmp_path) == DOCUMENTS
    assert main([str(tmp_path)]) == 0


def test_what_breaks_the_services_of_others_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    path = tmp_path / "schemas" / "dspex.program.execute.v1.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    old["$defs"]["ExecutionOptions"]["properties"]["priority"] = {"type": "integer"}
    path.write_text(schemas.written(old), encoding="utf-8")
    (tmp_path / "schemas" / "dspex.program.dance.v1.json").write_text("{}", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "schemas/dspex.program.execute.v1.json: data.options.priority: is gone" in said
    assert "schemas/dspex.program.dance.v1.json: is gone" in said
    assert json.loads(path.read_text(encoding="utf-8")) == old


def test_wrong_usage_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m dspex.schemas DIRECTORY" in capsys.readouterr().err
