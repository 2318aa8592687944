"""Finds the cells of an Excel sheet that hold an error, such as #DIV/0!.

calamine reads them as empty cells, which mean something else. `.xlsx` and `.xlsm` mark them (ECMA-376, part 1,
18.18.11: a cell of the type `e`); the older formats do not.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

_CELL = re.compile(rb'<(?:\w+:)?c\s(?=[^>]*\bt="e")[^>]*\br="([A-Z]{1,3})([0-9]{1,7})"[^>]*>(?:(?!</(?:\w+:)?c>).)*?'
                   rb"<(?:\w+:)?v>([^<]{1,20})", re.DOTALL)  # fmt: skip


class ExcelError(str):
    """The error that a cell shows instead of a value."""

    __slots__ = ()


def excel_errors(path: Path, sheet: str) -> Iterator[tuple[int, int, ExcelError]]:
    """Yield row and column (from 0) and the error of each such cell. Empty for other kinds of files."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as book:
        part = _part_of(book, sheet)
        content = b"" if part is None else book.read(part)
    for found in _CELL.finditer(content):
        column = 0
        for letter in found[1]:
            column = column * 26 + letter - 64
        yield int(found[2]) - 1, column - 1, ExcelError(found[3].decode(errors="replace"))


def _part_of(book: zipfile.ZipFile, sheet: str) -> str | None:
    """The path of a sheet inside of a workbook."""
    try:
        listed = ElementTree.fromstring(book.read("xl/workbook.xml"))  # noqa: S314  its size is bounded, see `tables`
        related = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    except (KeyError, ElementTree.ParseError):
        return None
    targets = {one.get("Id"): one.get("Target", "") for one in related}
    for one in listed.iter():
        if one.tag.endswith("}sheet") and one.get("name") == sheet:
            ids = [value for name, value in one.attrib.items() if name.endswith("}id")]
            target = posixpath.normpath(posixpath.join("/xl", targets.get(ids[0], ""))) if ids else ""
            return target.lstrip("/") if target.lstrip("/") in book.namelist() else None
    return None
