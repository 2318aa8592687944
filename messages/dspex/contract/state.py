"""The state of an optimized program: instructions and demos. Data only, as DSPy's `dump_state` and `save` write it.

    {"signature_digest": "9f86…", "module": "ChainOfThought", "predictors": {"predict": {
        "demos": [{"question": "why", "reasoning": "…", "answer": "because", "augmented": true}],
        "signature": {"instructions": "…", "fields": [{"prefix": "Question:", "description": "${question}"}, …]}}}}

The file that `program.save("x.json")` writes is taken as it is. It names neither signature nor module: the state is
bound to those of the program that it is given to.

`dump_state` also writes `traces`, `train` and `lm`. The first two must be empty, as a program that runs has no use for
them. Of an `lm` only the model's name is read, to be compared with the LM of the program: a dump holds addresses and
headers, and none of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StrictStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from dspex.model import Frozen, Sparse

MAX_DEMOS = 256

_PART = r"\.[A-Za-z_][A-Za-z0-9_]*|\[[0-9]+\]|\['[^'\[\]\x00-\x1f]+'\]"
_AS_BEFORE = r"[.\[][A-Za-z0-9_'\]]+"
"""What was taken before keys of any text were: rows may have it. Apart, so that engines that backtrack stay fast."""

Path = Annotated[
    str,
    StringConstraints(pattern=rf"^[A-Za-z_][A-Za-z0-9_]*(({_PART})*|({_AS_BEFORE})*)$", max_length=200),
]
"""The path of a predictor in its module, as DSPy names it: `predict`, `extract.predict`, `steps[0]`, `self`."""

_NO_USE = {
    "traces": "must be empty: they are records of the optimizer's own runs",
    "train": "must be empty: these are records of the optimizer's own runs",
    "config": "must be empty: the parameters of the LM's calls are the program's: configuration.lm.parameters",
    "fields": "must be empty: overrides of decisions are not taken",
}
"""What a dump may have, and a state has not: empty, it is left out."""


def wrong_at(path: tuple[str, ...], text: str) -> ValidationError:
    """The error of one member, for a validator of what holds it: pydantic puts its own path before this one."""
    # As a custom error: its text is a template, so braces of a path go in by the context.
    problem = PydanticCustomError("state", "{text}", {"text": text})
    return ValidationError.from_exception_data("State", [InitErrorDetails(type=problem, loc=path, input=None)])


class FieldText(Frozen):
    """How one field of a predictor is presented to the LM."""

    prefix: StrictStr = Field(max_length=2_000)
    description: StrictStr = Field(max_length=20_000)


class SignatureText(Frozen):
    """How a predictor's task is presented to the LM. `fields` has the predictor's inputs, then its outputs."""

    instructions: StrictStr = Field(max_length=100_000)
    fields: tuple[FieldText, ...] = Field(max_length=512)


def _is_none(value: object) -> bool:
    return value is None


class PredictorState(Frozen):
    """The state of one predictor of the module.

    A demo maps names of fields to values. `augmented` in it says that an LM made it. `lm` is the name of the model that
    the predictor had of its own; a configuration compares it with its own LM, and leaves it out.
    """

    demos: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=MAX_DEMOS)
    signature: SignatureText | None = None
    lm: StrictStr | None = Field(default=None, min_length=1, max_length=200, exclude_if=_is_none)

    @model_validator(mode="before")
    @classmethod
    def _as_dumped(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        read = {key: item for key, item in value.items() if item or key not in ("lm", *_NO_USE)}
        for name, text in _NO_USE.items():
            if name in read:
                raise wrong_at((name,), text)
        if isinstance(lm := read.get("lm"), Mapping):
            read["lm"] = lm.get("model") or ""
        return read

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode == "validation":
            empty: dict[str, Any] = {"enum": [None, [], {}]}
            schema["properties"] |= dict.fromkeys(_NO_USE, empty)
            dumped = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}}
            dumped["title"] = "DumpedLM"
            schema["properties"]["lm"] = {"anyOf": [empty, {"type": "string"}, dumped]}
        else:
            del schema["properties"]["lm"]
        return schema


class SavedWith(Frozen):
    """The versions of Python and DSPy with which a state was saved."""

    python: StrictStr | None = Field(default=None, max_length=64)
    dspy: StrictStr | None = Field(default=None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _as_saved(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        versions = value.get("dependency_versions", value)
        return (
            {key: versions[key] for key in cls.model_fields if key in versions} if isinstance(versions, Mapping) else {}
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        return {"type": "object"} if handler.mode == "validation" else schema


class State(Sparse):
    """The state of a program.

    Attributes:
        signature_digest: `Signature.digest` of the optimized signature: the state is refused for any other. A saved
            file has none; it is bound to the signature of the program that it is given to.
        module: the class of the optimized module, likewise.
        predictors: by path.
        metadata: the versions of the file. They are compared with those of the worker, and not kept with a program.
    """

    signature_digest: StrictStr | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    module: StrictStr | None = Field(default=None, max_length=200)
    predictors: dict[Path, PredictorState] = Field(min_length=1, max_length=64)
    metadata: SavedWith | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_saved(cls, value: Any) -> Any:
        """Read the file of `save`: a dump, with `metadata` among the predictors."""
        if not isinstance(value, Mapping) or _is_ours(value):
            return value
        dump = {key: item for key, item in value.items() if key != "metadata"}
        return {"predictors": dump} | ({"metadata": value["metadata"]} if "metadata" in value else {})

    @field_validator("predictors", mode="before")
    @classmethod
    def _of_one_predictor(cls, value: Any) -> Any:
        """Accept the state of a single `Predict`: `dump_state` writes no path for it; DSPy's path is `self`."""
        return {"self": value} if isinstance(value, Mapping) and {"demos", "signature"} <= value.keys() else value

    def bound_to(self, digest: str) -> Self:
        """The state as a program keeps it: for the signature with this digest, unless it names one."""
        return self.model_copy(update={"signature_digest": self.signature_digest or digest, "metadata": None})

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode != "validation":
            return _as_kept(schema)
        by_path = schema["properties"]["predictors"]
        one = next(iter(by_path["patternProperties"].values()))
        schema["properties"]["predictors"] = {"anyOf": [by_path, one]}
        saved = {
            "type": "object",
            "properties": {"metadata": {"type": "object"}},
            "patternProperties": {key: {"anyOf": [item]} for key, item in by_path["patternProperties"].items()},
            "additionalProperties": False,
        }
        saved_one = {"type": "object", "required": ["demos", "signature"]}
        return {"anyOf": [schema, saved, saved_one]}


def _as_kept(schema: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of a program's own state: it is bound, and holds no more than that."""
    properties = schema["properties"]
    properties["signature_digest"] = next(each for each in properties["signature_digest"]["anyOf"] if "pattern" in each)
    text = {"type": "string", "maxLength": 64}
    properties["module"] = {"anyOf": [text, text | {"maxLength": 200, "x-later": True}]}
    del properties["metadata"]
    schema["required"] = ["signature_digest", "module", "predictors"]
    return schema


def _is_ours(value: Mapping[str, Any]) -> bool:
    if any(isinstance(value.get(name), str) for name in ("signature_digest", "module")):
        return True
    predictors = value.get("predictors")  # also the name that a module may give to a predictor of its own
    return predictors is not None and not (
        isinstance(predictors, Mapping) and {"demos", "signature"} <= predictors.keys()
    )
