"""What DSPy 3.0 to 3.3 lack, and what stands in for it. The names are those of `http_client.py` and `calls.py`.

- They have no HTTP client of their own. All LMs are called by LiteLLM, which `lite.py` keeps from the environment and
  from redirects. We call it ourselves: DSPy's own `forward` differs from one minor to the next.
- Their prompt adapters ask once more, for JSON, after any error, such as a refused key or a run that was cancelled. As
  in 3.4, only an answer that cannot be parsed is a reason here.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import dspy
from dspy.adapters import json_adapter

from adapters.native import lm_errors
from adapters.native.lite import prepare_litellm

CONNECT_SECONDS: Final = 10.0

LATE_IMPORTS: Final = ("difflib",)

_OF_THE_FIRST_CALL: Final = ("numpy", "openai.resources", "litellm.proxy.openai_files_endpoints.common_utils")
"""What DSPy and LiteLLM import then, where they have it."""

_NOT_SENT: Final = frozenset({"cache", "rollout_id", "engine"})
"""Settings of `dspy.LM` that are DSPy's own."""

_NO_CACHE: Final = {"no-cache": True, "no-store": True}

_ERRORS: Final = (
    ("ContextWindowExceededError", lm_errors.ContextWindowExceededError),
    ("BudgetExceededError", lm_errors.LMBillingError),
    ("UnsupportedParamsError", lm_errors.LMUnsupportedFeatureError),
    ("AuthenticationError", lm_errors.LMAuthError),
    ("PermissionDeniedError", lm_errors.LMAuthError),
    ("Timeout", lm_errors.LMTimeoutError),
    ("APIConnectionError", lm_errors.LMTransportError),
    ("RateLimitError", lm_errors.LMRateLimitError),
    ("InternalServerError", lm_errors.LMServerError),
    ("ServiceUnavailableError", lm_errors.LMServerError),
    ("BadGatewayError", lm_errors.LMServerError),
    ("APIError", lm_errors.LMProviderError),
    ("APIStatusError", lm_errors.LMProviderError),
)
"""By the names of LiteLLM's classes and of those of OpenAI's client below them, subclasses first."""


_LM: Any = dspy.LM
_ADAPTER: Any = dspy.Adapter


