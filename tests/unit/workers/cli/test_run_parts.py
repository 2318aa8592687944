"""The parts of `dspex run`: the order of results, ids, progress, and CSV as the standard library reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from store.executions import Result
from workers.cli.inputs.delimited import Records
from workers.cli.inputs.json_rows import CHUNK, elements
from workers.cli.inputs.reading import Inputs
from workers.cli.inputs.rows import Row
from workers.cli.inputs.source import Lines
from workers.cli.run.ids import Ids, Occurrences
from workers.cli.run.order import MAX_HELD, InOrder
from workers.cli.run.progress import Shown
from workers.cli.summary import Summary

PROGRAM = UUID(int=1)


def test_results_are_in_order_and_what_is_missing_holds_no_end_up() -> None:
    written: list[str] = []
    order = InOrder(written.append, ordered=True)
    for place in (1, 0, 3, 4):
        order.put(place, str(place))
    assert written == ["0", "1"]
    order.flush()
    assert written == ["0", "1", "3", "4"]


def test_what_is_held_is_bounded() -> None:
    order = InOrder(lambda _: None, ordered=True)
    full = []
    for place in (*range(1, MAX_HELD + 1), 0):
        order.put(place, "x")
        full.append(order.full)
    assert full[-3:] == [False, True, False]


def test_unordered_results_are_written_as_they_come() -> None:
    written: list[str] = []
    order = InOrder(written.append, ordered=False)
    order.put(7, "7")
    assert written == ["7"]


def test_ids_follow_from_content_and_occurrence_and_are_looked_up_at_once() -> None:
    asked: list[int] = []

    def look(ids: Sequence[UUID]) -> list[Result]:
        asked.append(len(ids))
        return []

    rows = [{"q": "a"}, {"q": "b"}, {"q": "a"}]
    ids, found = Ids(PROGRAM, look, retry_failed=False).of(rows)
    assert (len(set(ids)), found, asked) == (3, {}, [3])
    again, _ = Ids(PROGRAM, look, retry_failed=False).of(rows[:1])
    assert again == ids[:1]


def test_occurrences_are_counted_in_memory_and_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cli.run.ids.MAX_IN_MEMORY", 2)
    occurrences = Occurrences()
    assert [occurrences.count(content) for content in ("aa", "bb", "cc", "aa", "cc", "dd")] == [1, 1, 1, 2, 2, 1]
    occurrences.close()


def test_what_failed_is_asked_for_under_another_id_in_bulk() -> None:
    failed: set[UUID] = set()

    def look(ids: Sequence[UUID]) -> list[Result]:
        return [Result(id_, "failed", None, None, None, None) for id_ in ids if id_ in failed]

    rows = [{"q": "a"}, {"q": "b"}]
    first, _ = Ids(PROGRAM, look, retry_failed=True).of(rows)
    failed.add(first[0])
    second, _ = Ids(PROGRAM, look, retry_failed=True).of(rows)
    assert second[0] != first[0]
    assert second[1] == first[1]


def test_progress_says_the_truth() -> None:
    inputs, summary = Inputs(Row(line, {}) for line in range(1, 11)), Summary()
    shown = Shown(Console(file=io.StringIO()), summary, inputs)
    rows = iter(inputs)
    next(rows)
    for number in range(4):
        summary.add(Result(UUID(int=number), "completed", {}, None, {"cost": 0.5}, 1.0))
    summary.earlier = 3
    text = shown.text()
    assert "4 completed (3 run before), 0 failed" in text
    assert "$2.0000" in text
    assert not text.startswith("0 of")
    done = int(text.split(" of ")[0])
    assert done == 4
    list(rows)
    assert shown.text().startswith("4 of 10")


CELLS = st.lists(st.lists(st.text(st.sampled_from('a,;"\n é'), max_size=6), min_size=2, max_size=4), min_size=1)


@given(CELLS)
def test_csv_is_read_as_it_is_written(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    records = list(Records(Lines(io.StringIO(text.getvalue(), newline="")), ",", "utf-8"))
    assert [(record.cells, record.flaw) for record in records] == [(row, None) for row in rows]


@given(st.text(st.sampled_from('ab,"\n'), max_size=60))
def test_whatever_a_csv_is_every_line_begins_a_record_or_is_part_of_one(text: str) -> None:
    records = list(Records(Lines(io.StringIO(text, newline="")), ",", "utf-8"))
    seen = [line.number for record in records for line in record.lines]
    assert seen == list(range(1, len(io.StringIO(text).readlines()) + 1))


def test_elements_over_the_ends_of_chunks() -> None:
    long = '{"a": "' + '\\\\\\"[{]},' * CHUNK + '"}'
    found = list(elements(io.StringIO(f"[{long},\n{long}\n,3]\n\n")))
    assert [(element.line, element.text.strip() == long, element.flaw) for element in found[:2]] == [
        (1, True, None),
        (2, True, None),
    ]
    assert found[2].text == "3"
    assert len(found) == 3


def test_what_comes_after_an_array() -> None:
    assert [element.flaw for element in elements(io.StringIO("[1]\n[2]"))] == [None, "comes after the end of the array"]
