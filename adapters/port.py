"""The port: what an adapter is, and what it owes. One suite (`adapters/contract.py`) holds every adapter to it.

An adapter

building
- builds a program from a `ProgramSpec` alone, in any process, and keeps what it built, bounded; `create_program` of
  the same spec again is cheap and returns the same id;
- tells of what it keeps (`list_programs`, `info`) and drops it when asked (`delete_program`): a run that is under way
  goes on;
- connects to nothing before it is asked to run, and lets no environment variable decide anything; what it passes on to
  processes of its own is a list of names;

running
- is called by many threads at once, for the same program too;
- takes inputs that fit the signature, and returns outputs that fit it: JSON values, validated, or an `AdapterError`;
- stops a run at `RunOptions.timeout` with the code `timeout`, or says in its docstring that timeouts are advisory: then
  it only bounds the waits of the LM calls by it;
- takes `cancel` from any thread, at any time: a run that it can stop ends with the code `cancelled`, one that it
  cannot stop goes on, and whoever cancelled discards its result;
- returns a trace where `RunOptions.trace` asks for one: steps in the order they happened, at most `MAX_TRACE_STEPS`, no
  text in them longer than `MAX_TRACE_TEXT`, no secret in any;
- reports the usage of every LM call, also with an error, and also of a run that was stopped;

failing
- raises `AdapterError` and nothing else for whatever goes wrong while it runs, with one of the closed set of codes;
  its text holds no secret, and no more of the LM's raw output than `MAX_QUOTE` characters;
- does not retry: whether and when to try again is decided above, by the code;

being watched
- answers `health_check` and `stats` at once, from what it knows: they run no program and call no LM;
- ends, on `close`, every process and connection of its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pydantic import Field, JsonValue

from dspex import Configuration, DspexError, ErrorCode, Signature, Usage
from dspex.ids import digest
from dspex.model import Frozen

MAX_QUOTE = 500
MAX_TRACE_STEPS = 200
MAX_TRACE_TEXT = 10_000
MAX_ERROR_TEXT = 4_000
MAX_ERROR_CODE = 200
"""Of an error's text, and of the codes and ids that a provider puts into one, in characters."""


@dataclass(frozen=True)
class ProgramSpec:
    """All that a program is: any worker can build it from this."""

    adapter_type: str
    signature: Signature
    configuration: Configuration = field(default_factory=Configuration)
    tenant: str | None = field(default=None, compare=False)
    """Whose it is: `LMCatalog.resolve` asks for it. It is not part of the id: an LM that two tenants may use is the
    same to both, and who may not cannot build the program."""

    @cached_property
    def backend_id(self) -> str:
        """A digest of adapter, signature and configuration, such as `mock-1f0c…`: equal specs have equal ids."""
        content = {"signature": self.signature.digest, "configuration": self.configuration.model_dump(mode="json")}
        return f"{self.adapter_type}-{digest(content)[:32]}"

    @cached_property
    def size(self) -> int:
        """Bytes that it takes in memory once it is built, estimated: classes are made of the signature twice."""
        return 2 * self.signature.size + len(self.configuration.model_dump_json())


@dataclass(frozen=True)
class RunOptions:
    """How one run is made.

    Attributes:
        run_id: names the run for `cancel`: the execution's tenant and id. Two runs of one name, of a worker that took
            an execution twice, are both cancelled.
        seed: for what is drawn; LMs that take one get it.
        timeout: seconds from the call of `execute_program` on.
        trace: whether to return the steps of the run.
    """

    run_id: str
    seed: int | None = None
    timeout: float | None = None
    trace: bool = False


