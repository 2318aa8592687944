"""`dspex pause|resume|gates|limit` from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from dspex.contract.gates import GateKind
from dspex.contract.options import Lane
from tests.click_runner import runner
from workers.cli.main import main


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")


def run(*arguments: str) -> Result:
    return runner().invoke(main, arguments)


def answered(*arguments: str) -> Any:
    """The JSON that a command prints."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_pause_and_a_limit_from_their_beginning_to_their_end() -> None:
    paused = answered("pause", "--lane", "bulk", "--reason", "the night is over")
    assert (paused["scope"], paused["paused"]["reason"]) == ({"kind": "lane", "name": "bulk"}, "the night is over")
    limited = answered("limit", "set", "--lm", "fast", "--in-flight", "40", "--tokens-per-minute", "400000")
    assert limited["limits"] == {"in_flight": 40, "tokens_per_minute": 400000}
    assert answered("pause", "--everything")["scope"] == {"kind": "everything", "name": None}
    assert answered("pause", "--tenant", "default")["scope"] == {"kind": "tenant", "name": "default"}
    table = run("gates").output
    for part in ("lane bulk", "the night is over", "by /dspex/local", "lm fast", "40", "400000", "everything"):
        assert part in table
    assert "lm fast" not in run("gates", "--paused").output
    assert answered("resume", "--lane", "bulk")["paused"] is None
    assert answered("limit", "remove", "--lm", "fast")["limits"] is None
    assert [gate["scope"]["kind"] for gate in answered("gates")["items"]] == ["everything", "tenant"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause",), "give one of --everything, --lane, --program, --lm, --worker, --label; or --tenant alone"),
        (("resume", "--lane", "bulk", "--lm", "fast"), "give one of"),
        (("limit", "set", "--in-flight", "3"), "give one of --program, --lm, --label; or --tenant alone"),
        (("pause", "--lane", "bulk", "--tenant", "default"), "--lane is of all tenants: leave --tenant out"),
        (("pause", "--lane", "low"), "Invalid value for '--lane'"),
        (("pause", "--label", "customer"), "dspex: name: must be a label of metadata: NAME=VALUE"),
        (("limit", "set", "--lm", "fast"), "dspex: give in_flight, requests_per_minute or tokens_per_minute"),
        (("limit", "set", "--lm", "fast", "--in-flight", "0"), "Invalid value for '--in-flight'"),
        (("pause", "--tenant", "acme"), "dspex: --tenant: there is one tenant, 'default'"),
        (("pause", "--program", "01a211e6-a8b7-7693-bc29-cfc34868663e"), "there is no program 01a211e6"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], said: str) -> None:
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr, refused.stderr


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def test_lanes_and_kinds_of_options_are_those_of_the_contract() -> None:
    """They are written out, as `--help` loads no models."""
    choices = {
        (path, option.name): set(option.type.choices)
        for path, command in commands(main)
        for option in command.params
        if isinstance(option.type, click.Choice) and option.name in ("lane", "kind")
    }
    assert {path for path, name in choices if name == "lane"} >= {"pause", "queue", "execution cancel"}
    assert all(choices[key] == set(Lane) for key in choices if key[1] == "lane")
    assert choices["gates", "kind"] == set(GateKind)
