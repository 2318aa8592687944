"""Writes the SQL of the hot path, the relay, the deliverer and operators: `python -m deploy.sql docs/sql`.

It calls each function of the store with a connection without a database, which records the statements and returns
prepared results. So the text is that of a worker, except that PostgreSQL's driver numbers the parameters, and that a
list of parameters has a length.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg

from deploy.sql_calls import END, ENDPOINT, ENTRY, FINISH, ID, LEASE, REQUEST, RETRY, ROW, WAITS, Call, Statement
from deploy.sql_deliverer import DELIVERER
from deploy.sql_operators import OPERATORS
from deploy.sql_queues import QUEUES
from dspex import Usage
from store import counters, event_outbox, executions, webhooks
from store.counters import Counts
from store.executions import Finish, Trace, blobs, external, traces
from store.executions.waiting import wait_no_more
from store.queues.keys import QueueKey

DIALECTS: dict[str, Callable[[], Dialect]] = {"postgresql": psycopg.dialect, "sqlite": sqlite.dialect}
WIDTH = 110

HEAD = """\
-- The statements of the hot path on {database}, of what looks after it, of the deliverer, and of operators.
-- Written by `make sql`, out of the code: a test holds it to that.
-- A parameter `records` is a JSON array, with an object for each row of the batch.
"""


KEY, PROGRAM, PENDING = "pk_executions", "pk_programs", "ix_executions_pending"
OUTBOX, TRACES = "pk_event_outbox", "pk_execution_traces"
COUNTERS = ("pk_program_counters", "pk_program_durations")

WITHOUT_KEY = replace(REQUEST, idempotency_key=None)
ACCEPTED = SimpleNamespace(id=ID.id, tenant=ID.tenant, status="pending")
CLAIM = Statement("claim", "for each batch of messages", (KEY, PROGRAM))
WHY = Statement("why not claimed", "where some of the batch are there already, or have no program", (KEY,))
OFFERED = (
    Statement("count moves", "where executions begin to wait", (), only="sqlite"),
    Statement(
        "offer",
        "where executions begin to wait: it locks their queues. PostgreSQL counts them in the same statement",
        ("pk_queues",),
        (WAITS,),
    ),
    Statement("wake", "where a queue became ready", (), only="postgresql"),
)

CALLS = (
    Call(
        executions.claim,
        (LEASE, [REQUEST]),
        (
            Statement(
                "take keys",
                "before a claim, where a request of the batch has an idempotency key",
                ("pk_idempotency_keys",),
                (SimpleNamespace(tenant=ID.tenant, key="key", execution_id=ID.id, request_digest=REQUEST.digest),),
            ),
            CLAIM,
            WHY,
            Statement("adopt these", "after that: what a worker from before queues has left of them", (KEY,)),
            Statement("give back keys", "where no execution came of an idempotency key", ("pk_idempotency_keys",)),
        ),
        {"now": [True]},
    ),
    Call(
        executions.claim,
        (LEASE, [WITHOUT_KEY]),
        (CLAIM._replace(answer=(ACCEPTED,)), *OFFERED),
        {"now": [False]},
    ),
    Call(
        executions.claim_alone,
        (LEASE, [WITHOUT_KEY]),
        (
            Statement("claim alone", "for an execution that is to run alone in its process", (KEY, PROGRAM)),
            WHY,
        ),
    ),
    Call(
        wait_no_more,
        ([QueueKey(ID.tenant, ID.id, 1)],),
        (Statement("count moves", "where executions wait no more: after a choice, `claim alone` and `cancel`", ()),),
    ),
    Call(
        executions.finish_and_read,
        (0, [FINISH]),
        (
            Statement(
                "finish",
                "for each batch of ends. PostgreSQL counts them and adds their events to the outbox by the same",
                (KEY, OUTBOX, *COUNTERS, "ix_webhook_endpoints_registered"),
            ),
            Statement("committed before", "where some of a batch were not as they were claimed", (KEY,)),
        ),
    ),
    Call(
        executions.finish_and_read,
        (0, [Finish(ID.id, ID.id, 1, 1.0, Usage(), {}, answered=True)]),
        (
            Statement(
                "finish and read",
                "instead of `finish`, where somebody waits for an answer of the batch",
                (KEY, OUTBOX, *COUNTERS, "ix_webhook_endpoints_registered"),
            ),
            Statement("committed before", "as above", (KEY,)),
        ),
    ),
    Call(
        counters.increment,
        (0, {ID: Counts(durations={1: 1})}),
        (
            Statement(
                "count",
                "after `finish`, in its transaction: on SQLite each time, on PostgreSQL where another has changed a "
                "row of the shard meanwhile. PostgreSQL counts the durations in the same statement",
                COUNTERS,
                (SimpleNamespace(program_id=ID.id, tenant=ID.tenant),),
            ),
            Statement("count durations", "after `count`", COUNTERS[1:], only="sqlite"),
        ),
    ),
    Call(
        traces.keep,
        ([replace(FINISH, trace=Trace(1, []))],),
        (
            Statement(
                "keep traces", "after `finish` or `retry`, in its transaction, where one was asked for", (TRACES, KEY)
            ),
        ),
    ),
    Call(
        blobs.keep,
        ({ID: ["sha256:0"]},),
        (
            Statement(
                "keep blobs",
                "after `claim` or `finish`, in its transaction, where values are in the blob store",
                ("pk_blob_references", KEY),
            ),
        ),
    ),
    Call(
        event_outbox.add,
        ([ENTRY], 30.0),
        (Statement("add events", "where one is cancelled; on SQLite after each `count`", (OUTBOX,)),),
    ),
    Call(
        webhooks.fan_out,
        ([END], 0.0),
        (
            Statement(
                "find endpoints",
                "after all that, in its transaction, where an end is pushed somewhere",
                ("pk_webhook_endpoints", "ix_webhook_endpoints_registered"),
            ),
            Statement("keep endpoints", "for callbacks that come for the first time", ("pk_webhook_endpoints",)),
            Statement("find endpoints", "as above", ("pk_webhook_endpoints",), (ENDPOINT,)),
            Statement(
                "add deliveries",
                "after that",
                ("ix_webhook_deliveries_end", "ix_webhook_deliveries_due", "ix_webhook_deliveries_place"),
            ),
        ),
    ),
    Call(
        executions.retry,
        ([RETRY],),
        (
            Statement("retry", "for each batch of attempts after which there is another", (KEY,)),
            Statement("committed before", "as above", (KEY,)),
        ),
    ),
    Call(
        event_outbox.sent,
        ([ENTRY],),
        (Statement("events sent", "for each batch of ends that the broker has confirmed", (OUTBOX,)),),
    ),
    Call(
        executions.heartbeat,
        (LEASE, [ID]),
        (Statement("heartbeat", "every third of a lease, for what the process runs", ("ix_executions_running",)),),
    ),
    Call(
        executions.release,
        (LEASE, [ID]),
        (Statement("release", "when a worker drains, or gives back what it has claimed", (KEY,)),),
    ),
    Call(
        executions.anything_due,
        (),
        (
            Statement(
                "anything due",
                "by the relay, all the time: it locks nothing",
                ("ix_executions_pending", "ix_executions_running"),
            ),
        ),
    ),
    Call(
        executions.rescue,
        (100,),
        (
            Statement("find lost", "by the relay, where something is due", ("ix_executions_running",), (ROW,)),
            Statement("rescue", "for those whose worker is gone: they wait in their queues", (KEY,), (WAITS,)),
            *OFFERED,
        ),
    ),
    Call(
        executions.adopt,
        (100,),
        (
            Statement("adopt", "by the relay, for what workers from before queues have left", (KEY, PENDING)),
            Statement("adopt by lease", "the same, for those from before 0004", (KEY, PENDING)),
        ),
    ),
    Call(
        external.anything_expired,
        (),
        (
            Statement(
                "any lease of a service expired",
                "by the relay, three times a lease: it locks nothing",
                ("ix_executions_running",),
            ),
        ),
    ),
    Call(
        external.end_expired,
        (0, 100),
        (Statement("find expired", "where there is one; they are ended as by `finish`", ("ix_executions_running",)),),
    ),
    Call(
        event_outbox.anything_due,
        (),
        (Statement("any event due", "by the relay, three times a lease; the table is small", ()),),
    ),
    Call(
        event_outbox.due,
        (30.0, 100),
        (Statement("events due", "by the relay, where an event is due; the table is small", (OUTBOX,)),),
    ),
    Call(
        executions.of_all_tenants,
        ([ID],),
        (Statement("read ended", "for those whose events are due", (KEY,)),),
    ),
)

ALL_CALLS = (*CALLS, *QUEUES, *DELIVERER, *OPERATORS)


class _Answer:
    """The prepared result of a statement."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self.rowcount = len(rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return list(self._rows)

    def scalars(self) -> _Answer:
        return _Answer([row[0] if isinstance(row, tuple) else row.id for row in self._rows])

    def one(self) -> Any:
        return self._rows[0]

    def one_or_none(self) -> Any:
        return next(iter(self._rows), None)

    def scalar_one(self) -> Any:
        return next(iter(self.scalars()), 0)

    @property
    def returns_rows(self) -> bool:
        return True


