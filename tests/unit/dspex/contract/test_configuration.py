"""A program's configuration: its state and its fallbacks, and what they may not hold."""

from __future__ import annotations

import copy
from typing import Any

import pydantic
import pytest

from adapters.port import ProgramSpec
from dspex import Configuration, ErrorCode, Signature
from dspex.model import problems

SIGNATURE = Signature.parse("question -> answer")
STATE: dict[str, Any] = {
    "signature_digest": SIGNATURE.digest,
    "module": "Predict",
    "predictors": {
        "self": {
            "traces": [],
            "train": [],
            "lm": None,
            "demos": [{"question": "why", "answer": "because", "augmented": True}],
            "signature": {
                "instructions": "Briefly.",
                "fields": [
                    {"prefix": "Question:", "description": "what is asked"},
                    {"prefix": "Answer:", "description": "${answer}"},
                ],
            },
        }
    },
}

SAME_ANYWHERE = (
    *("invalid_input", "cancelled", "program_not_ready", "program_archived"),
    *("attempts_exhausted", "expired", "lease_expired"),
)
"""The codes that a fallback would end with as well."""
ANOTHER_MAY_HELP = [
    "invalid_output",
    "parse_failure",
    "rate_limited",
    "transient",
    "timeout",
    "auth",
    "billing",
    "context_window",
    "refused",
    "truncated",
    "crashed",
    "permanent",
    "internal",
]


def refusal(**given: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        Configuration.model_validate(given)
    return "; ".join(map(str, problems(caught.value)))


def with_predictor(**more: Any) -> dict[str, Any]:
    state = copy.deepcopy(STATE)
    state["predictors"]["self"] |= more
    return state


def test_a_state_is_read_as_dspy_dumps_it() -> None:
    state = Configuration.model_validate({"state": STATE}).state
    assert state is not None
    predictor = state.predictors["self"]
    assert predictor.demos[0]["answer"] == "because"
    assert predictor.signature is not None
    assert predictor.signature.fields[0].description == "what is asked"


def test_a_configuration_survives_the_way_through_json() -> None:
    given = {"state": STATE, "fallbacks": [{"on": ["rate_limited"], "lm": {"model": "openai/x"}}]}
    configuration = Configuration.model_validate(given)
    assert Configuration.model_validate_json(configuration.model_dump_json()) == configuration


def test_state_and_fallbacks_are_part_of_the_id_and_nothing_changes_without_them() -> None:
    def backend_id(**given: Any) -> str:
        return ProgramSpec("mock", SIGNATURE, Configuration.model_validate(given)).backend_id

    ids = {
        backend_id(),
        backend_id(state=STATE),
        backend_id(state=with_predictor(demos=[])),
        backend_id(fallbacks=[{"on": ["timeout"], "adapter_type": "mock"}]),
    }
    assert len(ids) == 4
    assert set(Configuration().model_dump()) == {"module", "parameters", "lm"}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"lm": {"model": "openai/x", "api_base": "http://127.0.0.1:9"}}, "state.predictors.self.lm"),
        ({"config": {"api_base": "http://127.0.0.1:9"}}, "state.predictors.self.config"),
        ({"traces": [1]}, "state.predictors.self.traces"),
        ({"train": [{"a": 1}]}, "state.predictors.self.train"),
        ({"fields": {"answer": {}}}, "state.predictors.self.fields"),
        ({"signature": {"instructions": "x", "fields": [], "name": "y"}}, "state.predictors.self.signature.name"),
        ({"demos": ["a"]}, "state.predictors.self.demos.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_holds_demos_and_texts_and_nothing_else(more: dict[str, Any], field: str) -> None:
    assert refusal(state=with_predictor(**more)).startswith(f"{field}: ")


@pytest.mark.parametrize("path", ["__class__.__init__", "a b", "a..b", "", "a.__globals__['x'](1)"])
def test_a_path_of_a_predictor_is_a_path(path: str) -> None:
    state = copy.deepcopy(STATE)
    state["predictors"][path] = {}
    if path == "__class__.__init__":  # a path by its form: no module has a predictor there
        Configuration.model_validate({"state": state})
    else:
        assert "state.predictors." in refusal(state=state)


def test_a_state_is_for_one_module() -> None:
    assert "state.module: it was found for 'Predict', not for 'ReAct'" in refusal(module="ReAct", state=STATE)


@pytest.mark.parametrize(
    ("fallback", "problem"),
    [
        ({"on": ["rate_limited"]}, "fallbacks.0: give 'lm', 'adapter_type' or both"),
        ({"on": [], "adapter_type": "mock"}, "fallbacks.0.on: "),
        ({"on": ["nonsense"], "adapter_type": "mock"}, "fallbacks.0.on.0: "),
        ({"on": ["timeout"], "lm": {"model": "a/b", "api_base": "x"}}, "fallbacks.0.lm.api_base: "),
        ({"on": ["timeout"], "adapter_type": "../x"}, "fallbacks.0.adapter_type: "),
        ({"on": ["timeout"], "adapter_type": "mock", "retries": 3}, "fallbacks.0.retries: "),
        *(
            ({"on": [code], "adapter_type": "mock"}, f"fallbacks.0.on: no fallback can avoid '{code}'")
            for code in SAME_ANYWHERE
        ),
    ],
    ids=repr,
)
def test_a_fallback_that_cannot_be_is_refused_by_field(fallback: dict[str, Any], problem: str) -> None:
    assert problem in refusal(fallbacks=[fallback])


def test_every_other_code_may_have_a_fallback() -> None:
    assert sorted((*SAME_ANYWHERE, *ANOTHER_MAY_HELP)) == sorted(ErrorCode)
    configuration = Configuration.model_validate({"fallbacks": [{"on": ANOTHER_MAY_HELP, "adapter_type": "mock"}]})
    assert list(configuration.fallbacks[0].on) == ANOTHER_MAY_HELP


def test_the_environment_is_left_out_where_there_is_none() -> None:
    assert "environment" not in Configuration().model_dump()
    assert Configuration(environment="rag-2").model_dump()["environment"] == "rag-2"
    one, other = (ProgramSpec("python_port", SIGNATURE, Configuration(environment=name)) for name in ("a", "b"))
    assert one.backend_id != other.backend_id
    assert "environment: string should match pattern" in refusal(environment="../bin/python")
