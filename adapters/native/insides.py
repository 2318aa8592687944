"""All use of DSPy's internals, beyond its documented interface, with the place in DSPy's source.

`tests/integration/test_dspy_insides.py` has a test for each, which fails if a new version of DSPy changes it.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final

import dspy
from dspy._vendor.lm15.transports import StdlibTransport
from dspy._vendor.lm15.transports._sync import _SyncConnection
from dspy.adapters.utils import format_field_value, serialize_for_json
from dspy.clients.backend_selection import select_backend
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.clients.model_metadata import model_info
from dspy.lm15 import LM15Error, RouterConfig, request_from_openai_chat
from pydantic import TypeAdapter

__all__ = [
    "CONNECT_SECONDS",
    "Transport",
    "calls_through",
    "carries",
    "extraction_signature",
    "fixed_temperature",
    "not_sent",
    "raw_answer",
    "reasons",
    "rebound",
    "user_message_content",
    "value_of_elements",
]

CONNECT_SECONDS: Final = 10.0
"""The connect timeout of DSPy's HTTP client (dspy 3.4: _vendor/lm15/transports/_limits.py)."""


def rebound(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """A function of DSPy's that finds something else under these global names.

    DSPy's own function stays as it is, and so does the module that it is in.
    """
    if not isinstance(function, FunctionType) or not names.keys() <= {*function.__code__.co_names}:
        raise TypeError(f"{function!r} does not use all of {', '.join(sorted(names))}")
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class _Connection(_SyncConnection):  # type: ignore[misc]  # DSPy has no type information
    """A connection whose descriptor may have any number.

    DSPy looks with `select` whether the other side has closed a connection. That fails for numbers from 1024 on, and
    DSPy opens another connection for each call then.
    """

    __slots__ = ()

    def is_stale(self) -> bool:
        """Whether it cannot be used again: it was closed, or there is something to read before anything was asked."""
        if self.closed:
            return True
        poll = select.poll()
        try:
            poll.register(self.sock, select.POLLIN)
        except (OSError, ValueError):
            return True
        return bool(poll.poll(0))


class Transport(StdlibTransport):  # type: ignore[misc]  # DSPy has no type information
    """DSPy's HTTP client, for more than a thousand connections."""

    _open = rebound(StdlibTransport._open, _SyncConnection=_Connection)  # noqa: SLF001


_KINDS: Final = (str, int, float, bool, type(None), list, dict)
"""The types of JSON values."""

_TYPE_ADAPTERS: Final = {kind: TypeAdapter(kind) for kind in _KINDS}


def _type_adapter(kind: Any) -> TypeAdapter[Any]:
    return _TYPE_ADAPTERS.get(kind) or TypeAdapter(kind)


user_message_content: Final = rebound(
    dspy.ChatAdapter.format_user_message_content,
    format_field_value=rebound(
        format_field_value, serialize_for_json=rebound(serialize_for_json, TypeAdapter=_type_adapter)
    ),
)
"""`ChatAdapter.format_user_message_content`, which makes no pydantic `TypeAdapter` for each value."""


class _Engine(LM15Engine):  # type: ignore[misc]  # DSPy has no type information
    """DSPy's HTTP client for one LM, which looks for the provider of its model once."""

    def resolve(self, model: str) -> Any:
        """See `LM15Engine`."""
        if self.resolved is None or self.resolved[0] != model:
            self.resolved = model, super().resolve(model)
        return self.resolved[1]

    resolved: tuple[str, Any] | None = None


class _OneEngine(dict[Any, Any]):
    """Replaces an LM's dict of engines, which DSPy keeps by settings (clients/execution.py: `_select_engine`)."""

    def __init__(self, engine: LM15Engine) -> None:
        super().__init__()
        self.engine = engine

    def get(self, _key: Any, _default: Any = None) -> Any:
        """The engine, whatever the settings."""
        return self.engine


def calls_through(lm: Any, transport: Any, api_key: str, api_base: str | None) -> bool:
    """Make an LM use DSPy's own HTTP client with this transport. Returns False if that client does not support the LM.

    `dspy.LM` cannot pass a transport to its engines, and a custom engine has no prices and no capabilities.
    """
    try:
        provider = select_backend(lm).resolution.provider
    except LM15Error:
        return False
    lm._engine_store = _OneEngine(  # noqa: SLF001
        _Engine(
            RouterConfig(
                env={},  # otherwise addresses and regions come from the environment
                api_keys={provider: api_key},
                base_urls=None if api_base is None else {provider: api_base},
                transport=transport,
            ),
            model_type=lm.model_type,
        )
    )
    return True


def raw_answer(response: Any) -> Mapping[str, Any] | None:
    """The provider's own JSON: `dspy.lm15.Response` keeps it, and LiteLLM's objects can be dumped to it."""
    raw = getattr(response, "provider_data", None)
    if raw is None and (dump := getattr(response, "model_dump", None)) is not None:
        raw = dump()
    return raw if isinstance(raw, Mapping) else None


def headers_of(response: Any) -> list[tuple[str, str]]:
    """The headers of a response of LiteLLM's, by the names that the provider sent them under."""
    hidden = getattr(response, "_hidden_params", None)
    told = hidden.get("additional_headers") if isinstance(hidden, Mapping) else None
    return [(name.removeprefix("llm_provider-"), value) for name, value in (told or {}).items()]


_FIXED_TEMPERATURE = re.compile(r"(?:.*/)?(?:o[1-9](?:-.*)?|gpt-5(?![\d])(?!.*-chat).*|codex-.*)", re.IGNORECASE)


def fixed_temperature(model: str) -> bool:
    """Whether a model has a fixed temperature, like OpenAI's reasoning models, whoever serves them.

    https://platform.openai.com/docs/guides/reasoning; `dspy.LM` knows them, too (clients/lm.py), and refuses to set a
    temperature for the whole LM.
    """
    return _FIXED_TEMPERATURE.fullmatch(model) is not None


def extraction_signature(adapter: Any, signature: Any) -> Any:
    """The signature of the second step of a `dspy.TwoStepAdapter`: from `text` to the outputs."""
    return adapter._create_extractor_signature(signature)  # noqa: SLF001


def value_of_elements(elements: Sequence[Any], schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """What XML elements stand for by a JSON Schema, as `dspy.XMLAdapter` sees it (adapters/xml_adapter.py)."""
    return dspy.XMLAdapter._elements_to_value(list(elements), schema, definitions)  # noqa: SLF001


def carries(lm: Any, blocks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether DSPy's own HTTP client can send these content blocks to an LM. Makes a request without sending it.

    Args:
        lm: an LM that `calls_through`.
    """
    body = {"model": lm.model, "messages": [{"role": "user", "content": list(blocks)}]}
    try:
        lm._engine_store.get(None).plan(request_from_openai_chat(body, compat=select_backend(lm).resolution.compat))  # noqa: SLF001
    except (LM15Error, TypeError, ValueError):
        return False
    return True


def not_sent(lm: Any, settings: Mapping[str, Any]) -> str | None:
    """Why DSPy's own HTTP client would not send these settings to an LM as they are; None if it would.

    Makes a request without sending it. That a value is changed into the nearest one that the provider takes is no
    reason.

    Args:
        lm: an LM that `calls_through`.
    """
    body = {"model": lm.model, "messages": [{"role": "user", "content": "?"}], **settings}
    try:
        request = request_from_openai_chat(body, compat=select_backend(lm).resolution.compat)
        plan = lm._engine_store.get(None).plan(request)  # noqa: SLF001
    except (LM15Error, TypeError, ValueError) as error:
        return str(error)
    return next((adapted.reason for adapted in plan if adapted.action == "dropped"), None)


def reasons(lm: Any) -> bool | None:
    """Whether the model of an LM is one that reasons, by DSPy's list; None if it is not in the list."""
    route = select_backend(lm).resolution
    info = model_info(route.provider, route.model)
    return bool(info.get("supports_reasoning")) if info else None
