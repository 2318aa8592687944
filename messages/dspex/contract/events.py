"""The events, which report the outcome of commands. The routing key on their exchange is tenant and type."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

from pydantic import Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from dspex.contract.defined import by_type
from dspex.contract.status import ExecutionStatus
from dspex.model import Frozen

_Number = TypeVar("_Number", int, float)

_is_none = partial(operator.is_, None)
"""Implemented in C, as it is called for some ten values of each execution."""

Tokens = Annotated[int | SkipJsonSchema[None], Field(exclude_if=_is_none)]
"""A number of tokens; left out if not known, as readers of the first version accept no null. They read 0."""

Told = Annotated[str | None, Field(exclude_if=_is_none)]
"""What a provider said; left out if it did not."""


def _none_or_unknown(read: dict[str, Any]) -> int | None:
    """The default for tokens: 0 if there were no calls, else not known."""
    return None if read.get("calls") else 0


def _sum(numbers: Sequence[_Number | None]) -> _Number | None:
    """The sum of the numbers; None if there are none, or one is not known."""
    total: _Number | None = None
    for number in numbers:
        if number is None:
            return None
        total = number if total is None else total + number
    return total


class ProblemDetail(Frozen):
    """One wrong field."""

    field: str
    message: str


Said = Annotated[dict[str, str], Field(exclude_if=operator.not_)]
"""The metadata of an execution; left out if empty."""


Extras = Annotated[dict[str, JsonValue], Field(exclude_if=operator.not_)]
"""Outputs beside the signature, see `Configuration.extra_outputs`; left out if empty.

One that was too large is `{"$cut": "the begin of its text", "bytes": 123456}`; one that was no JSON is
`{"$not_json": "the name of its class"}`.
"""


class ErrorDetail(Frozen):
    """Why something failed: a stable code, one line for people, and the wrong fields, if any."""

    code: str
    message: str
    problems: tuple[ProblemDetail, ...] = ()


MAX_DETAILS = 500
"""How many LM calls, and how many tries, a usage keeps: an execution that waits for a rate limit may take days."""


class LMCall(Frozen):
    """The usage of one LM call that was answered. None: the provider did not report it, or the price is not known.

    What is not known is left out of the JSON, but for the cost.

    `cost` is in US dollars. `cached_tokens` and `input_audio_tokens` are part of the input, `reasoning_tokens` and
    `output_audio_tokens` part of the output. `finish_reason` is why the answer ended: `stop`, `length` (cut off),
    `content_filter`, `refusal`, `tool_call`, `error`, or a word of the provider's own. `request_id` is the provider's
    name of the call, which its support asks for, and `model_version` the model that answered by its own account.
    """

    model: str
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    cost: float | None = None
    cached: bool = False
    cached_tokens: Tokens = None
    reasoning_tokens: Tokens = None
    input_audio_tokens: Tokens = None
    output_audio_tokens: Tokens = None
    finish_reason: Told = None
    request_id: Told = None
    model_version: Told = None


class Try(Frozen):
    """One try of a run with fallbacks: its adapter and LM, its outcome, and its share of the usage.

    `model` is the name in the program. `error` is a code; None for the try that produced the outputs.
    """

    adapter_type: str
    model: str | None = None
    error: str | None = None
    calls: int = 0
    input_tokens: Tokens = Field(default_factory=_none_or_unknown)
    output_tokens: Tokens = Field(default_factory=_none_or_unknown)
    cost: float | None = None


class Usage(Frozen):
    """The usage of all LM calls of one execution. `cost` is in US dollars.

    If a figure is not known for one of the answers, the sum is None, and tokens are left out of the JSON: a partial sum
    would look like the whole. `calls` counts the calls that were begun; `lm_calls` lists those that were answered, in
    the order of the answers. `tries` are for programs with fallbacks; the other figures are their sums. Of `lm_calls`
    and `tries`, the last `MAX_DETAILS` are kept.
    """

    calls: int = 0
    input_tokens: Tokens = Field(default_factory=_none_or_unknown)
    output_tokens: Tokens = Field(default_factory=_none_or_unknown)
    cost: float | None = None
    lm_calls: tuple[LMCall, ...] = ()
    tries: tuple[Try, ...] = Field(default=(), exclude_if=operator.not_)

    @classmethod
    def of_calls(cls, begun: int, answered: tuple[LMCall, ...]) -> Usage:
        """The sum of the answered calls. `begun` is how many calls were begun."""
        return cls(
            calls=begun,
            input_tokens=_sum([0, *(call.input_tokens for call in answered)]),
            output_tokens=_sum([0, *(call.output_tokens for call in answered)]),
            cost=_sum([call.cost for call in answered]),
            lm_calls=answered,
        )

    def __add__(self, other: Usage) -> Usage:
        """The sum of both."""
        if self.is_nothing and max(len(other.lm_calls), len(other.tries)) <= MAX_DETAILS:
            return other
        costs = [usage.cost for usage in (self, other) if usage.cost is not None or usage.lm_calls]
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=_sum([self.input_tokens, other.input_tokens]),
            output_tokens=_sum([self.output_tokens, other.output_tokens]),
            cost=_sum(costs),
            lm_calls=(self.lm_calls + other.lm_calls)[-MAX_DETAILS:],
            tries=(self.tries + other.tries)[-MAX_DETAILS:],
        )

    @property
    def is_nothing(self) -> bool:
        """Whether no LM was called, so that no figure is missing."""
        no_tokens = self.input_tokens == 0 and self.output_tokens == 0 and self.cost is None
        return no_tokens and not (self.calls or self.lm_calls or self.tries)

    @property
    def summary(self) -> Usage:
        """The usage without its lists of calls and tries, which may be long."""
        return self.model_copy(update={"lm_calls": (), "tries": ()})


class Event(Frozen):
    """Base of the events. `type` is the CloudEvents type; the routing key is `dspex.amqp.topology.event_key`."""

    type: ClassVar[str]

    @property
    def subject(self) -> str | None:
        """The id of what the event is about: an execution, a program, a webhook's endpoint, or a rejected message."""
        for name in ("execution_id", "program_id", "endpoint_id", "message_id"):
            if (found := getattr(self, name, None)) is not None:
                return str(found)
        return None


