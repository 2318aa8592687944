"""From the LM that a program names to the one that is called: the operator's aliases and secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adapters.port import AdapterError
from dspex import LM, ErrorCode

USUAL_SECRETS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "azure": "AZURE_API_KEY",
}
"""The secret's name where neither the program nor the alias names one, by provider."""


@dataclass(frozen=True)
class LMAlias:
    """An LM as the operator defined it: `model` is `provider/model`; `api_base` only the operator can set."""

    model: str
    api_base: str | None = None
    secret: str | None = None


@dataclass(frozen=True)
class ResolvedLM:
    """What to call. `api_key` never leaves this object for a row, a log or an error."""

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LMCatalog:
    """Resolves an `LM`.

    Args:
        aliases: the operator's LMs by name.
        secret: gives the value of a secret by its name, or None. It decides which names may be asked for.
    """

    aliases: Mapping[str, LMAlias] = field(default_factory=dict)
    secret: Callable[[str], str | None] = field(default=lambda _name: None)

    def resolve(self, lm: LM) -> ResolvedLM:
        """The model, the address and the key to call.

        Raises:
            AdapterError: `permanent` for a model that is neither an alias nor `provider/model`; `auth` for a secret
                that is named but not known.
        """
        alias = self.aliases.get(lm.model)
        if alias is None:
            if "/" not in lm.model:
                known = ", ".join(self.aliases) or "none"
                raise AdapterError(
                    ErrorCode.PERMANENT,
                    f"model: '{lm.model}' is neither 'provider/model' nor an alias of DSPEX_LMS (known: {known})",
                )
            alias = LMAlias(lm.model)
        name = lm.secret or alias.secret or USUAL_SECRETS.get(alias.model.split("/", 1)[0])
        key = self.secret(name) if name else None
        if name and key is None and (lm.secret or alias.secret or alias.api_base is None):
            raise AdapterError(
                ErrorCode.AUTH, f"secret: '{name}' is not known to the worker: set it in its environment"
            )
        return ResolvedLM(alias.model, alias.api_base, key)
