"""From the exceptions of a run to the closed set of error codes."""

from __future__ import annotations

from collections.abc import Iterator

from dspy.utils import exceptions as dspy_errors

from adapters.native.recorder import Recorder
from adapters.port import MAX_QUOTE, AdapterError
from dspex import ErrorCode
from dspex.errors import InvalidOutput

_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (dspy_errors.ContextWindowExceededError, ErrorCode.CONTEXT_WINDOW),
    (dspy_errors.LMAuthError, ErrorCode.AUTH),
    (dspy_errors.LMNotConfiguredError, ErrorCode.AUTH),
    (dspy_errors.LMBillingError, ErrorCode.BILLING),
    (dspy_errors.LMRateLimitError, ErrorCode.RATE_LIMITED),
    (dspy_errors.LMTimeoutError, ErrorCode.TIMEOUT),
    (dspy_errors.LMTransportError, ErrorCode.TRANSIENT),
    (dspy_errors.LMServerError, ErrorCode.TRANSIENT),
    (dspy_errors.LMLockTimeoutError, ErrorCode.TRANSIENT),
    (dspy_errors.LMProviderError, ErrorCode.PERMANENT),  # unsupported model, invalid request, other refusals
    (dspy_errors.LMUnsupportedFeatureError, ErrorCode.PERMANENT),
    (dspy_errors.LMConfigurationError, ErrorCode.PERMANENT),
)
"""By class, subclasses first (dspy 3.4: clients/errors.py)."""

_TIMEOUTS = frozenset({"TimeoutError", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "APITimeoutError"})
"""Of Python, of DSPy's HTTP client (_vendor/lm15/transports, a transport error to DSPy) and of LiteLLM's."""

_TELLING = {
    "context_length_exceeded": ErrorCode.CONTEXT_WINDOW,
    "insufficient_quota": ErrorCode.BILLING,
    "content_filter": ErrorCode.REFUSED,
    "content_policy_violation": ErrorCode.REFUSED,
    "ResponsibleAIPolicyViolation": ErrorCode.REFUSED,
}
"""Codes of providers that say more than the exception's class. LiteLLM leaves them in the text."""


def adapter_error(error: Exception, recorder: Recorder, api_key: str | None) -> AdapterError:
    """The `AdapterError` that tells of an exception of a run: without the key, and without the prompt."""

    def clean(text: str | None) -> str | None:
        return text.replace(api_key, "***") if text and api_key else text

    if isinstance(error, AdapterError):
        error.usage = recorder.usage
        return error
    if isinstance(error, InvalidOutput):
        return AdapterError(ErrorCode.INVALID_OUTPUT, error.message, usage=recorder.usage)
    if isinstance(error, dspy_errors.AdapterParseError):
        code, text = _unreadable(recorder.finish_reason, clean(error.lm_response) or "")
        return AdapterError(code, text, usage=recorder.usage)
    code = _code(error)
    if code is ErrorCode.INTERNAL:
        # What an unexpected exception says may hold anything: the prompt, for one.
        return AdapterError(code, f"{type(error).__name__} in DSPy", usage=recorder.usage)
    return AdapterError(
        code,
        _line(clean(str(error)) or type(error).__name__),
        retry_after=getattr(error, "retry_after", None),
        provider_code=clean(getattr(error, "provider_code", None)),
        request_id=clean(getattr(error, "request_id", None)),
        usage=recorder.usage,
    )


def _code(error: Exception) -> ErrorCode:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), ErrorCode.INTERNAL)
    if type(error) is dspy_errors.LMProviderError and (getattr(error, "status", None) or 200) < 400:
        return ErrorCode.TRANSIENT  # an answer that is not JSON: of a gateway in between, as a rule
    if code is ErrorCode.TRANSIENT and any(type(cause).__name__ in _TIMEOUTS for cause in _causes(error)):
        return ErrorCode.TIMEOUT
    if code in (ErrorCode.PERMANENT, ErrorCode.RATE_LIMITED):
        told = getattr(error, "provider_code", None)
        for name, meaning in _TELLING.items():
            if name == told or (told is None and name in str(error)):
                return meaning
    return code


def _line(text: str) -> str:
    """The first paragraph: hints for a person at a keyboard follow."""
    return " ".join(text.split("\n\n", 1)[0].split())[:MAX_QUOTE]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _unreadable(finish_reason: str | None, answer: str) -> tuple[ErrorCode, str]:
    """For an answer of the LM that DSPy found no outputs in; it asked a second time, in another format."""
    quote = answer[: MAX_QUOTE // 2]
    match finish_reason:
        case "content_filter":
            return ErrorCode.REFUSED, "the provider's content filter held the answer back"
        case "refusal":
            return ErrorCode.REFUSED, "the LM refused to answer"
        case "length":
            return ErrorCode.PARSE_FAILURE, f"the answer was cut off at max_tokens: {quote!r}"
        case _:
            return ErrorCode.PARSE_FAILURE, f"no outputs can be read from the answer: {quote!r}"
