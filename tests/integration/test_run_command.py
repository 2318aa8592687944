"""`dspex run`, as a user runs it: a process of its own, in an empty folder, with nothing set."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import migrations
from deploy.processes import free_port, wait_until
from store.database.engine import make_engine
from tests import click_runner
from tests.conftest import new_database
from tests.lm_server import Answer, LMServer
from tests.shell import DSPEX, PATIENCE, Shell, refused, results, row_of
from workers.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "debian_sections"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {})


class TestExample:
    def test_a_first_run_runs_and_a_second_one_reads(self, shell: Shell) -> None:
        command = ("run", EXAMPLE / "signature.json", "--inputs", EXAMPLE / "packages.jsonl", "--expect", "section")
        first = shell(*command)
        assert first.code == 0, first.err
        assert len(first.results) == 360
        assert {result["line"] for result in first.results} == set(range(1, 361))
        assert {result["status"] for result in first.results} == {"completed"}
        one = first.results[0]
        assert list(one) == [
            *("line", "execution_id", "status", "columns", "inputs", "outputs", "usage", "duration_ms"),
            *("program_id", "adapter", "module", "model"),
        ]
        assert [result["line"] for result in first.results] == list(range(1, 361))
        assert (one["adapter"], one["module"], one["model"]) == ("mock", "Predict", None)
        assert list(one["usage"]) == ["calls", "input_tokens", "output_tokens", "cost"]
        assert one["usage"]["calls"] == 1
        assert list(one["outputs"]) == ["section", "confidence"]
        assert list(one["inputs"]) == ["package", "description"]
        assert row_of(first.err, "completed") == "360"
        assert "of 360 (" in row_of(first.err, "as expected")
        assert "run before" not in first.err

        second = shell(*command)
        assert second.code == 0
        assert second.results == first.results
        assert row_of(second.err, "run before") == "360"
        assert shell.count("SELECT count(*) FROM executions") == 360
        assert shell.count("SELECT sum(completed) FROM program_counters") == 360

    def test_a_signature_in_one_line(self, shell: Shell) -> None:
        ran = shell("run", "question, k: int = 2 -> answer: str, score: float", "--input", "question=why = how?")
        assert ran.code == 0, ran.err
        (result,) = ran.results
        assert result["inputs"] == {"question": "why = how?", "k": 2}
        assert isinstance(result["outputs"]["answer"], str)
        assert isinstance(result["outputs"]["score"], float)


class TestRows:
    def test_a_row_that_does_not_fit_is_named_and_the_others_run(self, shell: Shell) -> None:
        rows: list[dict[str, Any] | str] = [
            {"question": "a", "k": 1},
            {"question": "b", "k": "2"},
            "{",
            {"question": "c", "k": 3},
            {"k": 4},
        ]
        ran = shell("run", "question, k: int -> answer", "--inputs", shell.write("rows.jsonl", *rows))
        assert ran.code == 1
        assert "line 2: k: input should be a valid integer" in ran.err
        assert "line 3: is not JSON" in ran.err
        assert "line 5: question: is missing" in ran.err
        assert row_of(ran.err, "do not fit") == "3"
        assert row_of(ran.err, "completed") == "2"
        by_line = {result["line"]: result for result in ran.results}
        assert by_line[2] == {
            "line": 2,
            "status": "invalid",
            "problems": [{"field": "k", "message": "input should be a valid integer"}],
        }
        assert [by_line[line]["status"] for line in range(1, 6)] == [
            "completed",
            "invalid",
            "invalid",
            "completed",
            "invalid",
        ]

    def test_a_row_that_is_too_large_for_a_message(self, shell: Shell) -> None:
        rows = [{"question": "x" * 1024 * 1024}, {"question": "small"}]
        ran = shell("run", "question -> answer", "--inputs", shell.write("rows.jsonl", *rows))
        assert ran.code == 1
        assert "line 1: has 1048591 bytes" in ran.err
        assert Counter(result["status"] for result in ran.results) == {"invalid": 1, "completed": 1}

    def test_rows_up_to_the_cap_run(self, shell: Shell) -> None:
        rows = [{"question": "x" * size} for size in range(1400, 1600)]
        ran = shell(
            "run",
            "question -> answer",
            "--inputs",
            shell.write("rows.jsonl", *rows),
            DSPEX_MAX_MESSAGE_BYTES="2048",
        )
        ended = {result["line"] for result in ran.results}
        assert ended == set(range(1, 201))
        assert {result["status"] for result in ran.results} == {"completed", "invalid"}

    def test_equal_rows_run_once_each(self, shell: Shell) -> None:
        rows = [{"question": "a"}, {"question": "b"}, {"question": "a"}, {"question": "a"}]
        command = ("run", "question -> answer", "--inputs", shell.write("rows.jsonl", *rows))
        for _ in range(2):
            ran = shell(*command)
            assert ran.code == 0, ran.err
            assert len({result["execution_id"] for result in ran.results}) == 4
        assert shell.count("SELECT count(*) FROM executions") == 4

    def test_rows_that_are_added_are_the_only_ones_that_run(self, shell: Shell) -> None:
        shell("run", "question -> answer", "--inputs", shell.write("rows.jsonl", {"question": "a"}))
        shell.write("rows.jsonl", {"question": "new"}, {"question": "a"})
        ran = shell("run", "question -> answer", "--inputs", "rows.jsonl")
        assert row_of(ran.err, "completed") == "2"
        assert row_of(ran.err, "run before") == "1"
        assert shell.count("SELECT count(*) FROM executions") == 2

    def test_csv(self, shell: Shell) -> None:
        with (shell.folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [("question", "k", "flag", "score"), ("a, b", "3", "true", "1"), ("c", "x", "", "2")]
            csv.writer(file).writerows(rows)
        ran = shell(
            "run",
            "question, k: int, flag: bool = False -> score: int",
            "--inputs",
            "rows.csv",
            "--expect",
            "score",
        )
        assert ran.code == 1
        completed, invalid = sorted(ran.results, key=lambda result: result["status"])
        assert completed["inputs"] == {"question": "a, b", "k": 3, "flag": True}
        assert invalid["line"] == 3
        assert "line 3: k: " in ran.err
        assert "of 1 (" in row_of(ran.err, "as expected")

    @pytest.mark.parametrize("option", [("--inputs", "-"), ()])
    def test_standard_input(self, shell: Shell, option: tuple[str, ...]) -> None:
        ran = shell("run", "question -> answer", *option, stdin='{"question": "a"}\n{"question": "é"}\n')
        assert ran.code == 0, ran.err
        assert {result["inputs"]["question"] for result in ran.results} == {"a", "é"}

    def test_no_rows(self, shell: Shell) -> None:
        ran = shell("run", "question -> answer")
        assert ran.code == 0
        assert row_of(ran.err, "completed") == "0"


class TestOptions:
    def test_output(self, shell: Shell) -> None:
        ran = shell("run", "question -> answer", "--input", "question=a", "--output", "results.jsonl")
        assert ran.code == 0, ran.err
        assert ran.out == ""
        (result,) = results((shell.folder / "results.jsonl").read_text(encoding="utf-8"))
        assert result["status"] == "completed"

    def test_output_cannot_be_written(self, shell: Shell) -> None:
        ran = shell("run", "question -> answer", "--input", "question=a", "--output", "missing/results.jsonl")
        refused(ran, "--output: missing/results.jsonl: No such file")

    def test_output_does_not_overwrite_the_inputs(self, shell: Shell) -> None:
        name = shell.write("rows.jsonl", {"question": "a"})
        ran = shell("run", "question -> answer", "--inputs", name, "--output", f"./{name}")
        refused(ran, "--output", "--inputs")
        assert results((shell.folder / name).read_text(encoding="utf-8")) == [{"question": "a"}]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["question ->"], "expected a field name"),
            (["question -> answer: strange"], "strange"),
            (
                ["missing.json"],
                "signature: missing.json cannot be read: No such file or directory",
            ),
            (["broken.json"], "broken.json is not JSON"),
            (["q -> a", "--inputs", "missing.jsonl"], "--inputs: missing.jsonl: No such file"),
            (["q -> a", "--inputs", "missing.jsonl", "--input", "q=1"], "give one of them"),
            (["q -> a", "--input", "q"], "'q' is not NAME=VALUE"),
            (["q -> a", "--input", "q=1", "--expect", "b"], "--expect: 'b' is not an output"),
            (["q -> a", "--input", "q=1", "--adapter", "unknown"], "'unknown' is not one of mock, native"),
            (["q -> a", "--input", "q=1", "--adapter", "Un-known"], "--adapter: "),
            (["q -> a", "--input", "q=1", "--module", "Chain Of"], "--module: "),
            (["q -> a", "--input", "q=1", "--model", "a model"], "--model: "),
        ],
    )
    def test_wrong_usage_is_one_line(self, shell: Shell, arguments: list[str], said: str) -> None:
        shell.write("broken.json", "{")
        refused(shell("run", *arguments), said)

    def test_an_unknown_adapter_is_told_again_by_the_next_run(self, shell: Shell) -> None:
        for _ in range(2):
            refused(shell("run", "q -> a", "--input", "q=1", "--adapter", "unknown"), "one of mock, native")

    def test_a_wrong_setting(self, shell: Shell) -> None:
        ran = shell("run", "q -> a", "--input", "q=1", DSPEX_THREADS="none")
        refused(ran, "DSPEX_THREADS: ")

    def test_retry_failed(self, shell: Shell) -> None:
        """An LM that takes no key fails every row; asked again, it runs them again, and only them."""
        rows = shell.write("rows.jsonl", {"q": "1"}, {"q": "2"})
        command = ("run", "q -> a", "--inputs", rows, "--adapter", "native", "--model", "house")
        with LMServer(lambda _: Answer(status=401, body={"error": {"message": "no such key"}})) as lm:
            lms = json.dumps({"house": {"model": "openai/none", "api_base": lm.url}})
            first, again = (shell(*command, DSPEX_LMS=lms, OPENAI_API_KEY="none") for _ in range(2))
            assert first.code == 1, first.err
            assert {result["status"] for result in first.results} == {"failed"}
            assert {result["error"]["code"] for result in first.results} == {"auth"}
            assert row_of(first.err, "failed") == "2"
            assert sorted(again.results, key=str) == sorted(first.results, key=str)
            assert shell.count("SELECT count(*) FROM executions") == 2
            retried = shell(*command, "--retry-failed", DSPEX_LMS=lms, OPENAI_API_KEY="none")
        assert retried.code == 1
        assert not {r["execution_id"] for r in retried.results} & {r["execution_id"] for r in first.results}
        assert shell.count("SELECT count(*) FROM executions") == 4

    def test_retry_failed_reads_what_completed(self, shell: Shell) -> None:
        command = ("run", "q -> a", "--inputs", shell.write("rows.jsonl", {"q": "1"}), "--retry-failed")
        first, second = shell(*command), shell(*command)
        assert (first.code, second.code) == (0, 0)
        assert second.results == first.results


def test_the_database_is_somewhere_else(shell: Shell) -> None:
    refused(
        shell("run", "q -> a", "--input", "q=1", DSPEX_DATABASE_URL="sqlite:///missing/dspex.db"),
        "DSPEX_DATABASE_URL: sqlite:///missing/dspex.db: unable to open database file",
    )


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Where the tests run in the background of a shell, SIGINT is ignored, and children would inherit that."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_and_on(shell: Shell) -> None:
    number = 3000
    shell.write("rows.jsonl", *({"question": str(row)} for row in range(number)))
    command = ("run", "question -> answer", "--inputs", "rows.jsonl", "--output", "results.jsonl")
    output, part = shell.folder / "results.jsonl", shell.folder / "results.jsonl.part"
    with subprocess.Popen(
        [*DSPEX, *command], cwd=shell.folder, env=shell.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert wait_until(lambda: part.exists() and part.read_bytes().count(b"\n") > 100, PATIENCE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert "Run the same command again to go on." in err
    assert "Traceback" not in err
    done = len(results(output.read_text(encoding="utf-8")))
    assert 100 < done < number
    assert done == shell.count("SELECT count(*) FROM executions WHERE status = 'completed'")
    assert not part.exists()
    # What was claimed ahead and not begun was given back.
    given_back = "status = 'pending' AND attempt = 0"
    assert shell.count(f"SELECT count(*) FROM executions WHERE status <> 'completed' AND NOT ({given_back})") == 0

    ran = shell(*command)
    assert ran.code == 0, ran.err
    assert int(row_of(ran.err, "run before")) >= done
    assert {result["line"] for result in results(output.read_text(encoding="utf-8"))} == set(range(1, number + 1))
    assert shell.count("SELECT count(*) FROM executions") == number
    assert shell.count("SELECT count(*) FROM executions WHERE status = 'completed' AND attempt = 1") == number
    assert shell.count("SELECT sum(completed) FROM program_counters") == number


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_terminal_cannot_show_is_escaped(shell: Shell, encoding: str) -> None:
    """In tables and JSON, of runs and entities; files are UTF-8 whatever the terminal is."""
    terminal = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    rows = shell.write("rows.jsonl", {"question": "café ☃ 😀", "id": "€"})
    ran = shell("run", "question -> answer", "--inputs", rows, "--output", "out.jsonl", **terminal)
    assert (ran.code, ran.out) == (0, ""), ran.err
    (kept,) = results((shell.folder / "out.jsonl").read_text(encoding="utf-8"))
    assert (kept["inputs"]["question"], kept["columns"]["id"]) == ("café ☃ 😀", "€")
    assert "☃" in (shell.folder / "out.jsonl").read_text(encoding="utf-8")
    printed = shell("run", "question -> answer", "--inputs", rows, **terminal)
    assert printed.out.isascii()
    assert printed.results == [kept]

    created = shell("program", "create", "a ☃", "q -> a", "--adapter", "mock", **terminal)
    assert created.code == 0, created.err
    assert "a \\u2603" in created.out
    listed = shell("program", "list", "--json", **terminal)
    assert listed.code == 0, listed.err
    assert "a ☃" in {program["name"] for program in json.loads(listed.out)["items"]}
    refused(shell("program", "list", "--cursor", "☃", **terminal), "cursor")


class TestNothingToDo:
    def test_it_loads_and_starts_nothing_that_runs(self, shell: Shell) -> None:
        """And the results are what they were, byte for byte."""
        rows = [{"question": f"{n}", "id": f"ü{n}"} for n in range(700)]
        command = ("run", "question -> answer", "--inputs", shell.write("rows.jsonl", *rows))
        first = shell(*command)
        assert first.code == 0, first.err
        heavy = (
            "alembic",
            "dramatiq",
            "dspy",
            "litellm",
            "redis",
            "workers.application.wiring",
            "workers.process.worker",
        )
        program = f"""
