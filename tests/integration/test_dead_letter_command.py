"""`dspex dead-letter`, as an operator uses it: on SQLite without a server, and with PostgreSQL and RabbitMQ."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pytest
from click.testing import Result

import migrations
from dspex import CreateSignature, ExecutionStatus, Signature, uuid7, wrap
from dspex.amqp.topology import PROGRAMS_QUEUE
from store import rejections
from store.database.engine import make_engine
from store.rejections import Rejection
from tests import click_runner
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.cli.main import main
from workers.local import embedded
from workers.settings import Settings

COMMAND = CreateSignature(signature_id=uuid7(), signature=Signature.parse("a -> b"))
BODY = wrap(COMMAND, source="/tests").encode()


@dataclass(frozen=True)
class Letters:
    """A database with dead letters, and the command line on it."""

    environment: dict[str, str]
    program_id: UUID
    executions: list[UUID]
    message: UUID
    garbage: UUID

    def __call__(self, *arguments: object, code: int = 0, **environment: str) -> Result:
        given = ["dead-letter", *map(str, arguments)]
        result = click_runner.runner().invoke(main, given, env=self.environment | environment)
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def dead(self, kind: str, *arguments: object) -> list[UUID]:
        """The ids in a list."""
        name = {"execution": "execution_id", "message": "rejection_id"}[kind]
        return [UUID(item[name]) for item in self.json("list", "--kind", kind, *arguments)["items"]]


def keep(database_url: str, broker_url: str = "memory://") -> Letters:
    """Make dead letters in a database: executions of a program that was not ready yet, and two messages."""
    engine = make_engine(database_url)
    migrations.upgrade(engine)
    with embedded(Settings(database_url=database_url, broker_url="memory://", log_level="WARNING")) as dspex:
        program_id = dspex.create_program("late", "q -> a", adapter_type="mock").program_id
        failed = [dspex.execute_program(program_id, {"q": str(n)}).execution_id for n in range(3)]
        dspex.initialize_program(program_id)
    good, bad = Rejection(PROGRAMS_QUEUE, "not_found", "no", BODY, len(BODY)), Rejection("q", "x", "no", b"\xff", 1)
    with engine.begin() as connection:
        for rejection in (good, bad):
            rejections.record(connection, rejection)
    engine.dispose()
    environment = {
        "COLUMNS": "200",
        "DSPEX_DATABASE_URL": database_url,
        "DSPEX_BROKER_URL": broker_url,
        "DSPEX_LOG_LEVEL": "WARNING",
    }
    return Letters(environment, program_id, failed, good.id, bad.id)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Letters]:
    """A file with dead letters, to be copied."""
    file = tmp_path_factory.mktemp("letters") / "dspex.db"
    return file, keep(f"sqlite:///{file}")


@pytest.fixture
def letters(kept: tuple[Path, Letters], tmp_path: Path) -> Letters:
    file, letters = kept
    copy = shutil.copy(file, tmp_path / "dspex.db")
    return replace(letters, environment=letters.environment | {"DSPEX_DATABASE_URL": f"sqlite:///{copy}"})


class TestListAndShow:
    def test_both_kinds_in_tables(self, letters: Letters) -> None:
        shown = letters("list").stdout
        for part in (*letters.executions, letters.message, letters.garbage, "program_not_ready", "executions:"):
            assert str(part) in shown
        more = letters("list", "--limit", 2)
        assert "More: --kind execution --cursor " in more.stderr
        assert more.stderr.count("More: ") == 1

    def test_as_json_in_one_object_or_as_the_page_of_a_kind(self, letters: Letters) -> None:
        both = letters.json("list")
        assert [len(both[kind]["items"]) for kind in ("messages", "executions")] == [2, 3]
        page = letters.json("list", "--kind", "message")
        assert page == both["messages"]
        bodies = {item["rejection_id"]: item["body"] for item in page["items"]}
        assert bodies == {str(letters.message): BODY.decode(), str(letters.garbage): "/w=="}
        newest = letters.json("list", "--kind", "execution", "--limit", 2)
        assert letters.dead("execution", "--cursor", newest["next_cursor"]) == letters.executions[:1]

    def test_filters(self, letters: Letters) -> None:
        assert set(letters.json("list", "--program", letters.program_id)) == {"items", "next_cursor"}
        assert letters.json("list", "--queue", "q")["items"][0]["rejection_id"] == str(letters.garbage)
        assert letters.dead("message", "--error-code", "not_found") == [letters.message]
        assert letters.dead("execution", "--until", "2020-01-01") == []
        assert letters.dead("execution", "--since", "2020-01-01") == letters.executions[::-1]
        assert "None." in letters("list", "--error-code", "auth").stdout

    def test_one_of_either_kind(self, letters: Letters) -> None:
        assert letters.json("show", letters.executions[0])["execution_id"] == str(letters.executions[0])
        assert letters.json("show", letters.garbage)["body_encoding"] == "base64"
        assert "/w==" in letters("show", letters.garbage).stdout
        unknown = uuid7()
        assert f"no execution and no rejected message {unknown}" in letters("show", unknown, code=2).stderr


class TestReplay:
    def test_executions_wait_for_whoever_runs_next(self, letters: Letters) -> None:
        one, two, three = letters.executions
        replayed = letters("replay", one, two)
        assert replayed.stdout == "Replayed 2 executions.\n"
        assert "pending and due" in replayed.stderr
        assert letters.dead("execution") == [three]
        again = letters("replay", one)
        assert (again.stdout, again.stderr) == ("Replayed 0 executions.\n", "")
        assert letters.json("replay", "--program", letters.program_id) == {
            "executions": {"count": 1, "refused": 0, "next_cursor": None}
        }
        settings = Settings(database_url=letters.environment["DSPEX_DATABASE_URL"], broker_url="memory://")
        with embedded(settings, run_others=True) as dspex:
            for execution_id in letters.executions:
                wait_until(
                    lambda id_=execution_id: dspex.get_execution(id_).status == ExecutionStatus.COMPLETED,  # type: ignore[misc]
                    "it runs",
                )

    def test_messages_need_a_broker(self, letters: Letters) -> None:
        for given in (("--kind", "message", "--all"), ("--queue", "q")):
            assert "DSPEX_BROKER_URL: " in letters("replay", *given, code=2).stderr
        assert letters("replay", letters.message).stdout == "Replayed 0 executions.\n"
        assert len(letters.dead("message")) == 2


class TestDiscard:
    def test_by_id_of_either_kind_and_by_filter(self, letters: Letters) -> None:
        first, *others = letters.executions
        assert letters("discard", first, letters.message).stdout == "Discarded 1 message and 1 execution.\n"
        assert letters.dead("execution") == others[::-1]
        assert letters.dead("execution", "--discarded") == [first]
        assert letters.dead("message", "--discarded") == [letters.message]
        assert letters("discard", "--error-code", "auth").stdout == "Discarded 0 messages and 0 executions.\n"
        answer = letters.json("discard", "--all")
        assert [answer[kind]["count"] for kind in ("messages", "executions")] == [1, 2]
        assert letters.dead("message") == letters.dead("execution") == []
        assert letters("replay", first).stdout == "Replayed 1 execution.\n"

    def test_more_ids_than_a_command_takes(self, letters: Letters) -> None:
        ids = [uuid7() for _ in range(1001)]
        assert letters("discard", *ids, letters.garbage).stdout == "Discarded 1 message and 0 executions.\n"


class TestUsage:
    @pytest.mark.parametrize("verb", ["replay", "discard"])
    @pytest.mark.parametrize(
        "given", [(), ("--kind", "message"), ("--all", "--error-code", "auth"), (str(uuid7()), "--all")]
    )
    def test_what_to_give(self, letters: Letters, verb: str, given: tuple[str, ...]) -> None:
        refused = letters(verb, *given, code=2).stderr
        assert "give IDs, or a filter (--program, --error-code, --queue, --since, --until), or --all" in refused

    def test_what_does_not_go_together(self, letters: Letters) -> None:
        for given in (
            ("replay", "--program", uuid7(), "--queue", "q"),
            ("discard", "--program", uuid7(), "--kind", "message"),
            ("list", "--queue", "q", "--kind", "execution"),
        ):
            assert "only executions have a --program" in letters(*given, code=2).stderr
        assert "give --kind" in letters("list", "--cursor", "c", code=2).stderr

    def test_what_is_too_long(self, letters: Letters) -> None:
        refused = letters("discard", "--error-code", "x" * 65, code=2).stderr
        assert "dspex: error_code: " in refused
        assert "Traceback" not in refused


@pytest.mark.integration
def test_messages_are_sent_again(postgres_database_url: str, own_amqp_url: str) -> None:
    amqp.check(own_amqp_url)
    letters = keep(postgres_database_url, own_amqp_url)
    refused = letters("replay", letters.garbage, letters.message, code=2).stderr
    assert f"{letters.garbage}: the body is not JSON" in refused
    assert "of the others, 1 were sent" in refused
    assert letters.dead("message") == [letters.garbage]
    passed_over = letters("replay", "--all")
    assert passed_over.stdout == "Replayed 0 messages and 3 executions.\n"
    assert passed_over.stderr == "1 message cannot be replayed: named by ID, it says why.\n"
    connection = pika.BlockingConnection(pika.URLParameters(own_amqp_url))
    method, properties, body = connection.channel().basic_get(PROGRAMS_QUEUE, auto_ack=True)
    connection.close()
    assert method is not None
    assert properties is not None
    assert (body, properties.message_id) == (BODY, json.loads(BODY)["id"])
