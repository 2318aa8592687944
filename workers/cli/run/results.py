"""Writes results to standard output, or to a file beside `--output` that then replaces it."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TextIO

from pydantic_core import to_json

from dspex import Signature
from dspex.errors import SettingsError
from dspex.text import ascii_json, visible, visible_json
from workers.cli.output import is_unicode, json_line
from workers.cli.run.options import RunFailed

FORMATS = ("jsonl", "csv")


class OutputGone(RunFailed):
    """Standard output was closed, or there is no space for results."""

    code = "output_gone"


class Results(Protocol):
    """Writes results, each as a line of JSON."""

    def line(self, result: dict[str, Any]) -> str:
        """The text of a result."""
        ...

    def write(self, text: str) -> None:
        """Write the text of a result.

        Raises:
            OutputGone: the text cannot be written.
        """
        ...

    def flush(self) -> None:
        """Flush everything that was written.

        Raises:
            OutputGone: the output cannot be written.
        """
        ...

    def keep(self, *, whole: bool) -> None:
        """Put the results into their final place. `whole`: all results have come."""
        ...


@contextmanager
def open_results(path: Path | None, output_format: str, signature: Signature) -> Generator[Results]:
    """Open the output. A file at the path stays until `keep`.

    Raises:
        SettingsError: the output cannot be written.
    """
    with _Stream.of(path) as stream:
        if output_format == "csv":
            with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
                yield _Csv(stream, spool, signature)
        else:
            yield _Lines(stream)


class _Stream:
    """A text stream, and what to do at its end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.written = False

    @classmethod
    @contextmanager
    def of(cls, path: Path | None) -> Generator[_Stream]:
        if path is None:
            yield cls(sys.stdout)
            return
        target = Path(os.path.realpath(path))
        try:
            if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
                with target.open("w", encoding="utf-8", newline="") as stream:
                    yield cls(stream)
                return
            beside = _Beside(path, target)
        except OSError as error:
            raise SettingsError(f"--output: {path}: {error.strerror}") from None
        try:
            yield beside
        finally:
            beside.close()

    @property
    def terminal(self) -> bool:
        """Whether the output is a terminal."""
        return self.stream.isatty()

    @property
    def unicode(self) -> bool:
        """Whether it can encode every character."""
        return is_unicode(self.stream)

    def write(self, text: str) -> None:
        self.written = True
        try:
            self.stream.write(text)
        except OSError as error:
            raise self._gone(error) from None

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            raise self._gone(error) from None

    def _gone(self, error: OSError) -> OutputGone:
        if not isinstance(error, BrokenPipeError):
            return OutputGone(f"results cannot be written: {error.strerror}")
        # Otherwise Python writes the rest at exit, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return OutputGone("nobody reads standard output any more")

    def keep(self, *, whole: bool) -> None:  # noqa: ARG002
        """Does nothing: the output is in its place."""
        self.flush()


class _Beside(_Stream):
    """`FILE.part`, which replaces `FILE` at the end."""

    def __init__(self, path: Path, target: Path) -> None:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(0, "Permission denied")
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        stream = self._part.open("a+", encoding="utf-8", newline="")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise SettingsError(f"--output: another run writes {path}: wait for it, or choose another file") from None
        stream.truncate(0)  # content from a run that was killed
        super().__init__(stream)
        self._kept = False

    def keep(self, *, whole: bool) -> None:
        """Replace the file. If the new one is incomplete and shorter, keep the old one as `FILE.before`."""
        if not (self.written or whole):
            return
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            if self._target.exists():
                shutil.copymode(self._target, self._part)
                if not whole:
                    self._save_before()
            self._part.replace(self._target)
        except OSError as error:
            raise OutputGone(f"--output: {self._part} cannot be put in place: {error.strerror}") from None
        self._kept = True

    def close(self) -> None:
        if not self._kept:
            with suppress(OSError):
                self._part.unlink()
        with suppress(OSError):
            self.stream.close()

    def _save_before(self) -> None:
        before = self._target.with_name(f"{self._target.name}.before")
        size = self._target.stat().st_size
        if size > self._part.stat().st_size and not (before.exists() and before.stat().st_size >= size):
            saved = before.with_name(f"{before.name}.part")
            shutil.copy2(self._target, saved)
            saved.replace(before)


