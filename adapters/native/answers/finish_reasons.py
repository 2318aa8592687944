"""How an answer ended: what was cut off, held back or broken off is no answer, whatever can be read of it."""

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
"""What providers call it, in lower case."""

_SAID: Final = {
    LENGTH: (ErrorCode.TRUNCATED, "the answer was cut off at the length that it may have: raise max_tokens"),
    FILTER: (ErrorCode.REFUSED, "the provider's content filter held the answer back"),
    REFUSAL: (ErrorCode.REFUSED, "the LM refused to answer"),
    ERROR: (ErrorCode.TRANSIENT, "the provider broke the answer off"),
}


def finish_reason_of(response: Any) -> str | None:
    """Why an answer ended: `stop`, `length`, `content_filter`, `refusal`, `error`, `tool_call`, or a word of its own.

    Args:
        response: a `dspy.lm15.Response`, or what LiteLLM returns.
    """
    message = getattr(response, "message", None)
    if any(getattr(part, "type", None) == "refusal" for part in getattr(message, "parts", ())):
        return REFUSAL
    choice = next(iter(getattr(response, "choices", None) or ()), response)
    said = getattr(choice, "finish_reason", None)
    raw = _raw_choice(raw_answer(response))
    if (told := raw.get("message")) and isinstance(told, Mapping) and told.get("refusal"):
        return REFUSAL
    # DSPy's client takes words that it does not know for `stop`.
    words = [str(word).lower() for word in (said, raw.get("finish_reason"), raw.get("native_finish_reason")) if word]
    found = next((_MEANINGS[word] for word in words if word in _MEANINGS), None)
    return found or (words[0] if words else None)


def check_finish_reason(response: Any, finish_reason: str | None) -> None:
    """Stop the run where an answer is none.

    Raises:
        AdapterError: `truncated`, `refused`, or what an error in the answer means. The same call would come to the
            same: none is made in its place.
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
