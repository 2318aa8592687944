"""The events: what came of a command. They go to the exchange of events, with tenant and type as routing key."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

from pydantic import Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from dspex.contract.status import ExecutionStatus
from dspex.model import Frozen

_Number = TypeVar("_Number", int, float)

_is_none = partial(operator.is_, None)
"""Without Python's own code: it is asked of some ten values of each execution."""

Tokens = Annotated[int | SkipJsonSchema[None], Field(exclude_if=_is_none)]
"""Left out where they are not known: readers of the first version take no null. They read 0."""


def _none_or_unknown(read: dict[str, Any]) -> int | None:
    """The tokens where none are given: without calls there are none, else they are not known."""
    return None if read.get("calls") else 0


def _known(numbers: Sequence[_Number | None]) -> _Number | None:
    """The sum, where there are any and every one is known."""
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
"""The metadata of an execution. Left out where there is none."""


class ErrorDetail(Frozen):
    """Why something failed: a stable code, a line for people, and each wrong field where there are any."""

    code: str
    message: str
    problems: tuple[ProblemDetail, ...] = ()


MAX_DETAILS = 500
"""Single LM calls, and tries, that a usage keeps. One that waits for a rate limit may be run for days."""


class LMCall(Frozen):
    """What one LM call that was answered used: None where the provider did not say, or its price is not known.

    Tokens are left out of the JSON then.

    `cost` is in US dollars. `cached_tokens` are of the input, `reasoning_tokens` of the output, where the provider
    tells them apart. `finish_reason` is why the answer ended: `stop`, `length` (cut off), `content_filter`, `refusal`,
    `tool_call`, `error`, or a word of the provider's own.
    """

    model: str
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    cost: float | None = None
    cached: bool = False
    cached_tokens: Tokens = None
    reasoning_tokens: Tokens = None
    finish_reason: str | None = Field(default=None, exclude_if=_is_none)


class Try(Frozen):
    """One try of a run that has fallbacks: on what it ran, how it ended, and what it used of the whole.

    `model` is as the program names it. `error` is a code, None for the try that gave the outputs.
    """

    adapter_type: str
    model: str | None = None
    error: str | None = None
    calls: int = 0
    input_tokens: Tokens = Field(default_factory=_none_or_unknown)
    output_tokens: Tokens = Field(default_factory=_none_or_unknown)
    cost: float | None = None


class Usage(Frozen):
    """What the LM calls of one execution used. `cost` is in US dollars, where the provider's prices are known.

    A figure is None, and tokens are left out of the JSON, where that of any answer is not known: a part of a sum would
    read like the whole. `calls` counts the calls that were begun; `lm_calls` has those that were answered, in the order
    of their answers, each with what is known of it. `tries` are those of a program with fallbacks: the rest is their
    sum. Of both, the last `MAX_DETAILS` are kept.
    """

    calls: int = 0
    input_tokens: Tokens = Field(default_factory=_none_or_unknown)
    output_tokens: Tokens = Field(default_factory=_none_or_unknown)
    cost: float | None = None
    lm_calls: tuple[LMCall, ...] = ()
    tries: tuple[Try, ...] = Field(default=(), exclude_if=operator.not_)

    @classmethod
    def of_calls(cls, begun: int, answered: tuple[LMCall, ...]) -> Usage:
        """The sum of the calls that were answered, of so many that were begun."""
        return cls(
            calls=begun,
            input_tokens=_known([0, *(call.input_tokens for call in answered)]),
            output_tokens=_known([0, *(call.output_tokens for call in answered)]),
            cost=_known([call.cost for call in answered]),
            lm_calls=answered,
        )

    def __add__(self, other: Usage) -> Usage:
        """What both used."""
        if self.is_nothing and max(len(other.lm_calls), len(other.tries)) <= MAX_DETAILS:
            return other
        costs = [usage.cost for usage in (self, other) if usage.cost is not None or usage.lm_calls]
        return Usage(
            calls=self.calls + other.calls,
            input_tokens=_known([self.input_tokens, other.input_tokens]),
            output_tokens=_known([self.output_tokens, other.output_tokens]),
            cost=_known(costs),
            lm_calls=(self.lm_calls + other.lm_calls)[-MAX_DETAILS:],
            tries=(self.tries + other.tries)[-MAX_DETAILS:],
        )

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was called. It says of every figure that it is known."""
        known = self.input_tokens == 0 and self.output_tokens == 0 and self.cost is None
        return known and not (self.calls or self.lm_calls or self.tries)

    @property
    def summary(self) -> Usage:
        """Without the single calls and tries, which may be many."""
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
    """A program was built and can be executed."""

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
    """An execution was cancelled, before it ran or while it did."""

    type = "dspex.execution.cancelled.v1"

    execution_id: UUID
    program_id: UUID
    attempt: int = Field(ge=0)
    duration_ms: float = Field(ge=0)
    usage: Usage = Usage()
    metadata: Said = Field(default_factory=dict)


class ExecutionEnded(Event):
    """A reference in the place of one of the three above: that is too large for a webhook or the broker, or unwanted.

    `error_code` is that of a failed execution. The execution itself is asked for (`dspex.execution.get.v1`).
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
    """A message that was not taken: it is recorded with its body, and dead-lettered."""

    type = "dspex.message.rejected.v1"

    rejection_id: UUID
    queue: str
    error: ErrorDetail
    message_id: str | None = None
    message_type: str | None = None


class WebhookDisabled(Event):
    """An endpoint of webhooks was disabled: it answered 410, or did nothing but fail for days. For operators.

    `host` is `host:port` alone, for the URL may have a secret of its owner in it. While the endpoint is disabled its
    deliveries are recorded as failed; once it is enabled again they can be replayed.
    """

    type = "dspex.webhook.disabled.v1"

    endpoint_id: UUID
    tenant: str
    host: str
    reason: str


class Reply(Event):
    """The answer to a command that came with a reply queue: it goes there, with the command's correlation id."""

    type = "dspex.reply.v1"

    answer: JsonValue = None
    error: ErrorDetail | None = None


EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        ProgramReady,
        ProgramError,
        ExecutionCompleted,
        ExecutionFailed,
        ExecutionCancelled,
        ExecutionEnded,
        MessageRejected,
        WebhookDisabled,
        Reply,
    )
}
