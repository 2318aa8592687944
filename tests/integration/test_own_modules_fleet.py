"""Workers that differ: only one has a program's module. What comes to another is given back, and spends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters import own_modules
from adapters.lm import LMAlias
from dspex import LM, Configuration, ExecutionStatus, ProgramStatus
from dspex.client.remote import RemoteClient
from tests.conftest import new_database
from tests.contract.interface import working
from tests.lm_server import LMServer, answers_by
from tests.waiting import wait_until
from workers.application.wiring import Application
from workers.handlers import programs as handlers
from workers.settings import Settings

pytestmark = pytest.mark.integration

NAME = "acme_fleet.programs:RAG"
OWN = Configuration(module=NAME)


@pytest.fixture(scope="module")
def settings(own_amqp_url: str, postgres_url: str, migrated_template: str) -> Iterator[Settings]:
    with new_database(postgres_url, migrated_template) as url:
        yield Settings(database_url=url, broker_url=own_amqp_url, threads=4, prefetch=4, log_level="ERROR")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "acme_fleet").mkdir()
    (tmp_path / "acme_fleet" / "__init__.py").touch()
    (tmp_path / "acme_fleet" / "programs.py").write_text("raise RuntimeError('mock imports nothing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "acme_fleet"


@pytest.mark.usefixtures("package")
def test_what_one_worker_alone_can_run_is_run_by_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    built_by: list[bool] = []
    built = handlers._build

    def build(app: Application, program: object) -> object:
        built_by.append(app.settings.own_modules == (NAME,))
        return built(app, program)  # type: ignore[arg-type]

    monkeypatch.setattr(handlers, "_build", build)
    with ExitStack() as stack:
        lacking = [stack.enter_context(working(settings)) for _ in range(1)]
        having = stack.enter_context(working(settings.model_copy(update={"modules": (NAME,)})))
        client = stack.enter_context(RemoteClient(settings.broker_url, source="/tests", timeout=30))
        made = [
            client.create_program("rag", "question -> answer", adapter_type="mock", configuration=OWN) for _ in range(6)
        ]
        for program in made:
            assert client.initialize_program(program.program_id).status == ProgramStatus.READY
        assert {True, False} == set(built_by)  # the broker gives commands in turn
        program_id = made[-1].program_id
        rows = [client.submit_program(program_id, {"question": str(number)}) for number in range(12)]
        views = [row.execution(timeout=30) for row in rows]
        assert {view.status for view in views} == {ExecutionStatus.COMPLETED}
        assert {view.attempt for view in views} == {1}
        workers = {step.by for view in views for step in view.timeline if step.status == ExecutionStatus.COMPLETED}
        assert len(workers) == 1
        assert [app.adapters.made() for app in lacking] == [{}]
        assert list(having.adapters.made()) == ["mock"]


def test_where_no_worker_has_it_the_program_says_so_by_name(settings: Settings) -> None:
    with working(settings), RemoteClient(settings.broker_url, source="/tests", timeout=30) as client:
        program = client.create_program("rag", "question -> answer", adapter_type="mock", configuration=OWN)
        view = client.initialize_program(program.program_id)
        assert view.status == ProgramStatus.ERROR
        assert view.error is not None
        assert view.error.message.startswith(f"module: '{NAME}' may not be imported by this worker")
        assert view.error.message.endswith("nor has any other worker taken it")


def test_new_code_runs_when_the_program_is_initialized_again(settings: Settings, package: Path) -> None:
    given = settings.model_copy(update={"modules": (NAME,)})
    with RemoteClient(settings.broker_url, source="/tests", timeout=30) as client:
        with working(given):
            program = client.create_program("rag", "question -> answer", adapter_type="mock", configuration=OWN)
            before = client.initialize_program(program.program_id)
            assert client.initialize_program(program.program_id).lock_version == before.lock_version
            code = client.get_program(program.program_id).code
            assert code is not None
            assert (code.module, code.distribution, code.version, code.built) == (NAME, None, None, True)
            kept = client.create_program("kept", "question -> answer", adapter_type="mock", configuration=OWN)
            client.initialize_program(kept.program_id)
            client.archive_program(kept.program_id)
        (package / "programs.py").write_text("")
        own_modules._digests.clear()  # a worker that starts later
        with working(given):
            handle = client.submit_program(program.program_id, {"question": "why"})
            given_back = "built with other code of"

            def told() -> list[str]:
                found = client.list_executions(program_id=program.program_id).items  # none, until it is claimed
                return [view.error.message for view in found if view.error and given_back in view.error.message]

            wait_until(lambda: bool(told()), "it is given back")
            other = client.get_program(program.program_id).code
            assert other is not None
            assert (other.built, other.digest == code.digest) == (False, False)
            after = client.initialize_program(program.program_id)
            assert (after.status, after.backend_id == before.backend_id) == (ProgramStatus.READY, False)
            assert handle.execution(timeout=30).attempt == 1
            assert client.get_program(program.program_id).code == other.model_copy(update={"built": True})
            restored = client.restore_program(kept.program_id)
            assert (restored.status, restored.backend_id) == (ProgramStatus.READY, after.backend_id)


@pytest.mark.usefixtures("example_plugin")
def test_a_module_runs_from_a_message_to_its_end_on_both_adapters(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's keys are its own: on `python_port` a module sees none in its environment."""
    monkeypatch.setenv("OTHER_API_KEY", "secret")
    monkeypatch.setenv("HOUSE_API_KEY", "house-key")
    with LMServer() as lms:
        house = {"house": LMAlias("openai/gpt-4o-mini", api_base=lms.url, secret="HOUSE_API_KEY")}
        given = settings.model_copy(update={"modules": ("dspex_example.programs:*",), "lms": house})
        lms.script = answers_by(lambda inputs: {"answer": inputs.get("question", ""), "query": "apt"})
        with working(given), RemoteClient(settings.broker_url, source="/tests", timeout=60) as client:
            for adapter, keys in (("native", "HOUSE_API_KEY OTHER_API_KEY"), ("python_port", "")):
                for module, answer in (("rag", "why"), ("dspex_example.programs:Environment", keys)):
                    configuration = Configuration(module=module, lm=LM(model="house"))
                    program = client.create_program(
                        module, "question -> answer", adapter_type=adapter, configuration=configuration
                    )
                    assert client.initialize_program(program.program_id).status == ProgramStatus.READY
                    view = client.submit_program(program.program_id, {"question": "why"}).execution(timeout=60)
                    assert (view.status, view.outputs) == (ExecutionStatus.COMPLETED, {"answer": answer})
        assert {request.authorization for request in lms.requests} == {"Bearer house-key"}
