"""The parameters of the mock adapter, from `Configuration.parameters`. `docs/testing.md` shows their use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from adapters.mock.latency import Latency
from adapters.parameters import Parameters
from dspex import ErrorCode

Match = dict[str, JsonValue]
"""Values of inputs by name. It matches runs whose inputs have all these values."""


class Rate(Parameters):
    """A fraction of the runs, from 0 to 1. Signature, inputs and seed determine which runs."""

    rate: float = Field(ge=0, le=1)


class Rule(Parameters):
    """The outputs `then` for runs that match `when`. Outputs that it does not name are generated as usual."""

    when: Match = Field(default_factory=dict)
    then: dict[str, JsonValue] = Field(min_length=1)


MOST_TOKENS = 10**12
MOST_COST = 10**9
"""The highest cost of a run, as larger sums would not fit into the database."""


class MockUsage(Parameters):
    """The usage of every run. Figures that are not given are counted from the texts, with a cost of 0."""

    input_tokens: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    output_tokens: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    cost: float | None = Field(default=None, ge=0, le=MOST_COST)


class MockParameters(Parameters):
    """How a mock program behaves.

    Attributes:
        latency_ms: the simulated latency of a run in milliseconds: a number, or a distribution.
        fail: which runs fail, by code: `{"rate_limited": [{"question": "again"}]}`: those that match one of the maps;
            `{"transient": {"rate": 0.1}}`: a tenth of them; `{"timeout": "always"}`: all. Maps of inputs take
            precedence over rates, and rates over `always`.
        outputs: rules for the outputs; the first that matches applies.
        usage: the tokens and the cost of every run.
    """

    latency_ms: Latency = 0
    fail: dict[ErrorCode, list[Match] | Rate | Literal["always"]] = Field(default_factory=dict)
    outputs: list[Rule] = Field(default_factory=list, max_length=1_000)
    usage: MockUsage = MockUsage()

    @field_validator("fail", mode="before")
    @classmethod
    def _by_code(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        codes = {code.value: code for code in ErrorCode}
        for key, runs in value.items():
            if key not in codes:
                raise ValueError(f"'{key}' is not an error code: known are {', '.join(codes)}")
            listed = isinstance(runs, list) and all(isinstance(match, Mapping) for match in runs)
            if runs != "always" and not listed and not (isinstance(runs, Mapping) and set(runs) == {"rate"}):
                raise ValueError(f'\'{key}\': give "always", {{"rate": 0.1}}, or a list of maps from input to value')
        # In the order of ErrorCode, as a database does not keep the order of a map.
        return {code: value[name] for name, code in codes.items() if name in value}

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        if sum(runs.rate for runs in self.fail.values() if isinstance(runs, Rate)) > 1:
            raise ValueError("fail: the rates are more than 1 together")
        return self

    def failure(self, inputs: Mapping[str, Any], drawn: float) -> ErrorCode | None:
        """The code with which a run fails, or None. `drawn` is a random number from 0 up to 1."""
        rated: ErrorCode | None = None
        always: ErrorCode | None = None
        for code, runs in self.fail.items():
            if isinstance(runs, Rate):
                if rated is None and 0 <= drawn < runs.rate:
                    rated = code
                drawn -= runs.rate
            elif runs == "always":
                always = always or code
            elif any(match.items() <= inputs.items() for match in runs):
                return code
        return rated or always

    def answer(self, inputs: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        """The outputs that the rules give for these inputs."""
        return next((rule.then for rule in self.outputs if rule.when.items() <= inputs.items()), {})
