"""The whole application in one process, on SQLite and in memory, with an adapter that does what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select

from adapters.mock.adapter import MockAdapter
from adapters.port import Outcome, ProgramSpec, RunOptions
from deploy.processes import wait_until
from dspex import (
    LM,
    Configuration,
    CreateProgram,
    CreateSignature,
    ExecuteProgram,
    ExecutionOptions,
    InitializeProgram,
    ProgramError,
    ProgramReady,
    Signature,
    decode_event,
    uuid7,
)
from dspex.contract.commands import Command
from dspex.contract.envelope import Envelope
from dspex.contract.events import Event
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import NotFound
from dspex.producer import Producer
from store import executions, programs, rejections
from store.executions import Execution, Lease, Request
from store.programs import Program
from store.rejections import RecordedRejection
from store.tables import event_outbox as event_outbox_table
from workers.application.wiring import Application, bootstrap
from workers.brokers.memory import MemoryBroker, MemoryPublisher
from workers.process.worker import WorkerProcess
from workers.settings import Settings

PATIENCE = 30.0

Kind = TypeVar("Kind", bound=Event)


class Scripted(MockAdapter):
    """An adapter, `scripted`, that does what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Callable[[Mapping[str, Any]], Outcome] = lambda inputs: Outcome({"answer": inputs["question"]})
        self.build: Callable[[], None] = lambda: None
        self.runs: list[Mapping[str, Any]] = []
        self.options: list[RunOptions] = []

    def create_program(self, spec: ProgramSpec) -> str:
        self.build()
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        self.runs.append(inputs)
        self.options.append(options)
        return self.run(inputs)


class System:
    """An application and its worker, with every event that it sent."""

    def __init__(self, settings: Settings) -> None:
        self.app: Application = bootstrap(settings)
        self.scripted = Scripted()
        self.app.adapters._adapters["scripted"] = self.scripted
        self.producer = Producer(self.app.publisher, source="/tests")
        self.events: list[Envelope[Event]] = []
        assert isinstance(self.app.publisher, MemoryPublisher)
        self.app.publisher.listen(lambda _, body: self.events.append(decode_event(body, 1 << 30)))
        self.process = WorkerProcess(self.app)
        self._stopped = False

    def start(self) -> None:
        self.process.start()

    def stop(self, seconds: float = PATIENCE) -> None:
        if not self._stopped:
            self._stopped = True
            self.process.stop(seconds)
            self.app.close()

    @property
    def broker(self) -> MemoryBroker:
        assert isinstance(self.app.broker, MemoryBroker)
        return self.app.broker

    def send(self, command: Command, traceparent: str | None = None) -> str:
        return self.producer.send(command, traceparent=traceparent)

    def events_of(self, kind: type[Kind], subject: UUID | str | None = None) -> list[Envelope[Kind]]:
        found: list[Envelope[Any]] = [event for event in self.events if isinstance(event.data, kind)]
        return [event for event in found if subject is None or event.subject == str(subject)]

    def event(self, kind: type[Kind], subject: UUID | str | None = None) -> Envelope[Kind]:
        """The first event of this kind about this, once it is there."""
        assert wait_until(lambda: bool(self.events_of(kind, subject)), PATIENCE), self.events
        return self.events_of(kind, subject)[0]

    def program(
        self,
        signature: str = "question -> answer",
        *,
        adapter: str = "mock",
        initialize: bool = True,
        parameters: dict[str, Any] | None = None,
        policy: ExecutionPolicy | None = None,
        lm: LM | None = None,
    ) -> UUID:
        signature_id, program_id = uuid7(), uuid7()
        self.send(CreateSignature(signature_id=signature_id, signature=Signature.parse(signature)))
        configuration = Configuration(parameters=parameters or {}, lm=lm)
        self.send(
            CreateProgram(
                program_id=program_id,
                signature_id=signature_id,
                name="program",
                adapter_type=adapter,
                configuration=configuration,
                policy=policy,
            )
        )
        if initialize:
            self.send(InitializeProgram(program_id=program_id))
            assert wait_until(
                lambda: bool(self.events_of(ProgramReady, program_id) or self.events_of(ProgramError, program_id)),
                PATIENCE,
            )
        else:
            assert wait_until(lambda: self.find_program(program_id) is not None, PATIENCE)
        return program_id

    def execute(
        self,
        program_id: UUID,
        execution_id: UUID | None = None,
        *,
        options: ExecutionOptions | None = None,
        idempotency_key: str | None = None,
        **inputs: Any,
    ) -> UUID:
        execution_id = execution_id or uuid7()
        self.send(
            ExecuteProgram(
                execution_id=execution_id,
                program_id=program_id,
                inputs=inputs,
                options=options or ExecutionOptions(),
                idempotency_key=idempotency_key,
            )
        )
        return execution_id

    def request(self, program_id: UUID, execution_id: UUID, **inputs: Any) -> Request:
        """What `execute` asks for, as the store takes it."""
        return Request(execution_id, program_id, inputs, ExecutionOptions(), "/tests")

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        assert wait_until(lambda: bool(condition()), PATIENCE)

    def unsent(self) -> set[UUID]:
        """The executions whose event is not confirmed yet."""
        with self.app.engine.connect() as connection:
            return set(connection.execute(select(event_outbox_table.c.execution_id)).scalars())

    def find_program(self, program_id: UUID) -> Program | None:
        with self.app.engine.connect() as connection:
            try:
                return programs.get(connection, program_id)
            except NotFound:
                return None

    def row(self, execution_id: UUID) -> Execution | None:
        with self.app.engine.connect() as connection:
            return next(iter(executions.get(connection, [execution_id])), None)

    def ended(self, execution_id: UUID) -> Execution:
        """The row, once it is terminal."""

        def terminal() -> bool:
            row = self.row(execution_id)
            return row is not None and row.status.terminal

        assert wait_until(terminal, PATIENCE), self.row(execution_id)
        row = self.row(execution_id)
        assert row is not None
        return row

    def rejected(self) -> list[RecordedRejection]:
        with self.app.engine.connect() as connection:
            return list(rejections.page(connection).items)

    def lose(self, request: Request) -> None:
        """Claim an execution for a worker that is then never heard of again."""
        with self.app.engine.begin() as connection:
            executions.claim(connection, Lease("lost", 0.01), [request], now=[True])
