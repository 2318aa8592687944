"""The usage of an execution as a row has it."""

from __future__ import annotations

from dspex import LMCall, Usage
from store.executions.rows import usage_of


def test_what_a_later_version_wrote_is_read_without_what_is_new() -> None:
    call = {"model": "openai/x", "input_tokens": 3, "cost": None, "cached": False, "of_later": "x"}
    read = usage_of({"calls": 1, "input_tokens": 3, "cost": None, "lm_calls": [call], "of_later": {"a": 1}})
    assert read == Usage(
        calls=1, input_tokens=3, output_tokens=None, lm_calls=(LMCall(model="openai/x", input_tokens=3),)
    )
    assert usage_of(None) == Usage()
