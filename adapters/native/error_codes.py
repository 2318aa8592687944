"""Maps the exceptions of a run to the closed set of error codes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from adapters.native import lm_errors
from adapters.native.failures.meanings import meaning
from adapters.native.failures.said import Said, said_by_exception, said_in_answer
from adapters.native.recorder import Recorder
from adapters.native.wire import Call
from adapters.port import MAX_QUOTE, AdapterError
from adapters.trace import without, without_bodies
from dspex import ErrorCode
from dspex.errors import InvalidOutput

_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (lm_errors.ContextWindowExceededError, ErrorCode.CONTEXT_WINDOW),
    (lm_errors.LMAuthError, ErrorCode.AUTH),
    (lm_errors.LMNotConfiguredError, ErrorCode.AUTH),
    (lm_errors.LMBillingError, ErrorCode.BILLING),
    (lm_errors.LMRateLimitError, ErrorCode.RATE_LIMITED),
    (lm_errors.LMTimeoutError, ErrorCode.TIMEOUT),
    (lm_errors.LMTransportError, ErrorCode.TRANSIENT),
    (lm_errors.LMServerError, ErrorCode.TRANSIENT),
    (lm_errors.LMLockTimeoutError, ErrorCode.TRANSIENT),
    (lm_errors.LMProviderError, ErrorCode.PERMANENT),  # unsupported model, invalid request, other refusals
    (lm_errors.LMUnsupportedFeatureError, ErrorCode.PERMANENT),
    (lm_errors.LMConfigurationError, ErrorCode.PERMANENT),
)
"""By class, subclasses first (dspy 3.4: clients/errors.py)."""

_TIMEOUTS = frozenset({"TimeoutError", "ConnectTimeout", "ReadTimeout", "WriteTimeout", "APITimeoutError"})
"""The timeouts of Python, of LiteLLM, and of DSPy's HTTP client, which DSPy reports as transport errors.
"""

_NOT_OF_PROVIDERS = (
    lm_errors.LMNotConfiguredError,
    lm_errors.LMUnsupportedFeatureError,
    lm_errors.LMConfigurationError,
    lm_errors.LMLockTimeoutError,
)
"""Errors that are raised before anything is sent."""


def adapter_error(error: Exception, recorder: Recorder, secrets: Collection[str]) -> AdapterError:
    """Convert an exception of a run into an `AdapterError`, without the secrets and the prompt."""

    def clean(text: str | None) -> str | None:
        return text and without_bodies(without(text, secrets))

    if isinstance(error, AdapterError):
        return AdapterError(
            error.code,
            clean(error.message) or "",
            retry_after=error.retry_after,
            provider_code=clean(error.provider_code),
            request_id=error.request_id,
            usage=recorder.usage,
        )
    if isinstance(error, InvalidOutput):
        return AdapterError(ErrorCode.INVALID_OUTPUT, error.message, usage=recorder.usage)
    if isinstance(error, lm_errors.AdapterParseError):
        text = f"no outputs can be read from the answer: {(clean(error.lm_response) or '')[: MAX_QUOTE // 2]!r}"
        return AdapterError(ErrorCode.PARSE_FAILURE, text, usage=recorder.usage)
    said = said_of(error, recorder.call)
    code = code_of(error, said)
    if code is ErrorCode.INTERNAL and isinstance(error, lm_errors.LMUnexpectedError) and recorder.call.succeeded:
        # Transient, like an answer that is not JSON: it usually comes from a gateway in between.
        begin = clean(recorder.call.body[:MAX_QUOTE].decode(errors="replace")) or ""
        text = f"the response is not in the expected format: {begin[: MAX_QUOTE // 2]!r}"
        return AdapterError(ErrorCode.TRANSIENT, text, usage=recorder.usage)
    if code is ErrorCode.INTERNAL:
        # The text of an unexpected exception may contain anything, such as the prompt.
        return AdapterError(code, f"{type(error).__name__} in DSPy", usage=recorder.usage)
    text = str(error) if getattr(error, "message", "").strip() or not said.text else f"HTTP {said.status}: {said.text}"
    return AdapterError(
        code,
        _line(clean(text) or type(error).__name__),
        retry_after=said.wait,
        provider_code=clean(said.code),
        request_id=clean(getattr(error, "request_id", None)),
        usage=recorder.usage,
    )


def said_of(error: Exception, call: Call) -> Said:
    """What the provider said, for an exception of an LM call."""
    if not isinstance(error, lm_errors.LMError) or isinstance(error, _NOT_OF_PROVIDERS):
        return Said()
    return said_in_answer(call) or said_by_exception(error)


def code_of(error: Exception, said: Said) -> ErrorCode:
    """The code of an exception: from what the provider said, or else from its class."""
    code = meaning(said.status, said.words, said.text)
    if code is not None:
        return code
    code = next((code for kind, code in _CODES if isinstance(error, kind)), ErrorCode.INTERNAL)
    if type(error) is lm_errors.LMProviderError and (getattr(error, "status", None) or 200) < 400:
        return ErrorCode.TRANSIENT  # an answer that is not JSON: it usually comes from a gateway in between
    if code is ErrorCode.TRANSIENT and any(type(cause).__name__ in _TIMEOUTS for cause in _causes(error)):
        return ErrorCode.TIMEOUT
    if code is ErrorCode.INTERNAL and any(isinstance(cause, RecursionError) for cause in _causes(error)):
        return ErrorCode.PARSE_FAILURE  # JSON that is nested too deep for the parser
    return code


def _line(text: str) -> str:
    """The first paragraph. Those after it are hints for interactive use."""
    return " ".join(text.split("\n\n", 1)[0].split())[:MAX_QUOTE]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
