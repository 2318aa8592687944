"""Logs uncaught exceptions. Python would print them raw, with text from outside in them."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Generator
from types import TracebackType


def log_uncaught() -> None:
    """Log uncaught exceptions of every thread, including the main one, and those that Python cannot raise."""
    sys.excepthook = _of_main
    threading.excepthook = _of_thread
    sys.unraisablehook = _unraisable


def _of_main(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(_kind, error, _traceback)
        return
    _tell("This process ends", error)


def _of_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
        _tell(f"Thread {found.thread.name if found.thread else 'unknown'} ends", found.exc_value)


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    if found.exc_value is not None:
        _tell("An error could not be raised", found.exc_value)


def _tell(what: str, error: BaseException) -> None:
    # Imported here, because Python calls this at its end, too, and `dspex` before its imports.
    import logging

    from workers.telemetry import logs

    if not logging.getLogger().handlers:
        logs.configure("INFO")
    logger = logging.getLogger(__name__)
    lines = "\n".join(line for one in _chain(error) for line in _lines(one))
    line = f"{what}: uncaught {_name(error)}"
    logger.handle(logger.makeRecord(__name__, logging.CRITICAL, __file__, 0, line, (), None, sinfo=lines))


def _chain(error: BaseException) -> Generator[BaseException]:
    """An error and its causes, the first one first."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    yield from reversed(seen)


def _lines(error: BaseException) -> list[str]:
    """Where an error was raised, and its type; without its text, which may contain data."""
    found = "".join(traceback.format_tb(error.__traceback__)).rstrip("\n").split("\n")
    return [*found, _name(error)]


def _name(error: BaseException) -> str:
    name = type(error).__qualname__
    return f"{name} ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else name
