"""The LM that a program calls, and the record of what one run used of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import dspy
from dspy.clients.backend_selection import select_backend
from dspy.lm15 import LM15Error

from adapters.lm import ResolvedLM
from adapters.port import AdapterError
from dspex import ErrorCode, LMCall, LMParameters, Usage

KEYLESS: Final = frozenset({"ollama", "ollama_chat", "hosted_vllm"})
"""Providers on the local machine that need no key."""

NO_KEY: Final = "none"
"""Sent where there is no key: DSPy would else take one from the environment, and send it to any address."""


class Recorder:
    """What one run used. DSPy calls `add_usage`, as of its own usage tracker; `RecordingLM` the rest.

    Args:
        changed: called with the usage so far whenever an LM call begins or was answered.
    """

    def __init__(self, changed: Callable[[Usage], None] | None = None) -> None:
        self._changed = changed
        self._begun = 0
        self._answered: list[LMCall] = []
        self.finish_reason: str | None = None
        """Why the last answer ended: `stop`, `length`, `content_filter`, `refusal`, ..."""

    def call_begins(self) -> None:
        """An LM call is about to be made."""
        self._begun += 1
        self.finish_reason = None
        self._tell()

    def add_usage(self, model: str, usage: Mapping[str, Any]) -> None:
        """An LM call was answered; also called where its answer cannot be used."""
        self._answered.append(
            LMCall(
                model=model,
                input_tokens=usage.get("prompt_tokens") or 0,
                output_tokens=usage.get("completion_tokens") or 0,
            )
        )
        self._tell()

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """An LM call is complete: DSPy's history entry of it."""
        if entry.get("cost") is not None and self._answered:
            self._answered[-1] = self._answered[-1].model_copy(update={"cost": entry["cost"]})
            self._tell()
        self.finish_reason = _finish_reason(entry.get("response"))

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.usage)

    @property
    def usage(self) -> Usage:
        """So far. The cost is known only where that of every answer is."""
        costs = [call.cost for call in self._answered if call.cost is not None]
        return Usage(
            calls=self._begun,
            input_tokens=sum(call.input_tokens for call in self._answered),
            output_tokens=sum(call.output_tokens for call in self._answered),
            cost=sum(costs) if costs and len(costs) == len(self._answered) else None,
            lm_calls=tuple(self._answered),
        )


class RecordingLM(dspy.LM):  # type: ignore[misc]  # DSPy has no type information
    """A `dspy.LM` that reports to the run's `Recorder` and keeps no history, neither its own nor DSPy's global one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder: Recorder = dspy.settings.usage_tracker
        recorder.call_begins()
        return super().__call__(*args, **kwargs)

    def update_history(self, entry: Mapping[str, Any]) -> None:
        """In the place of DSPy's history, which grows to 10,000 entries with their prompts."""
        recorder: Recorder = dspy.settings.usage_tracker
        recorder.add_entry(entry)

    @property
    def is_native(self) -> bool:
        """Whether DSPy's own HTTP client calls it, not LiteLLM."""
        return bool(self.engine == "lm15")


def make_lm(resolved: ResolvedLM, parameters: LMParameters) -> RecordingLM:
    """The LM of a program. Nothing is connected to yet.

    DSPy's own HTTP client serves it where it can, so that LiteLLM (2 s, 120 MB) is not even imported.

    Raises:
        AdapterError: `auth`, there is no key to call it with; `permanent`, it is none that DSPy knows.
    """
    provider = resolved.model.split("/", 1)[0]
    if ":" in provider:
        # DSPy reads this as the name of a login of the machine's user.
        raise AdapterError(ErrorCode.PERMANENT, f"model: '{resolved.model}' is not 'provider/model'")
    if resolved.api_key is None and resolved.api_base is None and provider not in KEYLESS:
        raise AdapterError(ErrorCode.AUTH, f"secret: '{resolved.model}' needs a key: give the name of one")
    settings: dict[str, Any] = {"api_key": resolved.api_key or NO_KEY, "api_base": resolved.api_base}
    settings |= parameters.model_dump(exclude_none=True)
    if parameters.stop is not None:
        settings["stop"] = list(parameters.stop)
    settings = {key: value for key, value in settings.items() if value is not None}
    lm = RecordingLM(resolved.model, cache=False, num_retries=0, engine="lm15", **settings)
    try:
        select_backend(lm)
    except LM15Error:
        # Not engine="auto": it chooses at each call, and by the environment as well (OPENAI_BASE_URL).
        lm = RecordingLM(resolved.model, cache=False, num_retries=0, engine="litellm", **settings)
    return lm


def _finish_reason(response: Any) -> str | None:
    """Of a `dspy.lm15.Response`, or of what LiteLLM returns."""
    message = getattr(response, "message", None)
    if any(getattr(part, "type", None) == "refusal" for part in getattr(message, "parts", ())):
        return "refusal"
    choice = next(iter(getattr(response, "choices", None) or ()), response)
    reason = getattr(choice, "finish_reason", None)
    return None if reason is None else str(reason)