class _Lines:
    """JSON lines."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._ascii = not stream.unicode  # JSON escapes, which every terminal can show

    def line(self, result: dict[str, Any]) -> str:
        """See `Results`."""
        try:
            text = visible_json(to_json(result).decode())
        except ValueError:  # half of a surrogate pair
            text = json_line(result)
        return ascii_json(text) if self._ascii else text

    def write(self, text: str) -> None:
        """See `Results`."""
        self._stream.write(text + "\n")

    def flush(self) -> None:
        """See `Results`."""
        self._stream.flush()

    def keep(self, *, whole: bool) -> None:
        """See `Results`."""
        self._stream.keep(whole=whole)


_FIRST = ("line", "status")
_LAST = (
    "error_code",
    "error_message",
    "calls",
    "input_tokens",
    "output_tokens",
    "cost",
    "duration_ms",
    "execution_id",
    "program_id",
    "adapter",
    "module",
    "model",
)


class _Csv:
    """CSV. Its columns are known after the last result; until then, results are JSON lines in a temporary file."""

    def __init__(self, stream: _Stream, spool: TextIO, signature: Signature) -> None:
        if not stream.unicode:
            raise SettingsError(
                f"--format csv: standard output is {stream.stream.encoding}, which has not every character: "
                "give --output FILE, or set PYTHONUTF8=1"
            )
        self._stream = stream
        self._spool = spool
        self._columns: dict[str, None] = {}
        self._inputs = [f.name for f in signature.inputs]
        self._outputs = [f.name for f in signature.outputs]
        self._extras: dict[str, None] = {}

    def line(self, result: dict[str, Any]) -> str:
        """See `Results`."""
        self._columns |= dict.fromkeys(result.get("columns", ()))
        self._extras |= dict.fromkeys(result.get("extra_outputs", ()))
        return json.dumps(result)

    def write(self, text: str) -> None:
        """See `Results`."""
        try:
            self._spool.write(text + "\n")
        except OSError as error:
            raise OutputGone(f"results cannot be written: {error.strerror}") from None

    def flush(self) -> None:
        """See `Results`."""

    def keep(self, *, whole: bool) -> None:
        """See `Results`."""
        rows = csv.writer(self._stream, lineterminator="\n")
        theirs = set(self._columns)
        inputs = {name: f"input.{name}" if name in theirs else name for name in self._inputs}
        outputs = {name: f"output.{name}" if name in theirs or name in inputs else name for name in self._outputs}
        taken = theirs | set(inputs.values()) | set(outputs.values())
        extras = [f"extra.{name}" if name in taken else name for name in self._extras]
        taken |= set(extras)
        own = {name: f"dspex.{name}" if name in taken else name for name in (*_FIRST, *_LAST)}
        header = [own["line"], own["status"], *self._columns, *inputs.values(), *outputs.values(), *extras]
        try:
            self._spool.seek(0)
            lines = (self._cells(json.loads(line)) for line in self._spool)
            for cells in chain([[*header, *(own[name] for name in _LAST)]], lines):
                # CSV has no escapes: an LM's text is unchanged in a file, but made safe for a terminal.
                rows.writerow(map(visible, cells) if self._stream.terminal else cells)
        except ValueError as error:
            raise OutputGone(f"results cannot be written as CSV: {error}") from None
        self._stream.keep(whole=whole)

    def _cells(self, result: dict[str, Any]) -> Iterator[str]:
        yield from (_cell(result.get(name)) for name in _FIRST)
        groups = {"columns": self._columns, "inputs": self._inputs, "outputs": self._outputs}
        for group, names in (*groups.items(), ("extra_outputs", self._extras)):
            values = result.get(group) or {}
            yield from (_cell(values.get(name)) for name in names)
        error = result.get("error") or {}
        problems: Sequence[dict[str, str]] = result.get("problems", ())
        if problems:
            said = "; ".join(f"{p['field']}: {p['message']}" if p["field"] else p["message"] for p in problems)
            error = {"code": "invalid_input", "message": said}
        usage = result.get("usage") or {}
        yield _cell(error.get("code"))
        yield _cell(error.get("message"))
        yield from (_cell(usage.get(name)) for name in ("calls", "input_tokens", "output_tokens", "cost"))
        yield from (_cell(result.get(name)) for name in _LAST[6:])


def _cell(value: Any) -> str:
    """The text of a value that `workers.cli.inputs.cells` reads back."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
