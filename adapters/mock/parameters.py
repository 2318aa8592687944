"""What the mock adapter reads from `Configuration.parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from adapters.parameters import Parameters
from dspex import ErrorCode


class MockParameters(Parameters):
    """How a mock program behaves.

    Attributes:
        latency_ms: milliseconds that every run takes, besides its own work.
        fail: which inputs fail with which code, `{"rate_limited": [{"question": "again"}]}`: a run whose inputs have
            all the values of one of the maps; `"always"` is every run.
    """

    latency_ms: float = Field(default=0, ge=0, le=3_600_000)
    fail: dict[ErrorCode, list[dict[str, JsonValue]] | Literal["always"]] = Field(default_factory=dict)

    @field_validator("fail", mode="before")
    @classmethod
    def _by_code(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        codes = {code.value: code for code in ErrorCode}
        for key, matches in value.items():
            if key not in codes:
                raise ValueError(f"'{key}' is not an error code: known are {', '.join(codes)}")
            if matches != "always" and not (isinstance(matches, list) and all(isinstance(m, Mapping) for m in matches)):
                raise ValueError(f"'{key}': give \"always\", or a list of maps from input to value")
        # In the order of ErrorCode: a map that went through a database has no order of its own.
        return {code: value[name] for name, code in codes.items() if name in value}

    def failure(self, inputs: Mapping[str, Any]) -> ErrorCode | None:
        """The code to fail with on these inputs: one that names them comes before one for all."""
        always: ErrorCode | None = None
        for code, matches in self.fail.items():
            if matches == "always":
                always = always or code
            elif any(match.items() <= inputs.items() for match in matches):
                return code
        return always
