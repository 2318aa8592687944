"""Versions beside each other: what a newer one made of the database, and what taking it back loses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.config import main as alembic
from click.testing import Result
from sqlalchemy import Engine, text

import migrations
from dspex import Configuration, ExecutionOptions, Signature, Usage, uuid7
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.errors import SettingsError
from store import executions, programs, signatures
from store.database.engine import make_engine
from store.executions import Claimed, Finish, Lease, Request
from tests import click_runner
from tests.integration.schema import fill
from tests.waiting import wait_until
from workers.cli.main import main
from workers.persistence.schema import require_schema

ROOT = Path(__file__).parents[2]

NEWER = """
revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
serves_from = "{serves_from}"

from alembic import op


def upgrade():
    op.execute("ALTER TABLE executions ADD COLUMN colour VARCHAR(8)")


def downgrade():
    op.execute("ALTER TABLE executions DROP COLUMN colour")
"""
"""A release that is to come."""


NewerRelease = Callable[[str], "Release"]


class Release:
    """The migrations of a newer version, run as that would run them."""

    def __init__(self, folder: Path, serves_from: str) -> None:
        shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
        script = folder / "migrations" / "versions" / "9999_newer.py"
        script.write_text(NEWER.format(head=migrations.head(), serves_from=serves_from), encoding="utf-8")
        self._run = [sys.executable, "-c", "import sys; from alembic.config import main; main(sys.argv[1:])"]
        shutil.copy(ROOT / "alembic.ini", folder)
        for package in ("store", "messages"):
            (folder / package).symlink_to(ROOT / package)
        self._folder = folder

    def migrate(self, url: str, *command: str) -> None:
        arguments = ["-c", str(self._folder / "alembic.ini"), "-x", f"url={url}", "-x", "lose=yes", *command]
        done = subprocess.run(
            [*self._run, *arguments], cwd=self._folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def newer(tmp_path: Path) -> Callable[[str], Release]:
    return lambda serves_from: Release(tmp_path / "newer", serves_from)


def dspex(url: str, *arguments: str) -> Result:
    return click_runner.runner().invoke(main, arguments, env={"DSPEX_DATABASE_URL": url})


class TestANewerVersion:
    def test_this_one_goes_on_where_the_database_says_so(
        self, engine: Engine, database_url: str, newer: NewerRelease, caplog: pytest.LogCaptureFixture
    ) -> None:
        newer(migrations.head()).migrate(database_url, "upgrade", "head")
        assert migrations.current(engine) == migrations.newer(engine) == "9999"
        require_schema(engine)
        assert [record.getMessage() for record in caplog.records if record.name == "workers.persistence.schema"] == [
            f"The database is at 9999, newer than this version, of {migrations.head()}, which it serves too."
        ]
        fill(engine)  # its statements run
        assert migrations.current(engine) == "9999"

    def test_this_one_says_what_to_do_where_it_does_not(
        self, engine: Engine, database_url: str, newer: NewerRelease
    ) -> None:
        newer("9999").migrate(database_url, "upgrade", "head")
        with pytest.raises(SettingsError) as refused:
            require_schema(engine)
        assert "the database is at 9999" in refused.value.message
        assert f"`dspex downgrade --to {migrations.head()}`" in refused.value.message

    def test_it_is_not_migrated_by_an_older_one(self, engine: Engine, database_url: str, newer: NewerRelease) -> None:
        newer(migrations.head()).migrate(database_url, "upgrade", "head")
        for command in (["migrate"], ["downgrade", "--to", "0004", "--yes"]):
            done = dspex(database_url, *command)
            assert done.exit_code == 2
            assert "is at 9999, of a newer version" in done.stderr
        assert migrations.current(engine) == "9999"

    def test_what_was_taken_back_serves_as_before(self, engine: Engine, database_url: str, newer: NewerRelease) -> None:
        release = newer("9999")
        release.migrate(database_url, "upgrade", "head")
        release.migrate(database_url, "downgrade", migrations.head())
        require_schema(engine)
        assert served(engine) == "0010"

    def test_up_back_and_forward_while_work_goes_on(self, postgres_database_url: str, newer: NewerRelease) -> None:
        """Of workers of this version; none of their statements fails."""
        url, release = postgres_database_url, newer(migrations.head())
        engine = make_engine(url, pool_size=4)
        migrations.upgrade(engine)
        program_id, stop, ended = program(engine), threading.Event(), list[UUID]()

        def work() -> None:
            lease = Lease("w", 30)
            while not stop.is_set():
                asked = Request(uuid7(), program_id, {"question": "é"}, ExecutionOptions(), "/tests")
                with engine.begin() as connection:
                    (claimed,) = executions.claim(connection, lease, [asked], now=[True])
                assert isinstance(claimed, Claimed)
                end = Finish(claimed.id, program_id, claimed.lock_version, 1.0, Usage(), {"answer": "b"})
                with engine.begin() as connection:
                    assert executions.finish(connection, 1, [end]) == [True]
                ended.append(claimed.id)

        failed = list[BaseException]()

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=guarded) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for command in (["upgrade", "head"], ["downgrade", migrations.head()], ["upgrade", "head"]):
                wanted = len(ended) + 25
                wait_until(lambda: len(ended) >= wanted or bool(failed), "executions end")  # noqa: B023
                release.migrate(url, *command)
            wanted = len(ended) + 25
            wait_until(lambda: len(ended) >= wanted or bool(failed), "executions end")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failed == []
        with engine.connect() as connection:
            assert executions.count(connection, program_id).by_status == {"completed": len(ended)}
        engine.dispose()


def served(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT serves_from FROM alembic_version")).scalar_one())


def program(engine: Engine) -> UUID:
    """A program that is ready."""
    signature_id, program_id = uuid7(), uuid7()
    with engine.begin() as connection:
        signatures.create(connection, signature_id, Signature.parse("question -> answer"), activate=True)
        programs.create(
            connection,
            program_id,
            name="a",
            signature_id=signature_id,
            adapter_type="mock",
            configuration=Configuration(),
            policy=ExecutionPolicy(max_attempts=2),
        )
        begun = programs.begin_initialize(connection, program_id)
        programs.end_initialize(connection, begun, "backend")
    return program_id


class TestMigrate:
    def test_to_a_revision_and_on(self, engine: Engine, database_url: str) -> None:
        done = dspex(database_url, "migrate", "--to", "0004")
        assert (done.exit_code, done.stdout.endswith("is at 0004 (was empty)\n")) == (0, True)
        done = dspex(database_url, "migrate")
        assert done.stdout.endswith(f"is at {migrations.head()} (was 0004)\n")
        assert dspex(database_url, "migrate").stdout.endswith(f"is at {migrations.head()}\n")

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["migrate", "--to", "0004"], "--to: the database is at 0005, above 0004: `dspex downgrade` takes it back"),
            (["migrate", "--to", "4"], "--to: there is no revision '4'; there are base, 0001, 0002, "),
            (["downgrade", "--to", "4"], "--to: there is no revision '4'; there are base, 0001, 0002, "),
            (["downgrade", "--to", "-1"], "--to: there is no revision '-1'; there are base, 0001, 0002, "),
        ],
    )
    def test_a_wrong_revision(self, engine: Engine, database_url: str, command: list[str], said: str) -> None:
        migrations.upgrade(engine, "0005")
        done = dspex(database_url, *command)
        assert done.exit_code == 2
        assert said in done.stderr
        assert migrations.current(engine) == "0005"

    def test_a_downgrade_does_not_bring_up(self, engine: Engine, database_url: str) -> None:
        migrations.upgrade(engine, "0004")
        done = dspex(database_url, "downgrade", "--to", "0005")
        assert done.exit_code == 2
        assert "the database is at 0004, below 0005: `dspex migrate` brings it up" in done.stderr


LOST = {
    "0005": [
        "1 pauses and limits",
        "2 references to blobs, which are removed for unused after the next upgrade",
        "2 signatures with a description",
        "1 traces of executions",
        "1 executions with the time of their request",
        "1 executions with metadata",
        "1 executions with extension attributes",
    ],
    "0004": ["1 endpoints of webhooks", "1 deliveries that are not made yet"],
    "0003": [
        "2 idempotency keys: a request that comes again runs again",
        "2 events that are not sent yet, and will not be",
        "1 executions that wait for their time, and keep it, but no longer their not_before or deadline",
        "1 dead letters that were replayed or discarded, and are listed again",
        "1 failed executions that were discarded, and are listed again",
        "1 retry policies of programs",
    ],
    "0001": ["1 executions that were cancelled, which become failed ones", "4 timelines of executions"],
    "base": ["2 signatures", "2 programs", "4 executions", "1 rejected messages"],
}
"""What each step back loses of what `lived` has written, beside what the steps before it lost."""


class TestDowngrade:
    @pytest.fixture
    def lived(self, engine: Engine) -> Engine:
        """A database with some of everything that a migration came for."""
        migrations.upgrade(engine)
        fill(engine)
        program_id = program(engine)
        later = ExecutionOptions.model_validate({"not_before": "2100-01-01T00:00:00Z"})
        with engine.begin() as connection:
            told: dict[str, Any] = {"metadata": {"order": "1"}, "extensions": {"partitionkey": "a"}}
            told["requested_at"] = datetime(2026, 1, 1, tzinfo=UTC)
            scheduled = Request(uuid7(), program_id, {}, later, "/tests", **told)
            executions.claim(connection, Lease("w", 30), [scheduled], now=[False])
            for statement in (
                "UPDATE rejected_messages SET status = 'discarded'",
                "UPDATE executions SET discarded = true WHERE status = 'completed'",
                "UPDATE signatures SET description = 'For people.'",
            ):
                connection.execute(text(statement))
            waiting = next(
                e for e in executions.page(connection).items if e.program_id != program_id and e.attempt == 0
            )
            executions.cancel(connection, waiting.id, by="ann")
        return engine

    @pytest.mark.parametrize("revision", ["0005", "0004", "0003", "0001", "base"])
    def test_it_says_what_it_loses_and_asks(self, lived: Engine, database_url: str, revision: str) -> None:
        steps = list(LOST)
        wanted = [line for step in steps[: steps.index(revision) + 1] for line in LOST[step]]
        assert sorted(migrations.losses(lived, revision)) == sorted(wanted)
        done = dspex(database_url, "downgrade", "--to", revision)
        assert done.exit_code == 2
        assert all(line in done.stderr for line in wanted)
        assert "nothing is changed: give --yes" in done.stderr
        assert migrations.current(lived) == migrations.head()
        done = dspex(database_url, "downgrade", "--to", revision, "--yes")
        assert done.exit_code == 0, done.stderr
        assert migrations.current(lived) == (None if revision == "base" else revision)
        before = {"0005": "0004", "0004": "0003", "0003": "0002", "0001": "0001"}
        assert revision == "base" or served(lived) == before[revision]

    def test_where_nothing_is_lost_it_does_not_ask(self, engine: Engine, database_url: str) -> None:
        migrations.upgrade(engine)
        done = dspex(database_url, "downgrade", "--to", "base")
        assert (done.exit_code, done.stdout.endswith(f"is at base (was {migrations.head()})\n")) == (0, True)

    @pytest.mark.parametrize("back", ["-16", "0003"])
    def test_the_alembic_command_line_asks_too(
        self, lived: Engine, database_url: str, capsys: pytest.CaptureFixture[str], back: str
    ) -> None:
        given = ["-c", str(ROOT / "alembic.ini"), "-x", f"url={database_url}"]
        with pytest.raises(SystemExit):
            alembic([*given, "downgrade", back])
        said = "".join(capsys.readouterr())
        assert "; 1 executions with metadata; " in said
        assert "1 endpoints of webhooks" in said
        assert migrations.current(lived) == migrations.head()
        alembic([*given, "-x", "lose=yes", "downgrade", back])
        assert migrations.current(lived) == "0003"

    def test_what_is_scheduled_is_not_stranded(self, lived: Engine) -> None:
        """A version of 0003 finds what is due by its lease: it begins then."""
        with lived.connect() as connection:
            scheduled = connection.execute(
                text("SELECT run_at FROM executions WHERE not_before IS NOT NULL")
            ).scalar_one()
        migrations.downgrade(lived, "0003")
        with lived.connect() as connection:
            waiting = connection.execute(
                text("SELECT lease_expires_at FROM executions WHERE status = 'pending'")
            ).scalars()
            assert scheduled in list(waiting)
