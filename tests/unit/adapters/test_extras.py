"""Outputs beside the signature are JSON that can be stored, and bounded; what is not whole says so."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pydantic
import pytest

from adapters.extras import MAX_BYTES, bounded_extras, check_extras
from adapters.mock import MockAdapter
from adapters.port import AdapterError, ProgramSpec, RunOptions
from dspex import Configuration, Signature


class _Document(pydantic.BaseModel):
    title: str
    day: date


class _Connection:
    """No JSON, and nobody's to see."""


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("because", "because"),
        (_Document(title="t", day=date(2026, 1, 2)), {"title": "t", "day": "2026-01-02"}),
        ([1, None, {"a": (True, 2.5)}], [1, None, {"a": [True, 2.5]}]),
        ({"a\x00b": "c\x00d", 3: "\ud800"}, {"a\ufffdb": "c\ufffdd", "3": "?"}),
        ([float("nan"), float("inf")], [None, None]),
        (_Connection(), {"$not_json": "_Connection"}),
        ({"a": [_Connection()]}, {"$not_json": "dict"}),
        ("x" * MAX_BYTES, {"$cut": "x" * 1_000, "bytes": MAX_BYTES + 2}),
        ([0] * MAX_BYTES, {"$cut": ("[" + "0," * MAX_BYTES)[:1_000], "bytes": 2 * MAX_BYTES + 1}),
    ],
    ids=["text", "model", "nested", "what cannot be stored", "no numbers", "object", "object within", "long", "large"],
)
def test_a_value_is_json_or_says_what_it_is_not(value: Any, kept: Any) -> None:
    found = bounded_extras(["one"], {"one": value, "other": "not asked for"})
    assert found == {"one": kept}
    json.dumps(found, allow_nan=False).encode()


def test_what_is_in_itself_is_no_json() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert bounded_extras(["one"], {"one": loop}) == {"one": {"$not_json": "list"}}


def test_all_of_a_run_are_bounded_together_and_those_that_are_not_there_are_left_out() -> None:
    names = [f"n{number}" for number in range(16)]
    found = bounded_extras(["missing", *names], dict.fromkeys(names, "x" * 20_000))
    assert list(found) == names
    assert found["n0"] == "x" * 20_000
    assert {value["bytes"] for value in list(found.values())[1:]} == {20_002}
    assert len(json.dumps(found)) < MAX_BYTES + 16 * 1_100


def test_an_output_of_the_signature_is_not_beside_it() -> None:
    configuration = Configuration(extra_outputs=("reasoning", "answer"))
    with pytest.raises(AdapterError, match=r"^extra_outputs\.1: 'answer' is an output of the signature"):
        check_extras(Signature.parse("question -> answer"), configuration)


def test_the_mock_makes_what_is_asked_for() -> None:
    adapter, signature = MockAdapter(), Signature.parse("question -> answer")
    spec = ProgramSpec("mock", signature, Configuration(extra_outputs=("reasoning",)))
    outcome = adapter.execute_program(adapter.create_program(spec), {"question": "why"}, RunOptions("run"))
    assert (list(outcome.outputs), outcome.extra_outputs) == (["answer"], {"reasoning": "mock reasoning"})


@pytest.mark.parametrize("names", [["a b"], ["$x"], ["a", "a"], [f"n{number}" for number in range(17)], "reasoning"])
def test_other_names_are_refused(names: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        Configuration.model_validate({"extra_outputs": names})


def test_a_configuration_without_any_is_written_as_before() -> None:
    assert "extra_outputs" not in Configuration().model_dump()
    assert Configuration(extra_outputs=("a",)).model_dump()["extra_outputs"] == ("a",)
