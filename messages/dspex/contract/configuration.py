"""How a program runs its signature: the DSPy module, the LM and its parameters."""

from __future__ import annotations

import operator
from collections.abc import Collection
from functools import partial
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from dspex.contract.predictors import matching
from dspex.contract.state import State, wrong_at
from dspex.contract.status import ErrorCode
from dspex.model import Frozen
from dspex.scalars import WHOLE
from dspex.signatures.signature import Signature

AdapterType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=100)]


MAX_N = 32
_is_none = partial(operator.is_, None)

ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class LMParameters(Frozen):
    """The parameters of every LM call. For those that are not set, the provider's defaults apply.

    With `n`, each call is made `n` times, and the outputs are those that come up most often. `seed` is that of runs
    without one. `provider` has parameters of the provider's own, by the names that the LM's alias allows.
    """

    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    top_p: StrictFloat | None = Field(default=None, ge=0, le=1)
    max_tokens: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None
    stop: tuple[StrictStr, ...] | None = Field(default=None, max_length=16)
    timeout: StrictFloat | None = Field(default=None, gt=0, le=3600)
    """Seconds to wait for one answer of the LM."""
    # Left out if not set, so that the backend ids of older programs stay the same.
    max_completion_tokens: Annotated[StrictInt | None, Field(ge=1, exclude_if=operator.not_), WHOLE] = None
    """The most tokens of an answer with its reasoning; in the place of `max_tokens`."""
    reasoning_effort: StrictStr | None = Field(default=None, pattern=r"^[a-z]{1,16}$", exclude_if=operator.not_)
    n: Annotated[StrictInt | None, Field(ge=1, le=MAX_N, exclude_if=operator.not_), WHOLE] = None
    seed: Annotated[StrictInt | None, Field(ge=0, lt=1 << 63, exclude_if=_is_none), WHOLE] = None
    provider: dict[ParameterName, JsonValue] | None = Field(default=None, max_length=16, exclude_if=operator.not_)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that are set, by their names, with those of the provider's own beside the others."""
        found = {name: value for name, value in self if value is not None and name != "provider"}
        return found | (self.provider or {})

    def only(self, names: Collection[str]) -> LMParameters:
        """Those of the parameters that have one of these names."""
        kept = {name: value for name, value in self if name in names and name != "provider"}
        provider = {name: value for name, value in (self.provider or {}).items() if name in names}
        return LMParameters(**kept, provider=provider or None)

    @model_validator(mode="after")
    def _has_one_maximum(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_completion_tokens: is in the place of max_tokens: give one of them")
        return self


ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
PromptAdapterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
EnvironmentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
ExtraName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
_DSPY_MODULE = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9]*$", "maxLength": 64}
_OWN_MODULE = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_]*)?$", "maxLength": 200}
ModuleClass = Annotated[
    str,
    Field(pattern=_OWN_MODULE["pattern"], max_length=200),
    WithJsonSchema({"anyOf": [_DSPY_MODULE, _OWN_MODULE | {"x-later": True}]}),
]
"""One of DSPy's modules; or one of one's own, by its entry point or as `package.module:Class`."""


class LM(Frozen):
    """A language model.

    `model` is an alias that the operator defined (`DSPEX_LMS`), or `provider/model` of a provider that DSPex knows.
    A message never contains keys or addresses: `secret` is the name of a secret of that provider, by default its usual
    one (`OPENAI_API_KEY` for `openai/...`). An alias has its own secret and accepts no other.

    `overridable` names the parameters that an execution may set otherwise (`options.lm`).
    """

    model: ModelName
    secret: SecretName | None = None
    parameters: LMParameters = LMParameters()
    overridable: tuple[ParameterName, ...] | None = Field(default=None, max_length=32, exclude_if=operator.not_)


NO_FALLBACK = frozenset(
    {
        ErrorCode.INVALID_INPUT,
        ErrorCode.CANCELLED,
        ErrorCode.PROGRAM_NOT_READY,
        ErrorCode.PROGRAM_ARCHIVED,
        ErrorCode.ATTEMPTS_EXHAUSTED,
        ErrorCode.EXPIRED,
        ErrorCode.LEASE_EXPIRED,
    }
)
"""Codes of failures that no other LM or adapter can avoid."""


class Fallback(Frozen):
    """The LM or adapter to try next when a run fails with one of the codes in `on`.

    The members given replace the program's own; `lm`, `adapter_type` or both must be given. `parameters` are for an
    adapter whose modules take other ones.
    """

    on: tuple[ErrorCode, ...] = Field(min_length=1, max_length=32)
    adapter_type: AdapterType | None = None
    lm: LM | None = None
    parameters: dict[str, JsonValue] | None = None

    @field_validator("on")
    @classmethod
    def _can_help(cls, codes: tuple[ErrorCode, ...]) -> tuple[ErrorCode, ...]:
        for code in codes:
            if code in NO_FALLBACK:
                raise ValueError(f"no fallback can avoid '{code}': remove it")
        return codes

    @model_validator(mode="after")
    def _gives_something(self) -> Fallback:
        if self.adapter_type is None and self.lm is None:
            raise ValueError("give 'lm', 'adapter_type' or both: what to try in the place of the program's own")
        return self


