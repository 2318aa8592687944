"""What of a trace is kept: bounded, storable, without the secret, whoever made the steps."""

from __future__ import annotations

import json
import math

from pydantic import JsonValue
from pydantic_core import to_json

from adapters.port import MAX_TRACE_BYTES, MAX_TRACE_STEPS, MAX_TRACE_TEXT, TraceStep
from adapters.trace import bounded, bounded_step, fitting

KEY = "sk-very-secret"


def test_what_json_cannot_hold_becomes_text() -> None:
    told = {"big": 10**5000, "small": 7, "nan": math.nan, "nul": "a\x00b", "half": "\ud800", 3: {1}}
    assert bounded(told) == {
        "big": "a number of 16610 bits",
        "small": 7,
        "nan": "nan",
        "nul": "ab",
        "half": "?",
        "3": [1],
    }


def test_a_step_of_somebody_else_has_no_secret_and_no_long_text() -> None:
    hostile = TraceStep(kind=f"k{KEY}", name=KEY + "n" * 1000, details={KEY: [f"x{KEY}", "y" * 50_000]})
    kept = bounded_step(hostile, [KEY])
    assert KEY not in kept.model_dump_json()
    assert (kept.kind, kept.name) == ("k***", "***" + "n" * 197)
    assert kept.details == {"***": ["x***", "y" * 10_000]}


def test_what_fits_is_kept_as_it_is() -> None:
    steps = tuple(TraceStep(kind="tool", name=str(number), details={"result": "r" * 1000}) for number in range(100))
    assert fitting(steps) == (steps, False)


def test_what_is_too_large_keeps_every_step_and_the_beginnings_of_its_texts() -> None:
    steps = tuple(TraceStep(kind="tool", name=str(number), details={"result": "é" * 9000}) for number in range(100))
    kept, shortened = fitting(steps)
    assert shortened
    assert [step.name for step in kept] == [str(number) for number in range(100)]
    assert {len(str(step.details["result"])) for step in kept} == {2000}
    assert len(to_json(kept)) <= 500_000 == MAX_TRACE_BYTES


def test_where_nothing_helps_the_steps_are_kept_without_details() -> None:
    wide: dict[str, JsonValue] = {str(number): {str(inner): "x" * 100 for inner in range(200)} for number in range(100)}
    kept, shortened = fitting([TraceStep(kind="tool", name="t", details=wide, duration_ms=2.5)] * 300)
    assert (len(kept), shortened) == (200, True)
    assert MAX_TRACE_STEPS == 200
    assert all(step == TraceStep(kind="tool", name="t", duration_ms=2.5) for step in kept)
    assert len(to_json(kept)) < MAX_TRACE_BYTES
    json.dumps([step.model_dump(mode="json") for step in kept], allow_nan=False)


def test_texts_are_cut_to_the_bound_of_the_port() -> None:
    assert bounded("x" * 20_000) == "x" * 10_000
    assert MAX_TRACE_TEXT == 10_000
