"""How each command and query is asked for by people: the verb of the client, and the line at the command line."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

from deploy.verbs import AIO, document
from dspex import ExecuteProgram, Signature
from dspex.aio import AsyncClient
from dspex.client.interface import Interface
from dspex.client.pending import Pending
from dspex.client.port import Port
from dspex.contract.commands import Command
from dspex.contract.queries import GetExecution, GetProgram, GetSignature
from dspex.contract.requests import REQUESTS
from dspex.errors import NotFound
from tests.answers import PROGRAM_VIEW, SIGNATURE_VIEW
from workers.cli import ask, cancel_answers, dead_letter_answers
from workers.cli.main import main

ID = UUID("0190f6a0-0000-7000-8000-000000000000")
URL = "https://receiver.example/hook"
SECRET = "A_WEBHOOK_SECRET"


class Asked(NamedTuple):
    """By which verb of the client, and by which line. None: by none, see `WITHOUT`."""

    verb: str | None
    line: str | None


ASKED = {
    "dspex.delivery.get.v1": Asked("get_delivery", "webhook delivery show ID"),
    "dspex.delivery.list.v1": Asked("list_deliveries", "webhook delivery list"),
    "dspex.delivery.replay.v1": Asked("replay_deliveries", "webhook delivery replay ID"),
    "dspex.execution.cancel.v1": Asked("cancel_execution", "execution cancel ID"),
    "dspex.execution.cancel_many.v1": Asked("cancel_executions", "execution cancel --all"),
    "dspex.execution.count.v1": Asked("count_executions", "execution count"),
    "dspex.execution.create.v1": Asked("create_execution", "execution create ID --input question=?"),
    "dspex.execution.discard.v1": Asked("discard_executions", "dead-letter discard --kind execution --all"),
    "dspex.execution.get.v1": Asked("get_execution", "execution show ID"),
    "dspex.execution.list.v1": Asked("list_executions", "execution list"),
    "dspex.execution.mark_completed.v1": Asked(
        "mark_completed", "execution mark-completed ID --lock-version 2 --outputs {}"
    ),
    "dspex.execution.mark_failed.v1": Asked("mark_failed", "execution mark-failed ID --lock-version 2 --message m"),
    "dspex.execution.mark_running.v1": Asked("mark_running", "execution mark-running ID --lock-version 1"),
    "dspex.execution.replay.v1": Asked("replay_executions", "dead-letter replay --kind execution --all"),
    "dspex.execution.trace.v1": Asked("get_execution_trace", "execution trace ID"),
    "dspex.message.discard.v1": Asked("discard_messages", "dead-letter discard --kind message --all"),
    "dspex.message.get.v1": Asked("get_rejected_message", "dead-letter show ID"),
    "dspex.message.list.v1": Asked("list_rejected_messages", "dead-letter list --kind message"),
    "dspex.message.replay.v1": Asked("replay_messages", "dead-letter replay --kind message --all"),
    "dspex.program.archive.v1": Asked("archive_program", "program archive ID"),
    "dspex.program.create.v1": Asked(None, None),
    "dspex.program.create_with_signature.v1": Asked("create_program", "program create p ID"),
    "dspex.program.destroy.v1": Asked("destroy_program", "program destroy ID"),
    "dspex.program.execute.v1": Asked("submit_program", "program execute ID --input question=?"),
    "dspex.program.get.v1": Asked("get_program", "program show ID"),
    "dspex.program.initialize.v1": Asked("initialize_program", "program initialize ID"),
    "dspex.program.list.v1": Asked("list_programs", "program list"),
    "dspex.program.restore.v1": Asked("restore_program", "program restore ID"),
    "dspex.program.statistics.v1": Asked("get_program_statistics", "program statistics ID"),
    "dspex.program.prompt.v1": Asked("get_program_prompt", "program prompt ID --input question=?"),
    "dspex.program.stats.v1": Asked("get_stats", "program stats ID"),
    "dspex.program.update.v1": Asked("update_program", "program update ID --name p"),
    "dspex.queue.get.v1": Asked("get_backlog", "queue"),
    "dspex.queue.gates.v1": Asked("list_gates", "gates"),
    "dspex.worker.list.v1": Asked("list_workers", "workers"),
    "dspex.queue.pause.v1": Asked("pause", "pause --everything"),
    "dspex.queue.remove_limit.v1": Asked("remove_limit", "limit remove --lm fast"),
    "dspex.queue.resume.v1": Asked("resume", "resume --everything"),
    "dspex.queue.set_limit.v1": Asked("set_limit", "limit set --lm fast --in-flight 3"),
    "dspex.signature.activate.v1": Asked("activate_signature", "signature activate ID"),
    "dspex.signature.compare.v1": Asked("compare_signatures", "signature compare ID ID"),
    "dspex.signature.create.v1": Asked("create_signature", "signature create question->answer"),
    "dspex.signature.create_from_module.v1": Asked("create_signature_from_module", None),
    "dspex.signature.deprecate.v1": Asked("deprecate_signature", "signature deprecate ID"),
    "dspex.signature.destroy.v1": Asked("destroy_signature", "signature destroy ID"),
    "dspex.signature.get.v1": Asked("get_signature", "signature show ID"),
    "dspex.signature.list.v1": Asked("list_signatures", "signature list"),
    "dspex.signature.schema.v1": Asked("get_signature_schema", "signature schema ID"),
    "dspex.signature.update.v1": Asked("update_signature", "signature update ID question->answer"),
    "dspex.signature.validate_module.v1": Asked("validate_module", None),
    "dspex.webhook.delete.v1": Asked("delete_endpoint", "webhook endpoint delete ID"),
    "dspex.webhook.disable.v1": Asked("disable_endpoint", "webhook endpoint disable ID"),
    "dspex.webhook.enable.v1": Asked("enable_endpoint", "webhook endpoint enable ID"),
    "dspex.webhook.get.v1": Asked("get_endpoint", "webhook endpoint show ID"),
    "dspex.webhook.list.v1": Asked("list_endpoints", "webhook endpoint list"),
    "dspex.webhook.register.v1": Asked("register_endpoint", f"webhook endpoint register {URL} --secret {SECRET}"),
    "dspex.webhook.rotate.v1": Asked("rotate_secret", f"webhook endpoint rotate ID --secret {SECRET}"),
    "dspex.webhook.update.v1": Asked("update_endpoint", f"webhook endpoint update ID {URL} --secret {SECRET}"),
}
"""Every type, written out: one that comes is added here, with its verb and its line."""

WITHOUT = {
    "dspex.program.create.v1": "create_program sends create_with_signature, which takes the id of a signature, too",
    "dspex.signature.create_from_module.v1": "`signature from-module` imports the module itself: an operator may",
    "dspex.signature.validate_module.v1": "`signature validate-module` imports the module itself: an operator may",
}
"""Why there is no verb, or no line."""

BUILT_ON_OTHERS = {
    *("start_program", "execute_program", "handle", "map", "quick_execute", "signature_of", "output_model"),
    *("plan_deployment", "deploy", "find_program"),
    *("upload", "download", "whole"),  # which ask the blob store
    *("list_active_signatures", "recent_executions", "list_dead_executions", "list_dead_messages"),
}
LINES_OF_THEIR_OWN = {"signature from-module", "signature validate-module"}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "get_signature_schema": {"signature_id": ID},
    "get_execution": {"execution_id": ID},
    "replay_deliveries": {"delivery_id": ID},
    "set_limit": {"kind": "tenant", "limits": {"in_flight": 3}},
    "update_program": {"program_id": ID, "name": "p"},
}
"""Of verbs for which what they require is not enough."""
REQUIRED: dict[str, Any] = {
    **{f"{of}_id": ID for of in ("signature", "program", "execution", "rejection", "endpoint", "delivery")},
    "old_id": ID,
    "new_id": ID,
    "signature": "question -> answer",
    "module": "acme.signatures",
    "name": "p",
    "inputs": {},
    "outputs": {},
    "lock_version": 2,
    "code": "permanent",
    "message": "it did not work",
    "callback": {"url": URL, "secret": SECRET},
    "secret": SECRET,
    "kind": "everything",
    "limits": {"in_flight": 3},
}


class Sent(NotFound):
    """A command would have been sent."""


class Recorder(Interface):
    """An interface of which nothing gets out. What is asked for on the way is answered, until `wanted` is sent."""

    validate = False

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.sent: list[str] = []

    def ask(self, command: Command, *_: Any, **__: Any) -> Any:
        self.sent.append(command.type)
        if command.type != self.wanted and isinstance(command, GetProgram):
            return PROGRAM_VIEW
        if command.type != self.wanted and isinstance(command, GetSignature):
            return SIGNATURE_VIEW.model_copy(update={"signature": Signature.parse("question -> answer")})
        raise Sent("nothing was sent")

    def start(
        self,
        command: ExecuteProgram,
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
    ) -> Pending:
        self.sent.append(command.type)
        raise Sent("nothing was sent")

    def attach(self, wanted: GetExecution) -> Pending:
        raise NotImplementedError

    def close(self) -> None: ...

    def refuse_others(self, ids: Iterable[UUID]) -> None: ...


def test_every_command_is_in_the_table() -> None:
    assert set(ASKED) == set(REQUESTS)
    assert {type_ for type_, asked in ASKED.items() if None in asked} == set(WITHOUT)


@pytest.mark.parametrize(("type_", "verb"), [(type_, asked.verb) for type_, asked in ASKED.items() if asked.verb])
def test_a_verb_of_the_client_sends_its_command(type_: str, verb: str) -> None:
    required = [
        name
        for name, parameter in inspect.signature(getattr(Interface, verb)).parameters.items()
        if parameter.default is parameter.empty and name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    ]
    client = Recorder(type_)
    with pytest.raises(Sent):
        getattr(client, verb)(**ARGUMENTS.get(verb, {name: REQUIRED[name] for name in required}))
    assert client.sent == [type_]


def test_every_verb_of_the_client_is_in_the_table_or_built_on_others() -> None:
    public = {name for name, _ in inspect.getmembers(Interface, inspect.isfunction) if not name.startswith("_")}
    verbs = [asked.verb for asked in ASKED.values() if asked.verb is not None]
    assert len(set(verbs)) == len(verbs)
    assert public - set(dir(Port)) == set(verbs) | BUILT_ON_OTHERS
    assert public - set(dir(Port)) <= set(dir(AsyncClient))


def test_the_verbs_for_asyncio_are_what_is_committed() -> None:
    assert AIO.with_name("client").joinpath("async_verbs.py").read_text(encoding="utf-8") == document()


@pytest.mark.parametrize(("type_", "line"), [(type_, asked.line) for type_, asked in ASKED.items() if asked.line])
def test_a_line_sends_its_command(type_: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Recorder(type_)

    @contextmanager
    def asking(*_: Any, **__: Any) -> Generator[Recorder]:
        yield client

    monkeypatch.setenv("DSPEX_BROKER_URL", "amqp://guest:guest@127.0.0.1/")
    monkeypatch.setattr(ask, "asking", asking)
    monkeypatch.setattr(dead_letter_answers, "asking", asking)
    monkeypatch.setattr(cancel_answers, "asking", asking)
    done = CliRunner().invoke(main, [str(ID) if word == "ID" else word for word in line.split()])
    assert client.sent[-1:] == [type_], done.output


def leaves(group: click.Group, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield path + name


def test_every_line_about_an_entity_is_in_the_table() -> None:
    groups = ("signature", "program", "execution", "dead-letter", "webhook", "pause", "resume", "gates", "limit")
    there = {line for line in leaves(main) if line.startswith(groups)}
    asked = [one.line for one in ASKED.values() if one.line is not None]
    missing = {line for line in there if not any(f"{one} ".startswith(f"{line} ") for one in asked)}
    assert missing == LINES_OF_THEIR_OWN