class _Noting:
    """A connection without a database, which records the text of each statement. It is also that of the driver."""

    def __init__(self, dialect: Dialect, answers: Iterable[Sequence[Any]]) -> None:
        self.dialect = dialect
        self.texts: list[str] = []
        self._answers = iter(answers)
        self.connection = self.dbapi_connection = self
        self.info: dict[str, Any] = {}
        self.dispatch = SimpleNamespace(before_cursor_execute=())

    def in_transaction(self) -> bool:
        return True

    def cursor(self, **_how: Any) -> SimpleNamespace:
        made = SimpleNamespace(pgresult=SimpleNamespace(nfields=1))

        def execute(text: str, _parameters: Any) -> None:
            made.fetchall = self.exec_driver_sql(text).all

        made.execute = execute
        return made

    def execute(self, statement: Any, _parameters: Any = None) -> _Answer:
        return self.exec_driver_sql(str(statement.compile(dialect=self.dialect)))

    def exec_driver_sql(self, text: str, _parameters: Any = None) -> _Answer:
        self.texts.append(text)
        return _Answer(next(self._answers, ()))


class Seen(NamedTuple):
    """A statement and its text."""

    told: Statement
    function: Callable[..., Any]
    text: str


def statements(database: str) -> list[Seen]:
    """Every statement; each text once. `database`: one of `DIALECTS`."""
    seen: dict[str, Seen] = {}
    for call in ALL_CALLS:
        told = [one for one in call.statements if one.only in (None, database)]
        connection = _Noting(DIALECTS[database](), (one.answer for one in told))
        call.function(cast("Connection", connection), *call.arguments, **call.options)
        if len(connection.texts) != len(told):
            raise ValueError(f"{call.function.__qualname__}: {len(connection.texts)} statements on {database}, {told}")
        for one, text in zip(told, connection.texts, strict=True):
            seen.setdefault(text, Seen(one, call.function, text))
    return list(seen.values())