CHAT, TWO_STEP = "chat", "two_step"

MAX_LMS = 16
PredictorGlob = Annotated[str, Field(pattern=r"^[A-Za-z_*?\[][A-Za-z0-9_.*?!\[\]'-]*$", max_length=100)]

_LEFT_OUT = frozenset({"state", "fallbacks", "extraction_lm", "lms", "modules", "extra_outputs", "environment"})
"""The members that a configuration is written without where they are empty."""


def _named(lm: Any) -> Any:
    return {"model": lm} if isinstance(lm, str) else lm


class Part(Frozen):
    """A part of a module of one's own: what runs in the place of a predictor, over the predictor's own signature.

    `module` is one of DSPy's, with its `parameters`; without it, the predictor stays as the code has it. `lm` is an LM
    of its own, or the name of one.
    """

    module: Annotated[str, Field(pattern=_DSPY_MODULE["pattern"], max_length=64)] | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    lm: Annotated[LM | None, BeforeValidator(_named, json_schema_input_type=ModelName | LM | None)] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.module is None and self.parameters:
            raise ValueError("parameters: they are of a module: give 'module', too")
        if self.module is None and self.lm is None:
            raise ValueError("give 'module', 'lm' or both")
        return self


class Configuration(Frozen):
    """The configuration of a program, besides its signature and its adapter.

    `module` names a DSPy module that the adapter can build from JSON (`Predict`, `ChainOfThought`, ...), or one of
    one's own that the workers have: by its entry point (`rag`), or as `package.module:Class`. `parameters` are those
    of the module (for instance `{"M": 3}`). `state` is what an optimizer found, also as DSPy's `save` writes it.
    `fallbacks` are tried in order: after a failed run, the next one that lists the code of the error.

    `prompt_adapter` is the format of prompts and answers: `chat`, `json`, `xml`, `baml`, `two_step` as DSPy has them,
    or a registered one. With `two_step`, `lm` answers in its own words, and `extraction_lm` reads the outputs from it.

    `lms` gives predictors other LMs than `lm`, by their names in the module or those of the modules that they are in:
    `{"answer": …, "judge.*": …}`. Names may be patterns (`*`, `?`, `[ab]`). The name itself comes before a pattern, and
    a longer pattern before a shorter one.

    `modules` names the parts of a module of one's own, by the same names: `{"answer": {"module": "ChainOfThought"},
    "judge": {"module": "BestOfN", "parameters": {…}, "lm": "house"}}`. The state is that of the module with them.

    `environment` names the Python that the program runs on, of those that an operator offers (`DSPEX_ENVIRONMENTS`); by
    default it is the worker's own. Only `python_port` runs programs in environments.

    `extra_outputs` names what an execution keeps beside the outputs of the signature, where the module's prediction has
    it: `reasoning` of `ChainOfThought`, `trajectory` of `ReAct`, or any of a module of one's own.
    """

    module: ModuleClass = "Predict"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    lm: LM | None = None
    lms: dict[PredictorGlob, LM] = Field(default_factory=dict, max_length=MAX_LMS)  # before the state, which names LMs
    modules: dict[PredictorGlob, Part] = Field(default_factory=dict, max_length=MAX_LMS)
    state: State | None = None
    fallbacks: tuple[Fallback, ...] = Field(default=(), max_length=8)
    prompt_adapter: PromptAdapterName = CHAT
    extraction_lm: LM | None = None
    extra_outputs: tuple[ExtraName, ...] = Field(default=(), max_length=16)
    environment: EnvironmentName | None = None

    @property
    def named_lms(self) -> dict[str, LM]:
        """The LMs that a run may call, by their fields; without those of fallbacks."""
        named = {"lm": self.lm, "extraction_lm": self.extraction_lm}
        named |= {f"lms.{glob}": lm for glob, lm in self.lms.items()}
        named |= {f"modules.{glob}.lm": part.lm for glob, part in self.modules.items()}
        return {name: lm for name, lm in named.items() if lm is not None}

    @property
    def overridable(self) -> frozenset[str]:
        """The parameters that an execution may set for one of the LMs, those of fallbacks included."""
        lms = (*self.named_lms.values(), *(fallback.lm for fallback in self.fallbacks))
        return frozenset(name for lm in lms if lm is not None for name in lm.overridable or ())

    @model_validator(mode="after")
    def _has_its_second_lm(self) -> Configuration:
        if self.prompt_adapter == TWO_STEP and self.extraction_lm is None:
            raise ValueError("extraction_lm: 'two_step' has another LM take the outputs from the answer: give it")
        if self.prompt_adapter != TWO_STEP and self.extraction_lm is not None:
            raise ValueError(f"extraction_lm: '{self.prompt_adapter}' calls no second LM: remove it")
        return self

    @field_validator("modules")
    @classmethod
    def _have_one_lm(cls, modules: dict[str, Part], info: ValidationInfo) -> dict[str, Part]:
        lms = info.data.get("lms", {})
        for name, part in modules.items():
            if part.lm is not None and name in lms:
                raise wrong_at((name, "lm"), f"'lms' has an LM for '{name}', too: remove one of them")
        return modules

    @field_validator("extra_outputs")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names one twice")
        return names

    @field_validator("state")
    @classmethod
    def _of_this_program(cls, state: State | None, info: ValidationInfo) -> State | None:
        """Bind a state to the module. An LM of a predictor must be the program's, or in `lms`: a state keeps none."""
        module = info.data.get("module")
        if state is None or module is None:
            return state
        if state.module not in (None, module):
            raise wrong_at(("module",), f"it was found for '{state.module}', not for '{module}'")
        lm: LM | None = info.data.get("lm")
        parts: dict[str, Part] = info.data.get("modules", {})
        lms = {*info.data.get("lms", {}), *(name for name, part in parts.items() if part.lm is not None)}
        for path, predictor in state.predictors.items():
            is_given = matching(path, lms) or (lm is not None and predictor.lm == lm.model)
            if predictor.lm is not None and not is_given:
                raise wrong_at(("predictors", path, "lm"), _another_lm(predictor.lm, lm))
        kept = {path: predictor.model_copy(update={"lm": None}) for path, predictor in state.predictors.items()}
        return state.model_copy(update={"module": module, "predictors": kept})

    def bound_to(self, signature: Signature) -> Self:
        """The configuration as a program of this signature keeps it: its state is for the signature."""
        if self.state is None:
            return self
        return self.model_copy(update={"state": self.state.bound_to(signature.digest)})

    @model_serializer(mode="wrap")
    def _what_is_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Left out if empty, so that the backend ids of older programs, which are digests of this text, stay the same.
        data: dict[str, Any] = handler(self)
        if data["prompt_adapter"] == CHAT:
            del data["prompt_adapter"]
        return {key: value for key, value in data.items() if key not in _LEFT_OUT or value}


