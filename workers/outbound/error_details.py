"""Converts errors for answers, events and rows: a code, a line, the wrong fields; only storable characters."""

from __future__ import annotations

from dspex import ErrorCode, ErrorDetail
from dspex.contract.events import ProblemDetail
from dspex.errors import DspexError
from dspex.text import storable


def detail_of(error: DspexError) -> ErrorDetail:
    """The error for a row, an event or an answer."""
    problems = tuple(
        ProblemDetail(field=storable(problem.field), message=storable(problem.message))
        for problem in getattr(error, "problems", ())
    )
    return ErrorDetail(code=error.code, message=storable(error.message), problems=problems)


def internal(error: BaseException) -> ErrorDetail:
    """The detail of an unexpected error. It contains only the type, as the text may contain anything."""
    return ErrorDetail(code=ErrorCode.INTERNAL, message=f"{type(error).__name__}: see the worker's log")
