"""A program is created of what a caller has, and run: a class, a file, another program. In process and remote."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dspex import Configuration, DspexError, Signature, uuid7
from dspex.aio import AsyncClient
from dspex.client import classes
from dspex.client.interface import Interface
from dspex.client.subject import NamedProgram, read_subject
from dspex.contract.retry_policy import ExecutionPolicy
from tests.contract.interface import code_of, working
from workers.local import LocalClient
from workers.settings import Settings

MODULE = "acme_subjects"
CODE = '''
import dspy

class Triage(dspy.Signature):
    """Judge it."""
    ticket: str = dspy.InputField()
    urgency: str = dspy.OutputField()

class Rag(dspy.Module):
    signature = "question -> answer"

class Typed(dspy.Module):
    signature = Triage

class Silent(dspy.Module):
    pass

class Wrong:
    pass

Nameless = dspy.Signature("question, k: int -> answer")
'''
INPUTS = {"ticket": "?"}


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("subjects")
    (folder / f"{MODULE}.py").write_text(CODE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module(MODULE)
        del sys.modules[MODULE]


def made(dspex: Interface, subject: Any, **options: Any) -> tuple[Signature, str, str]:
    program = dspex.create_program("made", subject, **options)
    assert (program.name, program.status) == ("made", "draft")
    signature = dspex.get_signature(program.signature_id).signature
    return signature, program.adapter_type, program.configuration.module


def test_a_class_is_a_signature_also_by_its_name(dspex: Interface, acme: ModuleType) -> None:
    triage = Signature.parse({"name": "Triage", "instructions": "Judge it.", "arrow": "ticket -> urgency"})
    assert made(dspex, acme.Triage) == (triage, "python_port", "Predict")
    assert made(dspex, f"{MODULE}:Triage", adapter_type="mock") == (triage, "mock", "Predict")
    assert dspex.create_signature(acme.Triage).signature == triage
    draft = dspex.create_signature("a -> b", activate=False)
    assert dspex.update_signature(draft.signature_id, f"{MODULE}:Triage").signature == triage
    program = dspex.create_program("p", "ticket -> urgency", adapter_type="mock")
    changed = dspex.update_program(program.program_id, signature=acme.Triage)
    assert dspex.get_signature(changed.signature_id).signature == triage
    # A class that was made of a text has a name that says nothing.
    assert made(dspex, acme.Nameless)[0].name == "question_k_to_answer"


def test_a_class_of_a_module_names_it_and_its_signature(
    dspex: Interface, acme: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Signature.parse("question -> answer")
    assert made(dspex, acme.Rag) == (question, "python_port", f"{MODULE}:Rag")
    assert made(dspex, f"{MODULE}:Typed")[0].name == "Triage"
    configured = Configuration(parameters={"k": 3})
    program = dspex.create_program("p", acme.Rag, configuration=configured)
    assert program.configuration == Configuration(module=f"{MODULE}:Rag", parameters={"k": 3})
    point = EntryPoint("rag", f"{MODULE}:Rag", classes.MODULES)
    monkeypatch.setattr(classes, "entry_points", lambda group: [point] if group == classes.MODULES else [])
    assert made(dspex, acme.Rag) == (question, "python_port", "rag")
    with pytest.raises(DspexError, match=r"configuration\.module: is 'ReAct', and the class that is given is 'rag'"):
        dspex.create_program("p", acme.Rag, configuration=Configuration(module="ReAct"))


def test_a_program_is_made_as_another_is(dspex: Interface, tmp_path: Path) -> None:
    name = f"of {uuid7()}"
    first = dspex.create_program(
        name,
        "ticket -> urgency",
        adapter_type="mock",
        configuration=Configuration(module="ChainOfThought"),
        policy=ExecutionPolicy(max_attempts=2),
    )
    members = ("signature_id", "adapter_type", "configuration", "policy")
    for given in (first.program_id, str(first.program_id), name, NamedProgram(name)):
        again = dspex.create_program("another", given)
        assert [getattr(again, member) for member in members] == [getattr(first, member) for member in members]
        assert again.program_id != first.program_id
    other = dspex.create_program("another", name, adapter_type="native", configuration=Configuration())
    assert (other.adapter_type, other.configuration, other.policy.max_attempts) == ("native", Configuration(), 2)
    # The id of a signature is one.
    assert dspex.create_program("p", first.signature_id).configuration == Configuration()
    assert code_of(lambda: dspex.create_program("p", uuid7())) == "not_found"
    assert code_of(lambda: dspex.create_program("p", f"no {uuid7()}")) == "not_found"

    wanted = {"name": "x", "signature": "a -> b", "adapter_type": "mock", "policy": {"max_attempts": 3}}
    file = tmp_path / "it.toml"
    file.write_text('name = "x"\nsignature = "a -> b"\nadapter_type = "mock"\npolicy = { max_attempts = 3 }\n')
    for deployment in (wanted, file, str(file)):
        made_of_it = dspex.create_program("mine", deployment)
        assert (made_of_it.name, made_of_it.adapter_type, made_of_it.policy.max_attempts) == ("mine", "mock", 3)


def test_all_of_it_in_one_call(dspex: Interface, acme: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "it.toml"
    file.write_text(f'name = "x"\nsignature = "{MODULE}:Triage"\nadapter_type = "mock"\n')
    saved = tmp_path / "signature.json"
    saved.write_text(Signature.parse("ticket -> urgency").model_dump_json())
    name = f"named {uuid7()}"
    program = dspex.create_program(name, "ticket -> urgency", adapter_type="mock")
    for given in (acme.Triage, f"{MODULE}:Triage", file, str(file), saved, name, program.program_id):
        assert list(dspex.quick_execute(given, INPUTS)) == ["urgency"]
    # It ran as it is, and is there once.
    assert dspex.find_program(name).execution_count == 2
    with pytest.raises(DspexError, match="has its own: update_program changes it"):
        dspex.quick_execute(name, INPUTS, "native")
    dspex.archive_program(program.program_id)
    assert code_of(lambda: dspex.quick_execute(name, INPUTS)) == "illegal_transition"
    assert asyncio.run(AsyncClient(dspex).quick_execute(acme.Triage, INPUTS)).keys() == {"urgency"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda acme: acme.Silent, f"signature: the module {MODULE}:Silent does not say its signature: give its class"),
        (lambda acme: acme.Wrong, f"signature: {MODULE}.Wrong is neither a dspy.Signature nor a dspy.Module class"),
        (lambda acme: acme.Rag(), "and no Rag"),
        (lambda _: f"{MODULE}:Wrong", f"signature: {MODULE}:Wrong is neither"),
        (lambda _: f"{MODULE}:Nobody", f"signature: '{MODULE}:Nobody' cannot be imported here: AttributeError"),
        (lambda _: "acme_not_there:X", "signature: 'acme_not_there:X' cannot be imported here: ModuleNotFoundError"),
        (lambda _: "no.toml", "no.toml: cannot be read: No such file"),
        (lambda _: 3, "and no int"),
        (lambda acme: type("Local", (acme.Rag,), {"__module__": "__main__"}), "cannot be imported by workers"),
    ],
)
def test_what_stands_for_nothing_is_named(acme: ModuleType, given: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(DspexError) as refused:
        read_subject(given(acme))
    assert said in str(refused.value)


def test_a_text_is_a_name_if_it_is_nothing_else() -> None:
    assert read_subject("triage") == NamedProgram("triage")
    assert read_subject("x" * 10_000) == NamedProgram("x" * 10_000)


def test_what_the_operator_has_allowed(tmp_path: Path, acme: ModuleType) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'dspex.db'}", modules=(MODULE, f"{MODULE}:Typed"))
    with working(settings) as app, LocalClient(app) as dspex:
        (found,) = dspex.create_signature_from_module(f"{MODULE}:Triage", name="urgency", version="2.1.0")
        assert (found.signature.name, found.signature.version, found.status) == ("urgency", "2.1.0", "draft")
        assert found.signature.module == f"{MODULE}.Triage"
        several = dspex.create_signature_from_module(MODULE, version="3.0.0")
        assert {(view.signature.name, view.signature.version) for view in several} == {
            ("Triage", "3.0.0"),
            ("Nameless", "3.0.0"),
        }
        with pytest.raises(DspexError, match=f"name: {MODULE} has 2 signatures: give one of them"):
            dspex.create_signature_from_module(MODULE, name="urgency")
        # A module of one's own runs where the operator has allowed it.
        assert list(dspex.quick_execute(acme.Typed, INPUTS)) == ["urgency"]
        with pytest.raises(DspexError, match=r"may not be imported by this worker .* allow it by DSPEX_MODULES"):
            dspex.quick_execute(acme.Rag, {"question": "?"})
