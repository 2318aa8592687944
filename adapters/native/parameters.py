"""The parameters of an LM's calls: what is sent for them, and which of them the LM does not take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from adapters.native.by_version import not_sent, reasons
from adapters.native.insides import fixed_temperature
from adapters.native.modules.temperature import ITS_OWN, check_temperature
from adapters.port import AdapterError
from dspex import ErrorCode, LMParameters

_NOT_WITH_REASONING: Final = frozenset(
    {"top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"}
)
"""Parameters that the reasoning models of OpenAI refuse, besides `temperature`, whoever serves them.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning
"""

_REFUSED_BY_LITELLM: Final = frozenset({"reasoning_effort", "seed", "max_completion_tokens"})
"""Parameters that LiteLLM refuses, at each call, for a model that it believes not to take them."""

_OURS: Final = frozenset({"timeout", "n"})
"""Parameters that are not sent: the adapter does what they ask for."""


def settings_of(parameters: LMParameters) -> dict[str, Any]:
    """The parameters that are set, as settings of a `dspy.LM`."""
    settings: dict[str, Any] = parameters.model_dump(exclude_none=True)
    if parameters.stop is not None:
        settings["stop"] = list(parameters.stop)
    others: dict[str, Any] = settings.pop("provider", {})
    return settings | others


def check_parameters(field: str, lm: Any, parameters: LMParameters, code: ErrorCode = ErrorCode.PERMANENT) -> None:
    """Check that an LM takes its parameters. Sends nothing.

    Args:
        field: the place of the parameters. Errors begin with it.
        lm: a `RecordingLM`.

    Raises:
        AdapterError: with `code`: it does not take one of them.
    """
    check_temperature(parameters.temperature, lm.model, f"{field}.temperature", code)
    sent = {name: value for name, value in settings_of(parameters).items() if name not in _OURS}
    fixed = fixed_temperature(lm.model)
    for name, value in sent.items():
        if fixed and name in _NOT_WITH_REASONING and not (name == "top_p" and value == ITS_OWN):
            raise _refusal(field, name, parameters, lm, "the model reasons, and takes none", code)
    # `dspy.LM` sends no `max_tokens` to these models, but `max_completion_tokens`.
    if sent.get("reasoning_effort") is not None and lm.model.startswith("openai/") and _does_not_reason(lm):
        raise _refusal(field, "reasoning_effort", parameters, lm, "the model does not reason", code)
    if lm.is_native:
        _check_native(field, lm, sent, parameters, code)
    else:
        known = lm.supported_params
        for name in _REFUSED_BY_LITELLM & sent.keys() if known else ():
            if name not in known:
                raise _refusal(field, name, parameters, lm, "LiteLLM has no such parameter for it", code)


def check_overrides(lms: Iterable[Any], parameters: LMParameters) -> None:
    """Check that LMs take the parameters that a run sets for them.

    Raises:
        AdapterError: `invalid_input`: one of them does not take one of those that it lets the run set.
    """
    for lm in lms:
        check_parameters("options.lm", lm, parameters.only(lm.overridable), ErrorCode.INVALID_INPUT)


def _check_native(field: str, lm: Any, sent: dict[str, Any], parameters: LMParameters, code: ErrorCode) -> None:
    if (reason := not_sent(lm, sent)) is None:
        return
    for name, value in sent.items():
        if (own := not_sent(lm, {name: value})) is not None:
            raise _refusal(field, name, parameters, lm, own, code)
    raise AdapterError(code, f"{field}: '{lm.model}' does not take them together: {reason}")


def _does_not_reason(lm: Any) -> bool:
    return lm.is_native and reasons(lm) is False


def _refusal(field: str, name: str, parameters: LMParameters, lm: Any, reason: str, code: ErrorCode) -> AdapterError:
    where = f"provider.{name}" if name in (parameters.provider or ()) else name
    return AdapterError(code, f"{field}.{where}: '{lm.model}' does not take it: {reason}")
