"""Resolves the LM that a program names: the operator's aliases, and which key may go to which address.

A message names a model and at most a secret. This module decides which addresses it can reach: those of the providers
in `PROVIDERS`, and those that an operator has configured. The decision is made when the message arrives (`check`) and
again when the program is built (`resolve`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from adapters.lm_parameters import check_allowed, check_names
from adapters.port import AdapterError, NotHere
from adapters.prices import Prices
from dspex import LM, Configuration, ErrorCode

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
"""The providers that a program may name directly, each with its secret.

DSPy's own HTTP client knows their addresses, and needs only a key. Any other LM needs an alias.
"""

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
"""The providers that an alias may use: calls to them use only the alias's address and key.

For other providers, LiteLLM uses credentials that it finds on the machine (cloud keys, logins in files); for Bedrock
even if it is given a key.
"""

SECRETS_SETTING: Final = "DSPEX_LM_SECRETS"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]*(/[A-Za-z0-9][A-Za-z0-9._:+-]*)*", re.ASCII)
"""The part after the provider: names and versions, separated by slashes, as in `anthropic/claude-3.5-sonnet:beta`."""
_PATHLESS = re.compile(r"[^/:]+")
"""For providers that put the model into the path of a URL."""
MAX_NAME: Final = 200


@dataclass(frozen=True)
class LMAlias:
    """An LM as the operator defined it.

    Attributes:
        model: `provider/model`, of a provider in `BY_ADDRESS`.
        api_base: its address. Required unless the provider is in `PROVIDERS`.
        secret: the name of its key. Without it, an LM with an `api_base` is called without a key, and any other with
            the provider's usual one.
        tenants: the tenants that may use it, in a system with tenants.
        parameters: the names of the provider's own parameters that programs may send (`parameters.provider`).
        prices: what it costs; by default as DSPy's list has it.
    """

    model: str
    api_base: str | None = None
    secret: str | None = None
    tenants: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    prices: Prices | None = None

    def __post_init__(self) -> None:
        provider, _, name = self.model.partition("/")
        if provider not in BY_ADDRESS or not name:
            known = ", ".join(sorted(BY_ADDRESS))
            text = f"'{self.model}' is not 'provider/model' of {known}; a server that speaks as OpenAI's is openai/..."
            raise ValueError(f"model: {text}")
        if self.api_base is None and provider not in PROVIDERS:
            raise ValueError(f"api_base: {provider} has no default address: give one")
        check_names(self.parameters)


@dataclass(frozen=True)
class ResolvedLM:
    """The LM to call. `api_key` is never copied to a row, a log or an error."""

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    prices: Prices | None = None


MAIN: Final = "lm"
"""The field of the LM that a program's predictors call."""

ResolvedLMs = Mapping[str, ResolvedLM]
"""The LMs of a program, by their fields in its configuration (`Configuration.named_lms`)."""


def keys_of(lms: ResolvedLMs) -> tuple[str, ...]:
    """The keys of these LMs, which no error and no trace may contain."""
    return tuple({lm.api_key for lm in lms.values() if lm.api_key})


@dataclass(frozen=True)
class LMCatalog:
    """Resolves the LMs that programs name.

    Args:
        aliases: the operator's LMs by name.
        secret: returns the value of a secret by its name, or None. It decides which names are allowed.
        granted: the names of the secrets that a tenant may use; None in a system without tenants, where all are
            allowed.
        proxy: `http://host:port`, the proxy for all LM calls. Proxies in the environment are ignored.
    """

    aliases: Mapping[str, LMAlias] = field(default_factory=dict)
    secret: Callable[[str], str | None] = field(default=lambda _name: None)
    granted: Mapping[str, Collection[str]] | None = None
    proxy: str | None = field(default=None, repr=False)

    def check(self, lm: LM, tenant: str | None = None) -> None:
        """Check that a program of a tenant may use this LM. Its key may still be missing.

        Raises:
            AdapterError: `permanent`: the model is neither an alias of the tenant nor `provider/model` of `PROVIDERS`,
                or it does not allow a parameter.
                `auth`: the secret is not for this LM, or was not granted to the tenant.
        """
        check_allowed(lm, self._find(lm, tenant).parameters)

    def resolve(self, lm: LM, tenant: str | None = None) -> ResolvedLM:
        """The model, the address and the key for the call.

        Raises:
            AdapterError: see `check`. `auth`: the worker lacks the key.
        """
        alias = self._find(lm, tenant)
        check_allowed(lm, alias.parameters)
        key = None if alias.secret is None else self.secret(alias.secret)
        if alias.secret is not None and key is None:
            text = f"secret: '{alias.secret}' is not known to the worker: set it in its environment"
            raise NotHere(text, ErrorCode.AUTH)
        return ResolvedLM(alias.model, alias.api_base, key, alias.prices)

    def resolve_all(self, configuration: Configuration, tenant: str | None = None) -> ResolvedLMs:
        """Resolve every LM that a run of a program may call, but for those of its fallbacks.

        Raises:
            AdapterError: see `resolve`. For other LMs than the main one, the text begins with the field. `permanent`:
                the program has no main LM.
        """
        if configuration.lm is None:
            raise AdapterError(ErrorCode.PERMANENT, "lm: the adapter runs an LM: give its model")
        found = {}
        for field_name, lm in configuration.named_lms.items():
            try:
                found[field_name] = self.resolve(lm, tenant)
            except AdapterError as error:
                raise error.under("" if field_name == MAIN else f"{field_name}.") from None
        return found

    def _find(self, lm: LM, tenant: str | None) -> LMAlias:
        """The LM with its address and the name of its secret."""
        alias = self.aliases.get(lm.model)
        if alias is None:
            return self._direct(lm, tenant)
        if self.granted is not None and tenant not in alias.tenants:
            raise self._unknown(lm.model, tenant)
        if lm.secret is not None:
            text = f"secret: the alias '{lm.model}' has its own secret, and accepts no other: remove it"
            raise AdapterError(ErrorCode.AUTH, text)
        if alias.secret is None and alias.api_base is None:
            return replace(alias, secret=PROVIDERS[alias.model.partition("/")[0]])
        return alias

    def _direct(self, lm: LM, tenant: str | None) -> LMAlias:
        """An LM at the provider's own address, with a secret for that provider."""
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

    def _unknown(self, model: str, tenant: str | None) -> NotHere:
        """The error for an alias that does not exist or is not granted to the tenant. It does not tell which."""
        theirs = [name for name, alias in self.aliases.items() if self.granted is None or tenant in alias.tenants]
        text = f"model: '{model}' is neither 'provider/model' nor an alias of DSPEX_LMS that may be used here (known: "
        return NotHere(f"{text}{', '.join(theirs) or 'none'})")


def _is_for(secret: str, usual: str) -> bool:
    """Whether a secret belongs to a provider. AZURE_OPENAI_API_KEY, a customary name, does not belong to OpenAI."""
    return secret == usual or (secret.endswith(f"_{usual}") and not secret.startswith("AZURE_"))
