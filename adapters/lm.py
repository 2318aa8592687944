"""From the LM that a program names to the one that is called: the operator's aliases, and whose key goes where.

A message names a model and, at most, a secret. What it may reach by that is decided here, when it comes in (`check`)
and again when the program is built (`resolve`): an address of a provider in `PROVIDERS`, or one that an operator gave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from adapters.port import AdapterError
from dspex import LM, ErrorCode

PROVIDERS: Final = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "xai": "XAI_API_KEY",
    "moonshot": "MOONSHOT_API_KEY",
}
"""The providers that a program may name itself, each with its secret: DSPy's own HTTP client knows their addresses, and
calls them with a key and nothing else. Every other LM is behind an alias."""

BY_ADDRESS: Final = frozenset(PROVIDERS) | {
    "azure",
    "azure_ai",
    "cerebras",
    "cohere_chat",
    "deepinfra",
    "fireworks_ai",
    "hosted_vllm",
    "mistral",
    "nvidia_nim",
    "ollama",
    "ollama_chat",
    "perplexity",
    "sambanova",
    "together_ai",
}
"""The providers that an alias may have: they are called with the alias's address and key alone. LiteLLM signs in to
others with what it finds on the machine (keys of a cloud, logins in files): to Bedrock even where it is given a key."""

SECRETS_SETTING: Final = "DSPEX_LM_SECRETS"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*(/[A-Za-z0-9][A-Za-z0-9._:+-]*)*", re.ASCII)
"""What follows the provider: names and versions parted by slashes, as in `anthropic/claude-3.5-sonnet:beta`."""
_PATHLESS = re.compile(r"[^/:]+")
"""For providers that have the model in the path of a URL."""
MAX_NAME: Final = 200


@dataclass(frozen=True)
class LMAlias:
    """An LM as the operator defined it.

    Attributes:
        model: `provider/model`, of a provider in `BY_ADDRESS`.
        api_base: where it is; only the providers in `PROVIDERS` have an address without.
        secret: the name of its key. Without one, it is called without where it has an `api_base`, else with the
            provider's usual one.
        tenants: who may use it, where there are tenants.
    """

    model: str
    api_base: str | None = None
    secret: str | None = None
    tenants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        provider, _, name = self.model.partition("/")
        if provider not in BY_ADDRESS or not name:
            known = ", ".join(sorted(BY_ADDRESS))
            text = f"'{self.model}' is not 'provider/model' of {known}; a server that speaks as OpenAI's is openai/..."
            raise ValueError(f"model: {text}")
        if self.api_base is None and provider not in PROVIDERS:
            raise ValueError(f"api_base: {provider} has no address that goes without saying: give it")


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
        granted: the names of secrets that a tenant may use; None where there are no tenants, and all may be.
        proxy: `http://host:port`, by which all LMs are called; the environment's proxies are not looked at.
    """

    aliases: Mapping[str, LMAlias] = field(default_factory=dict)
    secret: Callable[[str], str | None] = field(default=lambda _name: None)
    granted: Mapping[str, Collection[str]] | None = None
    proxy: str | None = field(default=None, repr=False)

    def check(self, lm: LM, tenant: str | None = None) -> None:
        """Whether a program of a tenant may name this LM; its key need not be there yet.

        Raises:
            AdapterError: `permanent` for a model that is neither a granted alias nor `provider/model` of `PROVIDERS`;
                `auth` for a secret that is not for this LM, or that the tenant was not given.
        """
        self._find(lm, tenant)

    def resolve(self, lm: LM, tenant: str | None = None) -> ResolvedLM:
        """The model, the address and the key to call.

        Raises:
            AdapterError: as `check`; `auth` for a key that the worker does not have.
        """
        alias = self._find(lm, tenant)
        key = None if alias.secret is None else self.secret(alias.secret)
        if alias.secret is not None and key is None:
            text = f"secret: '{alias.secret}' is not known to the worker: set it in its environment"
            raise AdapterError(ErrorCode.AUTH, text)
        return ResolvedLM(alias.model, alias.api_base, key)

    def _find(self, lm: LM, tenant: str | None) -> LMAlias:
        """The LM with its address and its secret's name."""
        alias = self.aliases.get(lm.model)
        if alias is None:
            return self._direct(lm, tenant)
        if self.granted is not None and tenant not in alias.tenants:
            raise self._unknown(lm.model, tenant)
        if lm.secret is not None:
            text = f"secret: the alias '{lm.model}' has its own, and no other goes to its address: remove it"
            raise AdapterError(ErrorCode.AUTH, text)
        if alias.secret is None and alias.api_base is None:
            return LMAlias(alias.model, None, PROVIDERS[alias.model.partition("/")[0]])
        return alias

    def _direct(self, lm: LM, tenant: str | None) -> LMAlias:
        """A provider's own address, with a secret that is for that provider."""
        provider, _, name = lm.model.partition("/")
        if not name:
            raise self._unknown(lm.model, tenant)
        if provider not in PROVIDERS:
            text = f"model: '{provider}' is not one of {', '.join(PROVIDERS)}: an operator can give others by DSPEX_LMS"
            raise AdapterError(ErrorCode.PERMANENT, text)
        form = _PATHLESS if provider == "gemini" else _NAME
        if len(name) > MAX_NAME or ".." in name or not (_NAME.fullmatch(name) and form.fullmatch(name)):
            raise AdapterError(ErrorCode.PERMANENT, f"model: what follows '{provider}/' is not the name of a model")
        usual = PROVIDERS[provider]
        secret = lm.secret or usual
        if not _is_for(secret, usual):
            text = f"secret: '{secret}' is not for {provider}: its secrets are {usual} and those that end in _{usual}"
            raise AdapterError(ErrorCode.AUTH, text)
        if self.granted is not None and secret not in self.granted.get(tenant or "", ()):
            text = f"secret: '{secret}' was not given to '{tenant}'; an operator can give it by {SECRETS_SETTING}"
            raise AdapterError(ErrorCode.AUTH, text)
        return LMAlias(lm.model, None, secret)

    def _unknown(self, model: str, tenant: str | None) -> AdapterError:
        """For an alias that there is not, or not for this tenant: nobody learns which."""
        theirs = [name for name, alias in self.aliases.items() if self.granted is None or tenant in alias.tenants]
        text = f"model: '{model}' is neither 'provider/model' nor an alias of DSPEX_LMS that may be used here (known: "
        return AdapterError(ErrorCode.PERMANENT, f"{text}{', '.join(theirs) or 'none'})")


def _is_for(secret: str, usual: str) -> bool:
    """Whether a secret is a provider's: AZURE_OPENAI_API_KEY, which is so called by custom, is not OpenAI's."""
    return secret == usual or (secret.endswith(f"_{usual}") and not secret.startswith("AZURE_"))
