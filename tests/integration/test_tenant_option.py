"""`--tenant`: an operator's command line acts for one tenant, and says whose an id is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

import migrations
from store.database.engine import make_engine
from tests import click_runner
from tests.roles import Roles
from workers.cli.main import main

Dspex = Callable[..., str]


@pytest.fixture
def role_url(database_url: str) -> Iterator[str]:
    """A database, as who works logs in: row-level security would not hold the superuser of the tests."""
    if database_url.startswith("sqlite"):
        engine = make_engine(database_url)
        migrations.upgrade(engine)
        engine.dispose()
        yield database_url
        return
    with Roles.made(database_url) as roles:
        yield roles.url(roles.worker)


@pytest.fixture
def dspex(role_url: str) -> Dspex:
    """The command line: what it prints, and with `code` what it says in an error."""
    environment = {"DSPEX_DATABASE_URL": role_url, "DSPEX_BROKER_URL": "memory://", "DSPEX_LOG_LEVEL": "WARNING"}

    def run(*arguments: object, code: int = 0, tenancy: str = "true") -> str:
        result = click_runner.runner().invoke(
            main, [*map(str, arguments)], env=environment | {"DSPEX_TENANCY": tenancy}
        )
        assert result.exit_code == code, result.output
        return result.stderr if code else result.stdout

    return run


def test_each_command_is_for_one_tenant(dspex: Dspex) -> None:
    made = ("program", "create", "qa", "question -> answer", "--adapter", "mock", "--json")
    theirs, ours = json.loads(dspex(*made, "--tenant", "acme")), json.loads(dspex(*made))
    theirs_id, ours_id = theirs["program_id"], ours["program_id"]
    for tenant, program_id in (("acme", theirs_id), ("default", ours_id)):
        listed = json.loads(dspex("program", "list", "--tenant", tenant, "--json"))["items"]
        assert [program["program_id"] for program in listed] == [program_id]
    assert theirs_id in dspex("program", "show", theirs_id, "--tenant", "acme")
    dspex("program", "initialize", theirs_id, "--tenant", "acme")
    ran = json.loads(dspex("program", "execute", theirs_id, "--input", "question=?", "--tenant", "acme", "--json"))
    assert ran["status"] == "completed"
    assert f"{ran['execution_id']} is of tenant 'acme': add --tenant acme" in dspex(
        "execution", "show", ran["execution_id"], code=2
    )
    assert json.loads(dspex("execution", "list", "--json"))["items"] == []


def test_of_anothers_id_it_is_not_said_that_there_is_none(dspex: Dspex) -> None:
    made = json.loads(dspex("program", "create", "qa", "q -> a", "--adapter", "mock", "--json", "--tenant", "acme"))
    for kind in ("program", "signature"):
        entity_id = made[f"{kind}_id"]
        assert dspex(kind, "show", entity_id, code=2) == f"dspex: {entity_id} is of tenant 'acme': add --tenant acme\n"
        assert "is of tenant 'acme'" in dspex(kind, "show", entity_id, "--tenant", "other", code=2)
    nobody = uuid4()
    assert dspex("program", "show", nobody, code=2) == f"dspex: program_id: there is no program {nobody}\n"
    assert f"there is no execution and no rejected message {nobody}" in dspex("dead-letter", "show", nobody, code=2)


def test_anothers_dead_letters_are_not_none_but_anothers(dspex: Dspex) -> None:
    made = ("program", "create", "qa", "q -> a", "--adapter", "mock", "--json", "--tenant", "acme")
    program_id = json.loads(dspex(*made))["program_id"]
    # It is not ready, so its executions fail.
    dspex("program", "execute", program_id, "--input", "q=?", "--tenant", "acme", "--json")
    letters = json.loads(dspex("dead-letter", "list", "--tenant", "acme", "--json"))
    [letter] = letters["executions"]["items"]
    dead_letter_id = letter["execution_id"]
    for verb in ("replay", "discard"):
        for chosen in ((dead_letter_id,), (dead_letter_id, uuid4()), ("--program", program_id)):
            said = dspex("dead-letter", verb, *chosen, code=2)
            named = program_id if "--program" in chosen else dead_letter_id
            assert said == f"dspex: {named} is of tenant 'acme': add --tenant acme\n"
        assert "0 executions" in dspex("dead-letter", verb, uuid4())
    for listing in (("dead-letter", "list"), ("execution", "list"), ("webhook", "delivery", "list")):
        option = "--execution" if "delivery" in listing else "--program"
        other = dead_letter_id if "delivery" in listing else program_id
        assert f"{other} is of tenant 'acme'" in dspex(*listing, option, other, code=2)
    replay = ("webhook", "delivery", "replay", "--execution")
    assert f"{dead_letter_id} is of tenant 'acme'" in dspex(*replay, dead_letter_id, code=2)
    assert "Discarded 0 messages and 1 execution." in dspex(
        "dead-letter", "discard", dead_letter_id, "--tenant", "acme"
    )


def test_run_is_for_a_tenant_and_its_ids_are_its_own(dspex: Dspex) -> None:
    run = ("run", "question -> answer", "--input", "question=why?")
    ids = [
        json.loads(dspex(*run, *tenant))["execution_id"]
        for tenant in (("--tenant", "acme"), ("--tenant", "other"), (), ("--tenant", "acme"))
    ]
    assert len(set(ids)) == 3
    assert ids[3] == ids[0]  # it has run before
    assert ids[1] in dspex("execution", "list", "--tenant", "other", "--json")
    assert ids[0] not in dspex("execution", "list", "--tenant", "other", "--json")


def test_where_there_is_one_tenant_another_is_refused(dspex: Dspex) -> None:
    for command in (("program", "list"), ("dead-letter", "list"), ("run", "q -> a", "--input", "q=?")):
        said = dspex(*command, "--tenant", "acme", code=2, tenancy="false")
        assert said == "dspex: --tenant: there is one tenant, 'default': set DSPEX_TENANCY for others\n"
        assert "tenant: must be" in dspex(*command, "--tenant", "a b", code=2)
    dspex("program", "list", "--tenant", "default", tenancy="false")


def test_what_starts_something_takes_a_trace(dspex: Dspex) -> None:
    nobody, wrong = uuid4(), ("--traceparent", "none")
    for command in (
        ("program", "initialize", nobody),
        ("program", "update", nobody, "--name", "x"),
        ("execution", "cancel", nobody),
        ("dead-letter", "replay", nobody, "--kind", "execution"),
        ("dead-letter", "discard", nobody),
        ("webhook", "delivery", "replay", nobody),
    ):
        assert "traceparent: " in dspex(*command, *wrong, code=2)
    made = json.loads(dspex("program", "create", "qa", "q -> a", "--adapter", "mock", "--json"))
    execute = ("program", "execute", made["program_id"], "--input", "q=?")
    assert "traceparent: " in dspex(*execute, *wrong, code=2)
    dspex(*execute, "--traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
