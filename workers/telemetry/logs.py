"""The log: lines on standard error. Whatever one quotes, it stays one line, and shows no password."""

from __future__ import annotations

import logging
from types import TracebackType

from dspex.text import masked, visible, visible_lines

MAX_LENGTH = 20_000
"""Characters of a message, and of a traceback."""

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """Each record begins a line; a traceback follows in lines that begin with spaces."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line of a record."""
        record.message = visible(masked(_cut(record.message)))
        return super().formatMessage(record)

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """The lines of a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """The lines of a stack."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    # What an error says may have lines of its own, made to look like one of the log.
    return "\n".join(f"    {line}" for line in visible_lines(masked(_cut(text))).split("\n"))


def _cut(text: str) -> str:
    """The begin and the end of a text that is long."""
    half = MAX_LENGTH // 2
    return text if len(text) <= MAX_LENGTH else f"{text[:half]} … {text[-half:]}"


def configure(level: str) -> None:
    """Log lines on standard error, warnings of Python among them.

    pika tells of every reconnection at length: its errors reach us as exceptions. What Alembic has to tell is of no
    interest where it only looks.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    if level == "DEBUG":
        # Ours alone: at that level, clients of LMs and of HTTP log prompts and answers.
        logging.getLogger().setLevel(logging.INFO)
        for ours in ("adapters", "dspex", "store", "workers"):
            logging.getLogger(ours).setLevel(logging.DEBUG)
    logging.captureWarnings(capture=True)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("dramatiq").setLevel(max(logging.WARNING, logging.getLogger().level))
