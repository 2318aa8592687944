"""`dspex execution cancel`: by id, by a filter, in batches that can be stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from sqlalchemy import update

from dspex import ExecutionStatus, uuid7
from dspex.contract.results import Affected
from store import executions
from store.column_types import database_now
from store.database.engine import make_engine
from store.tables import executions as executions_table
from tests.click_runner import runner
from tests.contract.store.rows import (
    accept,
    ready_program,
    request,
)
from workers.cli import batches
from workers.cli.main import main

Rows = tuple[UUID, list[UUID]]


@pytest.fixture
def url(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("COLUMNS", "200")
    return f"sqlite:///{database}"


@pytest.fixture
def rows(url: str) -> Rows:
    """A program, called `answerer`, with six executions that wait: half of each batch, one of them a day old."""
    engine = make_engine(url)
    with engine.begin() as connection:
        program_id = ready_program(connection)
        asked = [replace(request(program_id), metadata={"batch": str(number % 2)}) for number in range(6)]
        accept(connection, *asked)
        old = update(executions_table).where(executions_table.c.id == asked[0].id)
        connection.execute(old.values(inserted_at=database_now(-86_400.0)))
    engine.dispose()
    return program_id, [one.id for one in asked]


def cancel(*arguments: object, code: int = 0) -> Result:
    done = runner().invoke(main, ["execution", "cancel", *map(str, arguments)])
    assert done.exit_code == code, (done.stdout, done.stderr)
    return done


def count(*arguments: object) -> Any:
    return json.loads(cancel(*arguments, "--json").stdout)["count"]


def cancelled(url: str, ids: list[UUID]) -> list[UUID]:
    engine = make_engine(url)
    with engine.begin() as connection:
        found = {one.id for one in executions.get(connection, ids) if one.status == ExecutionStatus.CANCELLED}
    engine.dispose()
    return [id_ for id_ in ids if id_ in found]


def test_one_is_shown_and_several_are_counted(url: str, rows: Rows) -> None:
    _, ids = rows
    assert json.loads(cancel(ids[0], "--json").stdout)["status"] == "cancelled"
    assert cancel(ids[1], ids[2]).stdout == "Cancelled 2 executions.\n"
    assert cancelled(url, ids) == ids[:3]
    assert f"cannot be cancelled: it is {ExecutionStatus.CANCELLED}" in cancel(ids[0], code=2).stderr


def test_a_filter_chooses(url: str, rows: Rows) -> None:
    program_id, ids = rows
    assert cancel("--program", "answerer", "--dry-run").stdout == "6 executions would be cancelled.\n"
    assert cancelled(url, ids) == []
    assert count("--older-than", "2d") == count("--lane", "bulk") == count("--status", "running") == 0
    assert count("--older-than", "1h") == 1
    assert count("--program", program_id, "--label", "batch=1", "--status", "pending") == 3
    assert cancelled(url, ids) == [ids[0], *ids[1::2]]
    assert cancel("--all").stdout == "Cancelled 2 executions.\n"
    assert count("--all") == 0


def test_of_an_archived_program_by_its_id(url: str, rows: Rows) -> None:
    program_id, ids = rows
    done = runner().invoke(main, ["program", "archive", str(program_id)])
    assert done.exit_code == 0, done.stderr
    assert "is archived" in cancel("--program", "answerer", code=2).stderr
    assert count("--program", program_id) == len(ids)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give IDs, a filter"),
        ([uuid7(), "--all"], "give IDs, a filter"),
        (["--all", "--lane", "bulk"], "give IDs, a filter"),
        ([uuid7(), "--dry-run"], "--dry-run counts those of a filter"),
        (["--older-than", "soon"], "is no age: give a number and s, m, h or d"),
        (["--older-than", "1d", "--until", "2026-01-01"], "give --older-than or --until, not both"),
        (["--program", "nobody"], "nobody"),
        (["--label", "batch"], "--label: must be NAME=VALUE"),
    ],
)
def test_what_is_refused_changes_nothing(url: str, rows: Rows, arguments: list[object], said: str) -> None:
    assert said in cancel(*arguments, code=2).stderr
    assert cancelled(url, rows[1]) == []


class TestBatches:
    def test_it_goes_on_and_says_how_far_it_is(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(batches, "LINE_SECONDS", 0.0)
        asked: list[dict[str, Any]] = []

        def ask(**given: Any) -> Affected:
            asked.append(given)
            return Affected(count=1000, refused=1, next_cursor={1: "a", 2: "b"}.get(len(asked)))

        assert batches.in_batches(ask, {"lane": "bulk"}, "cancelled") == Affected(count=3000, refused=3)
        assert [one["cursor"] for one in asked] == [None, "a", "b"]
        assert {(one["lane"], one["limit"]) for one in asked} == {("bulk", 1000)}
        assert capsys.readouterr().err == "1,000 cancelled so far\n2,000 cancelled so far\n"

    def test_ctrl_c_says_what_is_done(self, url: str, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batches, "AT_ONCE", 2)
        asked = list[None]()

        def interrupt() -> float:
            asked.append(None)
            if len(asked) == 3:  # after the second batch
                raise KeyboardInterrupt
            return 0.0

        monkeypatch.setattr(batches, "monotonic", interrupt)
        stopped = cancel("--all", code=130)
        assert stopped.stderr == "Stopped: 4 cancelled so far; the same command again goes on.\n"
        _, ids = rows
        assert len(cancelled(url, ids)) == 4
