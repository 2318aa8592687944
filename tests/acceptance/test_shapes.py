"""Programs as people have them, each deployed from its file and run by a worker, over RabbitMQ and PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dspex.client.remote import RemoteClient
from dspex.contract.configuration import LMParameters
from dspex.contract.options import ExecutionOptions
from dspex.contract.results import ExecutionError
from tests import plugin
from tests.acceptance.shapes.table import LARGE, REASONS, SHAPES, SMALL, Asked
from tests.click_runner import runner
from tests.conftest import new_database
from tests.deployment import environment_of
from tests.lm_server import LMServer, Request, fields, in_turn
from tests.on_an_lm import ON_AN_LM
from tests.queues import declare_empty
from workers.cli.main import main

SHAPES_FOLDER = Path(__file__).parent / "shapes"
OWN_MODULES = "desk.programs:*,desk.tools:Buyer"
SECONDS = 60.0


@dataclass(frozen=True)
class Fleet:
    """A worker that has the help desk's programs, and the LM that all of them call."""

    broker_url: str
    lm: LMServer
    log: Path

    def deploy(self, name: str, adapter: str) -> Mapping[str, Any]:
        """`dspex deploy` of the file of a shape: what it tells."""
        options = ("--name", f"{name}-{adapter}", "--adapter", adapter, "--yes", "--json")
        done = runner().invoke(
            main,
            ["deploy", str(SHAPES_FOLDER / f"{name}.toml"), *options],
            env={"DSPEX_BROKER_URL": self.broker_url, "DSPEX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        )
        assert done.exit_code == 0, (done.stdout, done.stderr, done.exception, self.log.read_text())
        told: dict[str, Any] = json.loads(done.stdout)
        assert told["program"]["status"] == "ready", told["program"]["error"]
        assert told["program"]["adapter_type"] == adapter
        return told


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The help desk's distribution is installed, here and on the worker."""
    path = tmp_path_factory.mktemp("desk")
    plugin.install(path, SHAPES_FOLDER)
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))
    for name in [name for name in sys.modules if name.split(".")[0] == "desk"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def fleet(programs: Path, own_amqp_url: str, postgres_url: str, migrated_template: str) -> Iterator[Fleet]:
    declare_empty(own_amqp_url)
    with new_database(postgres_url, migrated_template) as database_url, LMServer() as lm:
        aliases = {
            "house": {"model": f"openai/{SMALL}", "api_base": lm.url, "parameters": ["logit_bias"]},
            "judge": {"model": f"openai/{LARGE}", "api_base": lm.url},
            "thinker": {"model": f"openai/{REASONS}", "api_base": lm.url},
        }
        environment = environment_of(own_amqp_url, database_url) | {
            "DSPEX_LMS": json.dumps(aliases),
            "DSPEX_MODULES": OWN_MODULES,
            "PYTHONPATH": str(programs),
        }
        log = programs / "worker.log"
        command = [sys.executable, "-m", "workers.cli", "worker", "--threads", "4"]
        with log.open("wb") as output:
            worker = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Fleet(own_amqp_url, lm, log)
        finally:
            worker.terminate()
            worker.wait(SECONDS)


def assert_asked(expected: tuple[Asked, ...], requests: list[Request]) -> None:
    """Each is another one of the requests, and there are no more."""
    left = list(requests)
    for asked in expected:
        found = next((request for request in left if not asked.missing(request)), None)
        assert found is not None, "\n".join(f"{asked.missing(request)} in {request.body}" for request in left)
        left.remove(found)
    assert left == []


def test_each_file_is_tried_and_shown() -> None:
    files = {path.stem for path in SHAPES_FOLDER.glob("*.toml")}
    assert files == {*SHAPES, "overridden", "traced", "pyproject"}
    page = (Path(__file__).parents[2] / "docs" / "shapes.md").read_text(encoding="utf-8")
    assert not [name for name in files if f"acceptance/shapes/{name}.toml)" not in page]


@pytest.mark.parametrize("adapter", ON_AN_LM)
@pytest.mark.parametrize("name", SHAPES)
def test_from_its_file_to_a_completed_execution(fleet: Fleet, name: str, adapter: str) -> None:
    shape = SHAPES[name]
    fleet.lm.requests.clear()
    fleet.lm.script = in_turn(*shape.answers)
    ran = fleet.deploy(name, adapter)["check"]
    requests = list(fleet.lm.requests)
    assert (ran["status"], ran["error"], ran["attempt"]) == ("completed", None, 1)
    assert ran["outputs"] == shape.outputs
    assert ran.get("extra_outputs", {}) == shape.extra
    assert_asked(shape.asked, requests)
    assert not {member for request in requests for member in shape.never if member in request.body}
    assert ran["usage"]["calls"] == len(shape.asked)


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_a_caller_overrides_what_the_program_allows(fleet: Fleet, adapter: str) -> None:
    program_id = UUID(fleet.deploy("overridden", adapter)["program"]["program_id"])
    fleet.lm.requests.clear()
    fleet.lm.script = fields(label="low")
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS) as client:
        warm = ExecutionOptions(lm=LMParameters(temperature=0.9, max_tokens=50))
        inputs = {"ticket": "The chair squeaks."}
        assert client.submit_program(program_id, inputs, options=warm).result(SECONDS) == {"label": "low"}
        assert client.submit_program(program_id, inputs).result(SECONDS) == {"label": "low"}
        cut = ExecutionOptions(lm=LMParameters(stop=("END",)))
        with pytest.raises(ExecutionError, match=r"options\.lm\.stop: ") as refused:
            client.submit_program(program_id, inputs, options=cut).result(SECONDS)
    assert refused.value.code == "invalid_input"
    asked = (Asked(temperature=0.9, max_completion_tokens=50), Asked(temperature=0.0))
    assert_asked(asked, list(fleet.lm.requests))


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_labels_and_a_trace(fleet: Fleet, adapter: str) -> None:
    program_id = UUID(fleet.deploy("traced", adapter)["program"]["program_id"])
    fleet.lm.script = in_turn(fields(query="toner"), fields(reasoning="It says so.", answer="In room 114."))
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS) as client:
        labels = {"batch": f"seven-{adapter}"}
        ran = client.execute_program(program_id, {"question": "Where is the toner?"}, metadata=labels)
        assert (ran.status, ran.outputs) == ("completed", {"answer": "In room 114."})
        found = client.list_executions(metadata=labels).items
        assert [view.execution_id for view in found] == [ran.execution_id]
        trace = client.get_execution_trace(ran.execution_id)
    shown = [json.dumps(step.details, ensure_ascii=False) for step in trace.steps if step.kind == "lm_call"]
    assert len(shown) == 2
    assert "Where is the toner?" in shown[0]
    assert "Toner is in room 114." in shown[1]
    assert "In room 114." in shown[1]
