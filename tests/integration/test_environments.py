"""Named environments: programs run on a Python with packages of its own, and meet nothing of the worker's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from adapters.fallback import LoadedProgram
from adapters.lm import LMAlias, LMCatalog
from adapters.own_modules import OwnModules
from adapters.port import AdapterError, NotHere, ProgramSpec, RunOptions
from adapters.python_port import Limits, PythonPortAdapter
from adapters.python_port.environments import Environment
from adapters.registry import AdapterRegistry
from deploy.environments import make_environment
from dspex import LM, Configuration, ExecutionStatus, ProgramStatus, Signature
from dspex.client.remote import RemoteClient
from dspex.contract.results import ProgramCode
from tests.conftest import new_database
from tests.contract.interface import working
from tests.lm_server import LMServer, answers_by
from tests.waiting import wait_until
from workers.cli import worker
from workers.settings import Settings

MODULE = """
import importlib.util
import json
import os
import sys

import dspy
from acme_dependency import MARK


def answers(**known):
    class Answers(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            self.ask(question=question)
            return dspy.Prediction(answer=json.dumps(known | {"python": sys.executable}))

    return Answers()


def where():
    others = "workers store dramatiq sqlalchemy alembic pika tests".split()
    return answers(
        mark=MARK,
        dspy=dspy.__file__,
        found=[name for name in others if importlib.util.find_spec(name)],
        keys=[name for name in os.environ if "KEY" in name or "DSPEX" in name],
    )
"""

WHERE = "acme_there:where"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment with a module of its own, and a dependency of that."""
    given = tmp_path_factory.mktemp("given")
    (given / "acme_there.py").write_text(MODULE)
    (given / "acme_dependency.py").write_text("MARK = 'of the environment'")
    metadata = given / "acme_there-2.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-there\nVersion: 2.1\n")
    (metadata / "entry_points.txt").write_text(f"[dspex.modules]\nthere = {WHERE}\n")
    return str(make_environment(tmp_path_factory.mktemp("environment") / "rag", list(given.iterdir())))


@pytest.fixture(scope="module")
def lms() -> Iterator[LMServer]:
    with LMServer() as running:
        running.script = answers_by(lambda _: {"answer": "yes"})
        yield running


@pytest.fixture(scope="module")
def registry(python: str, lms: LMServer) -> Iterator[AdapterRegistry]:
    house = {"house": LMAlias("openai/gpt-4o-mini", api_base=lms.url, secret="HOUSE_API_KEY")}
    with closing(AdapterRegistry(LMCatalog(house, {"HOUSE_API_KEY": "house-key"}.get), {"rag": python})) as made:
        yield made


def spec(registry: AdapterRegistry, environment: str = "rag", module: str = "Predict") -> ProgramSpec:
    modules = OwnModules((WHERE,), registry.find_module)
    made = ProgramSpec(
        "python_port",
        Signature.parse("question -> answer"),
        Configuration(module=module, environment=environment, lm=LM(model="house")),
    )
    return replace(made, code=modules.find(module, environment))


@pytest.mark.parametrize("name", [WHERE, "there"])
def test_a_module_that_is_only_there_runs_there_and_sees_nothing_of_the_worker(
    registry: AdapterRegistry, python: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "secret")
    adapter, program = registry.get("python_port"), spec(registry, module=name)
    assert program.code is not None
    assert (program.code.reference, program.code.distribution) == (WHERE, "acme-there 2.1" if name == "there" else "")
    assert adapter.create_program(program) == program.backend_id
    outcome = adapter.execute_program(program.backend_id, {"question": "why"}, RunOptions("run"))
    assert json.loads(outcome.outputs["answer"]) == {
        "mark": "of the environment",
        "dspy": str(Path(python).parents[1] / "lib" / _version() / "site-packages" / "dspy" / "__init__.py"),
        "found": [],
        "keys": [],
        "python": python,
    }
    assert outcome.usage.calls == 1


def digest_of(python: str) -> str:
    """As a worker takes it, of the file in the environment."""
    site = Path(python).parents[1] / "lib" / _version() / "site-packages"
    data = (site / "acme_there.py").read_bytes()
    return sha256(f"acme_there.py\0{len(data)}\0".encode() + data).hexdigest()


def _version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def test_it_is_not_known_to_the_worker_itself() -> None:
    with pytest.raises(NotHere, match="there is no module 'acme_there' on this worker"):
        OwnModules((WHERE,)).find(WHERE)
    assert OwnModules((WHERE,)).find("there") is None


def test_what_the_operator_does_not_allow_is_not_imported_there_either(registry: AdapterRegistry) -> None:
    with pytest.raises(NotHere, match="'acme_there:answers' may not be imported by this worker"):
        spec(registry, module="acme_there:answers")


def test_two_environments_make_two_programs(registry: AdapterRegistry) -> None:
    ids = {spec(registry).backend_id, spec(registry, environment="rag").backend_id}
    own = replace(spec(registry), configuration=Configuration(lm=LM(model="house")))
    assert len(ids) == 1
    assert own.backend_id not in ids


def test_an_environment_that_this_worker_has_not_is_not_here(registry: AdapterRegistry) -> None:
    text = "environment: there is no 'judge' on this worker \\(there is: rag\\): .* DSPEX_ENVIRONMENTS"
    with pytest.raises(NotHere, match=text):
        spec(registry, "judge", WHERE)
    with pytest.raises(NotHere, match=text):
        registry.get("python_port").create_program(
            replace(spec(registry), configuration=Configuration(environment="judge", lm=LM(model="house")))
        )


