"""The frames between the adapter and a child: four bytes of length, big-endian, then a JSON object with a `type`.

adapter → child    hello, create, run, show_prompt
child → adapter    hello, created, usage (any number while a run goes on), and at its end outcome or error; not_loaded

Each side sends `hello` first. `VERSION` changes with every change of a frame, because a worker starts its children from
files that may be newer than itself. All frames are in tests/unit/adapters/python_port/frames.jsonl.
"""

from __future__ import annotations

import json
import operator
import struct
from typing import Annotated, Final, Literal, TypeVar

import pydantic
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter

from adapters.lm import ResolvedLM, ResolvedLMs
from adapters.port import AdapterError, ModuleCode, NotHere, Outcome, ProgramSpec, RunOptions, TraceStep
from adapters.prices import Prices
from dspex import Configuration, ErrorCode, LMParameters, Signature, Usage
from dspex.model import Frozen

VERSION: Final = 9

LENGTH: Final = struct.Struct(">I")


class FrameError(Exception):
    """The bytes are not a frame, or the frame is unexpected. The text does not quote it."""


class Hello(Frozen):
    """The first frame of each side. If the version differs, only the version is read."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["hello"] = "hello"
    version: int = VERSION


class SentLM(Frozen):
    """An LM of a program, with its key. A key reaches a child only in this frame."""

    model: str
    api_base: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    prices: Prices | None = None

    @classmethod
    def of(cls, lm: ResolvedLM) -> SentLM:
        """The LM in the form of a frame."""
        return cls(model=lm.model, api_base=lm.api_base, api_key=lm.api_key, prices=lm.prices)

    @property
    def resolved(self) -> ResolvedLM:
        """The LM in the form of the adapters."""
        return ResolvedLM(self.model, self.api_base, self.api_key, self.prices)


class Create(Frozen):
    """Build a program."""

    type: Literal["create"] = "create"
    adapter_type: str
    signature: Signature
    configuration: Configuration
    lms: dict[str, SentLM]
    code: ModuleCode | None = None

    @classmethod
    def of(cls, spec: ProgramSpec, lms: ResolvedLMs) -> Create:
        """The frame for a program and its LMs."""
        return cls(
            adapter_type=spec.adapter_type,
            signature=spec.signature,
            configuration=spec.configuration,
            lms={field: SentLM.of(lm) for field, lm in lms.items()},
            code=spec.code,
        )

    @property
    def spec(self) -> ProgramSpec:
        """The specification of the program."""
        return ProgramSpec(self.adapter_type, self.signature, self.configuration, code=self.code)

    @property
    def resolved(self) -> ResolvedLMs:
        """The LMs of the program, by their fields."""
        return {field: lm.resolved for field, lm in self.lms.items()}


class Run(Frozen):
    """Run a built program on inputs that fit its signature. Has no timeout, as the adapter kills the child."""

    type: Literal["run"] = "run"
    backend_id: str
    inputs: dict[str, JsonValue]
    run_id: str
    seed: int | None = None
    trace: bool = False
    lm: LMParameters | None = None

    @property
    def options(self) -> RunOptions:
        """The options in the port's form."""
        return RunOptions(self.run_id, seed=self.seed, trace=self.trace, lm=self.lm)


class ShowPrompt(Frozen):
    """Run a built program until its first LM call, and show what it would send."""

    type: Literal["show_prompt"] = "show_prompt"
    backend_id: str
    inputs: dict[str, JsonValue]


class Shown(Frozen):
    """The prompt of a program."""

    type: Literal["shown"] = "shown"
    model: str
    messages: tuple[dict[str, JsonValue], ...]


class Created(Frozen):
    """The program was built."""

    type: Literal["created"] = "created"
    backend_id: str


class NotLoaded(Frozen):
    """The child does not have the program, or has dropped it. Send `create` first."""

    type: Literal["not_loaded"] = "not_loaded"


class UsageSoFar(Frozen):
    """The usage of the run so far. Sent when an LM call begins, and when it is answered."""

    type: Literal["usage"] = "usage"
    usage: Usage


