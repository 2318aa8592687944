"""Parses CSV and similar formats by RFC 4180. A record may span lines; one that is malformed affects no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from workers.cli.inputs.rows import Fitting, Row, UnreadableInputs, refused
from workers.cli.inputs.source import MAX_CHARACTERS, Line, Lines, flaw_of

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_ENDS = "\r\n"
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)


@dataclass
class Record:
    """The cells and the lines of one record, or what is wrong with it."""

    lines: list[Line]
    cells: list[str] = field(default_factory=list)
    flaw: str | None = None

    @property
    def line(self) -> int:
        """The line that it begins on."""
        return self.lines[0].number


class Records:
    """The records of a text.

    After a malformed record, the next one begins on the line after its first. Otherwise a stray quote would swallow
    everything after it.
    """

    def __init__(self, lines: Lines, delimiter: str, encoding: str) -> None:
        self.lines = lines
        self.delimiter = delimiter
        self._encoding = encoding

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        line = next(self.lines)
        if line.over:
            return Record([line], flaw=line.flaw(self._encoding))
        if '"' not in line.text:
            record = Record([line], line.text.rstrip(_ENDS).split(self.delimiter))
        else:
            record = self._quoted(line)
        if record.flaw is None:
            record.flaw = next((flaw for cell in record.cells if (flaw := flaw_of(cell, self._encoding))), None)
        return record

    def _quoted(self, first: Line) -> Record:
        """Parse a record with quotes, which may span lines, field by field."""
        taken, cells = [first], list[str]()
        text, size, position = first.text, len(first.text), 0
        while True:
            if not text.startswith('"', position):
                end = text.find(self.delimiter, position)
                cell = text[position:].rstrip(_ENDS) if end < 0 else text[position:end]
                if cell.lstrip(" ").startswith('"'):
                    return self._flawed(taken, "has a space before a quote: take it out, or quote the whole cell")
                cells.append(cell)
                if end < 0:
                    return Record(taken, cells)
                position = end + 1
                continue
            parts, position = list[str](), position + 1
            while True:
                end = text.find('"', position)
                if end < 0:
                    parts.append(text[position:])
                    line = next(self.lines, None)
                    if line is None:
                        return self._flawed(taken, "has a quote that never ends")
                    taken.append(line)
                    size += len(line.text)
                    if line.over or size > MAX_CHARACTERS:
                        return self._flawed(
                            taken, f"has a quote that does not end within {MAX_CHARACTERS:,} characters"
                        )
                    text, position = line.text, 0
                elif text.startswith('"', end + 1):
                    parts.append(text[position : end + 1])
                    position = end + 2
                else:
                    parts.append(text[position:end])
                    position = end + 1
                    break
            cells.append("".join(parts))
            if text.startswith(self.delimiter, position):
                position += 1
            elif text[position:].strip(_ENDS):
                return self._flawed(taken, "has a quote within a quoted cell: double it")
            else:
                return Record(taken, cells)

    def _flawed(self, taken: list[Line], flaw: str) -> Record:
        self.lines.put_back(taken[1:])
        return Record(taken[:1], flaw=flaw)


@dataclass(frozen=True)
class Header:
    """The columns of a table. A column without a name is None and is ignored."""

    names: list[str | None]

    @property
    def known(self) -> list[str]:
        """The columns with names."""
        return [name for name in self.names if name is not None]


def header_of(cells: list[str], fitting: Fitting, name: str) -> Header:
    """Read the header from the first record. Ignores spaces around names.

    Raises:
        UnreadableInputs: a column is there twice, or is missing.
    """
    names = [cell.strip() or None for cell in cells]
    header = Header(names)
    twice = next((known for known in header.known if names.count(known) > 1), None)
    if twice is not None:
        raise UnreadableInputs(f"--inputs: {name} has the column {twice!r} twice: rename one of them")
    check_columns(header.known, fitting, name)
    return header


def check_columns(known: list[str], fitting: Fitting, name: str) -> None:
    """Check that all inputs that the signature requires have a column.

    Raises:
        UnreadableInputs: a column is missing.
    """
    for wanted, column in fitting.columns.items():
        if column not in known:
            there = ", ".join(known)
            raise UnreadableInputs(f"--column: {name} has no column {column!r} for '{wanted}'; it has {there}")
    found = {fitting.input_of(column) for column in known} - {None}
    if known and not found:
        wanted = ", ".join(f.name for f in fitting.signature.inputs)
        raise UnreadableInputs(
            f"--inputs: the first line names no input of the signature; it needs columns {wanted} (--column "
            f"INPUT=HEADER for other names); {name} has {', '.join(known)[:500]}"
        )
    missing = [wanted for wanted in fitting.required if wanted not in found]
    if missing:
        raise UnreadableInputs(
            f"--inputs: {name} has no column for {', '.join(missing)}; it has {', '.join(known)[:500]}: "
            f"--column {missing[0]}=HEADER says which it is"
        )


def cells_of(header: Header, cells: list[str], line: int) -> dict[str, str] | Row:
    """The cells by the names of their columns. Missing cells at the end are left out."""
    if len(cells) > len(header.names) and any(cells[len(header.names) :]):
        return refused(line, "has more cells than the first line has columns")
    return {name: cell for name, cell in zip(header.names, cells, strict=False) if name is not None}


class Table:
    """Rows of CSV.

    Args:
        delimiter: from the user or the file's name; otherwise it is detected in the first line.

        Raises:
        UnreadableInputs: there is no header, or it does not fit the signature.

        Attributes:
        said: messages for the user about what was detected.
    """

    def __init__(
        self, lines: Lines, fitting: Fitting, *, name: str, encoding: str, given: str | None, usual: str = ","
    ) -> None:
        self._fitting = fitting
        self.said: list[str] = []
        first = next((line for line in lines if line.text.strip()), None)
        if first is None:
            raise UnreadableInputs(f"--inputs: {name} is empty: it needs a first line with the names of its columns")
        marked = _SEPARATOR_LINE.fullmatch(first.text)
        if marked is None:
            lines.put_back([first])
        else:  # Excel's line with the delimiter
            usual = marked[1]
        delimiter = given or (usual if marked else _sniffed(lines, fitting, usual, encoding))
        if given is None and delimiter != usual:
            self.said.append(f"{name}: its columns are parted by {NAMES.get(delimiter, repr(delimiter))}")
        self._records = Records(lines, delimiter, encoding)
        record = next(self._records, None)
        if record is None or record.flaw is not None:
            raise UnreadableInputs(f"--inputs: the first line of {name} {record.flaw if record else 'is not there'}")
        self._header = header_of(record.cells, fitting, name)
        unnamed = len(self._header.names) - len(self._header.known)
        if unnamed:
            self.said.append(f"{name}: columns without a name are left out: {unnamed}")

    def __iter__(self) -> Iterator[Row]:
        for record in self._records:
            if record.flaw is not None:
                yield refused(record.line, record.flaw)
            elif len(record.lines) > 1 or record.lines[0].text.strip(_ENDS):
                values = cells_of(self._header, record.cells, record.line)
                yield values if isinstance(values, Row) else self._fitting.of_text(record.line, values)


def _sniffed(lines: Lines, fitting: Fitting, usual: str, encoding: str) -> str:
    """The delimiter with which the first line names the most inputs, and then has the most columns."""
    found: dict[str, tuple[int, int, bool]] = {}
    for delimiter in DELIMITERS:
        record = next(Records(lines, delimiter, encoding))
        lines.put_back(record.lines)
        names = [cell.strip() for cell in record.cells]
        inputs = sum(fitting.input_of(name) is not None for name in names)
        found[delimiter] = (inputs, len(names), delimiter == usual)
    return max(found, key=lambda delimiter: found[delimiter])
