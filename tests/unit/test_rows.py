"""Rows of input: what fits the signature, and what is said of the lines that do not."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from dspex import Signature
from workers.cli.rows import Row, UnreadableInputs, read_rows

SIGNATURE = Signature.parse(
    "text, count: int, share: float = 0.5, flag: bool = True, tags: list[str] = [], note: Optional[str] "
    "-> answer: str, score: int"
)
DEFAULTS = {"share": 0.5, "flag": True, "tags": [], "note": None}

Read = Callable[[str, str | bytes], list[Row]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(name: str, content: str | bytes) -> list[Row]:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_rows(SIGNATURE, str(file), ()))

    return read


def said(row: Row) -> list[str]:
    assert row.inputs is None
    return [str(problem) for problem in row.problems]


class TestJsonLines:
    def test_values_and_defaults(self, read: Read) -> None:
        (row,) = read("rows.jsonl", '{"text": "é", "count": 3, "tags": ["a"], "note": "n"}')
        assert row == Row(1, DEFAULTS | {"text": "é", "count": 3, "tags": ["a"], "note": "n"})

    def test_blank_lines_count_and_are_no_rows(self, read: Read) -> None:
        rows = read("rows.jsonl", '\n{"text": "a", "count": 1}\r\n  \n{"text": "b", "count": 2}\n\n')
        assert [(row.line, row.inputs and row.inputs["text"]) for row in rows] == [(2, "a"), (4, "b")]

    def test_other_columns_are_set_aside(self, read: Read) -> None:
        (row,) = read("rows.jsonl", '{"text": "a", "count": 1, "score": "9", "more": [1]}')
        assert row.inputs == DEFAULTS | {"text": "a", "count": 1}
        assert row.other == {"score": "9", "more": [1]}

    def test_a_byte_order_mark(self, read: Read) -> None:
        (row,) = read("rows.jsonl", b'\xef\xbb\xbf{"text": "a", "count": 1}\n')
        assert row.inputs is not None

    @pytest.mark.parametrize(
        "line",
        [
            '{"text": "a"',
            "{'text': 'a'}",
            '{"text": "a", "count": NaN}',
            '{"text": "a", "count": -Infinity}',
            "[" * 100_000,
            '{"text": "a", "count": ' + "1" * 5000 + "}",
        ],
    )
    def test_a_line_that_is_not_json(self, read: Read, line: str) -> None:
        before, row, after = read("rows.jsonl", '{"text": "a", "count": 1}\n' + line + '\n{"text": "b", "count": 2}\n')
        (problem,) = said(row)
        assert problem.startswith("is not JSON: ")
        assert row.line == 2
        assert before.inputs is not None
        assert after.inputs is not None

    @pytest.mark.parametrize("line", ["[]", "3", '"text"', "null"])
    def test_a_line_that_is_no_object(self, read: Read, line: str) -> None:
        (row,) = read("rows.jsonl", line)
        assert said(row) == ["is not a JSON object"]

    def test_nothing_is_coerced_and_every_wrong_field_is_named(self, read: Read) -> None:
        (row,) = read("rows.jsonl", '{"count": "3", "flag": 1, "tags": ["a", 2]}')
        assert {problem.field for problem in row.problems} == {"text", "count", "flag", "tags.1"}
        assert "text: is missing" in said(row)

    def test_what_cannot_be_stored(self, read: Read) -> None:
        rows = read(
            "rows.jsonl",
            '{"text": "a\\u0000", "count": 1}\n'
            '{"text": "\\ud800", "count": 1}\n'
            '{"text": "a", "count": 1, "share": 1e999}',
        )
        assert [[problem.field for problem in row.problems] for row in rows] == [["text"], ["text"], ["share"]]

    def test_not_text(self, read: Read) -> None:
        with pytest.raises(UnreadableInputs, match=r"--inputs: .*rows.jsonl is not UTF-8"):
            read("rows.jsonl", b'{"text": "\xff"}')

    def test_an_empty_file(self, read: Read) -> None:
        assert read("rows.jsonl", "") == []


class TestCsv:
    def test_text_is_read_as_the_types_of_the_signature(self, read: Read) -> None:
        (row,) = read("rows.csv", 'text,count,share,flag,tags,note\n"a, ""b""\nc",-3,1e-2,FALSE,"[""x"", ""y""]",n\n')
        assert row == Row(
            3,  # a quoted cell may go over lines: the row is named by its last
            {"text": 'a, "b"\nc', "count": -3, "share": 0.01, "flag": False, "tags": ["x", "y"], "note": "n"},
        )

    def test_an_empty_cell_is_no_value_or_empty_text(self, read: Read) -> None:
        (row,) = read("rows.csv", "text,count,share,flag,tags,note\n,3,,,,\n")
        assert row.inputs == DEFAULTS | {"text": "", "count": 3}

    def test_a_required_value_in_an_empty_cell(self, read: Read) -> None:
        (row,) = read("rows.csv", "text,count\na,\n")
        assert said(row) == ["count: is missing"]

    def test_cells_that_are_missing(self, read: Read) -> None:
        (row,) = read("rows.csv", "text,count\na\n")
        assert said(row) == ["count: is missing"]

    @pytest.mark.parametrize(
        ("cell", "field"), [("3.5,1,true,[]", "count"), ("3,nan,true,[]", "share"), ("3,1,yes,[]", "flag")]
    )
    def test_text_of_another_type_is_named(self, read: Read, cell: str, field: str) -> None:
        (row,) = read("rows.csv", f"text,count,share,flag,tags\na,{cell}\n")
        assert [problem.field for problem in row.problems] == [field]
        assert row.line == 2

    def test_a_byte_order_mark_and_line_ends_of_windows(self, read: Read) -> None:
        (row,) = read("rows.csv", b"\xef\xbb\xbftext,count\r\na,3\r\n")
        assert row.inputs == DEFAULTS | {"text": "a", "count": 3}

    def test_too_many_cells(self, read: Read) -> None:
        wrong, right = read("rows.csv", "text,count\na,1,extra\nb,2\n")
        assert said(wrong) == ["has more cells than the first line has columns"]
        assert wrong.line == 2
        assert right.inputs is not None

    def test_no_header(self, read: Read) -> None:
        with pytest.raises(UnreadableInputs, match=r"first line names no input.*text, count, share"):
            read("rows.csv", "a,1\nb,2\n")

    def test_a_quote_that_never_ends(self, read: Read) -> None:
        with pytest.raises(UnreadableInputs, match="is not CSV"):
            read("rows.csv", 'text,count\n"a,1\n')

    def test_a_long_text(self, read: Read) -> None:
        (row,) = read("rows.csv", f"text,count\n{'x' * 500_000},1\n")
        assert row.inputs is not None
        assert len(row.inputs["text"]) == 500_000

    def test_a_column_named_like_an_output_has_its_type(self, read: Read) -> None:
        (row,) = read("rows.csv", "text,count,score,answer,more\na,1,7,9,8\n")
        assert row.other == {"score": 7, "answer": "9", "more": "8"}

    def test_empty(self, read: Read) -> None:
        assert read("rows.csv", "") == []
        assert read("rows.csv", "text,count\n") == []


class TestPairs:
    def test_one_row_of_text(self) -> None:
        pairs = ("text=a=b", "count=3", "tags=[]", "flag=false", "note=")
        (row,) = read_rows(SIGNATURE, None, pairs)
        assert row == Row(1, DEFAULTS | {"text": "a=b", "count": 3, "flag": False})

    def test_wrong_type(self) -> None:
        (row,) = read_rows(SIGNATURE, None, ("text=a", "count=three"))
        assert [problem.field for problem in row.problems] == ["count"]

    def test_no_pair(self) -> None:
        with pytest.raises(UnreadableInputs, match="'text' is not NAME=VALUE"):
            list(read_rows(SIGNATURE, None, ("text",)))


@pytest.mark.parametrize("name", [None, "-"])
def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('\ufeff{"text": "a", "count": 1}\n{"text": "b", "count": 2}\n'))
    rows = list(read_rows(SIGNATURE, name, ()))
    assert [(row.line, row.inputs and row.inputs["text"]) for row in rows] == [(1, "a"), (2, "b")]


def test_rows_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", itertools.repeat('{"text": "a", "count": 1}\n'))
    rows = read_rows(SIGNATURE, "-", ())
    assert [next(rows).line for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv", "."])
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableInputs, match=f"--inputs: {name}: "):
        list(read_rows(SIGNATURE, name, ()))
