"""The errors of LM calls by their names in DSPy 3.4: DSPy's own, and stand-ins for those that an older DSPy lacks.

3.0 to 3.2 have none of them: an LM call raises what LiteLLM raises. 3.3 has all but one.
"""

from __future__ import annotations

from typing import Any, Final

from dspy.predict import react
from dspy.utils import exceptions


class _Told(Exception):
    """Stands in for `LMError`: with what its constructor takes in 3.4."""

    def __init__(
        self,
        message: str = "",
        *,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        Exception.__init__(self, message)  # not that of a class of LiteLLM's, beside which it may stand
        self.message = message
        self.model = model
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


def _known(name: str, *bases: Any) -> Any:
    """The class of this name in DSPy, or one that stands in for it."""
    return getattr(exceptions, name, None) or type(name, bases, {"__module__": __name__, "__doc__": name})


def _context_window() -> Any:
    """The class that says that a prompt is too long, which `ReAct` waits for; in 3.0 and 3.1 it is LiteLLM's."""
    known: Any = getattr(react, "ContextWindowExceededError", None)
    if known is None or issubclass(known, LMError):
        return exceptions.ContextWindowExceededError
    return type("ContextWindowExceededError", (LMProviderError, known), {"__module__": __name__})


LMError: Final = _known("LMError", _Told)
LMConfigurationError: Final = _known("LMConfigurationError", LMError)
LMNotConfiguredError: Final = _known("LMNotConfiguredError", LMConfigurationError)
LMUnsupportedFeatureError: Final = _known("LMUnsupportedFeatureError", LMError)
LMTransportError: Final = _known("LMTransportError", LMError)
LMLockTimeoutError: Final = _known("LMLockTimeoutError", LMError)
LMUnexpectedError: Final = _known("LMUnexpectedError", LMError)
LMProviderError: Final = _known("LMProviderError", LMError)
LMAuthError: Final = _known("LMAuthError", LMProviderError)
LMBillingError: Final = _known("LMBillingError", LMProviderError)
LMRateLimitError: Final = _known("LMRateLimitError", LMProviderError)
LMTimeoutError: Final = _known("LMTimeoutError", LMProviderError)
LMServerError: Final = _known("LMServerError", LMProviderError)
ContextWindowExceededError: Final = _context_window()
AdapterParseError: Final = exceptions.AdapterParseError
