"""A client that others generate from the committed schemas, with datamodel-code-generator: its models have the names of
the contract, read what DSPex sends, and write what it takes."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from dspex import decode_command, decode_event, wrap
from dspex.contract.commands import Command
from dspex.contract.events import Event
from tests.answers import AN_ANSWER_OF_EACH
from tests.unit.dspex.contract.test_envelope import A_COMMAND_OF_EACH, AN_EVENT_OF_EACH

SCHEMAS = Path(__file__).parents[2] / "messages" / "contract" / "schemas"
PACKAGE = "generated_dspex_client"
NUMBERED = re.compile(r"^class (\w*[0-9]|\w*Model|Data|Item|Field)\(", re.MULTILINE)
"""What a generator calls models that have no name, or one that another has."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("client")
    subprocess.run(
        [
            *(
                Path(sys.executable).with_name("datamodel-codegen"),
                "--input",
                SCHEMAS,
                "--input-file-type",
                "jsonschema",
            ),
            *("--output-model-type", "pydantic_v2.BaseModel", "--output", directory / PACKAGE),
            *("--formatters", "builtin", "--disable-timestamp"),
        ],
        check=True,
        timeout=120,
        capture_output=True,
    )
    sys.path.insert(0, str(directory))
    yield directory
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def model_of(data: Command | Event) -> type[BaseModel]:
    found: type[BaseModel] = getattr(module(data.type.replace(".", "_")), f"{type(data).__name__}Message")
    return found


def test_every_model_has_a_name_of_the_contract(directory: Path) -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in (directory / PACKAGE).rglob("*.py")}
    assert len(sources) > 60
    assert {name: found for name, source in sources.items() if (found := NUMBERED.findall(source))} == {}


@pytest.mark.parametrize("data", A_COMMAND_OF_EACH, ids=lambda data: data.type)
@pytest.mark.usefixtures("directory")
def test_a_command_that_it_writes_is_the_same_command(data: Command) -> None:
    message = wrap(data, source="/generated")
    written = model_of(data).model_validate_json(message.encode()).model_dump_json(exclude_unset=True, by_alias=True)
    assert decode_command(written.encode()) == message


@pytest.mark.parametrize("data", AN_EVENT_OF_EACH, ids=lambda data: data.type)
@pytest.mark.usefixtures("directory")
def test_an_event_that_it_reads_is_the_same_event(data: Event) -> None:
    message = wrap(data, source="/generated")
    read = model_of(data).model_validate_json(message.encode()).model_dump_json(exclude_unset=True, by_alias=True)
    assert decode_event(read.encode()) == message


@pytest.mark.parametrize("answer", AN_ANSWER_OF_EACH, ids=lambda answer: type(answer).__name__)
@pytest.mark.usefixtures("directory")
def test_an_answer_that_it_reads_is_the_same_answer(answer: BaseModel) -> None:
    name = type(answer).__name__.replace("[", "Of").replace("]", "")
    model: Any = getattr(module(f"answers.{name}"), name)
    sent = answer.model_dump(mode="json")
    read = model.model_validate(sent).model_dump_json(exclude_unset=True, by_alias=True)
    assert type(answer).model_validate(json.loads(read)) == type(answer).model_validate(sent)