class BaseLM(_LM):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.LM` with what 3.4's has."""

    def __init__(self, model: str, *, engine: str = "litellm", **settings: Any) -> None:
        super().__init__(model, **settings)
        self.engine = engine

    def copy(self, **changes: Any) -> Any:
        """See `dspy.LM.copy`, which copies all that the LM holds."""
        made = copy.copy(self)
        made.kwargs, made.callbacks, made.history = dict(self.kwargs), list(self.callbacks), []
        for name, value in changes.items():
            if hasattr(self, name):
                setattr(made, name, value)
            if name in self.kwargs or not hasattr(self, name):
                made.kwargs.pop(name, None)
                made.kwargs |= {} if value is None else {name: value}
        return made

    @property
    def supported_params(self) -> set[str]:
        """See `dspy.LM`. 3.0 and 3.1 have none of these properties."""
        import litellm

        return set(litellm.get_supported_openai_params(self.model, custom_llm_provider=self._provider) or ())

    @property
    def supports_function_calling(self) -> bool:
        """See `dspy.LM`."""
        import litellm

        return litellm.supports_function_calling(self.model)

    @property
    def supports_reasoning(self) -> bool:
        """See `dspy.LM`."""
        import litellm

        return litellm.supports_reasoning(self.model)

    @property
    def supports_response_schema(self) -> bool:
        """See `dspy.LM`."""
        import litellm

        return litellm.supports_response_schema(self.model, custom_llm_provider=self._provider)

    @property
    def _provider(self) -> str:
        return self.model.split("/", 1)[0] if "/" in self.model else "openai"


@dataclass(frozen=True)
class _Result:
    """The part of 3.4's `CallResult` that is used."""

    outputs: list[Any]
    usage: Mapping[str, Any]
    raw: Any
    cost: float | None
    responses: Sequence[Any] = field(default=())


def execute(lm: Any, prompt: Any, messages: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Make one call of an LM by LiteLLM. Returns what `calls.execute` returns.

    Raises:
        LMError: of `lm_errors`.
    """
    import litellm

    settings = {name: value for name, value in (lm.kwargs | dict(options)).items() if value is not None}
    try:
        response: Any = litellm.completion(
            model=lm.model,
            messages=messages or [{"role": "user", "content": prompt}],
            cache=_NO_CACHE,
            num_retries=0,
            **{name: value for name, value in settings.items() if name not in _NOT_SENT},
        )
        usage = getattr(response, "usage", None)
        result = _Result(
            outputs=lm._process_completion(response, settings),  # noqa: SLF001
            usage={} if usage is None else usage.model_dump(),
            raw=response,
            cost=getattr(response, "_hidden_params", {}).get("response_cost"),
        )
    except lm_errors.LMError:
        raise
    except Exception as error:
        raise _lm_error(error, lm.model) from error
    return SimpleNamespace(request=None), result


def _lm_error(error: Exception, model: str) -> Exception:
    names = {kind.__name__ for kind in type(error).__mro__}
    kind = next((kind for name, kind in _ERRORS if name in names), lm_errors.LMUnexpectedError)
    status = getattr(error, "status_code", None)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    made: Exception = kind(
        message=str(getattr(error, "message", None) or error),
        model=model,
        status=status if isinstance(status, int) else None,
        request_id=headers.get("x-request-id"),
    )
    return made


class AsksOnce:
    """A base for subclasses of `dspy.ChatAdapter`, before it: one that calls an LM as 3.4's does."""

    def __call__(self, lm: Any, lm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """See `dspy.Adapter`."""
        _set_format(self, lm, lm_kwargs, *args, **kwargs)
        try:
            return _ADAPTER.__call__(self, lm, lm_kwargs, *args, **kwargs)
        except lm_errors.AdapterParseError:
            if (other := _other(self)) is None:
                raise
            return other(lm, lm_kwargs, *args, **kwargs)

    async def acall(self, lm: Any, lm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """See `dspy.Adapter`."""
        _set_format(self, lm, lm_kwargs, *args, **kwargs)
        try:
            return await _ADAPTER.acall(self, lm, lm_kwargs, *args, **kwargs)
        except lm_errors.AdapterParseError:
            if (other := _other(self)) is None:
                raise
            return await other.acall(lm, lm_kwargs, *args, **kwargs)


def _other(adapter: Any) -> Any:
    """The prompt adapter that asks for JSON, if this one does not."""
    return None if isinstance(adapter, dspy.JSONAdapter) else adapter._make_json_adapter_fallback()  # noqa: SLF001


def _set_format(adapter: Any, lm: Any, lm_kwargs: dict[str, Any], signature: Any, *_: Any, **__: Any) -> None:
    """What 3.4's `JSONAdapter` asks for: the schema of the outputs, if it has one that the LM takes, or any object."""
    if not isinstance(adapter, dspy.JSONAdapter) or "response_format" not in lm.supported_params:
        return
    lm_kwargs["response_format"] = {"type": "json_object"}
    has_tools = any(output.annotation == dspy.ToolCalls for output in signature.output_fields.values())
    uses_tools = adapter.use_native_function_calling
    is_open = json_adapter._has_open_ended_mapping(signature)  # noqa: SLF001
    if lm.supports_response_schema and not is_open and (uses_tools or not has_tools):
        with suppress(Exception):  # a type without a schema of this kind
            asked = json_adapter._get_structured_outputs_response_format(signature, uses_tools)  # noqa: SLF001
            lm_kwargs["response_format"] = asked


class File:
    """Stands in for `dspy.File`, which 3.0 lacks. There is none of it: signatures with files are refused."""

    file_data = file_id = filename = None


def apply_output_field_defaults(_signature: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values as they are: before 3.3, outputs have no defaults."""
    return values


class Transport:
    """Stands in for the HTTP client: there is none."""

    def __init__(self, **_: Any) -> None:
        """See `http_client.Transport`."""

    def close(self) -> None:
        """Does nothing. LiteLLM's connections are those of the process."""


def calls_through(_lm: Any, _transport: Any, _api_key: str, _api_base: str | None) -> bool:
    """No LM is called by DSPy's own HTTP client."""
    return False


def preload(proxy: str | None) -> None:
    """Load LiteLLM, which takes 2 s, and what takes another second at the first call of a child."""
    prepare_litellm(proxy)
    for name in _OF_THE_FIRST_CALL:
        with suppress(ImportError):
            import_module(name)
    # DSPy looks at the stack when a module's `forward` is read. The first look finds the file of every module.
    inspect.stack()
