"""The frames between python_port and its children: what they look like, byte for byte, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lm import ResolvedLM
from adapters.port import AdapterError, NotHere, Outcome, ProgramSpec, TraceStep
from adapters.prices import Prices
from adapters.python_port.children import Child, ChildEnded, DeadlinePassed
from adapters.python_port.frames import (
    LENGTH,
    VERSION,
    Create,
    Created,
    Ended,
    Failed,
    FrameError,
    FrameReader,
    Hello,
    NotLoaded,
    Run,
    Shown,
    ShowPrompt,
    ToAdapter,
    ToChild,
    UsageSoFar,
    encode,
    read_to_adapter,
    read_to_child,
)
from adapters.python_port.limits import Limits
from dspex import LM, Configuration, ErrorCode, LMCall, LMParameters, Signature, Usage

GOLDEN = Path(__file__).with_name("frames.jsonl")
MAX = 10_000

CALL = LMCall(
    model="openai/gpt-4o-mini",
    input_tokens=20,
    output_tokens=5,
    cost=0.25,
    cached_tokens=8,
    input_audio_tokens=7,
    finish_reason="stop",
    request_id="r-0",
    model_version="gpt-4o-mini-2024-07-18",
)
UNKNOWN = LMCall(model="openai/gpt-4o-mini")
USAGE = Usage(calls=1, input_tokens=20, output_tokens=5, cost=0.25, lm_calls=(CALL,))
STEP = TraceStep(kind="output", name="stdout", details={"text": "half a pair: \ud83d", "bytes": 14})
SPEC = ProgramSpec(
    "python_port",
    Signature.parse("question, k: int = 3 -> answer, label: Literal['a', 'b']"),
    Configuration(
        module="MultiChainComparison",
        parameters={"M": 2},
        lm=LM(model="house", parameters=LMParameters(temperature=1.0, stop=("END",))),
    ),
)
LMS = {"lm": ResolvedLM("openai/gpt-4o-mini", "http://127.0.0.1:1/v1", "sk-key", Prices(1.0, 2.0))}
ERROR = AdapterError(
    ErrorCode.RATE_LIMITED,
    "slow down",
    retry_after=7.0,
    provider_code="rate_limit_exceeded",
    request_id="r-1",
    usage=USAGE,
    trace=(STEP,),
)

TO_CHILD: list[ToChild] = [
    Hello(),
    Create.of(SPEC, LMS),
    Run(backend_id="python_port-1", inputs={"question": "é", "k": 10**20}, run_id="r", seed=2**63 - 1, trace=True),
    ShowPrompt(backend_id="python_port-1", inputs={"question": "é"}),
]
TO_ADAPTER: list[ToAdapter] = [
    Hello(),
    Created(backend_id="python_port-1"),
    NotLoaded(),
    Shown(model="openai/gpt-4o-mini", messages=({"role": "user", "content": "é"},)),
    UsageSoFar(usage=USAGE),
    UsageSoFar(usage=Usage.of_calls(2, (CALL, UNKNOWN))),
    Ended.of(Outcome({"answer": "\N{GRINNING FACE}", "label": "a"}, USAGE, 1.5, (STEP,), exhausted_for=2.5), 4096),
    Failed.of(ERROR, 4096),
]


def test_the_frames_are_what_they_were() -> None:
    """A worker may be older than its children. What changes here needs another VERSION."""
    lines = GOLDEN.read_text("ascii").splitlines()
    frames = [*TO_CHILD, *TO_ADAPTER]
    assert [encode(frame, MAX)[LENGTH.size :].decode() for frame in frames] == lines
    assert json.loads(lines[0]) == {"type": "hello", "version": VERSION}


@pytest.mark.parametrize("frame", TO_CHILD, ids=lambda frame: frame.type)
def test_what_the_adapter_sends_is_read_as_it_was(frame: ToChild) -> None:
    assert read_to_child(_body(encode(frame, MAX))) == frame


@pytest.mark.parametrize("frame", TO_ADAPTER, ids=lambda frame: frame.type)
def test_what_a_child_sends_is_read_as_it_was(frame: ToAdapter) -> None:
    assert read_to_adapter(_body(encode(frame, MAX))) == frame


def test_a_program_and_an_error_are_the_same_on_the_other_side() -> None:
    create = read_to_child(_body(encode(TO_CHILD[1], MAX)))
    assert isinstance(create, Create)
    assert create.spec.backend_id == SPEC.backend_id
    assert create.resolved == LMS
    assert "sk-key" not in repr(create)
    failed = read_to_adapter(_body(encode(TO_ADAPTER[-1], MAX)))
    assert isinstance(failed, Failed)
    assert vars(failed.error) == vars(ERROR)


def test_what_is_not_here_is_so_on_the_other_side() -> None:
    sent = Failed.of(NotHere("the code has changed", ErrorCode.AUTH))
    read = read_to_adapter(_body(encode(sent, MAX)))
    assert isinstance(read, Failed)
    assert type(read.error) is NotHere
    assert (read.error.code, read.error.message) == (ErrorCode.AUTH, "the code has changed")


def _body(frame: bytes) -> bytes:
    reader = FrameReader(MAX)
    for byte in frame:  # in any pieces
        assert reader.next() is None
        reader.feed(bytes([byte]))
    body = reader.next()
    assert body is not None
    assert reader.next() is None
    return body


def test_a_frame_over_the_cap_is_not_sent() -> None:
    with pytest.raises(FrameError, match="the limit is"):
        encode(Run(backend_id="b", inputs={"question": "x" * MAX}, run_id="r"), MAX)


CORPUS: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"garbage",
    "not UTF-8": b"\xff\xfe{}",
    "cut off": b'{"type":"hello","version":1',
    "a list": b"[]",
    "null": b"null",
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "no type": b'{"version":1}',
    "unknown type": b'{"type":"exec","code":"import os"}',
    "a type that is none": b'{"type":["outcome"]}',
    "of the other side": b'{"type":"run","backend_id":"b","inputs":{},"run_id":"r"}',
    "another version": b'{"type":"hello","version":10,"what":"ever"}',
    "no such code": b'{"type":"error","code":"on_fire","message":"m"}',
    "an unknown member": b'{"type":"created","backend_id":"b","more":1}',
    "a member is missing": b'{"type":"outcome","usage":{},"duration_ms":1}',
    "a wrong member": b'{"type":"outcome","outputs":[1],"usage":{},"duration_ms":1}',
    "not a number": b'{"type":"outcome","outputs":{},"usage":{},"duration_ms":NaN}',
}


@pytest.mark.parametrize("body", CORPUS.values(), ids=CORPUS)
def test_what_is_no_frame_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        read_to_adapter(body)
    assert "import os" not in str(caught.value)


def test_the_other_version_is_told() -> None:
    with pytest.raises(FrameError, match=f"version {VERSION + 1} of the frames, not {VERSION}: restart the worker"):
        read_to_child(b'{"type":"hello","version":%d}' % (VERSION + 1))


# On the side of the adapter, with a child that sends what it likes


@pytest.fixture
def child() -> Iterator[tuple[Child, socket.socket]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pipes = [os.pipe(), os.pipe()]
        for reading, _ in pipes:
            os.set_blocking(reading, False)
        child = Child(
            process.pid, os.pidfd_open(process.pid), ours, pipes[0][0], pipes[1][0], Limits(max_frame_bytes=MAX)
        )
        with theirs:
            yield child, theirs
        child.close()
        for _, writing in pipes:
            os.close(writing)


def soon() -> float:
    return time.monotonic() + 60


@pytest.mark.parametrize("body", CORPUS.values(), ids=CORPUS)
def test_a_child_that_sends_what_is_no_frame_is_found_out(child: tuple[Child, socket.socket], body: bytes) -> None:
    ours, theirs = child
    theirs.sendall(LENGTH.pack(len(body)) + body[:MAX])
    with pytest.raises(FrameError):
        ours.ask(b"", soon())


def test_a_frame_over_the_cap_is_refused_by_its_length_alone(child: tuple[Child, socket.socket]) -> None:
    ours, theirs = child
    theirs.sendall(LENGTH.pack(MAX + 1))
    with pytest.raises(FrameError, match=f"it has {MAX + 1} bytes, and the limit is {MAX}"):
        ours.ask(b"", soon())


def test_a_child_says_hello_first(child: tuple[Child, socket.socket]) -> None:
    ours, theirs = child
    theirs.sendall(encode(NotLoaded(), MAX))
    with pytest.raises(FrameError, match="the first is not hello"):
        ours.start(soon())


def test_a_child_that_is_gone_is_noticed(child: tuple[Child, socket.socket]) -> None:
    ours, _ = child
    ours.kill()
    with pytest.raises(ChildEnded):
        ours.ask(encode(Hello(), MAX), None)


@pytest.mark.parametrize("sent", [b"", encode(UsageSoFar(usage=USAGE), MAX)[:-3]], ids=["nothing", "half a frame"])
def test_a_child_that_closes_its_socket_is_noticed(child: tuple[Child, socket.socket], sent: bytes) -> None:
    ours, theirs = child
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(ChildEnded):
        ours.ask(encode(Hello(), MAX), None)


def test_what_a_child_sent_before_it_was_killed_counts(child: tuple[Child, socket.socket]) -> None:
    ours, theirs = child
    with pytest.raises(DeadlinePassed):
        ours.ask(b"", time.monotonic())
    theirs.sendall(encode(UsageSoFar(usage=USAGE), MAX))
    ours.end()
    assert ours.usage == USAGE


def test_a_request_is_sent_to_a_child_that_reads_slowly(child: tuple[Child, socket.socket]) -> None:
    ours, theirs = child
    theirs.sendall(encode(NotLoaded(), MAX))
    assert ours.ask(b"x" * 1_000_000, soon()) == NotLoaded()
    with pytest.raises(DeadlinePassed):
        ours.ask(b"x" * 10_000_000, time.monotonic() + 0.05)
