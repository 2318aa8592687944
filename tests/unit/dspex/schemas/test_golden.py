"""Messages as they were sent when v1 was young still mean what they meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspex.contract.requests import REQUESTS
from dspex.schemas.json_schema import ANSWERS, MESSAGES
from dspex.signatures.names import with_name
from tests.golden import DIRECTORY, read

NAMES = [path.relative_to(DIRECTORY).with_suffix("").as_posix() for path in sorted(DIRECTORY.rglob("*.json"))]


def without_null(value: Any) -> Any:
    """Absent and null are the same."""
    match value:
        case dict():
            return {key: without_null(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [without_null(inner) for inner in value]
    return value


def named(value: Any) -> Any:
    """A signature without a name was called `signature`, which stands for none: it has a name of its fields now."""
    match value:
        case dict():
            inner = {key: named(member) for key, member in value.items()}
            return with_name(inner) if {"name", "inputs", "outputs"} <= inner.keys() else inner
        case list():
            return [named(member) for member in value]
    return value


def holds(now: Any, then: Any) -> bool:
    """Whether everything that was there is there; fields may have come."""
    match now, then:
        case dict(), dict():
            return all(key in now and holds(now[key], inner) for key, inner in then.items())
        case list(), list():
            return len(now) == len(then) and all(map(holds, now, then))
    return type(now) is type(then) and bool(now == then)


def unknown(now: Any, then: Any) -> list[str]:
    """The fields that were not there."""
    match now, then:
        case dict(), dict():
            inner = [key for name in now.keys() & then.keys() for key in unknown(now[name], then[name])]
            return sorted(now.keys() - then.keys()) + inner
        case list(), list():
            return [key for pair in zip(now, then, strict=True) for key in unknown(*pair)]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_what_was_sent_means_what_it_meant(name: str) -> None:
    entries = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    assert entries
    for entry in entries:
        data = read(name, entry["body"])
        assert holds(without_null(data.model_dump(mode="json")), named(without_null(entry["means"])))
        # What was left out is what it was then, and no field of then is unknown now.
        assert data == type(data).model_validate(entry["means"])


@pytest.mark.parametrize("name", [name for name in NAMES if name in REQUESTS])
def test_a_new_client_sends_to_an_old_worker_what_that_knows(name: str) -> None:
    for entry in json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8")):
        sent = read(name, entry["body"]).model_dump(mode="json")
        assert not unknown(sent, entry["means"]), "a field that is not set must not be sent: see dspex.model.Sparse"


def test_there_is_one_of_each() -> None:
    named = {*MESSAGES, *(f"answers/{name}" for name in ANSWERS)}
    assert set(NAMES) == named, "`python -m tests.golden` writes those of new types"


@pytest.mark.parametrize(
    ("now", "then", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"c": [1, {"d": 2}]}}, {"a": {"c": [1, {}]}}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"b": 1}, {"a": 1}, False),
    ],
)
def test_what_it_is_held_to(now: Any, then: Any, same: bool) -> None:
    assert holds(now, then) is same
