"""Reads JSON lines, and JSON arrays one element at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from dspex.json_text import NotJson, read_json
from workers.cli.inputs.rows import Fitting, Row, UnreadableInputs, refused
from workers.cli.inputs.source import MAX_CHARACTERS, Lines, flaw_of

CHUNK = 64 * 1024
_OUTSIDE = re.compile(r'["\[\]{},\n]')
_INSIDE = re.compile(r'["\\\n]')


def line_rows(lines: Lines, fitting: Fitting, encoding: str) -> Iterator[Row]:
    """Yield a row for each line that is not blank."""
    for line in lines:
        if line.text.strip():
            flaw = line.flaw(encoding)
            yield refused(line.number, flaw) if flaw else _row(line.number, line.text, fitting)


def array_rows(stream: TextIO, fitting: Fitting, encoding: str) -> Iterator[Row]:
    """Yield a row for each element of an array."""
    for element in elements(stream):
        flaw = element.flaw or flaw_of(element.text, encoding)
        yield refused(element.line, flaw) if flaw else _row(element.line, element.text, fitting)


def object_rows(stream: TextIO, fitting: Fitting, encoding: str, name: str) -> Iterator[Row]:
    """Yield the row of a file with one object over several lines, or the rows of JSON lines.

    Raises:
        UnreadableInputs: the file is neither.
    """
    lines = Lines(stream)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        return
    try:
        read_json(first.text)
    except NotJson:
        text = first.text + stream.read(MAX_CHARACTERS)
        row = refused(first.number, flaw) if (flaw := flaw_of(text, encoding)) else _row(first.number, text, fitting)
        if row.inputs is None and text.count("\n}") > 1:
            text = f"--inputs: {name} is neither an array, nor one object, nor lines of JSON: {row.problems[0]}"
            raise UnreadableInputs(text) from None
        yield row
    else:
        lines.put_back([first])
        yield from line_rows(lines, fitting, encoding)


def _row(line: int, text: str, fitting: Fitting) -> Row:
    try:
        values = read_json(text)
    except NotJson as error:
        return refused(line, str(error))
    return fitting.of_values(line, values)


class Element(NamedTuple):
    """The text of an element and the line where it begins, or what is wrong with it."""

    line: int
    text: str
    flaw: str | None = None


def elements(stream: TextIO) -> Iterator[Element]:
    """Split an array into its elements by brackets, commas and quotes only, so that a malformed one affects no other.

    Keeps only one element at a time, up to the limit of a row.
    """
    return _Scanner(stream).elements()


class _Scanner:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = 1
        self._depth = 0
        self._parts: list[str] = []
        self._size = 0
        self._begun: int | None = None

    def elements(self) -> Iterator[Element]:
        inside = escaped = False
        while chunk := self._stream.read(CHUNK):
            position, start, escaped = int(escaped), 0, False
            while (found := (_INSIDE if inside else _OUTSIDE).search(chunk, position)) is not None:
                sign, position = found[0], found.end()
                if sign == "\n":
                    self._line += 1
                    if not self._depth or (self._begun is None and not chunk[start : found.start()].strip()):
                        start = position  # white space before an element
                elif sign == "\\":
                    escaped = position == len(chunk)
                    self._line += chunk.startswith("\n", position)
                    position += 1
                elif not self._depth:
                    start, self._depth = position, 1  # the array begins
                elif sign == '"':
                    self._begun = self._begun or self._line
                    inside = not inside
                elif sign in "[{":
                    self._begun = self._begun or self._line
                    self._depth += 1
                elif sign in "]}" and self._depth > 1:
                    self._depth -= 1
                elif self._depth == 1:
                    self._keep(chunk[start : found.start()])
                    yield from self._end(last=sign != ",")
                    if sign != ",":
                        yield from self._rest(chunk[position:])
                        return
                    start = position
            self._keep(chunk[start:])
        yield Element(self._begun or self._line, "", "is not whole: the array does not end")

    def _rest(self, text: str) -> Iterator[Element]:
        while not text.strip():
            self._line += text.count("\n")
            text = self._stream.read(CHUNK)
            if not text:
                return
        yield Element(self._line, "", "comes after the end of the array")

    def _keep(self, text: str) -> None:
        if not self._depth:
            return
        self._size += len(text)
        if self._size <= MAX_CHARACTERS:
            self._parts.append(text)
        else:
            self._parts.clear()

    def _end(self, *, last: bool) -> Iterator[Element]:
        text, line, size = "".join(self._parts), self._begun or self._line, self._size
        self._parts, self._size, self._begun = [], 0, None
        if size > MAX_CHARACTERS:
            yield Element(line, "", f"is longer than {MAX_CHARACTERS:,} characters")
        elif text.strip() or not last:
            yield Element(line, text)
