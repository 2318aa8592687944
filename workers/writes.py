"""What this process writes to the store, as the writer's operations: each takes a batch and answers for each item."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from dspex import CreateProgram, CreateSignature, ErrorDetail
from store import executions, programs, rejections, signatures
from store.executions import Claim, Finish, Lease, Request
from store.programs import Program
from store.rejections import Rejection

RESCUE_LIMIT = 100


@dataclass(frozen=True)
class Writes:
    """Every write of a worker process: who it is (`lease`) and where it counts (`shard`)."""

    lease: Lease
    shard: int

    def claim(self, connection: Connection, requests: Sequence[Request]) -> list[Claim]:
        """Claim executions."""
        return executions.claim(connection, self.lease, requests)

    def finish(self, connection: Connection, finishes: Sequence[Finish]) -> list[bool]:
        """End executions, and count them."""
        return executions.finish(connection, self.shard, finishes)

    def heartbeat(self, connection: Connection, running: Sequence[Collection[UUID]]) -> list[int]:
        """Extend the leases of what this process runs."""
        return [executions.heartbeat(connection, self.lease, ids) for ids in running]

    def release(self, connection: Connection, items: Sequence[None]) -> list[int]:
        """Give back all that this process runs."""
        return [executions.release(connection, self.lease)] * len(items)

    def rescue(self, connection: Connection, items: Sequence[None]) -> list[list[Request]]:
        """Take what nobody has heard of for a lease."""
        return [executions.rescue(connection, self.lease.seconds, RESCUE_LIMIT) for _ in items]

    def create_signature(self, connection: Connection, commands: Sequence[CreateSignature]) -> list[None]:
        """Create signatures."""
        for command in commands:
            signatures.create(connection, command.signature_id, command.signature, activate=command.activate)
        return [None] * len(commands)

    def create_program(self, connection: Connection, commands: Sequence[CreateProgram]) -> list[None]:
        """Create programs."""
        for command in commands:
            programs.create(
                connection,
                command.program_id,
                name=command.name,
                signature_id=command.signature_id,
                adapter_type=command.adapter_type,
                configuration=command.configuration,
            )
        return [None] * len(commands)

    def get_program(self, connection: Connection, ids: Sequence[UUID]) -> list[Program]:
        """Read programs: here too, so that the read waits for a database that is away."""
        return [programs.get(connection, program_id) for program_id in ids]

    def begin_initialize(self, connection: Connection, ids: Sequence[UUID]) -> list[Program]:
        """The first step of initializing programs."""
        return [programs.begin_initialize(connection, program_id) for program_id in ids]

    def end_initialize(
        self, connection: Connection, results: Sequence[tuple[Program, str | ErrorDetail]]
    ) -> list[Program | None]:
        """The second step."""
        return [programs.end_initialize(connection, begun, result) for begun, result in results]

    def reject(self, connection: Connection, rejected: Sequence[Rejection]) -> list[None]:
        """Record rejected messages."""
        for rejection in rejected:
            rejections.record(connection, rejection)
        return [None] * len(rejected)
