"""The verbs of external executions, as a part of the code interface: for a service that runs something itself.

execution = dspex.create_execution(program_id, {"question": "..."})
running = dspex.mark_running(execution.execution_id, execution.lock_version)
dspex.mark_completed(running.execution_id, running.lock_version, {"answer": "..."})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from dspex.blobs.values import offloaded, placed
from dspex.client.arguments import arguments_checked
from dspex.client.blob_verbs import BlobVerbs
from dspex.contract.callback import Callback
from dspex.contract.external import (
    DEFAULT_LEASE_SECONDS,
    CreateExecution,
    MarkCompleted,
    MarkFailed,
    MarkRunning,
    ReportedError,
    ReportedUsage,
)
from dspex.contract.results import ExecutionView
from dspex.contract.status import ErrorCode
from dspex.ids import uuid7


@arguments_checked
class ExternalVerbs(BlobVerbs):
    """The part of the client for external executions.

    A mark names the `lock_version` that the service was given last; another raises `conflict`, which tells what it is
    now, or how the execution has ended. After a lost answer, repeat a mark with the same `mark`: it is made once.
    """

    def create_execution(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> ExecutionView:
        """Create an execution that no worker runs: it is pending until it is marked. Its inputs must fit the program.

        Other arguments are as in `submit_program`.
        """
        given = placed(inputs)
        if self.blobs is not None:
            given = offloaded(given, self.blobs, tenant=self.tenant, threshold=self.blob_threshold)
        command = CreateExecution(
            execution_id=execution_id or uuid7(),
            program_id=program_id,
            inputs=given,
            idempotency_key=idempotency_key,
            callback=callback,
            metadata=metadata or None,  # type: ignore[arg-type]  # a mapping, which the model reads or refuses
        )
        return self.call(command, ExecutionView, traceparent=traceparent)

    def mark_running(
        self,
        execution_id: UUID,
        lock_version: int,
        *,
        expires_in: float = DEFAULT_LEASE_SECONDS,
        mark: UUID | None = None,
        traceparent: str | None = None,
    ) -> ExecutionView:
        """pending → running. Of one that runs: renew its lease, which leaves `lock_version` as it is.

        Args:
            expires_in: seconds from now, until which it must be marked again; else it fails with `lease_expired`.
            mark: the id of this mark, for a repetition.
        """
        command = MarkRunning(
            execution_id=execution_id, lock_version=lock_version, mark=mark or uuid7(), expires_in=float(expires_in)
        )
        return self.call(command, ExecutionView, traceparent=traceparent)

    def mark_completed(
        self,
        execution_id: UUID,
        lock_version: int,
        outputs: Mapping[str, Any],
        *,
        extra_outputs: Mapping[str, Any] | None = None,
        usage: ReportedUsage | Mapping[str, Any] | None = None,
        duration_ms: float | None = None,
        mark: UUID | None = None,
        traceparent: str | None = None,
    ) -> ExecutionView:
        """running → completed. The outputs must fit the signature of the program; if not, it runs on.

        Args:
            extra_outputs: those that the program's configuration asks for.
            usage: `calls`, `input_tokens`, `output_tokens`, `cost` in US dollars; None: not known.
            duration_ms: None: since it was marked running.
            mark: the id of this mark, for a repetition.
        """
        given = placed(outputs)
        if self.blobs is not None:
            given = offloaded(given, self.blobs, tenant=self.tenant, threshold=self.blob_threshold)
        command = MarkCompleted(
            execution_id=execution_id,
            lock_version=lock_version,
            mark=mark or uuid7(),
            outputs=given,
            extra_outputs=None if extra_outputs is None else dict(extra_outputs),
            usage=usage,  # type: ignore[arg-type]  # read or refused by the model
            duration_ms=duration_ms,
        )
        return self.whole(self.call(command, ExecutionView, traceparent=traceparent), inputs=False)

    def mark_failed(
        self,
        execution_id: UUID,
        lock_version: int,
        code: ErrorCode | str,
        message: str,
        *,
        usage: ReportedUsage | Mapping[str, Any] | None = None,
        duration_ms: float | None = None,
        mark: UUID | None = None,
        traceparent: str | None = None,
    ) -> ExecutionView:
        """running → failed, which is its end: nothing runs it again.

        Args:
            code: one of `ErrorCode`, such as `permanent`.
            message: one line for people, without secrets.
            usage, duration_ms, mark: as in `mark_completed`.
        """
        command = MarkFailed(
            execution_id=execution_id,
            lock_version=lock_version,
            mark=mark or uuid7(),
            error=ReportedError(code=code, message=message),  # type: ignore[arg-type]  # read or refused by the model
            usage=usage,  # type: ignore[arg-type]  # read or refused by the model
            duration_ms=duration_ms,
        )
        return self.call(command, ExecutionView, traceparent=traceparent)
