"""Names and texts made to do something to a terminal, in every command that prints what is kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dspex import Configuration, Signature
from dspex.contract.callback import Callback
from store import rejections
from store.database.engine import make_engine
from store.rejections import Rejection
from tests.unit.dspex.test_text import HOSTILE, harmless
from workers.cli.main import main
from workers.cli.run.results import open_results
from workers.local import embedded
from workers.settings import Settings

SIGNATURE = {
    "name": HOSTILE,
    "instructions": HOSTILE,
    "inputs": [{"name": "q", "type": "str", "description": HOSTILE}],
    "outputs": [{"name": "a", "type": {"enum": [HOSTILE, "[/bold]"]}}],
}


@pytest.fixture(scope="module")
def database(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with one of everything."""
    path = tmp_path_factory.mktemp("hostile") / "dspex.db"
    path.write_bytes(migrated.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def ids(database: str) -> dict[str, str]:
    """What is in it."""
    with embedded(Settings(database_url=database, log_level="WARNING")) as dspex:
        signature = dspex.create_signature(SIGNATURE)
        other = dspex.create_signature(SIGNATURE | {"outputs": [{"name": "a", "type": {"enum": ["x" + HOSTILE]}}]})
        program = dspex.create_program(HOSTILE, signature.signature_id, adapter_type="mock")
        dspex.initialize_program(program.program_id)
        execution = dspex.execute_program(program.program_id, {"q": HOSTILE})
        failing = Configuration(parameters={"fail": {"code": "permanent", "message": HOSTILE}})
        broken = dspex.create_program(HOSTILE, signature.signature_id, adapter_type="mock", configuration=failing)
        dspex.initialize_program(broken.program_id)
        failed = dspex.execute_program(program.program_id, {"q": "?", HOSTILE: 1}, validate=False)
        endpoint = dspex.register_endpoint(Callback(url="https://receiver.example/h", secret="A_WEBHOOK_SECRET"))
    letter = Rejection(HOSTILE, "not_found", HOSTILE, HOSTILE.encode(), 9, message_id=HOSTILE, message_type=HOSTILE)
    engine = make_engine(database)
    with engine.begin() as connection:
        rejections.record(connection, letter)
    engine.dispose()
    made = {
        "signature": signature.signature_id,
        "other": other.signature_id,
        "program": program.program_id,
        "broken": broken.program_id,
        "execution": execution.execution_id,
        "failed": failed.execution_id,
        "endpoint": endpoint.endpoint_id,
        "letter": letter.id,
    }
    return {name: str(made_id) for name, made_id in made.items()}


@pytest.fixture(autouse=True)
def _settings(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_DATABASE_URL", database)
    monkeypatch.setenv("DSPEX_LOG_LEVEL", "WARNING")


def dspex(*arguments: str) -> Result:
    """Run the command line."""
    done = CliRunner().invoke(main, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


def said(done: Result) -> str:
    """What a command printed, which must be harmless."""
    assert all(map(harmless, done.output.split("\n"))), done.output
    return done.output


LISTS = [
    ("signature", "list"),
    ("program", "list"),
    ("execution", "list"),
    ("dead-letter", "list"),
    ("dead-letter", "list", "--kind", "message"),
    ("webhook", "endpoint", "list"),
    ("webhook", "delivery", "list"),
    ("signature", "show", ":signature"),
    ("signature", "schema", ":signature"),
    ("signature", "compare", ":signature", ":other"),
    ("program", "show", ":program"),
    ("program", "show", ":broken"),
    ("program", "stats", ":program"),
    ("program", "statistics", ":program"),
    ("execution", "show", ":execution"),
    ("execution", "show", ":failed"),
    ("dead-letter", "show", ":letter"),
    ("dead-letter", "show", ":failed"),
    ("webhook", "endpoint", "show", ":endpoint"),
]


@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_what_is_kept_is_printed_as_text(arguments: tuple[str, ...], ids: dict[str, str]) -> None:
    given = [ids[word[1:]] if word.startswith(":") else word for word in arguments]
    done = dspex(*given)
    assert done.exit_code == 0, done.output
    said(done)
    done = dspex(*given, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(said(done)) is not None


def test_the_names_are_there(ids: dict[str, str]) -> None:
    assert r"[/foo]\x1b[31m" in said(dspex("program", "list"))
    assert r"\n2026-01-01" in said(dspex("signature", "list"))
    assert json.loads(dspex("program", "show", ids["program"], "--json").stdout)["name"] == HOSTILE
    letters: Any = json.loads(dspex("dead-letter", "list", "--json").stdout)
    assert letters["messages"]["items"][0]["message_type"] == HOSTILE


@pytest.mark.parametrize(
    "arguments",
    [
        (f"x{HOSTILE}",),
        (f"--x{HOSTILE}",),
        ("program", f"x{HOSTILE}"),
        ("program", "show", HOSTILE),
        ("program", "list", "--status", HOSTILE),
        ("program", "list", f"--x{HOSTILE}"),
        ("program", "create", "n", HOSTILE),
        ("program", "create", "n", f"a -> {HOSTILE}"),
        ("program", "execute", "019bb1c6-0000-7000-8000-000000000000", "--input", HOSTILE),
        ("signature", "list", "--cursor", HOSTILE),
        ("signature", "schema", "--name", f"x{HOSTILE}"),
        ("signature", "from-module", HOSTILE),
        ("run", HOSTILE),
        ("run", "a -> b", "--inputs", HOSTILE),
        ("run", "a -> b", "--input", HOSTILE),
        ("run", "a -> b", "--input", "a=1", "--adapter", HOSTILE),
        ("run", "a -> b", "--input", "a=1", "--model", HOSTILE),
        ("run", "a -> b", "--input", "a=1", "--expect", HOSTILE),
        ("migrate", "--to", HOSTILE),
    ],
    ids=lambda arguments: " ".join(arguments)[:30].encode("unicode_escape").decode(),
)
def test_what_was_typed_is_quoted_as_text(arguments: tuple[str, ...]) -> None:
    done = dspex(*arguments)
    assert done.exit_code != 0
    assert said(done)


@pytest.mark.parametrize("name", ["DSPEX_DATABASE_URL", "DSPEX_BROKER_URL", "DSPEX_LMS", "DSPEX_THREADS"])
def test_what_is_in_the_environment_is_quoted_as_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, HOSTILE)
    done = dspex("program", "list")
    assert done.exit_code == 2
    assert name in said(done)


def test_a_run_prints_text_and_its_results_are_the_same_values(tmp_path: Path) -> None:
    (tmp_path / "signature.json").write_text(json.dumps(SIGNATURE))
    rows = [{"q": HOSTILE}, {"q": 1}, {"q": "x", HOSTILE: HOSTILE}, "no"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = dspex("run", str(tmp_path / "signature.json"), "--inputs", str(tmp_path / "rows.jsonl"))
    assert done.exit_code == 1
    said(done)
    # With click 8.1 a `CliRunner` has errors and results in one.
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert HOSTILE in [result["inputs"]["q"] for result in results if "inputs" in result]


@pytest.mark.parametrize("terminal", [True, False])
def test_csv_is_escaped_for_people_and_faithful_in_a_file(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", stream)
    with open_results(None, "csv", Signature.parse("q -> a")) as results:
        results.write(results.line({"line": 1, "status": "completed", "outputs": {"a": HOSTILE}}))
        results.keep(whole=True)
    stream.flush()
    written = stream.buffer.getvalue().decode()
    if terminal:
        assert all(map(harmless, written.split("\n")))
    else:
        (row,) = csv.DictReader(io.StringIO(written))
        assert row["a"] == HOSTILE
