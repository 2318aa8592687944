"""The state of an optimized program: instructions and demos. Data only, as DSPy's `dump_state` writes it.

    {"signature_digest": "9f86…", "module": "ChainOfThought", "predictors": {"predict": {
        "demos": [{"question": "why", "reasoning": "…", "answer": "because", "augmented": true}],
        "signature": {"instructions": "…", "fields": [{"prefix": "Question:", "description": "${question}"}, …]}}}}

`dump_state` also writes `lm`, `traces` and `train`. They must be empty: the LM belongs to the program's configuration,
and a program that runs has no use for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StrictStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dspex.model import Frozen

MAX_DEMOS = 256

Path = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*([.\[][A-Za-z0-9_'\]]+)*$", max_length=200)]
"""The path of a predictor in its module, as DSPy names it: `predict`, `extract.predict`, `self`."""

_LEFT_EMPTY = ("lm", "traces", "train")


class FieldText(Frozen):
    """How one field of a predictor is presented to the LM."""

    prefix: StrictStr = Field(max_length=2_000)
    description: StrictStr = Field(max_length=20_000)


class SignatureText(Frozen):
    """How a predictor's task is presented to the LM. `fields` has the predictor's inputs, then its outputs."""

    instructions: StrictStr = Field(max_length=100_000)
    fields: tuple[FieldText, ...] = Field(max_length=512)


class PredictorState(Frozen):
    """The state of one predictor of the module.

    A demo maps names of fields to values. `augmented` in it says that an LM made it.
    """

    demos: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=MAX_DEMOS)
    signature: SignatureText | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_dumped(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if item or key not in _LEFT_EMPTY}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode == "validation":
            schema["properties"] |= {key: {"enum": [None, [], {}]} for key in _LEFT_EMPTY}
        return schema


class State(Frozen):
    """The state of a program.

    Attributes:
        signature_digest: `Signature.digest` of the optimized signature. The state is refused for any other.
        module: the class of the optimized module.
        predictors: by path.
    """

    signature_digest: StrictStr = Field(pattern=r"^[0-9a-f]{64}$")
    module: StrictStr = Field(max_length=64)
    predictors: dict[Path, PredictorState] = Field(min_length=1, max_length=64)

    @field_validator("predictors", mode="before")
    @classmethod
    def _of_one_predictor(cls, value: Any) -> Any:
        """Accept the state of a single `Predict`: `dump_state` writes no path for it; DSPy's path is `self`."""
        return {"self": value} if isinstance(value, Mapping) and {"demos", "signature"} <= value.keys() else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode == "validation":
            by_path = schema["properties"]["predictors"]
            schema["properties"]["predictors"] = {"anyOf": [by_path, *by_path["patternProperties"].values()]}
        return schema
