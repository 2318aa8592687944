"""Programs as people have them, each deployed from its file and run by a worker, over RabbitMQ and PostgreSQL."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.environments import make_environment, packages_of, with_dspy
from dspex.blobs import open_store
from dspex.client.remote import RemoteClient
from dspex.contract.configuration import LM, Configuration, LMParameters
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
OWN_MODULES = "desk.programs:*,desk.tools:Buyer,search_manual:SearchManual,on_an_older_dspy:AnswerOnAnOlderDSPy"
SECONDS = 60.0


@dataclass(frozen=True)
class Fleet:
    """A worker that has the help desk's programs, and the LM that all of them call."""

    broker_url: str
    lm: LMServer
    log: Path
    blobs: Path

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
        apart = list((SHAPES_FOLDER / "apart").glob("*.py"))
        search = make_environment(programs / "search", apart)
        older = make_environment(programs / "older", [*packages_of(with_dspy("3.1")), *apart], dspy=None)
        blobs = programs / "blobs"
        blobs.mkdir()
        environment = environment_of(own_amqp_url, database_url) | {
            "DSPEX_LMS": json.dumps(aliases),
            "DSPEX_MODULES": OWN_MODULES,
            "DSPEX_BLOBS": str(blobs),
            "DSPEX_ENVIRONMENTS": f"search={search},older={older}",
            "DSPEX_FETCH_HOSTS": "*",
            "PYTHONPATH": str(programs),
        }
        log = programs / "worker.log"
        command = [sys.executable, "-m", "workers.cli", "worker", "--threads", "4"]
        with log.open("wb") as output:
            worker = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Fleet(own_amqp_url, lm, log, blobs)
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


@pytest.mark.parametrize(
    ("name", "adapter"), [(name, adapter) for name, shape in SHAPES.items() for adapter in shape.adapters]
)
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


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_a_class_and_its_module_in_one_step(fleet: Fleet, adapter: str) -> None:
    label = import_module("desk.tickets").Label
    module = import_module("desk.programs").AnswerFromManual
    house = Configuration(module="ChainOfThought", lm=LM(model="house"))
    inputs = {"ticket": "The chair squeaks."}
    fleet.lm.requests.clear()
    fleet.lm.script = fields(reasoning="A chair.", label="low")
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS) as client:
        program = client.create_program(f"by class, {adapter}", label, adapter_type=adapter, configuration=house)
        assert client.initialize_program(program.program_id).status == "ready"
        assert client.execute_program(program.program_id, inputs).outputs == {"label": "low"}
        by_name = client.quick_execute("desk.tickets:Label", inputs, adapter_type=adapter, configuration=house)
        assert by_name == {"label": "low"}
        fleet.lm.script = in_turn(fields(query="toner"), fields(reasoning="It says so.", answer="In room 114."))
        own = Configuration(lm=LM(model="house"))
        asked = {"question": "Where is the toner?"}
        found = client.quick_execute(module, asked, adapter_type=adapter, configuration=own)
        assert found["answer"] == "In room 114."
    labelled = Asked("Judge how urgent a ticket is.", "low or high", "The chair squeaks.")
    manual = (Asked("[[ ## query ## ]]"), Asked("Toner is in room 114."))
    assert_asked((labelled, labelled, *manual), list(fleet.lm.requests))


PHOTO = b"\x89PNG\r\n\x1a\nthe broken part"
PHOTO_BLOCK = {
    "type": "image_url",
    "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PHOTO).decode()}"},
}


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_a_photo_of_the_blob_store(fleet: Fleet, adapter: str) -> None:
    program_id = UUID(fleet.deploy("image", adapter)["program"]["program_id"])
    fleet.lm.requests.clear()
    fleet.lm.script = fields(part="tray 2")
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS, blobs=open_store(str(fleet.blobs))) as client:
        photo = client.upload(PHOTO, media_type="image/png")
        ran = client.execute_program(program_id, {"photo": photo.uri, "others": []})
        assert (ran.status, ran.outputs) == ("completed", {"part": "tray 2"})
        assert ran.inputs == {"photo": photo.uri, "others": []}
        missing = f"blob:sha256:{'0' * 64}"
        refused = client.execute_program(program_id, {"photo": missing, "others": []})
    assert refused.error is not None
    assert refused.error.code == "invalid_input"
    assert_asked((Asked(PHOTO_BLOCK),), list(fleet.lm.requests))


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_a_photo_of_this_machine_is_not_fetched(fleet: Fleet, adapter: str) -> None:
    program_id = UUID(fleet.deploy("image", adapter)["program"]["program_id"])
    fleet.lm.requests.clear()
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS) as client:
        ran = client.execute_program(program_id, {"photo": "https://127.0.0.1/photo.png", "others": []})
    assert (ran.status, ran.attempt) == ("failed", 1)
    assert ran.error is not None
    assert ran.error.code == "invalid_input"
    assert not fleet.lm.requests


@pytest.mark.parametrize("adapter", ON_AN_LM)
def test_a_ticket_that_is_too_long_for_a_message(fleet: Fleet, adapter: str) -> None:
    program_id = UUID(fleet.deploy("predict", adapter)["program"]["program_id"])
    fleet.lm.requests.clear()
    fleet.lm.script = fields(urgency="high", team="network")
    with RemoteClient(fleet.broker_url, source="/tests", timeout=SECONDS, blobs=open_store(str(fleet.blobs))) as client:
        ticket = f"{adapter}: {'It is slow. ' * 100_000}Here it ends."
        ran = client.execute_program(program_id, {"ticket": ticket})
        assert (ran.status, ran.outputs) == ("completed", {"urgency": "high", "team": "network"})
        assert "ticket" in json.loads(ran.model_dump_json())["inputs"]["$blobs"]
        assert client.whole(ran).inputs == {"ticket": ticket}
    assert_asked((Asked("It is slow. Here it ends."),), list(fleet.lm.requests))
