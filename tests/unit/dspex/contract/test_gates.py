"""What may be paused and limited, as messages say it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dspex.contract.gates import Limits, Pause, Scope, SetLimit
from dspex.model import problems

ID = "0190f6a0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("kind", "name", "read"),
    [
        ("everything", None, None),
        ("tenant", None, None),
        ("tenant", "acme", "acme"),
        ("lane", "bulk", "bulk"),
        ("program", ID.upper(), ID),
        ("program", ID.replace("-", ""), ID),
        ("lm", "openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("worker", "host-1", "host-1"),
        ("label", "customer=7", "customer=7"),
        ("label", "customer=a=b", "customer=a=b"),
        ("label", "customer=", "customer="),
    ],
)
def test_a_scope_has_the_name_of_its_kind(kind: str, name: str | None, read: str | None) -> None:
    given = {"kind": kind} if name is None else {"kind": kind, "name": name}
    assert Scope.model_validate(given).name == read


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("everything", "x", "name: everything has no name"),
        ("lane", None, "name: give the name of the lane"),
        ("program", None, "name: give the name of the program"),
        ("lm", None, "name: give the name of the lm"),
        ("worker", None, "name: give the name of the worker"),
        ("label", None, "name: give the name of the label"),
        ("lane", "low", "name: must be a lane: high, default, bulk"),
        ("program", "triage", "name: must be the id of a program"),
        ("label", "customer", "name: must be a label of metadata: NAME=VALUE"),
        ("label", "=7", "name: must be a label of metadata: NAME=VALUE"),
        ("label", f"{'n' * 65}=7", "name: must be a label of metadata: NAME=VALUE"),
        ("label", f"n={'v' * 257}", "name: must be a label of metadata: NAME=VALUE"),
        ("lm", "", "name: string should have at least 1 character"),
        ("lm", "m" * 331, "name: string should have at most 330 characters"),
        ("queue", "x", "kind: input should be "),
    ],
)
def test_other_names_are_refused_with_the_reason(kind: str, name: str | None, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Scope.model_validate({"kind": kind, "name": name})
    [problem] = problems(refused.value)
    assert str(problem).startswith(said)


@pytest.mark.parametrize(
    "given",
    [
        {"in_flight": 1},
        {"in_flight": 2.0, "least_in_flight": 2},
        {"requests_per_minute": 60, "tokens_per_minute": 1_000_000},
    ],
)
def test_limits(given: dict[str, Any]) -> None:
    assert Limits.model_validate(given).model_dump() == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give in_flight, requests_per_minute or tokens_per_minute"),
        ({"in_flight": 0}, "in_flight: input should be greater than or equal to 1"),
        ({"in_flight": 1.5}, "in_flight: input should be a valid integer"),
        ({"in_flight": True}, "in_flight: input should be a valid integer"),
        ({"tokens_per_minute": "many"}, "tokens_per_minute: input should be a valid integer"),
        ({"least_in_flight": 1}, "give in_flight, requests_per_minute or tokens_per_minute"),
        ({"in_flight": 3, "least_in_flight": 4}, "least_in_flight: give in_flight, too, and not less"),
        ({"per_hour": 1}, "per_hour: is not a known field: remove it"),
    ],
)
def test_limits_that_are_none_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Limits.model_validate(given)
    [problem] = problems(refused.value)
    assert str(problem) == said


@pytest.mark.parametrize("kind", ["everything", "lane", "worker"])
def test_what_cannot_be_limited(kind: str) -> None:
    scope = {"kind": kind} | ({"name": "bulk"} if kind != "everything" else {})
    with pytest.raises(ValidationError) as refused:
        SetLimit.model_validate({"scope": scope, "limits": {"in_flight": 1}})
    assert [str(problem) for problem in problems(refused.value)] == [
        "scope.kind: limits are of label, lm, program, tenant"
    ]
    Pause.model_validate({"scope": scope})