class Ended(Frozen):
    """The result of a run. `grown_bytes`: by how much the child's resident memory has grown since its start."""

    type: Literal["outcome"] = "outcome"
    outputs: dict[str, JsonValue]
    usage: Usage
    duration_ms: float
    trace: tuple[TraceStep, ...] | None = None
    extra_outputs: dict[str, JsonValue] = Field(default_factory=dict, exclude_if=operator.not_)
    exhausted_for: float | None = None
    grown_bytes: int = 0

    @classmethod
    def of(cls, outcome: Outcome, grown_bytes: int) -> Ended:
        """The frame for an outcome."""
        return cls(
            outputs=dict(outcome.outputs),
            usage=outcome.usage,
            duration_ms=outcome.duration_ms,
            trace=outcome.trace,
            extra_outputs=dict(outcome.extra_outputs),
            exhausted_for=outcome.exhausted_for,
            grown_bytes=grown_bytes,
        )


class Failed(Frozen):
    """The error of a build or a run. `not_here`: another worker may have what the program needs."""

    type: Literal["error"] = "error"
    code: ErrorCode
    message: str
    not_here: bool = False
    retry_after: float | None = None
    provider_code: str | None = None
    request_id: str | None = None
    usage: Usage = Usage()
    trace: tuple[TraceStep, ...] | None = None
    grown_bytes: int = 0

    @classmethod
    def of(cls, error: AdapterError, grown_bytes: int = 0) -> Failed:
        """The frame for an error."""
        return cls(
            code=error.code,
            message=error.message,
            not_here=isinstance(error, NotHere),
            retry_after=error.retry_after,
            provider_code=error.provider_code,
            request_id=error.request_id,
            usage=error.usage,
            trace=error.trace,
            grown_bytes=grown_bytes,
        )

    @property
    def error(self) -> AdapterError:
        """The error in the port's form."""
        if self.not_here:
            return NotHere(self.message, self.code)
        return AdapterError(
            self.code,
            self.message,
            retry_after=self.retry_after,
            provider_code=self.provider_code,
            request_id=self.request_id,
            usage=self.usage,
            trace=self.trace,
        )


ToChild = Hello | Create | Run | ShowPrompt
ToAdapter = Hello | Created | NotLoaded | Shown | UsageSoFar | Ended | Failed

Frame = TypeVar("Frame", ToChild, ToAdapter)

_TO_CHILD: Final[TypeAdapter[ToChild]] = TypeAdapter(Annotated[ToChild, Field(discriminator="type")])
_TO_ADAPTER: Final[TypeAdapter[ToAdapter]] = TypeAdapter(Annotated[ToAdapter, Field(discriminator="type")])


def encode(frame: ToChild | ToAdapter, max_bytes: int) -> bytes:
    """Encode a frame, preceded by its length.

    Raises:
        FrameError: the frame is larger than `max_bytes`.
    """
    # Escaped, because text from an LM may contain half of a surrogate pair, which UTF-8 cannot encode.
    data = frame.model_dump(mode="json" if isinstance(frame, Create) else "python")
    body = json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(body) > max_bytes:
        raise FrameError(f"it has {len(body)} bytes, and the limit is {max_bytes}")
    return LENGTH.pack(len(body)) + body


def read_to_child(body: bytes) -> ToChild:
    """Decode a frame from the adapter.

    Raises:
        FrameError: the bytes are not a frame of the adapter.
    """
    return _read(_TO_CHILD, body)


def read_to_adapter(body: bytes) -> ToAdapter:
    """Decode a frame from a child.

    Raises:
        FrameError: the bytes are not a frame of a child.
    """
    return _read(_TO_ADAPTER, body)


def _read(models: TypeAdapter[Frame], body: bytes) -> Frame:
    try:
        # Not pydantic's own JSON parser, which refuses half of a surrogate pair.
        frame = models.validate_python(json.loads(body))
    except pydantic.ValidationError as error:
        raise FrameError(f"{error.error_count()} of its members are wrong") from None
    except (ValueError, RecursionError):
        raise FrameError("it is not JSON") from None
    if isinstance(frame, Hello) and frame.version != VERSION:
        raise FrameError(f"it speaks version {frame.version} of the frames, not {VERSION}: restart the worker")
    return frame


class FrameReader:
    """Splits a stream of bytes into the bodies of frames.

    Args:
        max_bytes: the largest body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next complete body, or None.

        Raises:
            FrameError: the body is larger than `max_bytes`.
        """
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if length > self._max_bytes:
            raise FrameError(f"it has {length} bytes, and the limit is {self._max_bytes}")
        end = LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[LENGTH.size : end])
        del self._buffer[:end]
        return body
