"""`dspex run` and files, from outside: what people have, and what it comes to. Reported cases, and their kinds."""

from __future__ import annotations

import csv
import gzip
import io
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.processes import wait_until
from tests.shell import DSPEX, PATIENCE, Ran, Shell, refused, results, row_of

SIGNATURE = "question: str, k: int -> answer: str"
REPORTED = {
    "badquote.csv": b'question,k\nq0,0\nq1,1\nq2,2\nq3,3\nq4,4\n"He said "no" twice",6\nq7,7\n',
    "latin1.csv": b"question,k\nfirst,1\ncaf\xe9,2\nlast,3\n",
    "numbers.csv": 'question,k\na,1_000\nb,١٢\nc,3.0\nd,"1,234"\ne, 7 \nf,007\ng,1e3\nh,NaN\ni,\n'.encode(),
    "late_latin1.jsonl": b"".join(b'{"question":"q%d","k":1}\n' % n for n in range(400))
    + b'{"question":"caf\xe9","k":1}\n'
    + b"".join(b'{"question":"q%d","k":1}\n' % n for n in range(400, 500)),
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {})


def run(shell: Shell, name: str, content: bytes, *options: str, signature: str = SIGNATURE) -> Ran:
    (shell.folder / name).write_bytes(content)
    return shell("run", signature, "--inputs", name, *options)


def by_line(ran: Ran) -> dict[int, dict[str, Any]]:
    return {result["line"]: result for result in ran.results}


class TestBadRows:
    """One bad row is one bad row."""

    def test_a_stray_quote(self, shell: Shell) -> None:
        ran = run(shell, "badquote.csv", REPORTED["badquote.csv"])
        assert ran.code == 1
        assert [(r["line"], r["status"]) for r in ran.results] == [
            *((line, "completed") for line in range(2, 7)),
            (7, "invalid"),
            (8, "completed"),
        ]
        assert "line 7: has a quote within a quoted cell: double it" in ran.err
        assert row_of(ran.err, "completed") == "6"
        assert row_of(ran.err, "do not fit") == "1"

    def test_a_byte_of_another_encoding(self, shell: Shell) -> None:
        ran = run(shell, "latin1.csv", REPORTED["latin1.csv"])
        assert {line: r["status"] for line, r in by_line(ran).items()} == {2: "completed", 3: "invalid", 4: "completed"}
        assert "line 3: has a byte that is not UTF-8 (0xE9, at character 4)" in ran.err
        told = shell("run", SIGNATURE, "--inputs", "latin1.csv", "--encoding", "latin-1")
        assert told.code == 0, told.err
        assert by_line(told)[3]["inputs"]["question"] == "café"

    def test_a_late_byte_of_another_encoding(self, shell: Shell) -> None:
        ran = run(shell, "late_latin1.jsonl", REPORTED["late_latin1.jsonl"], "--output", "out.jsonl")
        assert ran.code == 1
        found = results((shell.folder / "out.jsonl").read_text(encoding="utf-8"))
        assert [r["line"] for r in found] == list(range(1, 502))
        assert [r["line"] for r in found if r["status"] != "completed"] == [401]
        assert row_of(ran.err, "completed") == "500"

    def test_what_else_a_row_can_be(self, shell: Shell) -> None:
        rows = [
            "a,1",
            '"never ends,2',
            "b,2",
            f"{'x' * 9_000_000},3",
            "c,3,more",
            '"over\ntwo lines",4',
            'd, "5"',
            '5" pipe,6',
            "nul\0,7",
            "e,8",
        ]
        ran = run(shell, "rows.csv", ("question,k\n" + "\n".join(rows) + "\n").encode())
        assert {line: r["status"] for line, r in by_line(ran).items()} == {
            2: "completed",
            3: "invalid",
            4: "completed",
            5: "invalid",
            6: "invalid",
            7: "completed",
            9: "invalid",
            10: "completed",
            11: "invalid",
            12: "completed",
        }
        assert by_line(ran)[7]["inputs"] == {"question": "over\ntwo lines", "k": 4}

    def test_lines_of_json(self, shell: Shell) -> None:
        good = '{"question": "a", "k": 1}'
        lines = [good, "{", '{"question": "a", "question": "b", "k": 1}', '{"question": "a", "k": NaN}', "[]", good]
        ran = run(shell, "rows.jsonl", "\n".join(lines).encode())
        assert [r["status"] for r in ran.results] == ["completed", *["invalid"] * 4, "completed"]
        assert "line 3: has the key 'question' twice" in ran.err
        assert "line 4: is not JSON: NaN is no number of JSON" in ran.err

    def test_an_element_of_an_array(self, shell: Shell) -> None:
        text = '[\n {"question": "a", "k": 1},\n {"question": "b", "k": },\n 3,\n {"question": "[{]}\\"", "k": 4}\n]\n'
        ran = run(shell, "rows.json", text.encode())
        assert [(r["line"], r["status"]) for r in ran.results] == [
            (2, "completed"),
            (3, "invalid"),
            (4, "invalid"),
            (5, "completed"),
        ]

    def test_an_array_that_ends_early(self, shell: Shell) -> None:
        ran = run(shell, "rows.json", b'[{"question": "a", "k": 1}, {"question": "b"')
        assert [r["status"] for r in ran.results] == ["completed", "invalid"]
        assert "is not whole" in ran.err

    def test_a_packed_file_that_ends_early(self, shell: Shell) -> None:
        lines = b"".join(b'{"question":"%s","k":1}\n' % os.urandom(20).hex().encode() for _ in range(1000))
        ran = run(shell, "rows.jsonl.gz", gzip.compress(lines)[:-20], "--output", "out.jsonl")
        assert ran.code == 2
        assert "cannot be read to its end" in ran.err.splitlines()[-1]
        found = results((shell.folder / "out.jsonl").read_text(encoding="utf-8"))
        assert len(found) == int(row_of(ran.err, "completed")) > 0
        assert len(found) == shell.count("SELECT count(*) FROM executions")


