"""Sheets of Excel as rows: each cell means what its text would mean in CSV."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspex import Signature
from tests.workbook import Raw, write_workbook
from workers.cli.inputs.reading import Reading, open_inputs
from workers.cli.inputs.rows import Row, UnreadableInputs

SIGNATURE = "question: str, k: int = 5, share: Optional[float] = None, sure: bool = False -> answer, score: float"
HEADER = ["id", "question", "k", "share", "sure"]


def read(path: Path, **how: Any) -> tuple[list[Row], list[str]]:
    with open_inputs(Signature.parse(SIGNATURE), str(path), (), Reading(**how)) as inputs:
        return list(inputs), inputs.said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.xlsx"


def test_a_cell_means_what_it_shows(path: Path) -> None:
    write_workbook(
        path,
        {
            "rows": [
                HEADER,
                ["a", " Why? ", 3, 0.25, True],
                ["b", "3", 3.0, "1e-3", "TRUE"],
                [7, 12, None, None, None],
                ["d", datetime(2026, 11, 30, 12, 30, tzinfo=UTC), "4", "null", False],
                ["e", True, "", "", ""],
            ]
        },
    )
    rows, said = read(path)
    assert said == []
    assert [row.line for row in rows] == [2, 3, 4, 5, 6]
    assert [row.inputs for row in rows] == [
        {"question": " Why? ", "k": 3, "share": 0.25, "sure": True},
        {"question": "3", "k": 3, "share": 0.001, "sure": True},
        {"question": "12", "k": 5, "share": None, "sure": False},
        {"question": "2026-11-30T12:30:00", "k": 4, "share": None, "sure": False},
        {"question": "true", "k": 5, "share": None, "sure": False},
    ]
    assert [row.columns for row in rows] == [{"id": id_} for id_ in ("a", "b", "7", "d", "e")]


def test_one_bad_row_is_one_bad_row(path: Path) -> None:
    error = Raw('<c r="AT" t="e"><v>#DIV/0!</v></c>')
    write_workbook(
        path,
        {
            "rows": [
                HEADER,
                ["a", "x", 1.5, None, None],
                ["b", "x", 1, None, None],
                ["c", "x", error, None, None],
                ["d", "x", "1_000", None, None],
            ]
        },
    )
    rows, _ = read(path)
    assert [(row.line, row.inputs is None, [p.field for p in row.problems]) for row in rows] == [
        (2, True, ["k"]),
        (3, False, []),
        (4, True, ["k"]),
        (5, True, ["k"]),
    ]


def test_empty_rows_are_none_and_lines_are_those_of_the_sheet(path: Path) -> None:
    write_workbook(path, {"rows": [[], ["", "question"], [], ["1", "a"], [None], ["2", "b"], [], []]})
    rows, _ = read(path)
    assert [(row.line, row.inputs and row.inputs["question"]) for row in rows] == [(4, "a"), (6, "b")]


class TestWhichSheet:
    @pytest.fixture(autouse=True)
    def book(self, path: Path) -> None:
        write_workbook(path, {name: [["question"], [f"in {name}"]] for name in ("Januar", "März 2026", "a & b")})

    def test_the_first_and_it_is_said(self, path: Path) -> None:
        rows, said = read(path)
        assert [row.inputs and row.inputs["question"] for row in rows] == ["in Januar"]
        assert said == [f"{path}: of its 3 sheets, 'Januar' is read (--sheet for another)"]

    @pytest.mark.parametrize("name", ["Januar", "März 2026", "a & b"])
    def test_the_one_that_is_named(self, path: Path, name: str) -> None:
        rows, said = read(path, sheet=name)
        assert [row.inputs and row.inputs["question"] for row in rows] == [f"in {name}"]
        assert said == []

    def test_none_of_that_name(self, path: Path) -> None:
        with pytest.raises(UnreadableInputs, match=r"has no sheet 'februar'; it has Januar, März 2026, a & b"):
            read(path, sheet="februar")


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ([], "is empty"),
        ([[None], ["", ""]], "is empty"),
        ([["question", "question"], ["a", "b"]], "twice"),
        ([["k"], [1]], "question"),
    ],
)
def test_what_is_no_table_is_refused_by_name(path: Path, sheet: list[list[Any]], said: str) -> None:
    write_workbook(path, {"rows": sheet})
    with pytest.raises(UnreadableInputs) as caught:
        read(path)
    assert path.name in caught.value.message
    assert said in caught.value.message


def test_what_is_no_workbook_is_refused(path: Path, tmp_path: Path) -> None:
    write_workbook(path, {"rows": [["question"], ["a"]]})
    whole = path.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"question\na\n", "empty": b""}.items():
        broken = tmp_path / f"{name}.xlsx"
        broken.write_bytes(content)
        with pytest.raises(UnreadableInputs):
            read(broken)


def test_one_that_unpacks_to_too_much_is_refused_before_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workbook(path, {"rows": [["question"], *([["x" * 1000]] * 3000)]})
    monkeypatch.setattr("workers.cli.inputs.tables.MAX_SHEET_BYTES", 1024**2)
    assert path.stat().st_size < 1024**2
    with pytest.raises(UnreadableInputs, match="save it as CSV"):
        read(path)
