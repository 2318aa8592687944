"""The LMs that programs call: DSPy LMs without retries or caches."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import dspy
from dspy.utils.callback import with_callbacks

from adapters.lm import ResolvedLM
from adapters.native.answers.shapes import without_odd_parts
from adapters.native.by_version import BaseLM, calls_through, carries, execute
from adapters.native.error_codes import code_of, said_of
from adapters.native.insides import fixed_temperature
from adapters.native.lite import prepare_litellm
from adapters.native.lm_errors import ContextWindowExceededError, LMError, LMUnexpectedError
from adapters.native.modules.temperature import check_temperature
from adapters.native.parameters import check_parameters, settings_of
from adapters.native.recorder import Recorder
from adapters.native.wire import Call, Wire, noted
from adapters.port import AdapterError
from adapters.prices import Prices
from dspex import LM, ErrorCode, LMParameters

NO_KEY: Final = "none"
"""Sent if there is no key: otherwise DSPy takes one from the environment, and sends it to any address."""

CHECKED_BY_DSPY: Final = frozenset({"temperature", "top_p", "max_tokens", "stop", "timeout"})
"""What `dspy.LM` is made with. The others are set in it: of a reasoning model, it takes no `max_completion_tokens`."""

MAXIMA: Final = frozenset({"max_tokens", "max_completion_tokens"})

LOW, VARIED = 0.15, 0.7
"""DSPy's temperature for several completions (predict/predict.py): at a low one they would be equal."""