def _another_lm(found: str, lm: LM | None) -> str:
    ours = "the program has none" if lm is None else f"the program's is '{lm.model}'"
    return (
        f"the predictor has the LM '{found}' of its own, and {ours}: name an LM for it in 'lms', or save the state "
        "again after program.set_lm(None)"
    )


class Change(Frozen):
    """Base of partial changes: an absent member stays as it is, null removes it."""

    @model_serializer(mode="wrap")
    def _what_is_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if name in self.model_fields_set}

    @property
    def named(self) -> dict[str, Any]:
        """The members that were given, with their new values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class LMParametersChange(Change, LMParameters):
    """Which parameters of an LM change."""


class LMChange(Change):
    """Which members of an LM change."""

    model: ModelName | None = None
    secret: SecretName | None = None
    parameters: LMParametersChange | None = None
    overridable: tuple[ParameterName, ...] | None = Field(default=None, max_length=32)

    def of(self, before: LM | None) -> dict[str, Any]:
        """The members of the LM after the change, not validated."""
        kept: dict[str, Any] = {} if before is None else before.model_dump()
        changed = self.named
        if self.parameters is not None:
            changed["parameters"] = kept.get("parameters", {}) | self.parameters.named
        return _without_null(kept | changed)


class ConfigurationChange(Change):
    """Which members of a configuration change. `lm` changes member by member; any other is replaced as a whole."""

    module: ModuleClass | None = None
    parameters: dict[str, JsonValue] | None = None
    lm: LMChange | None = None
    state: State | None = None
    fallbacks: Annotated[tuple[Fallback, ...], Field(max_length=8)] | None = None
    prompt_adapter: PromptAdapterName | None = None
    extraction_lm: LM | None = None
    lms: Annotated[dict[PredictorGlob, LM], Field(max_length=MAX_LMS)] | None = None
    modules: Annotated[dict[PredictorGlob, Part], Field(max_length=MAX_LMS)] | None = None
    extra_outputs: Annotated[tuple[ExtraName, ...], Field(max_length=16)] | None = None
    environment: EnvironmentName | None = None

    @classmethod
    def to(cls, configuration: Configuration) -> Self:
        """The change that turns any configuration into this one."""
        whole = {name: getattr(configuration, name) for name in Configuration.model_fields}
        if configuration.lm is not None:
            whole["lm"] = configuration.lm.model_dump()
        return cls(**whole)

    def of(self, before: Configuration) -> Configuration:
        """The configuration after the change.

        Raises:
            pydantic.ValidationError: the result is invalid, for example an LM without a model.
        """
        kept = {name: getattr(before, name) for name in Configuration.model_fields}
        changed = self.named
        if self.lm is not None:
            changed["lm"] = self.lm.of(before.lm)
        return Configuration.model_validate(_without_null(kept | changed))


def _without_null(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
