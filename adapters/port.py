"""The port: what an adapter is, and what it owes. One contract suite (`tests/contract`) holds every adapter to it.

An adapter
- builds a program from a `ProgramSpec` alone, in any process, and keeps what it built, bounded; `create_program` of
  the same spec again is cheap and returns the same id;
- is called by many threads at once, for the same program too;
- takes inputs that fit the signature, and returns outputs that fit it: JSON values, validated, or an `AdapterError`;
- raises `AdapterError` and nothing else for whatever goes wrong while it runs, with one of the closed set of codes;
  its text holds no secret, and no more of the LM's raw output than `MAX_QUOTE` characters;
- does not retry: whether and when to try again is decided above, by the code;
- reports the usage of every LM call, also with an error;
- connects to nothing and reads no environment before it is asked to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from dspex import Configuration, DspexError, ErrorCode, ExecutionOptions, Signature, Usage
from dspex.ids import digest

MAX_QUOTE = 500


@dataclass(frozen=True)
class ProgramSpec:
    """All that a program is: any worker can build it from this."""

    adapter_type: str
    signature: Signature
    configuration: Configuration = field(default_factory=Configuration)

    @cached_property
    def backend_id(self) -> str:
        """A digest of adapter, signature and configuration, such as `mock-1f0c…`: equal specs have equal ids."""
        content = {"signature": self.signature.digest, "configuration": self.configuration.model_dump(mode="json")}
        return f"{self.adapter_type}-{digest(content)[:32]}"


@dataclass(frozen=True)
class Outcome:
    """What one run gave: outputs that fit the signature, and what the LM calls used."""

    outputs: Mapping[str, Any]
    usage: Usage = field(default_factory=Usage)


class AdapterError(DspexError):
    """A program that could not be built or run.

    Attributes:
        code: an `ErrorCode`: it decides what happens next.
        retry_after: seconds that the provider asked to wait, where it did.
        provider_code, request_id: the provider's own, where known.
        usage: what the LM calls before the error used.
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
    ) -> None:
        super().__init__(message)
        self.code = code  # pyright: ignore[reportIncompatibleVariableOverride]
        self.retry_after = retry_after
        self.provider_code = provider_code
        self.request_id = request_id
        self.usage = usage or Usage()


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

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: ExecutionOptions) -> Outcome:
        """Run a program once, on inputs that were validated by its signature.

        Raises:
            ProgramNotLoaded: `create_program` first.
            AdapterError: the run failed.
        """
        ...

    def close(self) -> None:
        """Free what it holds. Safe to call twice."""
        ...
