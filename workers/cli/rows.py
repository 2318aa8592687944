"""Rows of input: JSON lines, CSV or standard input, read one at a time and made to fit a signature."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from dspex import Signature
from dspex.envelope import MAX_MESSAGE_BYTES
from dspex.errors import DspexError, InvalidInput, Problem
from dspex.types import BooleanType, FieldType, IntegerType, NumberType, OptionalType, StringType


class UnreadableInputs(DspexError):
    """The file of inputs cannot be read at all."""

    code = "unreadable_inputs"


@dataclass(frozen=True)
class Row:
    """One row: its line number from 1, its inputs where they fit the signature, else what is wrong with them."""

    line: int
    inputs: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    other: dict[str, Any] = field(default_factory=dict)
    """The columns that are not inputs of the signature; those named like an output have the output's type."""


def read_rows(signature: Signature, inputs_file: str | None, pairs: Sequence[str]) -> Iterator[Row]:
    """The rows of a file (`-` is standard input), or the one row that `NAME=VALUE` pairs make.

    Raises:
        UnreadableInputs: the file is missing, or not text in UTF-8; or the pairs are not pairs.
    """
    if pairs:
        yield fit(signature, 1, _from_pairs(pairs), textual=True)
        return
    with _open(inputs_file or "-") as (name, stream):
        try:
            if name.endswith(".csv"):
                yield from _csv_rows(signature, stream)
            else:
                yield from _json_rows(signature, stream)
        except UnicodeDecodeError as error:
            raise UnreadableInputs(f"--inputs: {name} is not UTF-8 text: {error.reason}") from None
        except csv.Error as error:
            raise UnreadableInputs(f"--inputs: {name} is not CSV: {error}") from None


def fit(signature: Signature, line: int, values: Any, *, textual: bool = False) -> Row:
    """A row of values. Columns that are not inputs are set aside.

    Args:
        textual: the values are text (CSV, command line), to be read as the types of the signature.
    """
    if not isinstance(values, dict):
        return Row(line, problems=(Problem("", "is not a JSON object"),))
    names = {f.name: f.type for f in signature.inputs}
    inputs = {name: value for name, value in values.items() if name in names}
    other = {name: value for name, value in values.items() if name not in names}
    if textual:
        inputs = {
            name: _read(names[name], text) for name, text in inputs.items() if text or not _droppable(names[name])
        }
        other |= {f.name: _read(f.type, other[f.name]) for f in signature.outputs if f.name in other}
    try:
        return Row(line, signature.validate_inputs(inputs), other=other)
    except InvalidInput as error:
        return Row(line, problems=error.problems, other=other)


def _json_rows(signature: Signature, stream: Iterable[str]) -> Iterator[Row]:
    for line, text in enumerate(stream, 1):
        if text.strip():
            try:
                values = json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                yield Row(line, problems=(Problem("", f"is not JSON: {error}"),))
            else:
                yield fit(signature, line, values)


def _csv_rows(signature: Signature, stream: TextIO) -> Iterator[Row]:
    csv.field_size_limit(MAX_MESSAGE_BYTES)
    reader = csv.DictReader(stream, strict=True)
    if reader.fieldnames and not {f.name for f in signature.inputs} & set(reader.fieldnames):
        wanted = ", ".join(f.name for f in signature.inputs)
        raise UnreadableInputs(f"--inputs: the first line names no input of the signature; it needs columns {wanted}")
    for values in reader:
        line = reader.line_num
        if None in values:
            yield Row(line, problems=(Problem("", "has more cells than the first line has columns"),))
        else:
            yield fit(signature, line, {k: v for k, v in values.items() if v is not None}, textual=True)


def _from_pairs(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UnreadableInputs(f"--input: {pair!r} is not NAME=VALUE")
        values[name] = value
    return values


def _droppable(field_type: FieldType) -> bool:
    """An empty cell is no value, except where it can be empty text."""
    return not isinstance(field_type, StringType)


def _read(field_type: FieldType, text: str) -> Any:
    """Text as a value of a type; text that is none is left as it is, for validation to name."""
    match field_type:
        case StringType():
            return text
        case OptionalType(anyOf=(inner, _)):
            return _read(inner, text)
        case BooleanType() if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case IntegerType() | NumberType():
            number = int if isinstance(field_type, IntegerType) else float
            try:
                return number(text)
            except ValueError:
                return text
        case _:
            try:
                return json.loads(text, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@contextmanager
def _open(name: str) -> Generator[tuple[str, TextIO]]:
    if name == "-":
        yield "standard input", sys.stdin
        return
    with ExitStack() as opened:
        try:
            path = Path(name)
            stream = opened.enter_context(
                path.open(encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None)
            )
        except OSError as error:
            raise UnreadableInputs(f"--inputs: {name}: {error.strerror}") from None
        yield name, stream
