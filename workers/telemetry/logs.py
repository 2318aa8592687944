"""Logging to standard error. A record is one line whatever it quotes, and shows no password."""

from __future__ import annotations

import logging
from types import TracebackType

from dspex.text import masked, visible, visible_lines

MAX_LENGTH = 20_000
"""The longest message, and the longest traceback, in characters."""

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """A record is one line. The lines of its traceback are indented."""

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
    # The text of an error may contain lines that imitate log lines.
    return "\n".join(f"    {line}" for line in visible_lines(masked(_cut(text))).split("\n"))


def _cut(text: str) -> str:
    """The beginning and the end of a long text."""
    half = MAX_LENGTH // 2
    return text if len(text) <= MAX_LENGTH else f"{text[:half]} … {text[-half:]}"


def configure(level: str) -> None:
    """Log to standard error, including Python's warnings.

    pika's logs are reduced, as it logs every reconnection at length, and its errors reach us as exceptions. Alembic's
    are reduced, as it is mostly used to read the revision.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    if level == "DEBUG":
        # Only for our own logs: at DEBUG, clients of LMs and HTTP log prompts and answers.
        logging.getLogger().setLevel(logging.INFO)
        for ours in ("adapters", "dspex", "store", "workers"):
            logging.getLogger(ours).setLevel(logging.DEBUG)
    logging.captureWarnings(capture=True)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("dramatiq").setLevel(max(logging.WARNING, logging.getLogger().level))
