"""Classifies database errors: errors of the data are reported to the caller, errors of the database are retried.

An error of the database, or of our own, says nothing about the request: it rejects no message and fails no execution.
SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html, https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Cause(Enum):
    """Why a database operation failed."""

    AWAY = auto()
    """The database is unreachable, read-only, full or shutting down; or concurrent transactions conflicted."""
    BLOCKED = auto()
    """This statement failed for another session's lock or a time limit. Others may succeed."""
    UNFIT = auto()
    """A table, a column or a privilege is missing: an unfinished migration, a forgotten grant."""
    DATA = auto()
    """The data is at fault. A retry would fail again."""


_STATES: Final[tuple[tuple[str, Cause], ...]] = (
    ("55P03", Cause.BLOCKED),  # lock_timeout
    ("42P05", Cause.AWAY),  # prepared statements or plans of another session, or from before a migration
    ("26", Cause.AWAY),
    ("0A000", Cause.AWAY),
    ("57014", Cause.BLOCKED),  # statement_timeout, or cancelled by hand
    ("08", Cause.AWAY),  # connection
    ("25", Cause.AWAY),  # read-only; the session waited too long in a transaction
    ("28", Cause.AWAY),  # login
    ("3D", Cause.AWAY),  # no such database
    ("40", Cause.AWAY),  # deadlock, serialization
    ("53", Cause.AWAY),  # resources
    ("55", Cause.BLOCKED),  # not in a state to do it
    ("57", Cause.AWAY),  # shut down, starting up
    ("58", Cause.AWAY),  # input and output
    ("F0", Cause.AWAY),  # configuration
    ("XX", Cause.BLOCKED),  # internal error, such as a broken index
    ("3F", Cause.UNFIT),  # no such schema
    ("42", Cause.UNFIT),  # no such table, column, function; no privilege; wrong types
)
"""The first prefix that a SQLSTATE has counts. All others are errors of the data: 21, 22, 23, 44, 54."""

# PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, SCHEMA, AUTH, NOTADB
_SQLITE_AWAY: Final = frozenset({3, 5, 6, 7, 8, 10, 11, 13, 14, 15, 17, 23, 26})
_SQLITE_UNFIT: Final = ("no such table", "no such column", "no such function", "has no column named", "has no column")

_VALUES: Final = ("21", "22", "23", "44", "54", "P0")
"""Classes of errors whose first line may already quote a value."""


def cause_of(error: BaseException) -> Cause | None:
    """The cause of a database error; None for any other error."""
    if isinstance(error, PoolTimeout):
        return Cause.AWAY
    if not isinstance(error, DBAPIError):
        return None
    if error.connection_invalidated:
        return Cause.AWAY
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        if sqlite_code & 0xFF in _SQLITE_AWAY:
            return Cause.AWAY
        return Cause.UNFIT if any(text in str(error.orig) for text in _SQLITE_UNFIT) else Cause.DATA
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return next((cause for prefix, cause in _STATES if str(state).startswith(prefix)), Cause.DATA)
    return Cause.AWAY if isinstance(error, OperationalError | InterfaceError | InternalError) else Cause.DATA


def passing(error: BaseException) -> bool:
    """Whether it is a database error to retry, because the request is not at fault."""
    return cause_of(error) not in (None, Cause.DATA)


def describe(error: BaseException) -> str:
    """A database error in one line, without the statement, its parameters, or values that PostgreSQL quotes."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return _text(cause)


def _text(error: BaseException) -> str:
    state, name = getattr(error, "sqlstate", None), type(error).__name__
    if state is None:
        return " ".join(str(error).split())[:300] or name
    if str(state).startswith(_VALUES):
        return f"{name} (SQLSTATE {state}){_of(error)}"
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    first = (primary or str(error)).splitlines()
    return " ".join(first[0].split())[:300] if first else name


def _of(error: Any) -> str:
    diag = getattr(error, "diag", None)
    named = (getattr(diag, f"{kind}_name", None) for kind in ("table", "column", "constraint"))
    where = ", ".join(name for name in named if name)
    return f" at {where}" if where else ""


def without_values(context: ExceptionContext) -> None:
    """For an engine's `handle_error`: removes the values that PostgreSQL quotes in errors, before they are logged.

    DETAIL quotes whole rows ("Failing row contains …"), CONTEXT the beginning of a parameter.
    """
    original, wrapped = context.original_exception, context.sqlalchemy_exception
    if getattr(original, "sqlstate", None) is None:
        return
    text = _text(original)
    original.args = (text,)
    if wrapped is not None:
        wrapped.args = (f"({type(original).__module__}.{type(original).__name__}) {text}",)
