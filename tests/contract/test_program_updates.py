"""An update changes what is named, and nothing else; statistics leave out what never ran, and outlive the program."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dspex import LM, Configuration, DspexError
from dspex.client.interface import Interface
from dspex.contract.configuration import Fallback, LMParameters
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from tests.contract.interface import ARROW, code_of, ready

BEFORE = Configuration(
    module="ChainOfThought",
    parameters={"latency_ms": 0},
    lm=LM(model="openai/gpt-4o", secret="OPENAI_API_KEY_2", parameters=LMParameters(temperature=0.5, max_tokens=9)),
    fallbacks=(Fallback(on=("timeout",), adapter_type="mock"),),  # type: ignore[arg-type]
)


@pytest.fixture
def program(dspex: Interface) -> ProgramView:
    return ready(dspex, configuration=BEFORE, policy=ExecutionPolicy(max_attempts=2))


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({}, {}),
        ({"module": "Predict"}, {"module": "Predict"}),
        ({"module": None}, {"module": "Predict"}),
        ({"parameters": {"latency_ms": 1}}, {"parameters": {"latency_ms": 1}}),
        ({"parameters": None}, {"parameters": {}}),
        ({"lm": None}, {"lm": None}),
        ({"fallbacks": None}, {"fallbacks": ()}),
        ({"fallbacks": []}, {"fallbacks": ()}),
        (
            {"lm": {"model": "openai/o3"}},
            {"lm": BEFORE.lm.model_copy(update={"model": "openai/o3"}) if BEFORE.lm else None},
        ),
        (
            {"lm": {"secret": None, "parameters": {"temperature": 0.1}}},
            {"lm": LM(model="openai/gpt-4o", parameters=LMParameters(temperature=0.1, max_tokens=9))},
        ),
        (
            {"lm": {"secret": None, "parameters": {"temperature": None}}},
            {"lm": LM(model="openai/gpt-4o", parameters=LMParameters(max_tokens=9))},
        ),
        (
            {"lm": {"secret": None, "parameters": None}},
            {"lm": LM(model="openai/gpt-4o")},
        ),
    ],
)
def test_what_is_absent_stays_and_null_resets(
    dspex: Interface, program: ProgramView, change: dict[str, Any], after: dict[str, Any]
) -> None:
    changed = dspex.update_program(program.program_id, change)
    assert changed.configuration == BEFORE.model_copy(update=after)
    assert (changed.name, changed.policy, changed.status) == (program.name, program.policy, program.status)
    assert (changed.backend_id == program.backend_id) is (not after)


def test_a_whole_configuration_takes_its_place(dspex: Interface, program: ProgramView) -> None:
    assert dspex.update_program(program.program_id, Configuration()).configuration == Configuration()
    assert dspex.update_program(program.program_id, BEFORE).configuration == BEFORE


def test_a_program_is_renamed(dspex: Interface, program: ProgramView) -> None:
    renamed = dspex.update_program(program.program_id, name="another")
    assert renamed.name == "another"
    same = ("configuration", "policy", "backend_id", "status", "callback")
    assert [getattr(renamed, name) for name in same] == [getattr(program, name) for name in same]
    assert dspex.execute_program(program.program_id, {"question": "?"}).status == "completed"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({}, "give what is to change"),
        ({"configuration": {"lm": {"secret": "A"}}}, "lm.model"),
        ({"configuration": {"modul": "Predict"}}, "configuration.modul"),
        ({"configuration": "Predict"}, "configuration"),
    ],
)
def test_what_cannot_be_is_named(dspex: Interface, given: dict[str, Any], field: str) -> None:
    program = ready(dspex)
    with pytest.raises(DspexError) as refused:
        dspex.update_program(program.program_id, **given)
    assert field in str(refused.value)
    assert dspex.get_program(program.program_id) == program


def test_an_unknown_adapter_is_refused_at_once(dspex: Interface) -> None:
    fallback = Configuration(fallbacks=(Fallback(on=("timeout",), adapter_type="nativ"),))  # type: ignore[arg-type]
    calls: dict[str, Callable[[], object]] = {
        "adapter_type: 'pyhton_port' is not one of mock, native, python_port": lambda: dspex.create_program(
            "p", ARROW, adapter_type="pyhton_port"
        ),
        "configuration.environment: 'native' runs programs on the worker's own Python: name 'python_port'": lambda: (
            dspex.create_program("far", "q -> a", adapter_type="native", configuration=Configuration(environment="rag"))
        ),
        "configuration.fallbacks.0.adapter_type: 'nativ' is not one of mock, ": lambda: dspex.create_program(
            "p", ARROW, adapter_type="mock", configuration=fallback
        ),
    }
    for said, call in calls.items():
        with pytest.raises(DspexError) as refused:
            call()
        assert said in str(refused.value)


def test_what_never_ran_is_in_no_duration(dspex: Interface) -> None:
    program = dspex.create_program("a draft", ARROW, adapter_type="mock")
    not_ready = dspex.execute_program(program.program_id, {"question": "?"})
    assert (not_ready.error and not_ready.error.code, not_ready.duration_ms) == ("program_not_ready", None)
    dspex.initialize_program(program.program_id)
    invalid = dspex.execute_program(program.program_id, {"k": 1}, validate=False)
    assert (invalid.error and invalid.error.code, invalid.duration_ms) == ("invalid_input", None)
    now = datetime.now(UTC)
    for given in ({}, {"since": now - timedelta(hours=1)}):
        found = dspex.get_program_statistics(program.program_id, **given)
        assert (found.total, found.failed, found.success_rate) == (2, 2, 0.0)
        assert (found.average_duration_ms, found.p50_duration_ms, found.p95_duration_ms) == (None, None, None)
        assert found.last_executed_at is None
    assert dspex.get_program(program.program_id).last_executed_at is None
    ran = dspex.execute_program(program.program_id, {"question": "?"})
    found = dspex.get_program_statistics(program.program_id)
    assert found.average_duration_ms == pytest.approx(ran.duration_ms)
    assert found.last_executed_at is not None


def test_statistics_of_none(dspex: Interface) -> None:
    program = ready(dspex)
    for given in ({}, {"until": datetime.now(UTC)}):
        found = dspex.get_program_statistics(program.program_id, **given)
        assert (found.total, found.success_rate, found.average_duration_ms) == (0, None, None)
        assert found.name == program.name


def test_a_window_that_ends_before_it_begins_is_refused(dspex: Interface) -> None:
    now = datetime.now(UTC)
    window: dict[str, Any] = {"since": now, "until": now - timedelta(seconds=1)}
    for call in (
        lambda: dspex.get_program_statistics(uuid.uuid4(), **window),
        lambda: dspex.list_executions(**window),
        lambda: dspex.list_rejected_messages(**window),
        lambda: dspex.list_deliveries(**window),
        lambda: dspex.replay_executions(**window),
        lambda: dspex.discard_messages(**window),
        lambda: dspex.replay_deliveries(**window),
    ):
        with pytest.raises(DspexError) as refused:
            call()
        assert refused.value.code == "invalid_values"
        assert "until: must not be before 'since'" in str(refused.value)
    program = ready(dspex)
    assert dspex.get_program_statistics(program.program_id, since=now, until=now).total == 0


def test_statistics_outlive_the_program(dspex: Interface) -> None:
    program = ready(dspex)
    dspex.execute_program(program.program_id, {"question": "?"})
    dspex.archive_program(program.program_id)
    dspex.destroy_program(program.program_id)
    for given in ({}, {"since": datetime.now(UTC) - timedelta(hours=1)}):
        found = dspex.get_program_statistics(program.program_id, **given)
        assert (found.name, found.total, found.successful) == (None, 1, 1)
    assert code_of(lambda: dspex.get_program_statistics(uuid.uuid4())) == "not_found"


SAVED = {
    "predict": {
        "traces": [],
        "train": [],
        "demos": [{"question": "why", "reasoning": "so", "answer": "because"}],
        "lm": {"model": "openai/gpt-4o", "api_base": "http://127.0.0.1:9/v1"},
    },
    "metadata": {"dependency_versions": {"python": "3.11", "dspy": "3.0.0"}},
}


def test_a_saved_file_is_bound_to_the_signature_of_its_program(dspex: Interface, program: ProgramView) -> None:
    saved = Configuration.model_validate(BEFORE.model_dump(mode="json") | {"state": SAVED})
    changed = dspex.update_program(program.program_id, {"state": SAVED})
    created = ready(dspex, configuration=saved)
    for view in (changed, created):
        assert view.configuration.state is not None
        kept = view.configuration.state.model_dump(mode="json")
        assert kept == {
            "signature_digest": dspex.get_signature(view.signature_id).signature.digest,
            "module": "ChainOfThought",
            "predictors": {"predict": {"demos": SAVED["predict"]["demos"], "signature": None}},  # type: ignore[index]
        }
    by_id = dspex.create_program("by id", created.signature_id, adapter_type="mock", configuration=saved)
    assert by_id.configuration == created.configuration