class TestWhatIsTaken:
    """What is clear is taken, and what was found out is told."""

    def test_cells(self, shell: Shell) -> None:
        ran = run(shell, "numbers.csv", REPORTED["numbers.csv"])
        found = by_line(ran)
        assert {line: r["inputs"]["k"] for line, r in found.items() if "inputs" in r} == {4: 3, 6: 7, 7: 7}
        assert sorted(line for line, r in found.items() if r["status"] == "invalid") == [2, 3, 5, 8, 9, 10]

    def test_cells_of_every_type(self, shell: Shell) -> None:
        signature = (
            "a: Optional[int], b: float, c: bool, d: Literal['x', 'y'], e: list[int], f: Optional[str], g: int = 9 -> o"
        )
        text = (
            "a;b;c;d;e;f;g\n"
            "null; 1.5 ;TRUE;x;[1, 2];text;\n"
            ";-.5;False; y ;[];;+3\n"
            "1;NaN;true;x;[];;1\n"
            "1;Infinity;true;x;[];;1\n"
            "1;1_0.5;true;x;[];;1\n"
            "1;1;yes;x;[];;1\n"
            "1;1;true;z;[];;1\n"
            '1;1;true;x;[{"k": 1, "k": 2}];;1\n'
        )
        ran = run(shell, "rows.csv", text.encode(), signature=signature)
        found = by_line(ran)
        assert found[2]["inputs"] == {"a": None, "b": 1.5, "c": True, "d": "x", "e": [1, 2], "f": "text", "g": 9}
        assert found[3]["inputs"] == {"a": None, "b": -0.5, "c": False, "d": "y", "e": [], "f": None, "g": 3}
        assert [found[line]["status"] for line in range(4, 10)] == ["invalid"] * 6
        assert "its columns are parted by ';'" in ran.err

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("UPPER.CSV", b"question,k\nWhy?,1\n", None),
            ("tab.tsv", b"question\tk\nWhy?\t1\n", None),
            ("space.csv", b"question, k\nWhy?, 1\n", None),
            ("semicolon.csv", b"question;k\nWhy?;1\n", "parted by ';'"),
            ("tabs.csv", b"question\tk\nWhy?\t1\n", "parted by tabs"),
            ("excel.csv", b"sep=;\r\nquestion;k\r\nWhy?;1\r\n", None),
            ("mark.csv", b"\xef\xbb\xbfquestion,k\nWhy?,1\n", None),
            ("utf16.csv", "question,k\nWhy?,1\n".encode("utf-16"), None),
            ("utf16.jsonl", '{"question": "Why?", "k": 1}\n'.encode("utf-16"), None),
            ("rows.csv.gz", gzip.compress(b"question,k\nWhy?,1\n", mtime=0), None),
            ("array.json", b'[\n {\n  "question": "Why?",\n  "k": 1\n }\n]', None),
            ("one.json", b'{\n  "question": "Why?",\n  "k": 1\n}\n', None),
            ("lines.json", b'{"question": "Why?", "k": 1}\n', None),
            ("array.jsonl", b'[{"question": "Why?", "k": 1}]', "one JSON array"),
            ("whole.jsonl", b'{"question": "Why?", "k": 1.0}', None),
            ("table.txt", b"question,k\nWhy?,1\n", "is read as CSV"),
        ],
    )
    def test_a_file(self, shell: Shell, name: str, content: bytes, told: str | None) -> None:
        ran = run(shell, name, content)
        assert ran.code == 0, ran.err
        (result,) = ran.results
        assert result["inputs"] == {"question": "Why?", "k": 1}
        assert (told or "") in ran.err
        assert (told is None) == ran.err.startswith("question_k_to_answer ")

    def test_zstandard(self, shell: Shell) -> None:
        import zstandard

        ran = run(shell, "rows.csv.zst", zstandard.compress(b"question,k\nWhy?,1\n"))
        assert [r["inputs"]["k"] for r in ran.results] == [1], ran.err

    def test_parquet(self, shell: Shell) -> None:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"id": ["007", "008"], "question": ["a", "b"], "k": [1.0, None]})
        pyarrow.parquet.write_table(table, shell.folder / "rows.parquet")
        ran = shell("run", "question, k: int = 5 -> answer", "--inputs", "rows.parquet")
        assert ran.code == 0, ran.err
        assert [(r["columns"]["id"], r["inputs"]["k"]) for r in ran.results] == [("007", 1), ("008", 5)]

    def test_csv_on_standard_input(self, shell: Shell) -> None:
        ran = shell("run", SIGNATURE, "--inputs", "-", stdin="question,k\nWhy?,1\n")
        assert [r["inputs"]["k"] for r in ran.results] == [1], ran.err
        assert "standard input is read as CSV" in ran.err

    def test_columns_of_other_names(self, shell: Shell) -> None:
        ran = run(shell, "rows.csv", b"Frage,k\nWarum?,1\n", "--column", "question=Frage")
        assert [r["inputs"] for r in ran.results] == [{"question": "Warum?", "k": 1}], ran.err


