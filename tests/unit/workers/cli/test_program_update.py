"""`dspex program update` changes what is named, and nothing else: any flags at once, the rest as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspex import Configuration
from dspex.contract.callback import Callback
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from tests.click_runner import runner
from tests.sizes import sized
from workers.cli.ask import asking
from workers.cli.entities import program as commands
from workers.cli.main import main
from workers.settings import load_settings

FIELDS = [
    {"prefix": "Question:", "description": "${question}"},
    {"prefix": "Answer:", "description": "${answer}"},
]
STATE = {"demos": [], "signature": {"instructions": "Answer in one word.", "fields": FIELDS}}
CONFIGURATION = Configuration.model_validate(
    {
        "parameters": {"latency_ms": 0},
        "lm": {"model": "openai/gpt-4o", "secret": "A_OPENAI_API_KEY", "parameters": {"temperature": 0.5}},
        "environment": "blue",
        "state": {"self": STATE},
        "extra_outputs": ["reasoning"],
    }
)
FLAGS: dict[str, tuple[str, str, Any]] = {
    "--name": ("another", "name", "another"),
    "--adapter": ("native", "adapter_type", "native"),
    "--signature": ("question, tone: Optional[str] -> answer", "signature_id", ...),
    "--module": ("ChainOfThought", "configuration.module", "ChainOfThought"),
    "--model": ("openai/o3", "configuration.lm.model", "openai/o3"),
    "--secret": ("", "configuration.lm.secret", None),
    "--state": ("", "configuration.state", None),
    "--environment": ("", "configuration.environment", None),
    "--extra-output": ("sources", "configuration.extra_outputs", ["sources"]),
}
"""Each flag, with a value, the member that it changes, and what that becomes."""
CHANGE_NOTHING = {"program_id", "--allow-breaking", "--traceparent", "--tenant", "--json", "--strict"}


@pytest.fixture(scope="module", autouse=True)
def database(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file = tmp_path_factory.mktemp("update") / "dspex.db"
    file.write_bytes(migrated.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{file}")
        patch.setenv("A_OPENAI_API_KEY", "of-a-test")
        patch.setenv("OPENAI_API_KEY", "of-a-test")
        yield


def created() -> ProgramView:
    """A program with something in every member."""
    with asking(load_settings()) as client:
        return client.create_program(
            "before",
            "question -> answer",
            adapter_type="python_port",
            configuration=CONFIGURATION,
            policy=ExecutionPolicy(max_attempts=2),
            callback=Callback(url="https://receiver.example/hook", secret="A_WEBHOOK_SECRET"),
        )


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of an object by their paths; what a flag changes as a whole is one."""
    if not isinstance(value, dict) or path == "configuration.state":
        return {path: value}
    return {
        name: leaf
        for key, member in value.items()
        for name, leaf in flat(member, f"{path}.{key}" if path else key).items()
    }


def test_every_flag_is_tried() -> None:
    given_by = {option.opts[0] for option in commands.commands["update"].params}
    assert given_by == FLAGS.keys() | CHANGE_NOTHING


@settings(deadline=None, max_examples=sized(12, 200))
@example(flags=frozenset(FLAGS) - {"--module", "--signature"})
@given(flags=st.sets(st.sampled_from(sorted(FLAGS)), min_size=1).map(frozenset))
def test_what_is_named_changes_and_nothing_else(flags: frozenset[str]) -> None:
    # A state belongs to its module and its signature, and an environment to python_port: they go, or it is refused.
    wanted = flags | {"--state"} if flags & {"--module", "--signature"} else flags
    wanted = wanted | {"--environment"} if "--adapter" in flags else wanted
    before = created()
    pairs = [part for flag in sorted(wanted) for part in (flag, FLAGS[flag][0])]
    done = runner().invoke(main, ["program", "update", str(before.program_id), *pairs, "--json"])
    assert done.exit_code == 0, done.stderr
    old, new = flat(json.loads(before.model_dump_json())), flat(json.loads(done.stdout))
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    assert changed - {"lock_version", "updated_at"} == {FLAGS[flag][1] for flag in wanted}
    for flag in wanted:
        _, member, value = FLAGS[flag]
        assert value is ... or new.get(member) == value
