"""All use of DSPy's internals, beyond its documented interface, with the place in DSPy's source.

`tests/integration/test_dspy_insides.py` has a test for each, which fails if a new version of DSPy changes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final

import dspy
from dspy.adapters.utils import format_field_value, serialize_for_json
from pydantic import TypeAdapter

__all__ = [
    "extraction_signature",
    "fixed_temperature",
    "has_nested_elements",
    "raw_answer",
    "rebound",
    "user_message_content",
    "value_of_elements",
]


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


def has_nested_elements() -> bool:
    """Whether `dspy.XMLAdapter` has nested elements for what has parts: from 3.3 on."""
    return hasattr(dspy.XMLAdapter, "_elements_to_value")


def value_of_elements(elements: Sequence[Any], schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """What XML elements stand for by a JSON Schema, as `dspy.XMLAdapter` sees it (adapters/xml_adapter.py)."""
    return dspy.XMLAdapter._elements_to_value(list(elements), schema, definitions)  # noqa: SLF001
