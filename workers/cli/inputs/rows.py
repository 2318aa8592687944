"""Rows: values converted to fit a signature, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspex import Signature
from dspex.errors import DspexError, InvalidInput, Problem
from workers.cli.inputs.cells import NO_VALUE, read_cell, whole


class UnreadableInputs(DspexError):
    """The file of inputs cannot be read, or not completely."""

    code = "unreadable_inputs"


@dataclass(frozen=True)
class Row:
    """One row: its line, and its inputs or what is wrong with them.

    Attributes:
        line: the line where it begins, from 1; for Excel and Parquet, the number of the row.
        other: the columns that are not inputs, for comparisons. Those named like an output are converted to its type.
        columns: the same columns, not converted.
    """

    line: int
    inputs: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    other: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


def refused(line: int, message: str, name: str = "") -> Row:
    """A row with a problem."""
    return Row(line, problems=(Problem(name, message),))


class Fitting:
    """Makes rows that fit a signature.

    Args:
        columns: the columns of inputs, where their names differ.
    """

    def __init__(self, signature: Signature, columns: Mapping[str, str] | None = None) -> None:
        self.signature = signature
        self.columns = columns or {}
        self._inputs = {f.name: f.type for f in signature.inputs}
        self._outputs = {f.name: f.type for f in signature.outputs}
        self._input_of = {column: name for name, column in self.columns.items()}

    def input_of(self, column: str) -> str | None:
        """The input that a column contains, or None."""
        if column in self._input_of:
            return self._input_of[column]
        return column if column in self._inputs and column not in self.columns else None

    @property
    def required(self) -> Sequence[str]:
        """The inputs that every row must contain."""
        return [f.name for f in self.signature.inputs if f.required]

    def of_values(self, line: int, values: Any, *, null_is_none: bool = False) -> Row:
        """Make a row of JSON values.

        Args:
            null_is_none: treat null as no value, like an empty cell. For tables, where null stands for a missing value.
        """
        if not isinstance(values, Mapping):
            return refused(line, "is not a JSON object")
        inputs, other = self._parted(values)
        read = {name: whole(self._inputs[name], value) for name, value in inputs.items()}
        if null_is_none:
            read = {name: value for name, value in read.items() if value is not None}
        return self._checked(line, read, other, other)

    def of_text(self, line: int, values: Mapping[str, str]) -> Row:
        """Make a row of cells, which are converted to the types of the signature (see `workers.cli.inputs.cells`)."""
        inputs, columns = self._parted(values)
        read = {name: read_cell(self._inputs[name], text) for name, text in inputs.items()}
        other = {name: self._expected(name, text) for name, text in columns.items()}
        return self._checked(line, {n: v for n, v in read.items() if v is not NO_VALUE}, other, columns)

    def _parted(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, other = {}, {}
        for column, value in values.items():
            name = self.input_of(column)
            if name is None:
                other[column] = value
            else:
                inputs[name] = value
        return inputs, other

    def _expected(self, name: str, text: str) -> Any:
        output = self._outputs.get(name)
        value = text if output is None else read_cell(output, text)
        return None if value is NO_VALUE else value

    def _checked(self, line: int, inputs: dict[str, Any], other: dict[str, Any], columns: dict[str, Any]) -> Row:
        try:
            return Row(line, self.signature.validate_inputs(inputs), other=other, columns=columns)
        except InvalidInput as error:
            return Row(line, problems=error.problems, other=other, columns=columns)
