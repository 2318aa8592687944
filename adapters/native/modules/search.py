"""`BestOfN` and `Refine`: several attempts at one task, scored by a registered reward; the best one is the answer.

They have the names and the behaviour of `dspy.BestOfN` and `dspy.Refine` (dspy 3.4, predict/best_of_n.py and
refine.py), but do not use those classes. DSPy's print LM answers to standard output, count failures in the module that
all threads share, continue after errors that every attempt will meet, and need DSPy's trace.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import dspy
from dspy.adapters.utils import get_field_description_string
from dspy.signatures.signature import make_signature
from dspy.utils.exceptions import AdapterParseError
from pydantic import Field
from pydantic_core import to_jsonable_python

from adapters import plugins
from adapters.native.modules.temperature import temperature_of
from adapters.native.signatures import dspy_signature, json_outputs
from adapters.parameters import Parameters
from adapters.port import AdapterError
from dspex import ErrorCode, Signature
from dspex.errors import InvalidOutput

Reward = Callable[[dict[str, Any], Any], float]

HINT = "hint_"
TEMPERATURE = 1.0


class SearchParameters(Parameters):
    """The parameters of `BestOfN` and `Refine`, with DSPy's names.

    Attributes:
        N: the most attempts.
        reward: the name of a reward (`dspex.rewards`), a function from inputs and prediction to a number; higher is
            better.
        threshold: with this reward or a higher one, no further attempt is made.
        module: the module that makes an attempt.
        temperature: for the attempts; it overrides the LM's, as at 0 they would be equal. By default 1; not sent to a
            model with a fixed temperature.
    """

    N: int = Field(default=3, ge=1, le=32)
    reward: str = Field(min_length=1, max_length=200)
    threshold: float
    module: Literal["Predict", "ChainOfThought"] = "Predict"
    temperature: float | None = Field(default=None, ge=0, le=2)


class BestOfN(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Makes attempts until one is good enough.

    An attempt with an answer that cannot be parsed, or does not fit the signature, counts. Any other error ends the
    run.
    """

    def __init__(self, signature: Signature | type[dspy.Signature], parameters: SearchParameters, model: str) -> None:
        super().__init__()
        self.search = parameters
        self.config = temperature_of(parameters.temperature, TEMPERATURE, model)
        self.reward: Reward = _reward(parameters.reward)
        self._signature = signature
        self.module = getattr(dspy, parameters.module)(dspy_signature(signature))

    def forward(self, **inputs: Any) -> Any:
        """The first prediction with the highest reward."""
        best, most, failure = None, -math.inf, None
        for number in range(self.search.N):
            try:
                prediction = self.attempt(inputs)
                if isinstance(self._signature, Signature):  # else DSPy has read the outputs by its own class
                    self._signature.validate_outputs(json_outputs(self._signature, prediction))
            except (AdapterParseError, InvalidOutput) as error:
                failure = error
                continue
            score = self._score(inputs, prediction)
            if score > most:
                best, most = prediction, score
            if score >= self.search.threshold:
                break
            if number + 1 < self.search.N:
                inputs = self.learn(inputs, prediction, score)
        if best is None and failure is not None:
            raise failure
        return best

    def attempt(self, inputs: Mapping[str, Any]) -> Any:
        """Make one prediction."""
        return self.module(**inputs, config=dict(self.config))

    def learn(self, inputs: dict[str, Any], prediction: Any, score: float) -> dict[str, Any]:  # noqa: ARG002
        """The inputs of the next attempt, after one that was not good enough."""
        return inputs

    def _score(self, inputs: Mapping[str, Any], prediction: Any) -> float:
        given = {key: value for key, value in inputs.items() if key != HINT}
        name = self.search.reward
        try:
            score = float(self.reward(given, prediction))
        except AdapterError:
            raise
        except Exception as error:
            # Without its text: the operator's code may quote the answer in it.
            text = f"parameters.reward: '{name}' failed with {type(error).__name__}"
            raise AdapterError(ErrorCode.PERMANENT, text) from error
        if math.isnan(score):
            raise AdapterError(ErrorCode.PERMANENT, f"parameters.reward: '{name}' returned no number")
        return score


class Refine(BestOfN):
    """Makes attempts; each after the first gets a hint from the LM. A run makes up to 2N - 1 LM calls.

    As with `dspy.Refine`, the LM sees the source of the reward, which tells what is wanted.
    """

    def __init__(self, signature: Signature | type[dspy.Signature], parameters: SearchParameters, model: str) -> None:
        super().__init__(signature, parameters, model)
        self.advise = dspy.Predict(_advice_signature())
        self._code = _source(self.reward)
        self.hinted: Any = None

    def prepare(self) -> None:
        """Make the module for attempts with a hint. Called after the state was applied to the plain one."""
        self.hinted = self.module.deepcopy()
        for predictor in self.hinted.predictors():
            field = dspy.InputField(desc="A hint to the module from an earlier run")
            predictor.signature = predictor.signature.append(HINT, field, str)

    def attempt(self, inputs: Mapping[str, Any]) -> Any:
        """See `BestOfN.attempt`."""
        module = self.hinted if HINT in inputs else self.module
        return module(**inputs, config=dict(self.config))

    def learn(self, inputs: dict[str, Any], prediction: Any, score: float) -> dict[str, Any]:
        """See `BestOfN.learn`. There is no hint if the advice cannot be parsed."""
        given = {key: value for key, value in inputs.items() if key != HINT}
        task = self.module.predictors()[0].signature
        try:
            advice = self.advise(
                task=f"{task.instructions}\n\n{get_field_description_string(task.fields)}",
                task_inputs=json.dumps(to_jsonable_python(given), ensure_ascii=False),
                task_outputs=str(dict(prediction)),
                reward_code=self._code,
                threshold=self.search.threshold,
                reward=score,
            )["advice"]
        except AdapterParseError:
            return given
        return given | {HINT: advice}


def _reward(name: str) -> Reward:
    reward: Reward = plugins.load(plugins.REWARDS, name, asked_by="parameters.reward")
    if not callable(reward):
        raise AdapterError(ErrorCode.PERMANENT, f"parameters.reward: '{name}' is not a function")
    return reward


def _source(reward: Reward) -> str:
    try:
        return inspect.getsource(reward)
    except (OSError, TypeError):  # a reward made at run time, or written in C
        return inspect.getdoc(reward) or "not known"


def _advice_signature() -> Any:
    fields: dict[str, Any] = {
        "task": (str, dspy.InputField(desc="What the module was asked to do, and its fields")),
        "task_inputs": (str, dspy.InputField(desc="The inputs of the attempt")),
        "task_outputs": (str, dspy.InputField(desc="What the attempt came to")),
        "reward_code": (str, dspy.InputField(desc="The code of the function that scored it")),
        "threshold": (float, dspy.InputField(desc="The reward that would be enough")),
        "reward": (float, dspy.InputField(desc="The reward it got")),
        "discussion": (str, dspy.OutputField(desc="What about the outputs kept the reward low")),
        "advice": (str, dspy.OutputField(desc="What to do differently on the same inputs, concretely")),
    }
    instructions = (
        "An attempt at a task got too low a reward. Discuss why, then give advice for the next attempt at the same "
        "task. It will see the advice, but neither this attempt nor the discussion."
    )
    return make_signature(fields, instructions)