class ProgramReady(Event):
    """A program was built, and can be executed."""

    type = "dspex.program.ready.v1"

    program_id: UUID
    name: str
    backend_id: str


class ProgramError(Event):
    """A program could not be built."""

    type = "dspex.program.error.v1"

    program_id: UUID
    name: str
    error: ErrorDetail


class ExecutionCompleted(Event):
    """An execution ended with outputs that fit the signature."""

    type = "dspex.execution.completed.v1"

    execution_id: UUID
    program_id: UUID
    outputs: dict[str, JsonValue]
    attempt: int = Field(ge=1)
    duration_ms: float = Field(ge=0)
    usage: Usage = Usage()
    metadata: Said = Field(default_factory=dict)
    extra_outputs: Extras = Field(default_factory=dict)


class ExecutionFailed(Event):
    """An execution ended without outputs."""

    type = "dspex.execution.failed.v1"

    execution_id: UUID
    program_id: UUID
    error: ErrorDetail
    attempt: int = Field(ge=0)
    duration_ms: float = Field(ge=0)
    usage: Usage = Usage()
    metadata: Said = Field(default_factory=dict)


class ExecutionCancelled(Event):
    """An execution was cancelled, before or while it ran."""

    type = "dspex.execution.cancelled.v1"

    execution_id: UUID
    program_id: UUID
    attempt: int = Field(ge=0)
    duration_ms: float = Field(ge=0)
    usage: Usage = Usage()
    metadata: Said = Field(default_factory=dict)


class ExecutionEnded(Event):
    """Replaces one of the three events above if that is too large for a webhook or the broker, or if `thin` is set.

    `error_code` is set for a failed execution. For the rest, query the execution (`dspex.execution.get.v1`).
    """

    type = "dspex.execution.ended.v1"

    execution_id: UUID
    program_id: UUID
    status: ExecutionStatus
    error_code: str | None = None
    attempt: int = Field(ge=0)
    duration_ms: float = Field(ge=0)
    metadata: Said = Field(default_factory=dict)


class MessageRejected(Event):
    """A message was rejected: it was recorded with its body, and dead-lettered."""

    type = "dspex.message.rejected.v1"

    rejection_id: UUID
    queue: str
    error: ErrorDetail
    message_id: str | None = None
    message_type: str | None = None


class WebhookDisabled(Event):
    """A webhook endpoint was disabled, because it answered 410 or only failed for days. For operators.

    `host` is only `host:port`, as the URL may contain a secret. While the endpoint is disabled, its deliveries are
    recorded as failed; once it is enabled again, they can be replayed.
    """

    type = "dspex.webhook.disabled.v1"

    endpoint_id: UUID
    tenant: str
    host: str
    reason: str


class Reply(Event):
    """The answer to a command. It goes to the command's reply queue, with the command's correlation id."""

    type = "dspex.reply.v1"

    answer: JsonValue = None
    error: ErrorDetail | None = None


EVENTS: dict[str, type[Event]] = by_type(Event, [sys.modules[__name__]])
