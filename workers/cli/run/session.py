"""One run: sends the executions that have not run, and collects them as they end."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from rich.console import Console
from sqlalchemy import Engine

from dspex import ExecuteProgram
from dspex.blobs import BlobStore
from dspex.blobs.values import BLOBS, offloaded, whole
from dspex.cached import cached
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.errors import DspexError, Problem
from dspex.producer import Producer
from store import executions
from store.executions import Result
from workers.application.blobs import open_blobs
from workers.cli.inputs.reading import Inputs
from workers.cli.inputs.rows import Row
from workers.cli.output import cell
from workers.cli.run.crew import Crew
from workers.cli.run.ids import Ids
from workers.cli.run.options import RunFailed, RunOptions
from workers.cli.run.order import InOrder
from workers.cli.run.program import POLL_SECONDS, SOURCE, RunProgram
from workers.cli.run.progress import Shown
from workers.cli.run.reading import reading
from workers.cli.run.results import Results
from workers.cli.run.stop import Stop
from workers.cli.run.subject import Subject
from workers.cli.summary import SHOWN_PROBLEMS, Program, Summary, show_problems

logger = logging.getLogger(__name__)

IN_FLIGHT = 256
CHUNK = 512
"""How many rows are read and looked up at a time."""
SILENCE_SECONDS = 15.0
ENVELOPE_BYTES = 512
"""An upper limit for the size of a message without its inputs."""


class Session:
    """The rows of one run.

    Attributes:
        summary: the outcomes so far.
    """

    def __init__(
        self,
        engine: Engine,
        crew: Crew,
        options: RunOptions,
        console: Console,
        results: Results,
        stop: Stop,
        tenant: str,
    ) -> None:
        self.options = options
        self.summary = Summary()
        self._engine = engine
        self._crew = crew
        self._console = console
        self._results = results
        self._stop = stop
        self._tenant = tenant
        self._order = InOrder(results.write, ordered=not options.unordered)
        self._producer: Producer | None = None
        self._places = itertools.count()
        self._waiting: dict[UUID, tuple[int, Row]] = {}
        self._told: dict[str, Any] = {}
        self._outputs: Sequence[str] = ()
        self._news = time.monotonic()
        self._ids: Ids | None = None

    def prepare(self, subject: Subject) -> None:
        """Make the program ready. If it is ready from an earlier run, this is deferred until there is something to run.

        Raises:
            SettingsError: an option is invalid.
            RunFailed: the adapter cannot build it, or no worker answers.
        """
        spec = subject.spec
        self._program = RunProgram(subject, self._tenant)
        with self._stop.anywhere():
            ready = self._program.was_ready(self._engine)
        if not ready:
            self._begin()
        elif self._crew.runs_here:
            self._program.check_lm(self._crew.settings)
        lm = spec.configuration.lm
        model = None if lm is None else lm.model
        program_id = self._program.id
        self._told = {
            "program_id": str(program_id),
            "adapter": spec.adapter_type,
            "module": spec.configuration.module,
            "model": model,
        }
        self.summary.program = Program(str(program_id), spec.adapter_type, spec.configuration.module, model)
        self._outputs = [f.name for f in spec.signature.outputs]
        self._ids = Ids(self._program.namespace, self._ended, retry_failed=self.options.retry_failed)

    def _begin(self) -> Producer:
        """Make sure that a worker runs the executions."""
        if self._producer is None:
            app = self._crew.begin()
            with self._stop.anywhere():
                self._program.prepare(app, runs_here=self._crew.runs_here)
            self._producer = Producer(app.publisher, source=SOURCE, tenant=self._tenant)
        return self._producer

    def run(self, inputs: Inputs) -> None:
        """Run the rows. Those that do not fit the signature are shown; the others run."""
        self._shown = Shown(self._console, self.summary, inputs)
        self._news = time.monotonic()
        with self._shown.shown():
            for chunk in self._chunks(inputs):
                places = [(next(self._places), row) for row in chunk]
                self._send([(place, row) for place, row in places if not self._refuse(place, row, row.problems)])
                self._results.flush()
                self._shown.update()
            self._collect_all()

    def settle(self) -> None:
        """Collect the executions that have ended meanwhile, and write all held results."""
        if self._ids is not None:
            self._ids.close()
        try:
            if self._waiting:
                self._take_ended()
        except DspexError as error:
            logger.warning("What ended last is not among the results: %s", error)
        self._order.flush()

    def _chunks(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        iterator, failed = iter(rows), None
        while failed is None:
            chunk: list[Row] = []
            try:
                with self._stop.anywhere():
                    chunk.extend(itertools.islice(iterator, CHUNK))
            except DspexError as error:
                failed = error
            if chunk:
                yield chunk
            elif failed is None:
                return
        self._collect_all()  # the rows before the error still run
        raise failed

    def _refuse(self, place: int, row: Row, problems: Sequence[Problem]) -> bool:
        if not problems:
            return False
        self.summary.invalid += 1
        if self.summary.invalid <= SHOWN_PROBLEMS:
            show_problems(self._console, row.line, problems)
        self._put(
            place,
            {
                "line": row.line,
                "status": "invalid",
                **({"columns": row.columns} if row.columns else {}),
                "problems": [p._asdict() for p in problems],
            },
        )
        return True

    @cached
    def _blobs(self) -> BlobStore | None:
        return open_blobs(self._crew.settings)

    def _offloaded(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs as they are sent: large ones are in the blob store, if there is one."""
        if self._blobs is None:
            return inputs
        return offloaded(inputs, self._blobs, tenant=self._tenant, threshold=self._crew.settings.blob_threshold)

    def _whole(self, outputs: dict[str, Any]) -> dict[str, Any]:
        try:
            return whole(outputs, self._blobs, tenant=self._tenant)
        except DspexError as error:
            logger.warning("Outputs are left as their blobs: %s", error)
            return outputs

    def _too_large(self, inputs: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Check that inputs fit into a message: workers would reject it, and the run would wait for ever."""
        allowed = min(self._crew.settings.max_message_bytes, MAX_MESSAGE_BYTES) - ENVELOPE_BYTES
        size = len(to_json(inputs))
        text = f"has {size} bytes; at most {allowed} fit into a message: set DSPEX_BLOBS, where large values go"
        return (Problem("", text),) if size > allowed else ()

    def _send(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Send the rows that have not run, and take the results of the others."""
        if self._ids is None or not rows:
            return
        ids, ended = self._ids.of([row.inputs or {} for _, row in rows])
        new = []
        for execution_id, (place, row) in zip(ids, rows, strict=True):
            if execution_id in ended:
                self.summary.earlier += 1
                self._take(place, row, ended[execution_id])
            else:
                inputs = self._offloaded(row.inputs or {})
                if not self._refuse(place, row, self._too_large(inputs)):
                    new.append((execution_id, (place, row, inputs)))
        for start in range(0, len(new), IN_FLIGHT // 2):
            while len(self._waiting) > IN_FLIGHT // 2 or (self._order.full and self._waiting):
                self._collect()
            self._stop.check()
            producer = self._begin()
            some = dict(new[start : start + IN_FLIGHT // 2])
            self._waiting |= {execution_id: (place, row) for execution_id, (place, row, _) in some.items()}
            producer.send_all(
                ExecuteProgram(execution_id=execution_id, program_id=self._program.id, inputs=dict(inputs))
                for execution_id, (_, _, inputs) in some.items()
            )

    def _collect_all(self) -> None:
        while self._waiting:
            self._collect()

    def _collect(self) -> None:
        self._stop.check()
        if self._take_ended():
            self._news = time.monotonic()
        else:
            time.sleep(POLL_SECONDS)
            if time.monotonic() - self._news > SILENCE_SECONDS:
                self._news = time.monotonic()
                self._look_why()
        self._shown.update()

    def _take_ended(self) -> int:
        ended = self._ended(list(self._waiting))
        for result in ended:
            self._take(*self._waiting.pop(result.id), result)
        if ended:
            self._results.flush()
        return len(ended)

    def _look_why(self) -> None:
        """Nothing has ended for a while: check that a worker still takes jobs, and show why executions wait."""
        if not self._crew.somebody_works():
            raise RunFailed("no worker takes jobs any more: start one, and run the same command again to go on")
        some = list(itertools.islice(self._waiting, 100))
        with reading(self._engine, self._tenant) as connection:
            found = executions.get(connection, some, tenant=self._tenant)
        reasons = Counter(f"{found.error.code}: {found.error.message}" for found in found if found.error is not None)
        for reason, number in reasons.most_common(1):
            text = f"{number} of {len(some)} wait for another attempt: {reason}"
            self._console.print(cell(text), style="yellow", highlight=False, soft_wrap=True)

    def _ended(self, ids: Sequence[UUID]) -> list[Result]:
        with reading(self._engine, self._tenant) as connection:
            return executions.results(connection, ids, tenant=self._tenant)

    def _take(self, place: int, row: Row, result: Result) -> None:
        self.summary.add(result)
        outputs = result.outputs and self._in_order(self._whole(result.outputs))
        name = self.options.expect
        if name and name in row.other and outputs and name in outputs:
            self.summary.compare(row.other[name], outputs[name])
        usage = result.usage or {}
        self._put(
            place,
            {
                "line": row.line,
                "execution_id": str(result.id),
                "status": result.status,
                **({"columns": row.columns} if row.columns else {}),
                "inputs": row.inputs,
                **({"outputs": outputs} if outputs else {}),
                **({"extra_outputs": dict(result.extra_outputs)} if result.extra_outputs else {}),
                **({"error": result.error} if result.error else {}),
                "usage": {
                    "calls": usage.get("calls"),
                    "input_tokens": usage.get("input_tokens"),
                    "output_tokens": usage.get("output_tokens"),
                    "cost": usage.get("cost"),
                },
                "duration_ms": round(result.duration_ms or 0.0, 3),
                **self._told,
            },
        )

    def _put(self, place: int, result: Mapping[str, Any]) -> None:
        self._order.put(place, self._results.line(dict(result)))

    def _in_order(self, outputs: dict[str, Any]) -> dict[str, Any]:
        if list(outputs) == self._outputs:
            return outputs
        return {name: outputs[name] for name in (*self._outputs, BLOBS) if name in outputs}
