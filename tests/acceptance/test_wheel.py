"""The distribution that other services install: built as a wheel, alone in its environment, in somebody's project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

MESSAGES = Path(__file__).parents[2] / "messages"

PROJECT: Mapping[str, str] = {
    "messages/__init__.py": "",
    "messages/texts.py": "GREETING = 'from our messages'",
    "workers/__init__.py": "from store import ROWS\nCOUNT = len(ROWS)",
    "store/__init__.py": "ROWS = ['from', 'our', 'store']",
    "main.py": """
import sys
import uuid

import dspex
from dspex import ExecuteProgram, ExecutionCompleted, decode_command, decode_event, wrap

import messages.texts
import store
import workers

assert messages.texts.GREETING == "from our messages"
assert workers.COUNT == len(store.ROWS) == 3
for ours in (messages, store, workers):
    assert ours.__file__.startswith(sys.path[0]), ours.__file__
assert not dspex.__file__.startswith(sys.path[0])

command = ExecuteProgram(execution_id=uuid.uuid4(), program_id=uuid.uuid4(), inputs={"question": "why"})
assert decode_command(wrap(command, source="/ours").encode()).data == command

event = decode_event(
    b'{"specversion": "1.0", "id": "1", "source": "/dspex/workers", "type": "dspex.execution.completed.v1", "data":'
    b' {"execution_id": "0190f6a0-0000-7000-8000-000000000000", "program_id": "0190f6a0-0000-7000-8000-000000000001",'
    b' "outputs": {"answer": "because"}, "attempt": 1, "duration_ms": 2.5}}'
).data
assert isinstance(event, ExecutionCompleted)
assert event.outputs == {"answer": "because"}

from dspex.client import RemoteClient
from dspex.producer import Producer

Producer.connect("amqp://guest:guest@localhost/", source="/ours").close()
RemoteClient("amqp://guest:guest@localhost/", source="/ours").close()
print("ran")
""",
}

INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps({d.name.lower(): sorted(d.requires or ()) for d in distributions()}))
"""

OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}
OF_PYDANTIC = {
    "pydantic",
    "pydantic-core",
    "pydantic_core",
    "annotated-types",
    "typing-extensions",
    "typing_extensions",
}
OF_PYDANTIC |= {"typing-inspection"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(MESSAGES)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and what it needs, alone."""
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=120)
    interpreter = directory / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(wheel)]
    subprocess.run(pip, check=True, timeout=180, stdin=subprocess.DEVNULL)
    return interpreter


def test_it_runs_in_a_project_with_folders_of_the_same_names(python: Path, tmp_path: Path) -> None:
    for name, code in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
    command = [str(python), "-W", "error", "main.py"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


def test_it_needs_pydantic_and_pika_alone(python: Path) -> None:
    listing = subprocess.run([str(python), "-c", INSTALLED], env={}, capture_output=True, text=True, check=True)
    installed: dict[str, list[str]] = json.loads(listing.stdout)
    needed = [requirement for requirement in installed["dspex"] if "extra ==" not in requirement]
    assert [re.split("[<>=~!, ]", requirement)[0] for requirement in needed] == ["pika", "pydantic"]
    assert installed.keys() - OF_THE_ENVIRONMENT - OF_PYDANTIC == {"dspex", "pika"}


def test_it_brings_one_package_and_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dspex"}
    assert "dspex/py.typed" in names
    assert {name.removesuffix(".py") for name in names if name.startswith("dspex/schemas/")} >= {
        "dspex/schemas/__main__",
        "dspex/schemas/json_schema",
    }
