"""Rows of input: what fits the signature, and what is said of the lines that do not."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex import Signature
from workers.cli.inputs.reading import read_rows
from workers.cli.inputs.rows import Row, UnreadableInputs

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

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
    def test_a_line_that_is_not_text_is_one_bad_row(self, read: Read, name: str) -> None:
        lines = {
            "rows.jsonl": b'{"text": "a", "count": 1}\n{"text": "caf\xe9", "count": 1}\n{"text": "b", "count": 2}\n',
            "rows.csv": b"text,count\na,1\ncaf\xe9,1\nb,2\n",
        }
        before, row, after = read(name, lines[name])
        (problem,) = said(row)
        assert "has a byte that is not UTF-8 (0xE9, at character" in problem
        assert "--encoding" in problem
        assert row.line == before.line + 1
        assert before.inputs is not None
        assert after.inputs is not None

    def test_an_empty_file(self, read: Read) -> None:
        assert read("rows.jsonl", "") == []

    def test_3_0_is_a_whole_number(self, read: Read) -> None:
        (row,) = read("rows.jsonl", '{"text": "a", "count": 3.0}')
        assert row.inputs is not None
        assert (row.inputs["count"], type(row.inputs["count"])) == (3, int)

    def test_a_key_that_comes_twice(self, read: Read) -> None:
        twice, nested = read("rows.jsonl", '{"text": "a", "text": "b"}\n{"text": "a", "more": {"x": 1, "x": 1}}')
        assert said(twice) == ["has the key 'text' twice"]
        assert said(nested) == ["has the key 'x' twice"]


class TestCsv:
    def test_text_is_read_as_the_types_of_the_signature(self, read: Read) -> None:
        (row,) = read("rows.csv", 'text,count,share,flag,tags,note\n"a, ""b""\nc",-3,1e-2,FALSE,"[""x"", ""y""]",n\n')
        assert row == Row(
            2,  # a quoted cell may go over lines: the row is named by its first
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

    def test_a_column_that_is_missing(self, read: Read) -> None:
        with pytest.raises(UnreadableInputs, match=r"has no column for count; it has text, Count: --column count=HEAD"):
            read("rows.csv", "text,Count\na,1\n")

    @pytest.mark.parametrize("header", ["text,count,text", "text, text,count", "text,count,id,id"])
    def test_a_header_that_comes_twice(self, read: Read, header: str) -> None:
        with pytest.raises(UnreadableInputs, match=r"has the column '(text|id)' twice"):
            read("rows.csv", f"{header}\na,1,2,3\n")

    def test_a_quote_that_never_ends_costs_its_own_line(self, read: Read) -> None:
        wrong, right, last = read("rows.csv", 'text,count\n"a,1\nb,2\n"c\nd",3\n')
        assert (wrong.line, said(wrong)) == (2, ["has a quote within a quoted cell: double it"])
        assert [(row.line, row.inputs and row.inputs["text"]) for row in (right, last)] == [(3, "b"), (4, "c\nd")]

    def test_a_quote_that_is_open_to_the_end(self, read: Read) -> None:
        wrong, right = read("rows.csv", 'text,count\n"a,1\nb,2\n')
        assert (wrong.line, said(wrong)) == (2, ["has a quote that never ends"])
        assert (right.line, right.inputs and right.inputs["text"]) == (3, "b")

    @pytest.mark.parametrize(
        ("line", "wrong"),
        [
            ('"He said "no" twice",6', "has a quote within a quoted cell: double it"),
            ('"a"b,6', "has a quote within a quoted cell: double it"),
            ('6, "a, b"', "has a space before a quote: take it out, or quote the whole cell"),
        ],
    )
    def test_a_stray_quote(self, read: Read, line: str, wrong: str) -> None:
        before, row, after = read("rows.csv", f"text,count\na,1\n{line}\nb,2\n")
        assert (row.line, said(row)) == (3, [wrong])
        assert before.inputs is not None
        assert after.inputs is not None

    def test_a_quote_within_a_plain_cell_is_a_quote(self, read: Read) -> None:
        (row,) = read("rows.csv", 'text,count\n5" pipe,1\n')
        assert row.inputs is not None
        assert row.inputs["text"] == '5" pipe'

    def test_a_line_that_is_too_long(self, read: Read) -> None:
        before, row, after = read("rows.csv", f"text,count\na,1\n{'x' * 9_000_000},1\nb,2\n")
        assert (row.line, said(row)) == (3, ["is longer than 8,388,608 characters"])
        assert before.inputs is not None
        assert after.inputs is not None

    def test_a_long_text(self, read: Read) -> None:
        (row,) = read("rows.csv", f"text,count\n{'x' * 500_000},1\n")
        assert row.inputs is not None
        assert len(row.inputs["text"]) == 500_000

    def test_a_column_named_like_an_output_has_its_type(self, read: Read) -> None:
        (row,) = read("rows.csv", "text,count,score,answer,more\na,1,7,9,08\n")
        assert row.other == {"score": 7, "answer": "9", "more": "08"}
        assert row.columns == {"score": "7", "answer": "9", "more": "08"}

    def test_empty(self, read: Read) -> None:
        assert read("rows.csv", "text,count\n") == []
        with pytest.raises(UnreadableInputs, match="is empty"):
            read("rows.csv", "\n \n")


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


class Stdin:
    """Standard input that has these bytes; `read1` is asked for what there is, no more."""

    def __init__(self, content: bytes, *, endless: bool = False) -> None:
        self.buffer = io.BufferedReader(Endless(content) if endless else io.BytesIO(content))


class Endless(io.RawIOBase):
    def __init__(self, line: bytes) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[: len(self._line)] = self._line
        return len(self._line)


@pytest.mark.parametrize("name", [None, "-"])
def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    text = '\ufeff{"text": "a", "count": 1}\n{"text": "b", "count": 2}\n'
    monkeypatch.setattr("sys.stdin", Stdin(text.encode()))
    rows = list(read_rows(SIGNATURE, name, ()))
    assert [(row.line, row.inputs and row.inputs["text"]) for row in rows] == [(1, "a"), (2, "b")]


def test_rows_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(b'{"text": "a", "count": 1}\n', endless=True))
    rows = read_rows(SIGNATURE, "-", ())
    assert [next(rows).line for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv", "."])
def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableInputs, match=f"--inputs: {name}: "):
        list(read_rows(SIGNATURE, name, ()))
