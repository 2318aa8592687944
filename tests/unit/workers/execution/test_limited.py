"""Which LMs of a run have asked for fewer calls."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Try, Usage
from workers.execution.limited import limited_lms

ONE = {"lm": {"model": "openai/a"}}
TWO = ONE | {"lms": {"judge": {"model": "openai/b"}}}


PLAIN, TRIED = Usage(), Usage(tries=(Try(adapter_type="native", model="openai/b"),))


@pytest.mark.parametrize(
    ("configuration", "usage", "limited"),
    [(ONE, PLAIN, {"openai/a": 9.0}), (TWO, PLAIN, {}), ({}, PLAIN, {}), (ONE, TRIED, {"openai/b": 9.0})],
)
def test_one_that_has_nothing_left_after_a_good_answer(
    configuration: dict[str, Any], usage: Usage, limited: dict[str, float | None]
) -> None:
    assert limited_lms(Configuration.model_validate(configuration), usage, exhausted_for=9.0) == limited


def error(code: ErrorCode = ErrorCode.RATE_LIMITED) -> AdapterError:
    return AdapterError(code, "too many", retry_after=7.0)


def tried(*tries: tuple[str, ErrorCode | None]) -> Usage:
    return Usage(tries=tuple(Try(adapter_type="native", model=model, error=code) for model, code in tries))


@pytest.mark.parametrize(
    ("configuration", "usage", "failed", "limited"),
    [
        (ONE, Usage(), error(), {"openai/a": 7.0}),
        (ONE, Usage(), error(ErrorCode.TRANSIENT), {}),
        (ONE, Usage(), None, {}),
        (ONE | {"lms": {"judge": {"model": "openai/a"}}}, Usage(), error(), {"openai/a": 7.0}),
        (TWO, Usage(), error(), {}),
        ({}, Usage(), error(), {}),
        (None, Usage(), error(), {}),
        (ONE, tried(("openai/a", ErrorCode.RATE_LIMITED), ("openai/b", None)), None, {"openai/a": None}),
        (
            ONE,
            tried(("openai/a", ErrorCode.TRANSIENT), ("openai/b", ErrorCode.RATE_LIMITED)),
            error(),
            {"openai/b": 7.0},
        ),
        (
            ONE,
            tried(("openai/a", ErrorCode.RATE_LIMITED), ("openai/b", ErrorCode.RATE_LIMITED)),
            error(),
            {"openai/a": None, "openai/b": 7.0},
        ),
    ],
)
def test_those_that_are_known_to(
    configuration: dict[str, Any] | None, usage: Usage, failed: AdapterError | None, limited: dict[str, float | None]
) -> None:
    read = None if configuration is None else Configuration.model_validate(configuration)
    assert limited_lms(read, usage, failed) == limited
