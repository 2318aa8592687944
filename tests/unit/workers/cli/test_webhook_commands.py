"""`dspex webhook`: endpoints and the log of deliveries from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from workers.cli.main import main


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["webhook", *arguments])


def answered(*arguments: str) -> Any:
    """The JSON that a command prints."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


REGISTER = ("endpoint", "register", "https://receiver.example/hook", "--secret", "A_WEBHOOK_SECRET")


def test_an_endpoint_from_its_registration_to_its_end() -> None:
    made = answered(*REGISTER, "--event", "failed", "--header", "X-Key=A_WEBHOOK_TOKEN", "--thin")
    assert made["callback"] == {
        "url": "https://receiver.example/hook",
        "secret": "A_WEBHOOK_SECRET",
        "events": ["failed"],
        "headers": {"X-Key": "A_WEBHOOK_TOKEN"},
        "thin": True,
    }
    id_ = made["endpoint_id"]
    assert answered("endpoint", "rotate", id_, "--secret", "B_WEBHOOK_SECRET")["previous_secret"] == "A_WEBHOOK_SECRET"
    assert answered("endpoint", "disable", id_)["disabled_reason"] == "by everybody"
    assert [item["endpoint_id"] for item in answered("endpoint", "list", "--disabled")["items"]] == [id_]
    assert "no: by everybody" in run("endpoint", "list").output
    assert answered("endpoint", "enable", id_)["enabled"] is True
    updated = answered("endpoint", "update", id_, "https://b.example/", "--secret", "A_WEBHOOK_SECRET")
    assert updated["callback"]["events"] == ["completed", "failed", "cancelled"]
    assert run("endpoint", "delete", id_).output == "Done.\n"
    assert answered("endpoint", "list")["items"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("endpoint", "register", "http://receiver.example/", "--secret", "A_WEBHOOK_SECRET"), "DSPEX_WEBHOOK_HOSTS"),
        (("endpoint", "register", "receiver", "--secret", "A_WEBHOOK_SECRET"), "url: is not a URL"),
        (("endpoint", "register", "https://receiver.example/", "--secret", "OPENAI_API_KEY"), "secret: "),
        (("delivery", "replay"), "give delivery_id, endpoint_id"),
        (("delivery", "show", "01a211e6-a8b7-7693-bc29-cfc34868663e"), "there is no delivery"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert line.startswith("dspex: ")
    assert said in line


def test_a_replay_says_how_many() -> None:
    assert run("delivery", "replay", "--since", "2026-01-01").output == "0 will be delivered again.\n"
    assert answered("delivery", "replay", "--since", "2026-01-01") == 0
    assert answered("delivery", "list", "--status", "failed")["items"] == []
