"""`dspex`, as a user runs it: a process of its own in a folder, with nothing set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.database.engine import make_engine
from tests import preloaded

DSPEX = (sys.executable, "-m", "workers.cli")
PATIENCE = 60.0
OF_THE_INTERPRETER = ("PYTHON", "LANG", "LC_")
"""Variables that are read when an interpreter starts."""


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, Any]]:
        return results(self.out)


def results(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Shell:
    """Runs commands in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
        self.environment = bare | {"COLUMNS": "200"} | dict(environment)

    def __call__(self, *arguments: str | Path, stdin: str = "", **environment: str) -> Ran:
        if any(name.startswith(OF_THE_INTERPRETER) for name in environment):
            done = subprocess.run(
                [*DSPEX, *map(str, arguments)],
                cwd=self.folder,
                env=self.environment | environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        else:
            done = preloaded.run([*map(str, arguments)], self.folder, self.environment | environment, stdin, PATIENCE)
        return Ran(done.returncode, done.stdout, done.stderr)

    def write(self, name: str, *rows: Mapping[str, Any] | str) -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return name

    def count(self, query: str) -> int:
        """A number out of the SQLite database of the folder."""
        engine = make_engine(f"sqlite:///{self.folder / 'dspex.db'}")
        with engine.connect() as connection:
            number: int = connection.exec_driver_sql(query).scalar_one()
        engine.dispose()
        return number


def refused(ran: Ran, *said: str) -> None:
    """It ended with one clear line."""
    assert ran.code == 2, ran
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("dspex: ")
    for text in said:
        assert text in line
    assert "sesame" not in line


def row_of(summary: str, title: str) -> str:
    """The value in the table at the end."""
    (line,) = [line for line in summary.splitlines() if title in line]
    return line.strip("│ ").rpartition("│")[2].strip()