def document(database: str) -> str:
    """The document for a database."""
    parts = [HEAD.format(database=database)]
    for told, function, text in statements(database):
        module = function.__module__
        needs = ", ".join(told.needs) or "none"
        parts.append(
            f"\n-- {told.name}\n"
            f"--   function: {module}.{function.__name__} ({module.replace('.', '/')}.py)\n"
            + textwrap.fill(f"runs: {told.runs}", WIDTH, initial_indent="--   ", subsequent_indent="--     ")
            + f"\n--   needs: {needs}\n{wrapped(text)};\n"
        )
    return "".join(parts)


_CLAUSE = re.compile(
    r"(?<!DO UPDATE)(?<!EPOCH) "
    r"(?=(?:SELECT|FROM|JOIN|WHERE|ORDER BY|LIMIT|FOR UPDATE|SET|ON CONFLICT|RETURNING) )"
)
_LIST = re.compile(r"\(__\[POSTCOMPILE_\w+\]\)")


def wrapped(text: str) -> str:
    """The text with a line for each clause. Changes only white space, and shortens a list of parameters to `(...)`."""
    text = _CLAUSE.sub("\n", " ".join(_LIST.sub("(...)", text).split()))
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Write the SQL as text.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for database in DIALECTS:
        (folder / f"{database}.sql").write_text(document(database), encoding="utf-8")


if __name__ == "__main__":
    main()
