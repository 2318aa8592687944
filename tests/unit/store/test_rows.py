"""The columns of an execution and what is made of them: each list of columns is there once, and leaves none out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dspex import ErrorDetail, ExecutionOptions, Usage, uuid7
from dspex.contract.callback import Callback
from store.executions import Carried, Execution, Finish, Request, Retry
from store.executions.rows import REQUEST_COLUMNS, finish_row, request_row, retry_row
from store.tables import executions

COLUMNS = {column.name for column in executions.c}
NOT_READ = {
    *("policy", "lease_expires_at", "due_at", "deadline", "carried", "lost"),
    *("error_code", "input_tokens", "output_tokens", "cost"),
    *("lane", "group_key", "run_at"),
}
"""What statements alone look at."""
ERROR = ErrorDetail(code="timeout", message="no")


def test_every_column_is_read() -> None:
    assert {field.name for field in fields(Execution)} == (COLUMNS - NOT_READ) | {"extra_outputs"}  # kept in `outputs`


def test_what_is_written_are_columns() -> None:
    id_, callback = uuid7(), Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET")
    more: dict[str, Any] = {"metadata": {"order": "17"}, "extensions": {"partitionkey": "a"}}
    request = Request(id_, id_, {}, ExecutionOptions(), "/t", callback=callback, idempotency_key="once", **more)
    assert set(request_row(request)) == set(REQUEST_COLUMNS) <= COLUMNS
    bare = Request(id_, id_, {}, ExecutionOptions(), "/t")
    assert set(REQUEST_COLUMNS) - set(request_row(bare)) == {"metadata", "extensions"}
    ended = finish_row(Finish(id_, id_, 1, 1.5, Usage(), {"answer": "b"}))
    assert set(ended) <= COLUMNS
    assert list(finish_row(Finish(id_, id_, 1, None, Usage(), error=ERROR, cancelled=True))) == list(ended)
    retried = retry_row(Retry(id_, 1, 2.5, 1, ERROR, Usage(), Carried()))
    assert set(retried) - COLUMNS == {"delay"}
