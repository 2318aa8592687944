"""What one worker has and another lacks: an alias, a key, an adapter, a prompt adapter. The other gives it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from adapters.lm import LMAlias
from adapters.mock import MockAdapter
from deploy.environments import make_environment
from dspex import LM, Configuration, ExecutionStatus, ProgramStatus
from dspex.client.remote import RemoteClient
from tests.conftest import new_database
from tests.contract.interface import working
from tests.lm_server import LMServer, answers_by
from workers.settings import Settings

pytestmark = pytest.mark.integration

KINDS = {
    "alias": ("native", Configuration(lm=LM(model="theirs"))),
    "key": ("native", Configuration(lm=LM(model="keyed"))),
    "adapter": ("far", Configuration()),
    "prompt adapter": ("python_port", Configuration(lm=LM(model="house"), environment="rag", prompt_adapter="terse")),
}
LACKING = {
    "alias": "model: 'theirs' is neither 'provider/model' nor an alias",
    "key": "secret: 'TEAM_API_KEY' is not known to the worker",
    "adapter": "adapter_type: 'far' is not one of mock, native, python_port",
    "prompt adapter": "prompt_adapter: 'terse' is not one of chat, json",
}
One = TypeVar("One")
Other = TypeVar("Other")


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An environment of the same name with the prompt adapter, and without it."""
    given: Path = tmp_path_factory.mktemp("given")
    (given / "acme_terse.py").write_text("import dspy\n\n\nclass Terse(dspy.ChatAdapter):\n    pass\n")
    metadata = given / "acme_terse-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-terse\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[dspex.prompt_adapters]\nterse = acme_terse:Terse\n")
    folder = tmp_path_factory.mktemp("environments")
    return str(make_environment(folder / "with", list(given.iterdir()))), str(make_environment(folder / "without"))


def at_once(call: Callable[[One], Other], given: Iterable[One]) -> list[Other]:
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(call, given))


def test_what_a_worker_lacks_is_done_by_one_that_has_it(
    own_amqp_url: str,
    postgres_url: str,
    migrated_template: str,
    pythons: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with new_database(postgres_url, migrated_template) as url, LMServer() as lms, ExitStack() as stack:
        lms.script = answers_by(lambda _: {"answer": "yes"})
        house = LMAlias("openai/gpt-4o-mini", api_base=lms.url)
        known = {"house": house, "keyed": LMAlias("openai/gpt-4o-mini", api_base=lms.url, secret="TEAM_API_KEY")}
        lacking = Settings(
            database_url=url, broker_url=own_amqp_url, threads=4, prefetch=4, log_level="ERROR",
            lms=known, environments={"rag": pythons[1]},
        )  # fmt: skip
        having = lacking.model_copy(update={"lms": known | {"theirs": house}, "environments": {"rag": pythons[0]}})
        client = stack.enter_context(RemoteClient(lacking.broker_url, source="/tests", timeout=60))
        with working(having) as first:
            first.adapters._adapters["far"] = MockAdapter()
            drafts, programs = (
                {
                    kind: client.create_program(kind, "question -> answer", adapter_type=adapter, configuration=given)
                    for kind, (adapter, given) in KINDS.items()
                }
                for _ in range(2)
            )

        stack.enter_context(working(lacking))
        answers = at_once(lambda kind: client.initialize_program(drafts[kind].program_id), KINDS)
        refused = dict(zip(KINDS, answers, strict=True))
        for kind, view in refused.items():
            assert view.status == ProgramStatus.ERROR, kind
            assert view.error is not None
            assert LACKING[kind] in view.error.message
            assert view.error.message.endswith("; nor has any other worker taken it")

        monkeypatch.setenv("TEAM_API_KEY", "team-key")
        second = stack.enter_context(working(having))
        second.adapters._adapters["far"] = MockAdapter()
        ids = [program.program_id for program in programs.values()]
        assert {view.status for view in at_once(client.initialize_program, ids)} == {ProgramStatus.READY}
        rows = [client.submit_program(program, {"question": str(number)}) for program in ids for number in range(2)]
        views = at_once(lambda row: row.execution(timeout=60), rows)
        assert [view.status for view in views] == [ExecutionStatus.COMPLETED] * len(views), [v.error for v in views]
        assert {view.attempt for view in views} == {1}
        workers = {step.by for view in views for step in view.timeline if step.status == ExecutionStatus.COMPLETED}
        assert workers == {second.writes.lease.worker}
        change = {"extra_outputs": ["reasoning"]}
        changed = at_once(lambda program: client.update_program(program, change), ids)
        assert {view.status for view in changed} == {ProgramStatus.READY}
        assert all(view.configuration.extra_outputs == ("reasoning",) for view in changed)
