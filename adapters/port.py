"""The port: the interface and the obligations of an adapter. The suite `adapters/contract.py` checks them for each.

An adapter

building

- builds a program from a `ProgramSpec` alone, in any process, and keeps a bounded number of programs; `create_program`
  with the same spec again is cheap and returns the same id;
- lists the programs that it keeps (`list_programs`, `info`), and drops one on request (`delete_program`) without ending
  its runs;
- opens no connection before the first run, and does not depend on environment variables; it passes variables to its own
  processes by a list of names only;

running

- allows many threads at once, also for the same program;
- takes inputs that fit the signature, and returns validated JSON values that fit it, or raises an `AdapterError`;
- ends a run at `RunOptions.timeout` with the code `timeout`; or says in its docstring that timeouts are advisory, and
  then only limits the waits of LM calls by it;
- allows `cancel` from any thread, at any time: a run that it can stop ends with the code `cancelled`; a run that it
  cannot stop goes on, and the caller discards the result;
- returns a trace if `RunOptions.trace` is set: at most `MAX_TRACE_STEPS` steps, in the order in which they happened,
  with no text longer than `MAX_TRACE_TEXT`, and without secrets;
- may show the first prompt of a run (`ShowsPrompts`), and then calls no LM for it, and shows no secret;
- reports the usage of every LM call, also with an error, and also for a run that was stopped;

failing

- raises only `AdapterError` for everything that goes wrong during a run, with one of the closed set of codes; its text
  contains no secret, and at most `MAX_QUOTE` characters of the LM's raw output;
- does not retry: its caller decides by the code whether and when to retry;

being watched

- answers `health_check` and `stats` at once, without running a program or calling an LM;
- ends, on `close`, every process and connection of its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue

from dspex import Configuration, DspexError, ErrorCode, LMParameters, Signature, Usage
from dspex.contract.trace import TraceStep as TraceStep
from dspex.ids import digest
from dspex.model import Frozen

MAX_QUOTE = 500
MAX_TRACE_STEPS = 200
MAX_TRACE_TEXT = 10_000
MAX_TRACE_BYTES = 500_000
"""The most steps of a trace, the longest text in one, in characters, and the size of what is kept of it, as JSON."""
MAX_ERROR_TEXT = 4_000
MAX_ERROR_CODE = 200
"""The longest text of an error, and the longest code or id of a provider in one, in characters."""


class ModuleCode(Frozen):
    """The code of a module that is not DSPy's own: what to import, and what tells it from other code of this name.

    Attributes:
        reference: `package.module:name`. It comes from the operator's entry points or settings, never from a message.
        distribution: the name and version of the distribution; empty for files that belong to none.
        digest: of the source files.
    """

    reference: str
    distribution: str = ""
    digest: str


@dataclass(frozen=True)
class ProgramSpec:
    """The complete specification of a program, from which any worker that has its module can build it."""

    adapter_type: str
    signature: Signature
    configuration: Configuration = field(default_factory=Configuration)
    tenant: str | None = field(default=None, compare=False)
    """The owner, for `LMCatalog.resolve`.

    It is not part of the id: tenants that may use an LM share the built program; others cannot build it.
    """
    code: ModuleCode | None = None
    """The code of a module of one's own (`adapters.own_modules.OwnModules.find`)."""

    @cached_property
    def backend_id(self) -> str:
        """A digest of adapter, signature, configuration and code, such as `mock-1f0c…`: equal specs have equal ids."""
        content = {"signature": self.signature.digest, "configuration": self.configuration.model_dump(mode="json")}
        if self.code is not None:
            content["code"] = self.code.model_dump()
        return f"{self.adapter_type}-{digest(content)[:32]}"

    @cached_property
    def size(self) -> int:
        """The estimated memory of the built program, in bytes. Two sets of classes are made of the signature."""
        return 2 * self.signature.size + len(self.configuration.model_dump_json())


