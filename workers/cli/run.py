"""`dspex run`: a signature over rows of input, the whole way: create, initialize, execute, by messages and actors.

Every id is derived from content, so the same command run again asks for the same executions: those that have ended
are read, not run.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import pydantic
from pydantic_core import to_json
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from adapters.port import ProgramSpec
from dspex import (
    LM,
    Configuration,
    CreateProgram,
    CreateSignature,
    ExecuteProgram,
    ExecutionStatus,
    InitializeProgram,
    ProgramStatus,
    Signature,
)
from dspex.envelope import MAX_MESSAGE_BYTES
from dspex.errors import DspexError, NotFound, Problem, SettingsError
from dspex.ids import digest
from dspex.model import problems
from dspex.producer import Producer
from dspex.topology import EXECUTIONS_QUEUE
from store import executions, programs, rejections
from store.executions import Execution
from store.programs import Program
from workers.application import Application, bootstrap
from workers.brokers import amqp
from workers.cli.operator import operator_of
from workers.cli.output import json_line
from workers.cli.rows import Row, read_rows
from workers.cli.summary import SHOWN_PROBLEMS, Summary, show_problems
from workers.cli.worker import check_servers, configure_logging
from workers.policy import DEFAULT_TENANT
from workers.process import WorkerProcess
from workers.schema import unreachable
from workers.settings import Settings, load_settings

NAMESPACE = UUID("0d8f4f5a-33f7-5b7b-9a40-7c2b1f6f2e11")
SOURCE = "/dspex/run"
IN_FLIGHT = 256
POLL_SECONDS = 0.02
SILENCE_SECONDS = 15.0
PROGRAM_SECONDS = 120.0
INTERRUPTED = 130
ENVELOPE_BYTES = 512
"""More than a message has besides the inputs."""


@dataclass(frozen=True)
class RunOptions:
    """The options of the command, as its help describes them."""

    signature: str
    inputs_file: str | None
    pairs: tuple[str, ...]
    adapter_type: str
    module: str
    model: str | None
    output: Path | None
    expect: str | None
    retry_failed: bool
    with_worker: bool
    tenant: str | None = None


class RunFailed(DspexError):
    """The program could not be made, or nobody runs it."""

    code = "run_failed"


def run(options: RunOptions) -> int:
    """Run the command; returns its exit code.

    Raises:
        DspexError: wrong usage, a wrong setting, or a server that does not answer.
    """
    if options.inputs_file and options.pairs:
        raise SettingsError("--inputs and --input: give one of them")
    signature = load_signature(options.signature)
    if options.expect and options.expect not in {f.name for f in signature.outputs}:
        raise SettingsError(f"--expect: '{options.expect}' is not an output of the signature")
    if options.output and options.inputs_file and _same(options.output, Path(options.inputs_file)):
        raise SettingsError("--output: this is the file of --inputs, which it would overwrite: choose another")
    with _options_checked():
        configuration = Configuration(module=options.module, lm=LM(model=options.model) if options.model else None)
    settings = load_settings()
    configure_logging(settings)
    tenant = operator_of(settings, options.tenant).tenant
    check_servers(settings)
    console = Console(stderr=True)
    with _application(settings, options) as app, _output(options.output) as stream:
        session = Session(app, options, console, stream, tenant)
        try:
            session.prepare(ProgramSpec(options.adapter_type, signature, configuration))
            session.run(read_rows(signature, options.inputs_file, options.pairs))
        except KeyboardInterrupt:
            session.summary.show(console, "Interrupted")
            console.print("Run the same command again to go on.")
            return INTERRUPTED
    session.summary.show(console, signature.name)
    return 0 if session.summary.clean else 1


@contextmanager
def _options_checked() -> Generator[None]:
    """What a model of the contract refuses here came from an option of the same name."""
    try:
        yield
    except pydantic.ValidationError as error:
        lines = [f"--{p.field.removesuffix('_type')}: {p.message}" for p in problems(error)]
        raise SettingsError("\n".join(lines)) from None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def load_signature(text: str) -> Signature:
    """A signature from the arrow form, or from a JSON file.

    Raises:
        InvalidSignature: it is not one.
        SettingsError: there is no such file.
    """
    if "->" in text:
        return Signature.parse(text)
    try:
        data = json.loads(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"SIGNATURE: {text}: {error.strerror}; or write it as 'question -> answer'") from None
    except ValueError as error:
        raise SettingsError(f"SIGNATURE: {text} is not JSON: {error}") from None
    return Signature.parse(data)


@dataclass
class Session:
    """One run: sends commands, and collects the executions as they end."""

    app: Application
    options: RunOptions
    console: Console
    stream: TextIO
    tenant: str
    summary: Summary = field(default_factory=Summary)

    def __post_init__(self) -> None:
        self._producer = Producer(self.app.publisher, source=SOURCE, tenant=self.tenant)
        self._waiting: dict[UUID, Row] = {}
        self._occurrences: Counter[str] = Counter()
        self._signature: Signature | None = None
        self._program_id = UUID(int=0)
        self._news = time.monotonic()

    def prepare(self, spec: ProgramSpec) -> None:
        """Create and initialize the program, unless an earlier run has.

        Raises:
            RunFailed: the adapter cannot build it, or no worker answers.
        """
        self._signature = spec.signature
        signature = spec.signature.model_copy(update={"module": None})
        # An id is one tenant's, whoever else has the same signature.
        namespace = NAMESPACE if self.tenant == DEFAULT_TENANT else uuid.uuid5(NAMESPACE, self.tenant)
        signature_id = uuid.uuid5(namespace, digest(signature.model_dump(mode="json")))
        self._program_id = uuid.uuid5(signature_id, spec.backend_id)
        before = self._find_program()
        with _options_checked():
            commands = (
                CreateSignature(signature_id=signature_id, signature=signature),
                CreateProgram(
                    program_id=self._program_id,
                    signature_id=signature_id,
                    name=signature.name,
                    adapter_type=spec.adapter_type,
                    configuration=spec.configuration,
                ),
                InitializeProgram(program_id=self._program_id),
            )
        sent = [self._producer.send(command) for command in commands]
        self._wait_for_program(sent, before.lock_version if before else 0)

    def _wait_for_program(self, sent: Sequence[str], version_before: int) -> None:
        deadline = time.monotonic() + PROGRAM_SECONDS
        while time.monotonic() < deadline:
            program = self._find_program()
            with self._read() as connection:
                refused = [r for r in rejections.recent(connection, tenant=self.tenant) if r.message_id in sent]
            if refused:
                raise RunFailed(f"the program was rejected: {refused[0].error_message}")
            if program is not None and program.status == ProgramStatus.READY:
                return
            # An error of an earlier run is not the answer to this one.
            if program is not None and program.error is not None and program.lock_version > version_before + 1:
                raise RunFailed(f"the program cannot be built: {program.error.message}")
            time.sleep(POLL_SECONDS)
        raise RunFailed(f"the program was not initialized in {PROGRAM_SECONDS:.0f} s: see the workers' logs")

    def _find_program(self) -> Program | None:
        with self._read() as connection:
            try:
                return programs.get(connection, self._program_id, tenant=self.tenant)
            except NotFound:
                return None

    def run(self, rows: Iterable[Row]) -> None:
        """Run the rows; those that do not fit the signature are shown, the others run."""
        with self._progress() as progress:
            task = progress.add_task("", total=None)
            total = 0
            for chunk in _chunks(rows, IN_FLIGHT // 2):
                fitting = [row for row in chunk if not self._refuse(row)]
                total += len(fitting)
                progress.update(task, total=total, description=self._describe())
                self._send(fitting)
                while len(self._waiting) > IN_FLIGHT // 2:
                    self._collect()
                    progress.update(task, completed=total - len(self._waiting), description=self._describe())
            while self._waiting:
                self._collect()
                progress.update(task, completed=total - len(self._waiting), description=self._describe())

    def _refuse(self, row: Row) -> bool:
        problems = row.problems or self._too_large(row)
        if not problems:
            return False
        self.summary.invalid += 1
        if self.summary.invalid <= SHOWN_PROBLEMS:
            show_problems(self.console, row.line, problems)
        self._write({"line": row.line, "status": "invalid", "problems": [p._asdict() for p in problems]})
        return True

    def _too_large(self, row: Row) -> tuple[Problem, ...]:
        """A row that does not fit into a message: workers would reject it, and nobody would hear of it again."""
        allowed = min(self.app.settings.max_message_bytes, MAX_MESSAGE_BYTES) - ENVELOPE_BYTES
        size = len(to_json(row.inputs))
        return (Problem("", f"has {size} bytes; at most {allowed} fit into a message"),) if size > allowed else ()

    def _send(self, rows: Sequence[Row]) -> None:
        wanted = {self._id(row): row for row in rows}
        ended = {execution.id: execution for execution in self._ended(list(wanted))}
        for execution_id in [i for i in wanted if i in ended]:
            self.summary.earlier += 1
            self._take(wanted.pop(execution_id), ended[execution_id])
        self._waiting |= wanted
        self._producer.send_all(
            ExecuteProgram(execution_id=execution_id, program_id=self._program_id, inputs=row.inputs or {})
            for execution_id, row in wanted.items()
        )

    def _id(self, row: Row) -> UUID:
        """Of program, inputs, and how often these inputs came before: lines may be added anywhere."""
        content = digest(row.inputs)
        self._occurrences[content] += 1
        execution_id = uuid.uuid5(self._program_id, f"{content}/{self._occurrences[content]}")
        if not self.options.retry_failed:
            return execution_id
        for attempt in itertools.count(2):
            found = self._ended([execution_id])
            if not found or found[0].status != ExecutionStatus.FAILED:
                return execution_id
            execution_id = uuid.uuid5(execution_id, f"retry {attempt}")
        raise AssertionError

    def _collect(self) -> None:
        ended = self._ended(list(self._waiting))
        for execution in ended:
            self._take(self._waiting.pop(execution.id), execution)
        if ended:
            self._news = time.monotonic()
            return
        time.sleep(POLL_SECONDS)
        if time.monotonic() - self._news > SILENCE_SECONDS:
            self._news = time.monotonic()
            self._require_workers()

    def _require_workers(self) -> None:
        """Nothing has ended for a while: that is fine as long as somebody is at it."""
        url = self.app.settings.broker_url
        if not self.app.settings.embedded and not amqp.consumers(url, EXECUTIONS_QUEUE):
            raise RunFailed("no worker takes jobs any more: start one, and run the same command again to go on")

    def _ended(self, ids: Sequence[UUID]) -> list[Execution]:
        with self._read() as connection:
            return executions.ended(connection, ids, tenant=self.tenant)

    def _take(self, row: Row, execution: Execution) -> None:
        self.summary.add(execution)
        outputs = execution.outputs and self._in_order(execution.outputs)
        name = self.options.expect
        if name and name in row.other and outputs:
            self.summary.compare(row.other[name], outputs[name])
        error = execution.error.model_dump(mode="json", exclude_defaults=True) if execution.error else None
        self._write(
            {
                "line": row.line,
                "execution_id": str(execution.id),
                "status": execution.status,
                "inputs": row.inputs,
                **({"outputs": outputs} if outputs else {}),
                **({"error": error} if error else {}),
                "duration_ms": round(execution.duration_ms or 0.0, 3),
            }
        )

    def _in_order(self, outputs: dict[str, Any]) -> dict[str, Any]:
        fields = self._signature.outputs if self._signature else ()
        return {f.name: outputs[f.name] for f in fields if f.name in outputs}

    def _write(self, result: dict[str, Any]) -> None:
        self.stream.write(json_line(result) + "\n")
        self.stream.flush()

    def _describe(self) -> str:
        failed = self.summary.failed.total() + self.summary.invalid
        return f"{self.summary.completed} completed, {failed} failed"

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)

    @contextmanager
    def _read(self) -> Generator[Connection]:
        try:
            with self.app.read(self.tenant) as connection:
                yield connection
        except DBAPIError as error:
            raise unreachable(self.app.engine, error) from None


@contextmanager
def _application(settings: Settings, options: RunOptions) -> Generator[Application]:
    """The parts of this process; with the in-process broker, or when asked, it runs the jobs itself."""
    app = bootstrap(settings)
    worker = WorkerProcess(app) if settings.embedded or options.with_worker else None
    try:
        if worker is not None:
            worker.start()
        elif not amqp.consumers(settings.broker_url, EXECUTIONS_QUEUE):
            raise RunFailed("no worker takes jobs from RabbitMQ: start one with `dspex worker`, or add --with-worker")
        yield app
    finally:
        with _patient():
            if worker is not None:
                worker.stop(settings.shutdown_seconds)
            app.close()


@contextmanager
def _patient() -> Generator[None]:
    """While what runs is brought to its end, one Ctrl-C more is not an interruption."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _output(path: Path | None) -> Generator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with ExitStack() as opened:
        try:
            stream = opened.enter_context(path.open("w", encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"--output: {path}: {error.strerror}") from None
        yield stream


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