class TestWhatIsRefused:
    """Before anything runs: one clear line."""

    @pytest.mark.parametrize(
        ("name", "content", "options", "said"),
        [
            ("dup.csv", b"question,k,question\nfirst,1,second\n", (), "has the column 'question' twice"),
            ("dup2.csv", b"question,k, k\nfirst,1,2\n", (), "has the column 'k' twice"),
            ("missing.csv", b"question,K\nfirst,1\n", (), "has no column for k; it has question, K"),
            ("empty.csv", b"", (), "is empty"),
            ("blank.csv", b"\n  \n", (), "is empty"),
            ("fake.csv.gz", b"question,k\na,1\n", (), "is not packed so"),
            ("zeros.csv", "question,k\na,1\n".encode("utf-16-le"), (), "--encoding utf-16-le"),
            ("mark.csv", "question,k\na,1\n".encode("utf-16"), ("--encoding", "utf-8"), "byte order mark of UTF-16"),
            ("rows.csv", b"question,k\na,1\n", ("--encoding", "base64"), "'base64' is no encoding"),
            ("rows.csv", b"question,k\na,1\n", ("--column", "k=Number"), "has no column 'Number' for 'k'"),
            ("rows.csv", b"question,k\na,1\n", ("--column", "z=k"), "'z' is not an input"),
            ("rows.csv", b"question,k\na,1\n", ("--delimiter", "||"), "--delimiter: give one character"),
            ("rows.parquet", b"PAR1 is not enough", (), "is not Parquet"),
            ("rows.xlsx", b"PK is not enough", (), "is not a workbook"),
        ],
    )
    def test_a_file(self, shell: Shell, name: str, content: bytes, options: tuple[str, ...], said: str) -> None:
        refused(run(shell, name, content, *options), said)
        assert not (shell.folder / "dspex.db").exists()

    def test_a_missing_file_changes_nothing(self, shell: Shell) -> None:
        (shell.folder / "out.jsonl").write_text("precious\n")
        refused(
            shell("run", SIGNATURE, "--inputs", "no.csv", "--output", "out.jsonl"), "--inputs: no.csv: No such file"
        )
        assert (shell.folder / "out.jsonl").read_text() == "precious\n"
        assert not (shell.folder / "dspex.db").exists()

    def test_a_missing_key(self, shell: Shell) -> None:
        ran = shell("run", "q -> a", "--input", "q=1", "--model", "openai/gpt-4o-mini", OPENAI_API_KEY="")
        refused(ran, "OPENAI_API_KEY")

    @pytest.mark.parametrize("more", [("--adapter", "mock"), ()])
    def test_a_module_that_is_none(self, shell: Shell, more: tuple[str, ...]) -> None:
        refused(
            shell("run", "q -> a", "--input", "q=1", "--module", "Nonsense", *more), "'Nonsense' is not one of Predict"
        )

    def test_a_model_is_called_and_not_mocked(self, shell: Shell) -> None:
        refused(shell("run", "q -> a", "--input", "q=1", "--model", "totally/wrong"), "'totally' is not one of")

    def test_an_input_twice(self, shell: Shell) -> None:
        refused(shell("run", "q -> a", "--input", "q=1", "--input", "q=2"), "--input: 'q' is given twice")


