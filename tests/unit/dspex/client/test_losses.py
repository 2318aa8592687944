"""What is lost of a signature, as the client and replies tell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspex import InitializeProgram, Signature, decode_command, uuid7, wrap
from dspex.client.losses import SignatureWarning
from dspex.contract.commands import Command, CreateProgramWithSignature, CreateSignature, UpdateProgram, UpdateSignature
from dspex.errors import InvalidMessage, InvalidSignature
from tests.unit.system import System
from workers.local import LocalClient

LOST = ("x.zip: format 'zip' is not checked",)
SCHEMA = {"type": "object", "properties": {"zip": {"type": "string", "format": "zip"}}}
DATA: dict[str, Any] = {"inputs": [{"name": "a", "type": "str"}], "outputs": [{"name": "x", "type": SCHEMA}]}
OURS = Signature.given(DATA).model_dump(mode="json")


@pytest.fixture
def client(system: System) -> Iterator[LocalClient]:
    with LocalClient(system.app) as made:
        yield made


def told(verb: Callable[[], Any]) -> Any:
    """What a verb returns, which warns of the loss, once."""
    with pytest.warns(SignatureWarning) as caught:
        found = verb()
    assert [str(each.message) for each in caught] == list(LOST)
    assert caught[0].filename == __file__
    return found


def test_a_client_warns_and_the_view_says_it(client: LocalClient) -> None:
    view = told(lambda: client.create_signature(DATA))
    assert view.warnings == LOST
    assert client.get_signature(view.signature_id).warnings == ()
    program = told(lambda: client.create_program("p", DATA, adapter_type="mock"))
    assert program.warnings == LOST
    assert told(lambda: client.quick_execute(DATA, {"a": "b"})).keys() == {"x"}
    program = client.create_program("q", "a -> b", adapter_type="mock")
    changed = told(lambda: client.update_program(program.program_id, signature=DATA, allow_breaking=True))
    assert changed.warnings == LOST


def test_a_deployment_warns(client: LocalClient) -> None:
    deployment = {"name": "d", "signature": DATA, "adapter_type": "mock"}
    with pytest.warns(SignatureWarning, match="zip"):
        client.plan_deployment(deployment)
    with pytest.warns(SignatureWarning, match="zip"):
        assert client.deploy(deployment).warnings == LOST


def test_a_strict_client_sends_nothing(client: LocalClient) -> None:
    program = client.create_program("p", "a -> b", adapter_type="mock")
    deployment = {"name": "d", "signature": DATA, "adapter_type": "mock"}
    verbs: list[Callable[[], object]] = [
        lambda: client.create_signature(DATA, strict=True),
        lambda: client.create_program("q", DATA, strict=True),
        lambda: client.quick_execute(DATA, {"a": "b"}, strict=True),
        lambda: client.update_program(program.program_id, signature=DATA, strict=True),
        lambda: client.update_signature(program.signature_id, DATA, strict=True),
        lambda: client.plan_deployment(deployment, strict=True),
        lambda: client.deploy(deployment, strict=True),
    ]
    for verb in verbs:
        with pytest.raises(InvalidSignature, match=r"^x\.zip: format 'zip' is not checked$"):
            verb()
    assert [view.signature_id for view in client.list_signatures().items] == [program.signature_id]
    assert [view.program_id for view in client.list_programs().items] == [program.program_id]


COMMANDS: list[Command] = [
    CreateSignature(signature_id=uuid7(), signature=Signature.parse(OURS)),
    UpdateSignature(signature_id=uuid7(), signature=Signature.parse(OURS)),
    CreateProgramWithSignature(program_id=uuid7(), name="p", signature=Signature.parse(OURS), adapter_type="mock"),
    UpdateProgram(program_id=uuid7(), signature=Signature.parse(OURS)),
]


def sent(command: Command, **members: Any) -> Any:
    """The command of a message with other members."""
    message = json.loads(wrap(command, source="/test").encode())
    message["data"] |= members
    return decode_command(json.dumps(message).encode()).data


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.type)
def test_a_message_may_have_another_schema(command: Any) -> None:
    assert (sent(command), sent(command).signature.lost) == (command, ())
    found = sent(command, signature=DATA)
    assert found.signature.warnings == LOST
    assert (found, found.signature.digest) == (command, command.signature.digest)
    with pytest.raises(InvalidMessage, match=r"data\.signature: x\.zip: format 'zip' is not checked"):
        sent(command, signature=DATA, strict=True)
    assert sent(command, strict=True).strict is True
    wrong = {**DATA, "outputs": [{"name": "x", "type": {"type": "string", "contentMediaType": "image/png"}}]}
    with pytest.raises(InvalidMessage, match=r"data\.signature: x: contentMediaType: it is image/png"):
        sent(command, signature=wrong)


def test_a_reply_says_what_is_lost_of_a_message(client: LocalClient) -> None:
    """As a producer in another language sends it, which has read nothing itself."""
    command = sent(COMMANDS[0], signature=DATA)
    view = client.call(command, command.answer)
    assert json.loads(view.model_dump_json())["warnings"] == list(LOST)
    command = sent(COMMANDS[2], signature=DATA)
    made: Any = client.call(command, command.answer)
    assert (made.signature.warnings, made.program.warnings) == (LOST, LOST)
    ready = client.call(InitializeProgram(program_id=made.program.program_id), type(made.program))
    assert "warnings" not in json.loads(ready.model_dump_json())
