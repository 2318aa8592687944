"""How a program runs its signature: the DSPy module, the LM and its parameters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, StrictFloat, StrictInt, StrictStr

from dspex.model import Frozen

SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=100)]


class LMParameters(Frozen):
    """What is passed to the LM with every call. What is not set is left to the provider."""

    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    top_p: StrictFloat | None = Field(default=None, ge=0, le=1)
    max_tokens: StrictInt | None = Field(default=None, ge=1)
    stop: tuple[StrictStr, ...] | None = Field(default=None, max_length=16)
    timeout: StrictFloat | None = Field(default=None, gt=0, le=3600)
    """Seconds to wait for one answer of the LM."""


class LM(Frozen):
    """A language model.

    `model` is an alias that the operator defined (`DSPEX_LMS`), or `provider/model` as LiteLLM writes it. Keys and
    addresses never come in a message: `secret` is the name of a secret that the worker knows; without it, the
    alias's, else the provider's usual one (`OPENAI_API_KEY` for `openai/...`).
    """

    model: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")
    secret: SecretName | None = None
    parameters: LMParameters = LMParameters()


class Configuration(Frozen):
    """What a program is made of besides its signature and its adapter.

    `module` names a DSPy module that the adapter can build from JSON (`Predict`, `ChainOfThought`, ...);
    `parameters` are that module's own (for instance `{"M": 3}`).
    """

    module: str = Field(default="Predict", pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    lm: LM | None = None
