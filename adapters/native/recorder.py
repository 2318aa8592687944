"""The record of one run: what its LM calls used, and whether it may go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.native.wire import Call
from adapters.port import AdapterError, RunOptions
from adapters.runs import Run
from dspex import ErrorCode, LMCall, Usage

LEAST_WAIT: Final = 0.001
"""Seconds: a call that has begun in time is not refused for having none left."""

_SEEDS: Final = 1 << 63


class Recorder:
    """What one run used, and the stops it has to make. DSPy calls `add_usage`, as of its own usage tracker.

    Args:
        options: of the run; its time begins now.
        run: tells whether it was cancelled.
        changed: called with the usage so far whenever an LM call begins or was answered.
    """

    def __init__(
        self,
        options: RunOptions | None = None,
        run: Run | None = None,
        changed: Callable[[Usage], None] | None = None,
    ) -> None:
        self._timeout = None if options is None else options.timeout
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._seed = None if options is None else options.seed
        self._run = run
        self._changed = changed
        self._begun = 0
        self._answered: list[LMCall] = []
        self.call = Call()
        """The one that was begun last."""
        self.finish_reason: str | None = None
        """Why the last answer ended: `stop`, `length`, `content_filter`, `refusal`, ..."""

    def check(self) -> None:
        """Stop here if the run is to stop.

        Raises:
            AdapterError: `cancelled` or `timeout`.
        """
        if self._run is not None and self._run.cancelled.is_set():
            raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise AdapterError(ErrorCode.TIMEOUT, f"the run took longer than {self._timeout:g} s")

    def call_begins(self) -> None:
        """An LM call is about to be made, unless the run is to stop.

        Raises:
            AdapterError: `cancelled` or `timeout`.
        """
        self.check()
        self._begun += 1
        self.call = Call()
        self.finish_reason = None
        self._tell()

    @property
    def seconds_left(self) -> float | None:
        """Of the run's time: what an LM call may wait."""
        return None if self._deadline is None else max(LEAST_WAIT, self._deadline - time.monotonic())

    @property
    def seed(self) -> int | None:
        """The seed of the call that has begun: the run's for the first, another for each one after.

        The chains of a comparison would else be alike.
        """
        return None if self._seed is None else (self._seed + self._begun - 1) % _SEEDS

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


def _finish_reason(response: Any) -> str | None:
    """Of a `dspy.lm15.Response`, or of what LiteLLM returns."""
    message = getattr(response, "message", None)
    if any(getattr(part, "type", None) == "refusal" for part in getattr(message, "parts", ())):
        return "refusal"
    choice = next(iter(getattr(response, "choices", None) or ()), response)
    reason = getattr(choice, "finish_reason", None)
    return None if reason is None else str(reason)
