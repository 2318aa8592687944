"""Finish reasons: an answer that was cut off, filtered or interrupted is not used, even if it can be parsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from adapters.native.failures.meanings import meaning
from adapters.native.failures.said import said_in_body
from adapters.native.insides import raw_answer
from adapters.port import MAX_QUOTE, AdapterError
from dspex import ErrorCode

LENGTH, FILTER, REFUSAL, ERROR = "length", "content_filter", "refusal", "error"

_MEANINGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        # OpenAI, vLLM; Anthropic; Gemini, Cohere; Mistral; llama.cpp
        ("length", "max_tokens", "model_context_window_exceeded", "model_length", "limit", "max_output_tokens"),
        LENGTH,
    ),
    **dict.fromkeys(
        # OpenAI, Azure; Gemini; Bedrock; Z.AI
        ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "image_safety",
         "content_filtered", "guardrail_intervened", "sensitive"),
        FILTER,
    ),
    **dict.fromkeys(("refusal", "refused"), REFUSAL),  # Anthropic
    # OpenRouter, Mistral; vLLM; DeepSeek; Gemini
    **dict.fromkeys(
        ("error", "error_toxic", "abort", "aborted", "insufficient_system_resource", "malformed_function_call"), ERROR
    ),
}  # fmt: skip
"""The finish reasons by the names of providers, in lower case."""

_SAID: Final = {
    LENGTH: (ErrorCode.TRUNCATED, "the answer was cut off at its maximum length: raise max_tokens"),
    FILTER: (ErrorCode.REFUSED, "the provider's content filter withheld the answer"),
    REFUSAL: (ErrorCode.REFUSED, "the LM refused to answer"),
    ERROR: (ErrorCode.TRANSIENT, "the provider interrupted the answer"),
}


def finish_reason_of(response: Any) -> str | None:
    """The finish reason: `stop`, `length`, `content_filter`, `refusal`, `error`, `tool_call`, or the provider's word.

    Args:
        response: a `dspy.lm15.Response`, or LiteLLM's response.
    """
    message = getattr(response, "message", None)
    if any(getattr(part, "type", None) == "refusal" for part in getattr(message, "parts", ())):
        return REFUSAL
    choice = next(iter(getattr(response, "choices", None) or ()), response)
    said = getattr(choice, "finish_reason", None)
    raw = _raw_choice(raw_answer(response))
    if (told := raw.get("message")) and isinstance(told, Mapping) and told.get("refusal"):
        return REFUSAL
    # DSPy's client maps unknown words to `stop`.
    words = [str(word).lower() for word in (said, raw.get("finish_reason"), raw.get("native_finish_reason")) if word]
    found = next((_MEANINGS[word] for word in words if word in _MEANINGS), None)
    return found or (words[0] if words else None)


def check_finish_reason(response: Any, finish_reason: str | None) -> None:
    """Check that a response is a complete answer.

    Raises:
        AdapterError: `truncated`, `refused`, or the code of an error in the response. No call is repeated for it, as
    the result would be the same.
    """
    raw = raw_answer(response)
    said = None if raw is None else said_in_body(raw)
    if said is not None:
        code = meaning(said.status, said.words, said.text) or ErrorCode.TRANSIENT
        text = " ".join(said.text.split())[:MAX_QUOTE] or "the answer is an error"
        raise AdapterError(code, text, retry_after=said.wait, provider_code=said.code)
    if finish_reason in _SAID:
        raise AdapterError(*_SAID[finish_reason])


def _raw_choice(raw: Mapping[str, Any] | None) -> Mapping[str, Any]:
    choices = None if raw is None else raw.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, Mapping) else {}
