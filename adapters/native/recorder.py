"""The record of one run: the usage of its LM calls, and whether it may continue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from adapters.native.answers.finish_reasons import check_finish_reason, finish_reason_of
from adapters.native.answers.origin import model_version_of, request_id_of
from adapters.native.failures.waits import reset_in_answer
from adapters.native.insides import headers_of
from adapters.native.wire import Call, current
from adapters.port import MAX_ERROR_CODE, AdapterError, RunOptions, plain
from adapters.prices import Prices
from adapters.runs import Run
from adapters.trace import without
from dspex import ErrorCode, LMCall, Usage

LEAST_WAIT: Final = 0.001
"""The shortest timeout of a call in seconds: a call that begins in time is made, even with no time left."""

MOST_TOKENS: Final = 1 << 40
"""The most tokens of one call. No LM takes more, and larger sums would not fit into the database."""

_SEEDS: Final = 1 << 63


class Recorder:
    """The usage of one run, and the checks whether it must stop. DSPy calls it as its usage tracker.

    A module of one's own may make several calls at once, in threads or tasks. The record is the same for all of them.

    Args:
        options: the run's options. Its timeout starts now.
        run: knows whether the run was cancelled.
        changed: called with the usage so far when an LM call begins or is answered.
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
        self.parameters = None if options is None else options.lm
        """The parameters that the run sets, for LMs that let it."""
        self._run = run
        self._changed = changed
        self._begun = 0
        self._answered: list[LMCall] = []
        self.exhausted_for: float | None = None
        """See `Outcome.exhausted_for`."""
        self.call = Call()
        """The LM call that was begun last, or the last one that failed."""
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Recorder:
        """Itself: `dspy.Parallel` copies the tracker for each of its threads, and nobody reads the copies."""
        return self

    def check(self) -> None:
        """Check whether the run may continue.

        Raises:
            AdapterError: `cancelled` or `timeout`.
        """
        if self._run is not None and self._run.cancelled.is_set():
            raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise AdapterError(ErrorCode.TIMEOUT, f"the run took longer than {self._timeout:g} s")

    def call_begins(self) -> Call:
        """Note that an LM call begins, unless the run must stop. Returns the call.

        Raises:
            AdapterError: `cancelled` or `timeout`.
        """
        self.check()
        with self._lock:
            call = self.call = Call(number=self._begun)
            self._begun += 1
        self._tell()
        return call

    @property
    def seconds_left(self) -> float | None:
        """The seconds that are left to the run; None without a timeout."""
        return None if self._deadline is None else max(LEAST_WAIT, self._deadline - time.monotonic())

    def seed_of(self, call: Call) -> int | None:
        """The seed of a call: the run's for the first call, then the next number for each.

        With the same seed, the chains of a comparison would be equal.
        """
        return None if self._seed is None else (self._seed + call.number) % _SEEDS

    def add_usage(self, model: str, usage: Mapping[str, Any]) -> None:
        """Note that an LM call was answered. Also called for an answer that cannot be used.

        Also by an LM that a module of one's own has made: nobody knows its price.
        """
        call = current()
        with self._lock:
            if call is None:
                self._begun += 1
            else:
                call.answer = len(self._answered)
            self._answered.append(_answered(model, usage))
        self._tell()

    def add_entry(self, entry: Mapping[str, Any], prices: Prices | None = None, secrets: Collection[str] = ()) -> None:
        """Note DSPy's history entry of a complete LM call.

        Args:
            prices: used instead of DSPy's.
            secrets: texts that nothing of it may contain.
        """
        call = current()
        if call is None:
            return
        call.response = entry.get("response")
        self.exhausted_for = reset_in_answer(call.headers or headers_of(call.response))
        if call.answer is not None:
            answered = self._answered[call.answer]
            if prices is not None:
                cost = prices.cost(answered)
            else:
                cost = None if answered.input_tokens is None else entry.get("cost")
            told = {
                "finish_reason": finish_reason_of(call.response),
                "request_id": request_id_of(call),
                "model_version": model_version_of(call),
            }
            kept = {name: _text(value, secrets) for name, value in told.items()}
            self._answered[call.answer] = answered.model_copy(update={"cost": cost, **kept})
            self._tell()

    def check_answer(self, call: Call) -> None:
        """Check that the response to an LM call is a complete answer.

        Raises:
            AdapterError: `truncated`, `refused`, or the code of an error in the response.
        """
        if call.answer is not None:
            check_finish_reason(call.response, self._answered[call.answer].finish_reason)

    @property
    def last_call(self) -> dict[str, Any]:
        """What is known of the LM call that this context has made, for a trace; nothing if it was not answered."""
        call = current()
        if call is None or call.answer is None or call.response is None:
            return {}
        return self._answered[call.answer].model_dump(exclude={"model", "cached"}, exclude_none=True)

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.usage)

    @property
    def usage(self) -> Usage:
        """The usage so far."""
        return Usage.of_calls(self._begun, tuple(self._answered))


def _answered(model: str, usage: Mapping[str, Any]) -> LMCall:
    """The usage of one call; None for figures that the provider did not report.

    If the provider reported nothing, LiteLLM writes 0 for all (litellm 1.106: types/utils.py, `Usage`).
    """
    told = usage.get("prompt_tokens"), usage.get("completion_tokens")
    taken, given = _details(usage, "prompt_tokens_details"), _details(usage, "completion_tokens_details")
    return LMCall(
        model=model,
        input_tokens=_tokens(told[0]) if any(told) else None,
        output_tokens=_tokens(told[1]) if any(told) else None,
        cached_tokens=_tokens(taken.get("cached_tokens")),
        reasoning_tokens=_tokens(given.get("reasoning_tokens")),
        input_audio_tokens=_tokens(taken.get("audio_tokens")),
        output_audio_tokens=_tokens(given.get("audio_tokens")),
    )


def _details(usage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = usage.get(key)
    return found if isinstance(found, Mapping) else {}


def _tokens(told: Any) -> int | None:
    """A number of tokens from a provider; None if it is not plausible."""
    return told if type(told) is int and 0 <= told < MOST_TOKENS else None


def _text(told: Any, secrets: Collection[str]) -> str | None:
    """A short text from a provider."""
    return plain(without(told, secrets), MAX_ERROR_CODE) if told and isinstance(told, str) else None