class TestResults:
    """What the caller needs comes back."""

    IDS = b"ticket_id,question,k\n000123,Why?,1\n1e5,Why?,1\n,Why?,x\n"

    def test_columns_that_are_no_inputs(self, shell: Shell) -> None:
        ran = run(shell, "ids.csv", self.IDS)
        assert [r["columns"] for r in ran.results] == [{"ticket_id": id_} for id_ in ("000123", "1e5", "")]
        assert {(r["adapter"], r["module"], r["model"]) for r in ran.results[:2]} == {("mock", "Predict", None)}
        assert "mock: no LM was called" in row_of(ran.err, "adapter")
        assert ran.results[0]["usage"]["calls"] == 1

    def test_as_csv(self, shell: Shell) -> None:
        ran = run(shell, "ids.csv", self.IDS, "--format", "csv", "--output", "out.csv")
        assert ran.code == 1
        rows = list(csv.DictReader(io.StringIO((shell.folder / "out.csv").read_text(encoding="utf-8"))))
        assert [(r["line"], r["status"], r["ticket_id"]) for r in rows] == [
            ("2", "completed", "000123"),
            ("3", "completed", "1e5"),
            ("4", "invalid", ""),
        ]
        assert rows[0]["question"] == "Why?"
        assert rows[0]["answer"].startswith("mock answer")
        assert rows[0]["cost"] == "0.0"
        assert rows[2]["error_code"] == "invalid_input"

    def test_names_that_are_taken(self, shell: Shell) -> None:
        ran = run(shell, "rows.csv", b"status,answer,question,k\nopen,42,Why?,1\n", "--format", "csv")
        (row,) = csv.DictReader(io.StringIO(ran.out))
        assert (row["status"], row["answer"], row["dspex.status"]) == ("open", "42", "completed")
        assert row["output.answer"].startswith("mock answer")

    def test_a_terminal_that_has_not_every_character(self, shell: Shell) -> None:
        ran = shell("run", "q -> a", "--input", "q=日本 é", PYTHONIOENCODING="latin-1")
        assert ran.code == 0, ran.err
        assert ran.results[0]["inputs"] == {"q": "日本 é"}
        assert ran.out.isascii()
        table = shell("run", "q -> a", "--input", "q=日本", "--format", "csv", PYTHONIOENCODING="latin-1")
        refused(table, "standard output is iso8859-1")

    def test_a_reader_that_goes_away(self, shell: Shell) -> None:
        shell.write("rows.jsonl", *({"question": str(n), "k": n} for n in range(3000)))
        command = [*DSPEX, "run", SIGNATURE, "--inputs", "rows.jsonl"]
        read, write = os.pipe()
        with subprocess.Popen(
            command, cwd=shell.folder, env=shell.environment, stdout=write, stderr=subprocess.PIPE, text=True
        ) as process:
            os.close(write)
            os.read(read, 10)
            os.close(read)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        assert "Traceback" not in err
        assert err.splitlines()[-1] == "dspex: nobody reads standard output any more"