def _executable(path: Path, text: str) -> Path:
    path.write_text(f"#!{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("broken")
    old = folder / "old"
    (old / "dspy").mkdir(parents=True)
    (old / "dspy-2.6.27.dist-info").mkdir()
    (old / "dspy-2.6.27.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: dspy\nVersion: 2.6.27\n")
    text = folder / "text"
    text.write_text("no program")
    return {
        "missing": folder / "nowhere" / "python",
        "text": text,
        "silent": _executable(folder / "silent", "/bin/true"),
        "bare": make_environment(folder / "bare", dspy=None),
        "old": make_environment(folder / "before", dspy=old),
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "it cannot be started: No such file or directory"),
        ("text", "it cannot be started: Permission denied"),
        ("silent", "it is no Python|it has ended"),
        ("bare", "dspy is not installed, and DSPex needs dspy>=3.*: pip install 'dspy>=3"),
        ("old", "dspy 2.6.27 is installed, and DSPex needs dspy>=3"),
    ],
)
def test_a_broken_environment_is_not_here_and_says_why(broken: dict[str, Path], name: str, why: str) -> None:
    text = f"environment: 'rag' cannot be used: {broken[name]}: .*({why})"
    with pytest.raises(NotHere, match=text):
        Environment("rag", str(broken[name])).check(Limits())
    catalog = LMCatalog({"house": LMAlias("openai/gpt-4o-mini", api_base="http://127.0.0.1:1")})
    with closing(PythonPortAdapter(catalog, environments={"rag": str(broken[name])})) as adapter:
        configuration = Configuration(environment="rag", lm=LM(model="house"))
        program = ProgramSpec("python_port", Signature.parse("question -> answer"), configuration)
        with pytest.raises(NotHere, match=text):
            adapter.create_program(program)
        assert not adapter.health_check().ok


def test_what_an_environment_has_is_told(python: str) -> None:
    told = str(Environment("rag", python).check(Limits()))
    assert told.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert ", DSPy 3." in told
    assert told.endswith(", modules there")


def test_the_first_lines_of_a_worker_tell_each(
    python: str, broken: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=worker.__name__)
    worker._tell_environments(Settings(environments={"rag": python, "bare": str(broken["bare"])}))
    told, lacking = caplog.records
    assert told.getMessage().startswith("Programs may run in the environment rag: Python 3.")
    assert lacking.levelname == "WARNING"
    assert f"environment: 'bare' cannot be used: {broken['bare']}: dspy is not installed" in lacking.getMessage()


@pytest.mark.integration
def test_a_worker_without_the_environment_gives_its_executions_back(
    own_amqp_url: str, postgres_url: str, migrated_template: str, python: str, lms: LMServer
) -> None:
    house = {"house": LMAlias("openai/gpt-4o-mini", api_base=lms.url)}
    with new_database(postgres_url, migrated_template) as url, ExitStack() as stack:
        settings = Settings(
            database_url=url, broker_url=own_amqp_url, threads=2, prefetch=2, log_level="ERROR", lms=house
        )
        client = stack.enter_context(RemoteClient(settings.broker_url, source="/tests", timeout=60))
        lacking = stack.enter_context(working(settings))
        configuration = Configuration(module="there", environment="rag", lm=LM(model="house"))
        program = client.create_program(
            "there", "question -> answer", adapter_type="python_port", configuration=configuration
        )
        view = client.initialize_program(program.program_id)
        assert view.status == ProgramStatus.ERROR
        assert view.error is not None
        assert view.error.message.startswith("environment: there is no 'rag' on this worker (there is: none)")
        assert view.error.message.endswith("nor has any other worker taken it")
        having = stack.enter_context(working(settings.model_copy(update={"environments": {"rag": python}})))
        assert client.initialize_program(program.program_id).status == ProgramStatus.READY
        wait_until(lambda: client.get_program(program.program_id).code is not None, "the one that has built it answers")
        code = ProgramCode(module=WHERE, distribution="acme-there", version="2.1", digest=digest_of(python), built=True)
        codes = [client.get_program(program.program_id).code for _ in range(4)]
        assert [found for found in codes if found is not None] == [code] * (4 - codes.count(None))
        rows = [client.submit_program(program.program_id, {"question": str(number)}) for number in range(3)]
        views = [row.execution(timeout=60) for row in rows]
        assert {view.status for view in views} == {ExecutionStatus.COMPLETED}
        assert {view.attempt for view in views} == {1}
        workers = {step.by for view in views for step in view.timeline if step.status == ExecutionStatus.COMPLETED}
        assert workers == {having.writes.lease.worker}
        wait_until(lambda: not lacking.in_flight, "nothing is left")


@pytest.mark.parametrize("adapter_type", ["native", "mock"])
def test_other_adapters_have_no_environments(adapter_type: str, registry: AdapterRegistry) -> None:
    program = ProgramSpec(adapter_type, Signature.parse("question -> answer"), Configuration(environment="rag"))
    with pytest.raises(AdapterError, match=f"environment: '{adapter_type}' runs programs on .*: name 'python_port'"):
        LoadedProgram(program, registry.get)
