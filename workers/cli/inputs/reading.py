"""Reads a file of inputs by its format: `.jsonl`, `.json`, `.csv`, `.tsv`, Parquet, Excel; also compressed."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from dspex import Signature
from workers.cli.inputs.attached import with_files
from workers.cli.inputs.delimited import Table
from workers.cli.inputs.json_rows import array_rows, line_rows, object_rows
from workers.cli.inputs.rows import Fitting, Row, UnreadableInputs
from workers.cli.inputs.source import Lines, Source, opened
from workers.cli.inputs.tables import ParquetTable, Sheet

FORMATS: Final = ("jsonl", "json", "csv", "tsv", "parquet", "excel")

_SUFFIXES: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}


@dataclass(frozen=True)
class Reading:
    """How to read a file, where it is not to be detected.

    Attributes:
        format: one of `FORMATS`.
        columns: the columns of inputs, where their names differ.
    """

    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Inputs:
    """The rows of a file. They can be iterated once.

    Attributes:
        said: messages for the user about what was detected.
    """

    def __init__(self, rows: Iterable[Row], source: Source | None = None, said: Sequence[str] = ()) -> None:
        self.said = list(said)
        self._rows = rows
        self._source = source
        exact = getattr(rows, "total", 1 if source is None else None)
        self._total: int | None = exact
        self._estimated = exact is None
        self._read = 0
        if source is not None and exact is None and source.suffix != ".json":
            self._total = source.lines()

    def __iter__(self) -> Iterator[Row]:
        name = "" if self._source is None else self._source.name
        try:
            for row in self._rows:
                self._read += 1
                yield row
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise UnreadableInputs(f"--inputs: {name} cannot be read to its end: {error}") from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "zstandard":
                raise
            raise UnreadableInputs(f"--inputs: {name} cannot be read to its end: {error}") from None
        self._total, self._estimated = self._read, False

    @property
    def total(self) -> tuple[int | None, bool]:
        """The number of rows, or None if it is not known; and whether it is an estimate."""
        return (None if self._total is None else max(self._total, self._read)), self._estimated


@contextmanager
def open_inputs(
    signature: Signature, inputs_file: str | None, pairs: Sequence[str], reading: Reading | None = None
) -> Generator[Inputs]:
    """Open the rows of a file (`-` is standard input), or the single row of `NAME=VALUE` pairs.

    Raises:
        UnreadableInputs: the file is missing or cannot be read, or a pair is malformed.
    """
    how = reading or Reading()
    fitting = Fitting(signature, how.columns)
    unknown = next((name for name in how.columns if name not in {f.name for f in signature.inputs}), None)
    if unknown is not None:
        raise UnreadableInputs(f"--column: '{unknown}' is not an input of the signature")
    if pairs:
        yield Inputs([fitting.of_text(1, with_files(signature, _from_pairs(pairs)))])
        return
    with opened(inputs_file or "-") as source:
        said: list[str] = []
        rows = _rows(source, fitting, how, said)
        yield Inputs(rows, source, [*said, *getattr(rows, "said", ())])


def read_rows(
    signature: Signature, inputs_file: str | None, pairs: Sequence[str], reading: Reading | None = None
) -> Iterator[Row]:
    """Yield the rows of `open_inputs`."""
    with open_inputs(signature, inputs_file, pairs, reading) as inputs:
        yield from inputs


def _rows(source: Source, fitting: Fitting, how: Reading, said: list[str]) -> Iterable[Row]:
    kind = how.format or _SUFFIXES.get(source.suffix) or _magic(source.head())
    if kind in ("parquet", "excel"):
        if source.path is None or source.size is None:
            raise UnreadableInputs(f"--inputs: {source.name}: {kind} is read from a file that is not packed")
        if kind == "parquet":
            return ParquetTable(source.path, fitting, name=source.name)
        return Sheet(source.path, fitting, name=source.name, sheet=how.sheet)
    stream = source.text(how.encoding)
    begin = _begin(source)
    if kind is None:
        kind = "csv" if begin and begin[0] not in "[{" else "jsonl"
        if kind == "csv":
            said.append(f"{source.name} is read as CSV (--inputs-format for another)")
    if kind in ("csv", "tsv"):
        usual = "\t" if kind == "tsv" else ","
        return Table(
            Lines(stream), fitting, name=source.name, encoding=source.encoding, given=how.delimiter, usual=usual
        )
    if _is_array(begin, whole=kind == "json"):
        if kind == "jsonl" and source.suffix:
            said.append(f"{source.name} is read as one JSON array")
        return array_rows(stream, fitting, source.encoding)
    if kind == "json":
        return object_rows(stream, fitting, source.encoding, source.name)
    return line_rows(Lines(stream), fitting, source.encoding)


def _begin(source: Source) -> str:
    """The beginning of a source's text, without consuming it."""
    return source.head().decode(source.encoding, "replace").lstrip("\ufeff \t\r\n")


def _magic(head: bytes) -> str | None:
    return "parquet" if head.startswith(b"PAR1") else None


def _is_array(begin: str, *, whole: bool) -> bool:
    """Whether a text is one array. In JSON lines, a line `[]` is an invalid row."""
    return begin.startswith("[") and (whole or begin[1:].lstrip().startswith("{"))


def _from_pairs(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UnreadableInputs(f"--input: {pair!r} is not NAME=VALUE")
        if name in values:
            raise UnreadableInputs(f"--input: '{name}' is given twice")
        values[name] = value
    return values
