"""How a program runs its signature: the DSPy module, the LM and its parameters."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)

from dspex.contract.state import State
from dspex.contract.status import ErrorCode
from dspex.model import Frozen
from dspex.scalars import WHOLE

AdapterType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=100)]


class LMParameters(Frozen):
    """What is passed to the LM with every call. What is not set is left to the provider."""

    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    top_p: StrictFloat | None = Field(default=None, ge=0, le=1)
    max_tokens: Annotated[StrictInt, Field(ge=1), WHOLE] | None = None
    stop: tuple[StrictStr, ...] | None = Field(default=None, max_length=16)
    timeout: StrictFloat | None = Field(default=None, gt=0, le=3600)
    """Seconds to wait for one answer of the LM."""


ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
ModuleClass = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)]


class LM(Frozen):
    """A language model.

    `model` is an alias that the operator defined (`DSPEX_LMS`), or `provider/model` of a provider that DSPex knows.
    Keys and addresses never come in a message: `secret` is the name of a secret of that provider, its usual one
    (`OPENAI_API_KEY` for `openai/...`) where none is given. An alias has its own, and takes no other.
    """

    model: ModelName
    secret: SecretName | None = None
    parameters: LMParameters = LMParameters()


NO_FALLBACK = frozenset(
    {
        ErrorCode.INVALID_INPUT,
        ErrorCode.CANCELLED,
        ErrorCode.PROGRAM_NOT_READY,
        ErrorCode.ATTEMPTS_EXHAUSTED,
        ErrorCode.EXPIRED,
    }
)
"""The codes that another LM or adapter would end with as well."""


class Fallback(Frozen):
    """What to try next when a run fails with one of the codes in `on`.

    What is given takes the place of the program's own; `lm`, `adapter_type` or both must be. `parameters` are for an
    adapter whose modules take others.
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
                raise ValueError(f"'{code}' would be the same wherever it runs: remove it")
        return codes

    @model_validator(mode="after")
    def _gives_something(self) -> Fallback:
        if self.adapter_type is None and self.lm is None:
            raise ValueError("give 'lm', 'adapter_type' or both: what to try in the place of the program's own")
        return self


class Configuration(Frozen):
    """What a program is made of besides its signature and its adapter.

    `module` names a DSPy module that the adapter can build from JSON (`Predict`, `ChainOfThought`, ...);
    `parameters` are that module's own (for instance `{"M": 3}`). `state` is what an optimizer found for the program.
    `fallbacks` are tried in their order when a run fails: after an error, the next one that lists its code.
    """

    module: ModuleClass = "Predict"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    lm: LM | None = None
    state: State | None = None
    fallbacks: tuple[Fallback, ...] = Field(default=(), max_length=8)

    @model_validator(mode="after")
    def _of_this_module(self) -> Configuration:
        if self.state is not None and self.state.module != self.module:
            raise ValueError(f"state.module: it was found for '{self.state.module}', not for '{self.module}'")
        return self

    @model_serializer(mode="wrap")
    def _what_is_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without them the text is as it was before they existed: backend ids are digests of it.
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if key not in ("state", "fallbacks") or value}


class Change(Frozen):
    """Base of what is changed of something: what is absent stays, null is as if it had never been given."""

    @model_serializer(mode="wrap")
    def _what_is_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if name in self.model_fields_set}

    @property
    def named(self) -> dict[str, Any]:
        """What is named, as it is to be."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class LMParametersChange(Change, LMParameters):
    """Which parameters of an LM change."""


class LMChange(Change):
    """What changes of an LM."""

    model: ModelName | None = None
    secret: SecretName | None = None
    parameters: LMParametersChange | None = None

    def of(self, before: LM | None) -> dict[str, Any]:
        """The LM after it, to be validated."""
        kept: dict[str, Any] = {} if before is None else before.model_dump()
        changed = self.named
        if self.parameters is not None:
            changed["parameters"] = kept.get("parameters", {}) | self.parameters.named
        return _without_null(kept | changed)


class ConfigurationChange(Change):
    """What changes of a configuration. An LM changes by its members; all else that is named is replaced as a whole."""

    module: ModuleClass | None = None
    parameters: dict[str, JsonValue] | None = None
    lm: LMChange | None = None
    state: State | None = None
    fallbacks: Annotated[tuple[Fallback, ...], Field(max_length=8)] | None = None

    @classmethod
    def to(cls, configuration: Configuration) -> Self:
        """The change that makes any configuration this one."""
        whole = {name: getattr(configuration, name) for name in Configuration.model_fields}
        if configuration.lm is not None:
            whole["lm"] = configuration.lm.model_dump()
        return cls(**whole)

    def of(self, before: Configuration) -> Configuration:
        """The configuration after it.

        Raises:
            pydantic.ValidationError: there can be none such, as an LM without a model.
        """
        kept = {name: getattr(before, name) for name in Configuration.model_fields}
        changed = self.named
        if self.lm is not None:
            changed["lm"] = self.lm.of(before.lm)
        return Configuration.model_validate(_without_null(kept | changed))


def _without_null(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