class TraceStep(Frozen):
    """One step of a run, for people who look into it.

    Attributes:
        kind: `predictor`, `lm_call`, `tool`, or `output` for what the program printed.
        name: of the predictor, the model, the tool, or `stdout` and `stderr`.
        details: what went in and what came out, by name.
        duration_ms: where it was measured.
    """

    kind: str
    name: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    duration_ms: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one run gave: outputs that fit the signature, and what the LM calls used.

    Attributes:
        duration_ms: milliseconds of the run, waiting for a free place not counted.
        trace: where it was asked for.
    """

    outputs: Mapping[str, Any]
    usage: Usage = field(default_factory=Usage)
    duration_ms: float = 0.0
    trace: tuple[TraceStep, ...] | None = None


@dataclass(frozen=True)
class ProgramInfo:
    """A program that an adapter keeps in this process.

    Attributes:
        module, model: as its configuration names them.
        runs: how often it was run here since it was built.
    """

    backend_id: str
    module: str
    model: str | None
    runs: int


@dataclass(frozen=True)
class Health:
    """Whether an adapter can run programs; `message` says what is wrong, or what it is ready with."""

    ok: bool
    message: str


@dataclass(frozen=True)
class AdapterStats:
    """What an adapter did in this process so far.

    Attributes:
        programs: kept now.
        running: runs under way now.
        runs: runs that ended, failed ones included.
        failures: runs that ended with an error, by its code.
    """

    programs: int
    running: int
    runs: int
    failures: Mapping[ErrorCode, int]


def plain(text: str, limit: int) -> str:
    """A text of somebody else's on one line, cut: without what a terminal or a reader could take for more than text
    (control and format characters, bidirectional marks, lone surrogates).
    """
    line = " ".join(text[: 4 * limit].split())[:limit]
    if line.isprintable():
        return line
    return "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else REPLACEMENT for c in line)


REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class AdapterError(DspexError):
    """A program that could not be built or run.

    Attributes:
        code: an `ErrorCode`: it decides what happens next.
        retry_after: seconds that the provider asked to wait, where it did.
        provider_code, request_id: the provider's own, where known.
        usage: what the LM calls before the error used.
        trace: the steps before the error, where they were asked for and are known.
    """

    code: ErrorCode

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after: float | None = None,
        provider_code: str | None = None,
        request_id: str | None = None,
        usage: Usage | None = None,
        trace: tuple[TraceStep, ...] | None = None,
    ) -> None:
        super().__init__(plain(message, MAX_ERROR_TEXT))
        self.code = code  # pyright: ignore[reportIncompatibleVariableOverride]
        self.retry_after = retry_after
        self.provider_code = provider_code and plain(provider_code, MAX_ERROR_CODE)
        self.request_id = request_id and plain(request_id, MAX_ERROR_CODE)
        self.usage = usage or Usage()
        self.trace = trace


class ProgramNotLoaded(DspexError):
    """This process has not built the program, or has dropped it from its cache: create it again, then run."""

    code = "program_not_loaded"


class Adapter(Protocol):
    """Runs programs. The obligations are at the top of this module."""

    def create_program(self, spec: ProgramSpec) -> str:
        """Build a program and keep it. Returns its backend id, `spec.backend_id`.

        Raises:
            AdapterError: the configuration cannot be built here (`permanent`; `auth` for a secret that is missing).
        """
        ...

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Run a program once, on inputs that were validated by its signature.

        Raises:
            ProgramNotLoaded: `create_program` first.
            AdapterError: the run failed.
        """
        ...

    def cancel(self, run_id: str) -> bool:
        """Tell the run of this id to stop. Returns whether there is one; it does not wait for its end."""
        ...

    def list_programs(self) -> list[ProgramInfo]:
        """The programs that are kept."""
        ...

    def info(self, backend_id: str) -> ProgramInfo:
        """One program that is kept.

        Raises:
            ProgramNotLoaded: it is not.
        """
        ...

    def delete_program(self, backend_id: str) -> bool:
        """Drop a program. Returns whether it was kept."""
        ...

    def health_check(self) -> Health:
        """Whether programs can be run."""
        ...

    def stats(self) -> AdapterStats:
        """What happened so far."""
        ...

    def close(self) -> None:
        """Free what it holds. Safe to call twice."""
        ...
