"""Cells of text, read as values of every type."""

from __future__ import annotations

from typing import Any

import pytest

from dspex import Signature
from workers.cli.inputs.cells import NO_VALUE, read_cell


@pytest.mark.parametrize(
    ("schema", "cell", "value"),
    [
        ("date", " 2026-11-30 ", "2026-11-30"),
        ("date", "30.11.2026", "30.11.2026"),
        ("date", "  ", NO_VALUE),
        ("Optional[date]", "null", None),
        ("Decimal", "12.50 ", "12.50"),
        ({"type": "string", "pattern": "^a "}, "a ", "a "),
        ({"const": "a"}, " a ", "a"),
        ({"const": 1}, "1", 1),
        ({"const": 1}, "2", "2"),
        ({"const": True}, "TRUE", True),
        ("Any", '{"a": 1}', {"a": 1}),
        ("Any", "12", 12),
        ("Any", "null", None),
        ("Any", "1,234", "1,234"),
        ("Any", "some words", "some words"),
        ("Any", "", NO_VALUE),
        ("list", "[1, null]", [1, None]),
        ("list", "a, b", "a, b"),
        ("dict", '{"a": []}', {"a": []}),
    ],
)
def test_a_cell(schema: Any, cell: str, value: Any) -> None:
    signature = Signature.parse({"inputs": [{"name": "x", "type": schema}], "outputs": [{"name": "y", "type": "str"}]})
    read = read_cell(signature.inputs[0].type, cell)
    assert (type(read), read) == (type(value), value)