@dataclass(frozen=True)
class RunOptions:
    """The options of one run.

    Attributes:
        run_id: names the run for `cancel`: the execution's tenant and id. If a worker has claimed an execution twice,
            both runs have this name, and both are cancelled.
        seed: for random numbers; LMs that accept a seed get it.
        timeout: seconds from the call of `execute_program`.
        trace: whether to return the steps of the run.
        lm: parameters for each LM that lets them be overridden (`LM.overridable`), in the place of its own. An adapter
            that calls no LM ignores them.
    """

    run_id: str
    seed: int | None = None
    timeout: float | None = None
    trace: bool = False
    lm: LMParameters | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one run: outputs that fit the signature, and the usage of the LM calls.

    Attributes:
        duration_ms: milliseconds of the run, without the wait for a free child process or the like.
        trace: the steps, if `RunOptions.trace` was set.
        extra_outputs: those beside the signature that the program asks for; see `adapters.extras`.
        exhausted_for: for how many seconds its provider has nothing left of a limit, by its last answer.
    """

    outputs: Mapping[str, Any]
    usage: Usage = field(default_factory=Usage)
    duration_ms: float = 0.0
    trace: tuple[TraceStep, ...] | None = None
    extra_outputs: Mapping[str, Any] = field(default_factory=dict)
    exhausted_for: float | None = None


@dataclass(frozen=True)
class Prompt:
    """What the first LM call of a run would send.

    Attributes:
        model: the LM that would be called.
        messages: in their JSON form, as the program makes them; without secrets.
    """

    model: str
    messages: tuple[dict[str, JsonValue], ...]


@dataclass(frozen=True)
class ProgramInfo:
    """A program that an adapter keeps in this process.

    Attributes:
        module, model: the names in its configuration.
        runs: how often it has run in this process since it was built.
    """

    backend_id: str
    module: str
    model: str | None
    runs: int


@dataclass(frozen=True)
class Health:
    """Whether an adapter can run programs. `message` describes its state, or what is wrong."""

    ok: bool
    message: str


@dataclass(frozen=True)
class AdapterStats:
    """The counts of an adapter in this process.

    Attributes:
        programs: programs kept now.
        running: runs in progress now.
        runs: runs that ended, including failed ones.
        failures: runs that ended with an error, by its code.
    """

    programs: int
    running: int
    runs: int
    failures: Mapping[ErrorCode, int]


def plain(text: str, limit: int) -> str:
    """A foreign text in one line, cut to `limit` characters and safe to show.

    Replaces control and format characters, bidirectional marks and lone surrogates.
    """
    line = " ".join(text[: 4 * limit].split())[:limit]
    if line.isprintable():
        return line
    return "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else REPLACEMENT for c in line)


REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class AdapterError(DspexError):
    """A program could not be built or run.

    Attributes:
        code: an `ErrorCode`, which decides what happens next.
        retry_after: how many seconds the provider asked to wait, if it did.
        provider_code, request_id: the provider's own, if known.
        usage: the usage of the LM calls before the error.
        trace: the steps before the error, if requested and known.
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

    def under(self, prefix: str) -> AdapterError:
        """The same error of a build, with a text that begins with the field that it is about."""
        return AdapterError(self.code, prefix + self.message)


class NotHere(AdapterError):
    """This process lacks something that another worker may have: a module, an adapter, a reward, a tool, a key."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PERMANENT) -> None:
        super().__init__(code, message)

    def under(self, prefix: str) -> NotHere:
        """See `AdapterError.under`."""
        return NotHere(prefix + self.message, self.code)


class ProgramNotLoaded(DspexError):
    """This process has not built the program, or has dropped it. Call `create_program` again, then run it."""

    code = "program_not_loaded"


class Adapter(Protocol):
    """Runs programs. The obligations are at the top of this module."""

    def create_program(self, spec: ProgramSpec) -> str:
        """Build a program and keep it. Returns its backend id, `spec.backend_id`.

        Raises:
            AdapterError: the program cannot be built here (`permanent`; `auth` for a missing secret).
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
        """Ask the runs with this id to stop. Returns whether there was one; does not wait for its end."""
        ...

    def list_programs(self) -> list[ProgramInfo]:
        """List the programs that are kept."""
        ...

    def info(self, backend_id: str) -> ProgramInfo:
        """Information about a program that is kept.

        Raises:
            ProgramNotLoaded: the program is not kept.
        """
        ...

    def delete_program(self, backend_id: str) -> bool:
        """Drop a program. Returns whether it was kept."""
        ...

    def health_check(self) -> Health:
        """Whether programs can be run."""
        ...

    def stats(self) -> AdapterStats:
        """The counts so far."""
        ...

    def close(self) -> None:
        """Release all processes and connections. May be called again."""
        ...


@runtime_checkable
class ShowsPrompts(Protocol):
    """What an adapter may have besides, if it runs LMs."""

    def first_prompt(self, backend_id: str, inputs: Mapping[str, Any]) -> Prompt:
        """What the first LM call of a run with these inputs would send. No LM is called; the program's code may run.

        Raises:
            ProgramNotLoaded: `create_program` first.
            AdapterError: the run failed before its first LM call, or made none.
        """
        ...