class RecordingLM(BaseLM):  # type: ignore[misc]  # DSPy has no type information
    """A `dspy.LM` that reports to the run's `Recorder`, and uses its seed and its remaining time.

    It keeps no history, neither its own nor DSPy's global one.
    """

    def __init__(
        self, model: str, prices: Prices | None = None, overridable: Collection[str] = (), **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        self.prices = prices
        self.overridable = frozenset(overridable)
        self.fixed_temperature = fixed_temperature(model)

    def __deepcopy__(self, memo: Any) -> RecordingLM:
        """A copy that calls by the same connections. Those of DSPy's own deep copy would be others."""
        copied: RecordingLM = self.copy()
        return copied

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Make a call in a thread: DSPy's async client would have connections of its own."""
        return await asyncio.to_thread(self, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        recorder: Recorder | None = dspy.settings.usage_tracker
        if recorder is None:
            text = "an LM was called outside of the run, in a thread of its own: use dspy.Parallel, or copy the context"
            raise AdapterError(ErrorCode.PERMANENT, text)
        if self.fixed_temperature:
            kwargs.pop("temperature", None)  # a default of DSPy's modules
        if recorder.parameters is not None:
            kwargs = self._overridden(recorder.parameters, kwargs)
        n = kwargs.pop("n", None) or self.kwargs.get("n") or 1
        return self._once(recorder, args, kwargs) if n == 1 else self._often(n, recorder, args, kwargs)

    def _overridden(self, parameters: LMParameters, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The settings of a call, with those that its run sets and this LM lets it set.

        A module's own setting, such as the temperature of `BestOfN`, stays.
        """
        given = settings_of(parameters.only(self.overridable))
        if not MAXIMA.isdisjoint(given):
            given = dict.fromkeys(MAXIMA) | given  # one is in the place of the other
        if (given.get("n") or self.kwargs.get("n") or 1) > 1 and "temperature" in given:
            kwargs.pop("temperature", None)  # DSPy's, for several completions
        return given | kwargs

    def _often(self, n: int, recorder: Recorder, args: Any, kwargs: dict[str, Any]) -> list[Any]:
        """Make a call n times, as DSPy does, but with all that a call has: its usage, its checks, another seed."""
        warmth = kwargs.get("temperature") or self.kwargs.get("temperature") or 0
        if not self.fixed_temperature and warmth <= LOW:
            kwargs["temperature"] = VARIED
        seed = kwargs.get("seed", self.kwargs.get("seed"))
        outputs: list[Any] = []
        for number in range(n):
            own = {} if seed is None else {"seed": seed + number}
            outputs += self._once(recorder, args, {**kwargs, "n": None, **own})
        if any(isinstance(output, dict) for output in outputs):
            return [output if isinstance(output, dict) else {"text": output} for output in outputs]
        return outputs

    def _once(self, recorder: Recorder, args: Any, kwargs: dict[str, Any]) -> Any:
        call = recorder.call_begins()
        seed = recorder.seed_of(call)
        if seed is not None and self.is_native:
            # LiteLLM refuses a seed that the provider does not support; DSPy's own client omits it.
            kwargs["seed"] = seed
        longest = kwargs.pop("timeout", None) or self.kwargs.get("timeout")
        waits = [seconds for seconds in (recorder.seconds_left, longest) if seconds is not None]
        call.seconds = min(waits, default=None)
        if not self.is_native and waits:
            kwargs["timeout"] = call.seconds
        try:
            outputs = self._call(call, *args, **kwargs)
        except LMError as error:
            recorder.call = call  # another may have begun meanwhile
            if code_of(error, said_of(error, call)) is ErrorCode.CONTEXT_WINDOW:
                # The same for all providers: it makes `ReAct` shorten what it sends.
                raise ContextWindowExceededError(message=getattr(error, "message", "")) from error
            raise
        recorder.check_answer(call)
        return outputs

    def _call(self, call: Call, *args: Any, **kwargs: Any) -> Any:
        """Make one call. If DSPy's client cannot parse an optional part of the response, parse it without that part."""
        with noted(call):
            try:
                return self._complete(*args, **kwargs)
            except LMUnexpectedError:
                call.again = without_odd_parts(call.body) if call.succeeded else None
                if call.again is None:
                    raise
                return self._complete(*args, **kwargs)

    @with_callbacks  # type: ignore[untyped-decorator]  # DSPy has no type information
    def _complete(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """What `dspy.LM` does for a call, without its history, and with what is the same for every call kept."""
        call, result = execute(self, prompt, messages, kwargs)
        recorder: Recorder = dspy.settings.usage_tracker
        recorder.add_usage(self.model, result.usage)
        self.update_history({"response": result.responses if result.raw is None else result.raw, "cost": result.cost})
        return result.typed(call.request, self.model_type) if call.request else result.outputs

    def update_history(self, entry: Mapping[str, Any]) -> None:
        """Replaces DSPy's history, which keeps up to 10,000 entries with prompts."""
        recorder: Recorder = dspy.settings.usage_tracker
        key = self.kwargs.get("api_key")
        recorder.add_entry(entry, self.prices, () if key in (None, NO_KEY) else (key,))

    @property
    def is_native(self) -> bool:
        """Whether DSPy's own HTTP client makes the calls, and not LiteLLM."""
        return bool(self.engine == "lm15")


def make_lm(
    field: str, resolved: ResolvedLM, asked: LM, wire: Wire, blocks: Sequence[Mapping[str, Any]] = ()
) -> RecordingLM:
    """Make an LM of a program, which calls through `wire`. Opens no connection.

    Uses DSPy's own HTTP client if that supports the LM, because importing LiteLLM takes 2 s and 120 MB.

    Args:
        blocks: content blocks like those that it will be sent, beside text and images.

    Raises:
        ValueError: DSPy does not know the LM.
        AdapterError: `permanent`: the LM does not take one of the parameters.
    """
    parameters = asked.parameters
    check_temperature(parameters.temperature, resolved.model, f"{field}.parameters.temperature")
    api_key = resolved.api_key or NO_KEY
    given = settings_of(parameters)
    settings: dict[str, Any] = {"api_key": api_key}
    if resolved.api_base is not None:
        settings["api_base"] = resolved.api_base
    settings |= {name: given.pop(name) for name in CHECKED_BY_DSPY & given.keys()}
    lm = RecordingLM(
        resolved.model, resolved.prices, asked.overridable or (), cache=False, num_retries=0, engine="lm15", **settings
    )
    if not calls_through(lm, wire, api_key, resolved.api_base) or (blocks and not carries(lm, blocks)):
        # Not engine="auto", which chooses at each call, and also by the environment (OPENAI_BASE_URL).
        prepare_litellm(wire.proxy)
        lm = RecordingLM(
            resolved.model,
            resolved.prices,
            asked.overridable or (),
            cache=False,
            num_retries=0,
            engine="litellm",
            **settings,
        )
    lm.kwargs |= given
    check_parameters(f"{field}.parameters", lm, parameters)
    return lm