import sys
from workers.cli.main import main
try:
    main({list(command)})
finally:
    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=shell.folder,
            env=shell.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == first.out
        assert row_of(done.stderr, "run before") == "700"
        assert done.stderr.splitlines()[-1] == "[]"

    def test_the_first_new_row_has_it_begin(self, shell: Shell) -> None:
        """After thousands that have run: they are read, and the new one runs."""
        rows = [{"question": f"{n}"} for n in range(1100)]
        command = ("run", "question -> answer", "--inputs", "rows.jsonl")
        shell.write("rows.jsonl", *rows)
        assert shell(*command).code == 0
        shell.write("rows.jsonl", *rows, {"question": "new"})
        ran = shell(*command)
        assert ran.code == 0, ran.err
        assert [result["line"] for result in ran.results] == list(range(1, 1102))
        assert row_of(ran.err, "run before") == "1100"
        assert shell.count("SELECT count(*) FROM executions") == 1101


class TestHelp:
    @pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
    def test_it_loads_nothing_heavy(self, shell: Shell, arguments: list[str]) -> None:
        heavy = ("alembic", "dramatiq", "dspex.model", "dspy", "pika", "psycopg", "pydantic", "rich", "sqlalchemy")
        program = f"""
import sys
from workers.cli.main import main
try:
    main({arguments})
finally:
    print("loaded:", sorted({heavy!r} & sys.modules.keys()))
""".replace(f"{heavy!r} &", f"set({heavy!r}) &")
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=shell.folder, env=shell.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded: []"

    @pytest.mark.parametrize("command", ["run", "worker", "migrate", "declare", "dead-letter"])
    def test_every_command_explains_itself(self, command: str) -> None:
        runner = click_runner.runner()
        explained = runner.invoke(main, [command, "--help"])
        assert explained.exit_code == 0
        assert explained.output.startswith("Usage: ")
        assert command in runner.invoke(main, ["--help"]).output

    def test_no_such_command(self, shell: Shell) -> None:
        ran = shell("walk")
        assert ran.code == 2
        assert "walk" in ran.err
        assert "Traceback" not in ran.err


