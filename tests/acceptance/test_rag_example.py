"""`examples/rag`: a program of one's own with what an optimizer found, deployed by one command and run as a job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lm_server import LMServer
from tests.queues import declare_empty

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "rag"
SECONDS = 120.0
DSPEX = (sys.executable, "-m", "workers.cli")
"""In processes that begin anew, as `PYTHONPATH` counts at the start of Python."""


@pytest.fixture
def lm() -> Iterator[LMServer]:
    with LMServer() as server:
        yield server


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example, where it may be changed."""
    for name in ("rag", "debian_sections"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "examples" / name)
    return tmp_path / "examples" / "rag"


class CommandLine:
    """`dspex` in a folder, each time in a process of its own."""

    def __init__(self, folder: Path, example: Path, lm: LMServer, **settings: str) -> None:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
        self.folder = folder
        self.environment = bare | {
            "DSPEX_LMS": json.dumps({"house": {"model": "openai/any", "api_base": lm.url}}),
            "DSPEX_MODULES": "debian_rag:RAG",
            "PYTHONPATH": str(example),
            **settings,
        }

    def __call__(self, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [*DSPEX, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout


@pytest.mark.parametrize("adapter", ["native", "python_port"])
def test_deployed_and_run_without_a_server(tmp_path: Path, example: Path, lm: LMServer, adapter: str) -> None:
    dspex = CommandLine(tmp_path, example, lm)
    dspex("migrate")
    deploy = ("deploy", example / "rag.toml", "--model", "house", "--adapter", adapter, "--yes")
    said = dspex(*deploy)
    assert "debian-rag: a new program, " in said
    assert 'Check: {"answer":"' in said
    search, respond = (json.dumps(request.body["messages"], ensure_ascii=False) for request in lm.requests)
    assert "Which program renames many photos at once?" in search
    assert "time series database metrics" in search  # a demo of the state
    assert "7kaa: " in respond  # a package that was found
    assert '"temperature": 0.2' in json.dumps(lm.requests[0].body)
    ran = json.loads(dspex("run", "debian-rag", "--input", "question=Which editor?"))
    assert (ran["status"], len(ran["outputs"]["packages"]), ran["usage"]["calls"]) == ("completed", 3, 2)

    assert "is as the deployment says." in dspex(*deploy)
    code = example / "debian_rag.py"
    code.write_text(code.read_text(encoding="utf-8").replace("[a-z0-9]{3,}", "[a-z0-9]{2,}"), encoding="utf-8")
    said = dspex(*deploy)
    assert "is as the deployment says." in said
    assert "was built again with the code of its module, and is ready" in said


@pytest.mark.parametrize("adapter", ["native", "python_port"])
def test_deployed_to_workers(
    tmp_path: Path, example: Path, lm: LMServer, adapter: str, own_amqp_url: str, migrated_database_url: str
) -> None:
    declare_empty(own_amqp_url)
    servers = {"DSPEX_BROKER_URL": own_amqp_url, "DSPEX_DATABASE_URL": migrated_database_url}
    worker = CommandLine(tmp_path, example, lm, **servers)
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*DSPEX, "worker", "--threads", "2"], env=worker.environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        # Neither the module, nor its permission, nor a database, nor the alias.
        alone = CommandLine(tmp_path, tmp_path, lm, DSPEX_BROKER_URL=own_amqp_url, DSPEX_MODULES="", DSPEX_LMS="{}")
        deploy = ("deploy", example / "rag.toml", "--model", "house", "--adapter", adapter, "--yes", "--json")
        told: dict[str, Any] = json.loads(alone(*deploy))
    finally:
        process.terminate()
        process.wait(SECONDS)
    assert (told["program"]["status"], told["check"]["status"]) == ("ready", "completed"), log.read_text()
    assert len(told["check"]["outputs"]["packages"]) == 3


def test_its_state_is_what_the_optimizer_writes(example: Path) -> None:
    written = json.loads((example / "state.json").read_text(encoding="utf-8"))
    (example / "state.json").unlink()
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(example / "optimize.py")}
    sys.path.insert(0, str(example))
    try:
        exec(compile((example / "optimize.py").read_text(encoding="utf-8"), "optimize.py", "exec"), namespace)
    finally:
        sys.path.remove(str(example))
        sys.modules.pop("debian_rag", None)
    again = json.loads((example / "state.json").read_text(encoding="utf-8"))
    assert {name: again[name] for name in ("search", "respond.predict")} == {
        name: written[name] for name in ("search", "respond.predict")
    }