class TestOutput:
    """What was there is lost to nothing but what is new."""

    def begun(self, shell: Shell, *options: str) -> subprocess.Popen[str]:
        shell.write("rows.jsonl", *({"question": str(n), "k": n} for n in range(20_000)))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup` it is ignored, and a child would inherit that
        process = subprocess.Popen(
            [*DSPEX, "run", SIGNATURE, "--inputs", "rows.jsonl", "--output", "out.jsonl", *options],
            cwd=shell.folder,
            env=shell.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        part = shell.folder / "out.jsonl.part"
        assert wait_until(lambda: part.exists() and part.read_bytes().count(b"\n") > 100, PATIENCE)
        return process

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"]
    )
    def test_a_signal(self, shell: Shell, number: signal.Signals, code: int) -> None:
        out = shell.folder / "out.jsonl"
        out.write_text("small\n")
        with self.begun(shell) as process:
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, err
        found = results(out.read_text(encoding="utf-8"))
        assert [r["line"] for r in found] == sorted(r["line"] for r in found)
        assert len(found) == shell.count("SELECT count(*) FROM executions WHERE status = 'completed'")
        assert row_of(err, "completed") == str(len(found))
        assert not (shell.folder / "out.jsonl.part").exists()

    def test_more_than_there_is_now_is_kept(self, shell: Shell) -> None:
        before = "x" * 50_000_000
        (shell.folder / "out.jsonl").write_text(before)
        with self.begun(shell) as process:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        assert (shell.folder / "out.jsonl.before").read_text() == before
        assert results((shell.folder / "out.jsonl").read_text(encoding="utf-8"))

    def test_killed(self, shell: Shell) -> None:
        (shell.folder / "out.jsonl").write_text("precious\n")
        with self.begun(shell) as process:
            busy = shell("run", SIGNATURE, "--input", "question=a", "--input", "k=1", "--output", "out.jsonl")
            process.kill()
            process.communicate(timeout=PATIENCE)
        refused(busy, "another run writes out.jsonl")
        assert (shell.folder / "out.jsonl").read_text() == "precious\n"

    def test_a_program_that_cannot_be_built(self, shell: Shell) -> None:
        (shell.folder / "out.jsonl").write_text("precious\n")
        refused(shell("run", "q -> a", "--input", "q=1", "--module", "Nonsense", "--output", "out.jsonl"), "Nonsense")
        assert (shell.folder / "out.jsonl").read_text() == "precious\n"
        assert not (shell.folder / "out.jsonl.part").exists()

    def test_a_link_and_a_device(self, shell: Shell) -> None:
        (shell.folder / "link.jsonl").symlink_to("real.jsonl")
        (shell.folder / "real.jsonl").touch(mode=0o600)
        ran = shell("run", "q -> a", "--input", "q=1", "--output", "link.jsonl")
        assert ran.code == 0, ran.err
        assert (shell.folder / "link.jsonl").is_symlink()
        assert (shell.folder / "real.jsonl").stat().st_mode & 0o777 == 0o600
        assert len(results((shell.folder / "real.jsonl").read_text())) == 1
        assert shell("run", "q -> a", "--input", "q=1", "--output", "/dev/null").code == 0


def test_a_missing_extra_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pyarrow.py").write_text("raise ImportError(name='pyarrow')\n")
    (shell.folder / "rows.parquet").write_bytes(b"PAR1")
    root = str(Path(__file__).parents[2])
    ran = shell("run", SIGNATURE, "--inputs", "rows.parquet", PYTHONPATH=f"{tmp_path / 'hidden'}:{root}")
    refused(ran, "pip install 'dspex-server[files]'")
