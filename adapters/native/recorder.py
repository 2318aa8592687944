"""The record of one run: what its LM calls used, and whether it may go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.native.answers.finish_reasons import check_finish_reason, finish_reason_of
from adapters.native.wire import Call
from adapters.port import AdapterError, RunOptions
from adapters.runs import Run
from dspex import ErrorCode, LMCall, Usage

LEAST_WAIT: Final = 0.001
"""Seconds: a call that has begun in time is not refused for having none left."""

MOST_TOKENS: Final = 1 << 40
"""Of one call: no LM takes more, and sums of what is more would not fit into the database."""

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
        self._response: Any = None

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
        self._response = None
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
        self._answered.append(_answered(model, usage))
        self._tell()

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """An LM call is complete: DSPy's history entry of it."""
        self._response = entry.get("response")
        if self._answered:
            last = self._answered[-1]
            cost = None if last.input_tokens is None else entry.get("cost")
            told = {"cost": cost, "finish_reason": finish_reason_of(self._response)}
            self._answered[-1] = last.model_copy(update=told)
            self._tell()

    def check_answer(self) -> None:
        """Stop here if the last LM call was answered with what is no answer.

        Raises:
            AdapterError: `truncated`, `refused`, or what an error in the answer means.
        """
        if self._answered:
            check_finish_reason(self._response, self._answered[-1].finish_reason)

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.usage)

    @property
    def usage(self) -> Usage:
        """So far."""
        return Usage.of_calls(self._begun, tuple(self._answered))


def _answered(model: str, usage: Mapping[str, Any]) -> LMCall:
    """What one call used; what was not said is not known.

    LiteLLM writes 0 for all where the provider said nothing (litellm 1.106: types/utils.py, `Usage`).
    """
    told = usage.get("prompt_tokens"), usage.get("completion_tokens")
    details = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached, reasoning = (detail if isinstance(detail, Mapping) else {} for detail in details)
    return LMCall(
        model=model,
        input_tokens=_tokens(told[0]) if any(told) else None,
        output_tokens=_tokens(told[1]) if any(told) else None,
        cached_tokens=_tokens(cached.get("cached_tokens")),
        reasoning_tokens=_tokens(reasoning.get("reasoning_tokens")),
    )


def _tokens(told: Any) -> int | None:
    """What a provider says, where it can be."""
    return told if type(told) is int and 0 <= told < MOST_TOKENS else None