@pytest.fixture(scope="module")
def migrated_url(postgres_url: str) -> Iterator[str]:
    """A database with every table."""
    with new_database(postgres_url) as url:
        engine = make_engine(url)
        migrations.upgrade(engine)
        engine.dispose()
        yield url


@pytest.mark.integration
class TestServers:
    @pytest.fixture
    def shell(self, tmp_path: Path, own_amqp_url: str, migrated_url: str) -> Shell:
        return Shell(tmp_path, {"DSPEX_BROKER_URL": own_amqp_url, "DSPEX_DATABASE_URL": migrated_url})

    def test_no_worker(self, shell: Shell) -> None:
        refused(shell("run", "q -> a", "--input", "q=1"), "no worker", "`dspex worker`", "--with-worker")

    def test_with_worker(self, shell: Shell) -> None:
        rows = shell.write("rows.jsonl", *({"question": str(row)} for row in range(300)))
        ran = shell("run", "question -> answer", "--inputs", rows, "--with-worker")
        assert ran.code == 0, ran.err
        assert len(ran.results) == 300
        again = shell("run", "question -> answer", "--inputs", rows, "--with-worker")
        assert row_of(again.err, "run before") == "300"

    def test_a_database_without_tables(self, shell: Shell, postgres_url: str) -> None:
        with new_database(postgres_url) as url:
            refused(shell("run", "q -> a", "--input", "q=1", DSPEX_DATABASE_URL=url), "`dspex migrate`")

    def test_the_broker_is_down(self, shell: Shell) -> None:
        url = f"amqp://guest:sesame@127.0.0.1:{free_port()}/"
        refused(shell("run", "q -> a", "--input", "q=1", DSPEX_BROKER_URL=url), "DSPEX_BROKER_URL: ", "efused")

    def test_the_login_is_refused(self, shell: Shell, own_amqp_url: str) -> None:
        url = own_amqp_url.replace("guest:guest", "guest:sesame")
        refused(shell("run", "q -> a", "--input", "q=1", DSPEX_BROKER_URL=url), "DSPEX_BROKER_URL: ", "password")

    def test_the_database_is_down(self, shell: Shell) -> None:
        url = f"postgresql://user:sesame@127.0.0.1:{free_port()}/name"
        refused(shell("run", "q -> a", "--input", "q=1", DSPEX_DATABASE_URL=url), "DSPEX_DATABASE_URL: ", "efused")

    @pytest.mark.parametrize("command", ["migrate", "declare", "dead-letter list"])
    def test_operators_commands(self, shell: Shell, command: str) -> None:
        ran = shell(*command.split())
        assert ran.code == 0, ran.err
        down = {
            "DSPEX_DATABASE_URL": f"postgresql://user:sesame@127.0.0.1:{free_port()}/name",
            "DSPEX_BROKER_URL": f"amqp://guest:sesame@127.0.0.1:{free_port()}/",
        }
        refused(shell(*command.split(), **down), "efused")

    def test_declare_needs_a_server(self, shell: Shell) -> None:
        refused(shell("declare", DSPEX_BROKER_URL="memory://"), "DSPEX_BROKER_URL: ", "amqp://")
